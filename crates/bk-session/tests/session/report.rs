//! What a session tells of its transfers: readings while it lists and sends, and what it was in the end.

use bk_build::{BuildEvent, EventReceiver, EventSink, SentShare, Transfer};

use bk_fsync::tree::Listed;

use super::*;

/// What a reading may take to come; there are several each second.
const READING: Duration = Duration::from_secs(30);

/// A tree that hangs where it opens a directory below the top, and where it reads a file.
struct Hanging {
    files: Blocked,
    listing: Arc<Gate>,
}

impl Tree for Hanging {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        let listing = self.listing.clone();
        // A walk opens directories by their paths as well, when it scans ahead.
        if !path.is_root() {
            listing.pass();
        }
        let inner = self.files.open_dir(path)?;
        Ok(Box::new(HangingDir { inner, listing }))
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        self.files.open(path)
    }
}

struct HangingDir {
    inner: Box<dyn Directory>,
    listing: Arc<Gate>,
}

impl Directory for HangingDir {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        self.inner.list()
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        self.inner.stat(name)
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        self.inner.read_link(name)
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn Directory>> {
        self.listing.pass();
        self.inner.open_dir(name)
    }
}

/// Waits for a reading of the transfer that `wanted` takes.
async fn reading(events: &mut EventReceiver, wanted: impl Fn(&Transfer) -> bool) -> Transfer {
    let mut last = None;
    let find = async {
        loop {
            match events.recv().await.expect("another event") {
                BuildEvent::Transfer(transfer) if wanted(&transfer) => return transfer,
                BuildEvent::Transfer(transfer) => last = Some(transfer),
                _ => {}
            }
        }
    };
    match tokio::time::timeout(READING, find).await {
        Ok(transfer) => transfer,
        Err(_) => panic!("no such reading; the last was {last:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_are_told_while_the_listing_and_the_sending_hang() {
    let (listing_gate, sending_gate) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let mut tree = MemoryTree::new();
    tree.add_file("a", 0o644, "12345").expect("adds");
    tree.add_file("slow/b", 0o644, "1234567").expect("adds");
    let (read, _reads) = mpsc::unbounded_channel();
    let tree = Hanging {
        files: Blocked {
            tree,
            gate: sending_gate.clone(),
            reading: read,
        },
        listing: listing_gate.clone(),
    };
    let _opens = (Opens(listing_gate.clone()), Opens(sending_gate.clone()));
    let (sink, mut events) = EventSink::default_channel();
    let (daemon, session) = attach(config(tree).events(sink)).await;
    let (requests, mut packets) = diff_copy(&daemon, 4).await;
    let listed = reading(&mut events, |t| t.report.entries == 1).await;
    assert_eq!((listed.done, listed.report.offered_bytes), (false, 5));
    listing_gate.open();
    assert_eq!(listing(&mut packets).await, 3);
    requests.send(req(0)).await.expect("request");
    let asked = reading(&mut events, |t| t.report.requested_files == 1).await;
    assert_eq!((asked.done, asked.report.sent_bytes), (false, 0));
    sending_gate.open();
    assert_eq!(contents(&mut packets, 1).await, 5);
    finish(requests, packets).await;
    let last = reading(&mut events, |t| t.done).await;
    assert_eq!((last.report.entries, last.report.sent_bytes), (3, 5));
    drop(session);
}

#[tokio::test]
async fn the_details_name_what_was_asked_and_what_was_large() {
    let mut tree = MemoryTree::new();
    for (path, size) in [("d/e/large", 3000), ("d/small", 10), ("unwanted.o", 9), ("z", 20)] {
        tree.add_file(path, 0o644, vec![b'x'; size]).expect("adds");
    }
    let (daemon, session) = serving(tree).await;
    let (sender, receiver) = mpsc::channel(8);
    let mut request = Request::new(ReceiverStream::new(receiver));
    for (key, value) in [
        (headers::DIR_NAME, "context"),
        (headers::EXCLUDE_PATTERNS, "**/*.o"),
        (headers::FOLLOW_PATHS, "d"),
        (headers::INCLUDE_PATTERNS, "z"),
    ] {
        metadata::set(request.metadata_mut(), key, &[value]).expect("metadata");
    }
    let mut client = FileSyncClient::with_origin(daemon.clone(), origin());
    let answer = client.diff_copy(request).await.expect("transfer starts");
    let mut packets = answer.into_inner();
    // d, d/e, d/e/large, d/small, z
    assert_eq!(listing(&mut packets).await, 5);
    for id in [2, 3, 4] {
        sender.send(req(id)).await.expect("request");
    }
    assert_eq!(contents(&mut packets, 3).await, 3030);
    finish(sender, packets).await;
    let report = session.close(Duration::from_secs(5)).await;
    let [details] = &report.transfers[..] else {
        panic!("{report:?}");
    };
    assert_eq!((&*details.source, details.transfer), ("context", 0));
    assert_eq!(details.report, report.total);
    assert_eq!(
        (details.report.offered_bytes, details.report.sent_files),
        (3030, 3)
    );
    assert_eq!(details.asked.include, ["z"]);
    assert_eq!(details.asked.exclude, ["**/*.o"]);
    assert_eq!(
        (&details.asked.follow[..], details.asked.omitted),
        (&["d".to_owned()][..], 0)
    );
    let share = SentShare::new;
    assert_eq!(
        details.largest_files,
        [share("d/e/large", 3000), share("z", 20), share("d/small", 10)]
    );
    assert_eq!(
        details.largest_directories,
        [share("d", 3010), share("d/e", 3000)]
    );
}
