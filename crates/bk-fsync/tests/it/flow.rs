//! Who waits for whom: requests during the listing, slow peers, and cancellation.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use bk_fsync::limits::{CHUNKS_AHEAD, DATA_CHUNK, FILE_READERS, PACKETS_AHEAD};
use bk_fsync::path::RelPath;
use bk_fsync::tree::{Directory, OpenFile};
use bk_fsync::{FilePolicies, MemoryTree, SendOptions, SyncPolicy, Tree};

use crate::peer::{Op, hooked, request, start, transfer};

/// Far longer than anything here takes; only a hang gets there.
const HANG: Duration = Duration::from_secs(20);

/// A door that blocking threads wait at.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) -> io::Result<()> {
        let guard = self.0.lock().unwrap();
        let (_guard, late) = self.1.wait_timeout_while(guard, HANG, |open| !*open).unwrap();
        if late.timed_out() {
            Err(io::Error::other("the gate stayed shut"))
        } else {
            Ok(())
        }
    }
}

#[tokio::test]
async fn files_are_served_while_the_listing_still_runs() {
    let mut tree = MemoryTree::new();
    tree.add_file("a", 0o644, "early").unwrap();
    tree.add_file("z", 0o644, "late").unwrap();
    let gate = Gate::default();
    let tree = hooked(tree, move |op| match op {
        // The listing does not get past the last entry before the first file was opened.
        Op::Stat(b"z") => gate.wait(),
        Op::Open(b"a") => {
            gate.open();
            Ok(())
        }
        _ => Ok(()),
    });
    let (outcome, got) = transfer(tree, SendOptions::new()).await;
    assert_eq!(outcome.unwrap().files_sent, 2);
    assert_eq!(got.files[&b"a"[..]], b"early");
}

#[tokio::test]
async fn one_slow_file_does_not_hold_up_the_others() {
    let mut tree = MemoryTree::new();
    tree.add_file("big", 0o644, vec![1; 2_000_000]).unwrap();
    tree.add_file("small", 0o644, "x").unwrap();
    let gate = Gate::default();
    let tree = hooked(tree, move |op| match op {
        Op::Read(b"big") => gate.wait(),
        Op::Read(b"small") => {
            gate.open();
            Ok(())
        }
        _ => Ok(()),
    });
    let (outcome, got) = transfer(tree, SendOptions::new()).await;
    assert_eq!(outcome.unwrap().bytes_sent, 2_000_001);
    assert_eq!(got.files.len(), 2);
}

/// Tells when it is dropped, which is when no task holds it any more.
struct Guarded {
    inner: Arc<dyn Tree>,
    _gone: mpsc::Sender<()>,
}

impl Tree for Guarded {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        self.inner.open_dir(path)
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        self.inner.open(path)
    }
}

fn guarded(inner: impl Tree + 'static) -> (Arc<Guarded>, mpsc::Receiver<()>) {
    let (gone, watch) = mpsc::channel();
    (
        Arc::new(Guarded {
            inner: Arc::new(inner),
            _gone: gone,
        }),
        watch,
    )
}

fn assert_gone(watch: &mpsc::Receiver<()>) {
    assert_eq!(
        watch.recv_timeout(HANG),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
}

/// 200 files of 1 MiB each, and how often a byte of them was read, in reads.
fn large_tree() -> (impl Tree + 'static, Arc<AtomicU64>) {
    let mut tree = MemoryTree::new();
    let content = bytes::Bytes::from(vec![5; 1 << 20]);
    for i in 0..200 {
        tree.add_file(format!("f{i:03}"), 0o644, content.clone()).unwrap();
    }
    let reads = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&reads);
    let tree = hooked(tree, move |op| {
        if let Op::Read(_) = op {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    (tree, reads)
}

#[tokio::test]
async fn a_peer_that_never_reads_pins_little_memory_and_is_still_heard() {
    const CAPACITY: usize = 4;
    let (tree, reads) = large_tree();
    let (tree, watch) = guarded(tree);
    let (to_sender, mut from_sender, sending) = start(tree, unread(), CAPACITY);
    let mut sending = Box::pin(sending);
    let peer = async {
        while from_sender.recv().await.unwrap().stat.is_some() {}
        // From here on nothing is read, yet every request is taken.
        for id in 0..200 {
            to_sender.send(request(id)).await.unwrap();
        }
    };
    tokio::select! {
        outcome = &mut sending => panic!("{outcome:?}"),
        () = peer => {}
    }
    // Time enough to read far too much.
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut sending)
            .await
            .is_err()
    );
    drop(sending);
    assert_gone(&watch);
    // Every read fills a chunk; each file that ends takes one read more, and so does being interrupted.
    let bound = CAPACITY + PACKETS_AHEAD + 2 * CHUNKS_AHEAD + FILE_READERS;
    let bound = bound + bound * DATA_CHUNK / (1 << 20) + FILE_READERS;
    let reads = reads.load(Ordering::Relaxed);
    assert!(
        reads as usize <= bound,
        "{reads} reads of {DATA_CHUNK} bytes, at most {bound}"
    );
    assert!(reads > 0);
}

#[tokio::test]
async fn dropping_the_future_ends_every_task() {
    // While the listing waits for the wire.
    let mut many = MemoryTree::new();
    for i in 0..5000 {
        many.add_file(format!("d{}/f{i}", i % 50), 0o644, "").unwrap();
    }
    let (tree, watch) = guarded(many);
    let (_to_sender, mut from_sender, sending) = start(tree, SendOptions::new(), 1);
    let mut sending = Box::pin(sending);
    tokio::select! {
        outcome = &mut sending => panic!("{outcome:?}"),
        packet = from_sender.recv() => assert!(packet.is_some()),
    }
    drop(sending);
    assert_gone(&watch);

    // While files are read.
    let (tree, _) = large_tree();
    let (tree, watch) = guarded(tree);
    let (to_sender, mut from_sender, sending) = start(tree, SendOptions::new(), 1);
    let mut sending = Box::pin(sending);
    let peer = async {
        while from_sender.recv().await.unwrap().stat.is_some() {}
        for id in 0..20 {
            to_sender.send(request(id)).await.unwrap();
        }
        from_sender.recv().await.unwrap();
    };
    tokio::select! {
        outcome = &mut sending => panic!("{outcome:?}"),
        () = peer => {}
    }
    drop(sending);
    assert_gone(&watch);
}

#[tokio::test]
async fn a_finished_transfer_leaves_nothing() {
    let (tree, watch) = guarded(MemoryTree::new());
    let (to_sender, mut from_sender, sending) = start(tree, SendOptions::new(), 1);
    let peer = async {
        assert!(from_sender.recv().await.unwrap().stat.is_none());
        to_sender.send(crate::peer::fin()).await.unwrap();
        assert_eq!(from_sender.recv().await.unwrap().r#type, 3);
        assert!(from_sender.recv().await.is_none());
    };
    let (outcome, ()) = tokio::join!(sending, peer);
    assert_eq!(outcome.unwrap().entries, 0);
    assert_gone(&watch);
}

#[tokio::test]
async fn fifty_thousand_files_in_one_transfer() {
    let mut tree = MemoryTree::new();
    for i in 0..50_000u32 {
        tree.add_file(format!("d{:03}/f{i}", i / 100), 0o644, i.to_be_bytes().to_vec())
            .unwrap();
    }
    let (outcome, got) = transfer(tree, SendOptions::new()).await;
    let report = outcome.unwrap();
    assert_eq!(
        (report.entries, report.files_sent, report.bytes_sent),
        (50_500, 50_000, 200_000)
    );
    let right = |(path, content): (&Vec<u8>, &Vec<u8>)| {
        let number: u32 = std::str::from_utf8(&path[6..]).unwrap().parse().unwrap();
        content[..] == number.to_be_bytes()
    };
    assert!(got.files.iter().all(right));
}

/// Files without numbers, as those in memory, would be read while they are listed.
fn unread() -> SendOptions {
    SendOptions::new().policies(FilePolicies::new().sync(SyncPolicy::Mtime))
}
