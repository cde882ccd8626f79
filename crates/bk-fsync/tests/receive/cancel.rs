//! Streams that end early: at every packet, by the peer, by the file system, or by whoever waits.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use bk_fsync::receive::{Change, ReceiveObserver};
use bk_fsync::{ReceiveError, ReceiveOptions};
use bk_proto::fsutil::Packet;
use bk_proto::fsutil::packet::PacketType;
use tokio::sync::mpsc;

use crate::support::{Inbound, Scratch, What, data, dir, end_of_listing, entry, linked, look, stat, typed};

/// A whole export as the peer's packets; those that answer a request are marked by its id.
fn packets() -> Vec<(Option<u32>, Packet)> {
    vec![
        (None, entry(dir("d"))),
        (None, entry(stat("d/a", 0o644, 6))),
        (None, entry(linked(stat("d/b", 0o644, 6), "d/a"))),
        (Some(1), data(1, &b"abc"[..])),
        (None, entry(stat("e", 0o644, 2))),
        (Some(3), data(3, &b"ef"[..])),
        (None, end_of_listing()),
        (Some(1), data(1, &b"def"[..])),
        (Some(1), data(1, &b""[..])),
        (Some(3), data(3, &b""[..])),
    ]
}

#[tokio::test]
async fn a_stream_that_is_cut_leaves_nothing_by_halves() {
    for cut in 0..=packets().len() {
        let out = Scratch::new();
        fs::create_dir(out.path("d")).unwrap();
        fs::set_permissions(out.path("d"), fs::Permissions::from_mode(0o500)).unwrap();
        fs::write(out.path("e"), "old").unwrap();
        let (to_receiver, from_sender) = mpsc::channel(1);
        let (to_sender, mut from_receiver) = mpsc::channel::<Packet>(1);
        let peer = async {
            let mut asked = Vec::new();
            for (id, packet) in packets().into_iter().take(cut) {
                while let Some(id) = id
                    && !asked.contains(&id)
                {
                    asked.push(from_receiver.recv().await.unwrap().id);
                }
                to_receiver.send(packet).await.unwrap();
            }
            if cut == packets().len() {
                // Everything was sent: it says so, and it is no failure that the peer is then gone.
                let fin = typed(PacketType::PacketFin);
                assert_eq!(from_receiver.recv().await.unwrap(), fin);
            }
            drop(to_receiver);
        };
        let receiving = bk_fsync::receive(
            Arc::clone(&out.dest),
            ReceiveOptions::new(),
            Inbound(from_sender),
            to_sender,
        );
        let (outcome, ()) = tokio::join!(receiving, peer);
        let seen = look(out.dest.path());
        if cut == packets().len() {
            assert_eq!(outcome.unwrap().bytes, 8);
            assert_eq!(seen.len(), 4);
            continue;
        }
        assert!(matches!(outcome, Err(ReceiveError::Ended)), "{cut}: {outcome:?}");
        for (path, seen) in &seen {
            match (&path[..], &seen.what) {
                // It has its own mode back.
                (b"d", What::Dir) => assert_eq!(seen.mode, 0o500, "{cut}"),
                (b"e", What::File(content, _)) => assert_eq!(content, b"old", "{cut}"),
                (b"d/a", What::File(content, _)) => {
                    assert_eq!(content, b"abcdef", "{cut}");
                    assert!(cut >= 9);
                }
                other => panic!("{cut}: {other:?}"),
            }
        }
    }
}

/// Is told when the last one who could tell it something is gone.
struct Gone(#[expect(dead_code, reason = "dropping it is the message")] mpsc::Sender<()>);

impl ReceiveObserver for Gone {}

#[tokio::test]
async fn dropping_the_future_stops_and_cleans_up() {
    let out = Scratch::new();
    let (alive, mut gone) = mpsc::channel(1);
    let (to_receiver, from_sender) = mpsc::channel(1);
    let (to_sender, mut from_receiver) = mpsc::channel::<Packet>(1);
    let options = ReceiveOptions::new().observer(Arc::new(Gone(alive)));
    let mut receiving = Box::pin(bk_fsync::receive(
        Arc::clone(&out.dest),
        options,
        Inbound(from_sender),
        to_sender,
    ));
    let part_written = async {
        to_receiver.send(entry(stat("f", 0o644, 100_000))).await.unwrap();
        assert_eq!(from_receiver.recv().await.unwrap().id, 0);
        to_receiver.send(data(0, vec![1; 50_000])).await.unwrap();
        // The second request comes after the content was written.
        to_receiver.send(entry(stat("g", 0o644, 1))).await.unwrap();
        assert_eq!(from_receiver.recv().await.unwrap().id, 1);
    };
    tokio::select! {
        outcome = &mut receiving => panic!("{outcome:?}"),
        () = part_written => {}
    }
    let names = out.names();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(
        names[0].starts_with(".bk-") && names[0].ends_with(".tmp"),
        "{names:?}"
    );
    drop(receiving);
    assert_eq!(gone.recv().await, None);
    assert!(out.names().is_empty(), "{:?}", out.names());
    assert!(to_receiver.is_closed());
}

#[tokio::test]
async fn a_failing_disk_is_told_to_the_peer_and_leaves_nothing() {
    let out = Scratch::new();
    // Something that no file can replace.
    fs::create_dir_all(out.path("f/sub")).unwrap();
    let (to_receiver, from_sender) = mpsc::channel(1);
    let (to_sender, mut from_receiver) = mpsc::channel::<Packet>(1);
    let peer = async {
        for name in ["e", "f", "g"] {
            to_receiver.send(entry(stat(name, 0o644, 3))).await.unwrap();
        }
        for id in 0..3 {
            assert_eq!(from_receiver.recv().await.unwrap().id, id);
        }
        to_receiver.send(data(2, &b"g"[..])).await.unwrap();
        to_receiver.send(data(1, &b"fff"[..])).await.unwrap();
        to_receiver.send(data(1, &b""[..])).await.unwrap();
        let told = from_receiver.recv().await.unwrap();
        assert_eq!(told.r#type, 4);
        let text = String::from_utf8(told.data.to_vec()).unwrap();
        assert!(text.contains("directory \"f\" is in the way"), "{text}");
        // It was told after everything was cleaned up.
        assert_eq!(out.names(), ["f", "f/sub"]);
        to_receiver
    };
    let receiving = bk_fsync::receive(
        Arc::clone(&out.dest),
        ReceiveOptions::new(),
        Inbound(from_sender),
        to_sender,
    );
    let (outcome, _to_receiver) = tokio::join!(receiving, peer);
    assert!(matches!(outcome, Err(ReceiveError::Write(_))));
}

/// Holds up the writer until it is let go.
struct Held(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

impl ReceiveObserver for Held {
    fn changed(&self, _: &[u8], _: Change) {
        // Fails once the other end is gone, and then nothing is held up any more.
        let _ = self.0.lock().unwrap().recv();
    }
}

#[tokio::test]
async fn the_listing_is_read_while_the_disk_hangs() {
    let out = Scratch::new();
    let (let_go, held) = std::sync::mpsc::channel();
    let (to_receiver, from_sender) = mpsc::channel(1);
    let (to_sender, mut from_receiver) = mpsc::channel::<Packet>(1);
    let options = ReceiveOptions::new().observer(Arc::new(Held(held.into())));
    let peer = async {
        to_receiver.send(entry(dir("a"))).await.unwrap();
        for i in 0..20_000 {
            to_receiver
                .send(entry(stat(format!("b{i:05}"), 0o644, 0)))
                .await
                .unwrap();
        }
        to_receiver.send(end_of_listing()).await.unwrap();
        // All of it was taken, and nothing was asked for: the writer still has the first entry.
        assert!(from_receiver.try_recv().is_err());
        drop(let_go);
        loop {
            let packet = from_receiver.recv().await.unwrap();
            if packet.r#type == 3 {
                to_receiver.send(packet).await.unwrap();
                return to_receiver;
            }
            to_receiver.send(data(packet.id, &b""[..])).await.unwrap();
        }
    };
    let receiving = bk_fsync::receive(Arc::clone(&out.dest), options, Inbound(from_sender), to_sender);
    let (outcome, _to_receiver) = tokio::join!(receiving, peer);
    assert_eq!(outcome.unwrap().created, 20_001);
    assert_eq!(out.path("b19999").metadata().unwrap().size(), 0);
}

#[tokio::test]
async fn few_files_are_asked_for_at_a_time() {
    let out = Scratch::new();
    let (to_receiver, from_sender) = mpsc::channel(1);
    let (to_sender, mut from_receiver) = mpsc::channel::<Packet>(1000);
    let peer = async {
        for i in 0..200 {
            to_receiver
                .send(entry(stat(format!("{i:03}"), 0o644, 1)))
                .await
                .unwrap();
        }
        to_receiver
            .send(entry(stat("big", 0o644, 1 << 30)))
            .await
            .unwrap();
        let mut asked = std::collections::VecDeque::new();
        for done in 0..200u32 {
            while asked.len() < 64 && done + u32::try_from(asked.len()).unwrap() < 200 {
                let packet = from_receiver.recv().await.unwrap();
                assert_eq!(packet.r#type, 1);
                asked.push_back(packet.id);
            }
            assert!(from_receiver.try_recv().is_err());
            let id = asked.pop_front().unwrap();
            assert_eq!(id, done);
            to_receiver.send(data(id, &b"x"[..])).await.unwrap();
            to_receiver.send(data(id, &b""[..])).await.unwrap();
        }
        // A file that does not fit into memory waits for the end of the listing.
        assert!(from_receiver.try_recv().is_err());
        to_receiver.send(end_of_listing()).await.unwrap();
        assert_eq!(from_receiver.recv().await.unwrap().id, 200);
        let mut error = typed(PacketType::PacketErr);
        error.data = "enough".into();
        to_receiver.send(error).await.unwrap();
    };
    let receiving = bk_fsync::receive(
        Arc::clone(&out.dest),
        ReceiveOptions::new(),
        Inbound(from_sender),
        to_sender,
    );
    let (outcome, ()) = tokio::join!(receiving, peer);
    assert!(matches!(outcome, Err(ReceiveError::Sender(text)) if text == "enough"));
    assert_eq!(out.names().len(), 200);
}
