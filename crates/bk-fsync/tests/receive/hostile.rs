//! Peers that try to get out of the destination, and destinations that were prepared to let them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bk_fsync::receive::ReceiveMode;
use bk_fsync::{ReceiveError, ReceiveOptions};
use bk_proto::Mode;
use bk_proto::fsutil::packet::PacketType;
use bk_proto::fsutil::{Packet, Stat};

use crate::support::{
    Inbound, Scratch, What, chain, data, dir, entry, linked, look, scripted, stat, symlink as link, typed,
};

/// Something beside the destination that must stay as it is.
fn outside(out: &Scratch) -> std::path::PathBuf {
    let outside = out.temp.path().join("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::write(outside.join("sub/f"), "f").unwrap();
    outside
}

fn full() -> (Vec<Stat>, BTreeMap<u32, Vec<u8>>) {
    let listing = vec![
        dir("d"),
        dir("d/sub"),
        stat("d/sub/f", 0o600, 3),
        stat("fifo", Mode::NAMED_PIPE | 0o600, 0),
        linked(stat("hard", 0o600, 3), "d/sub/f"),
        link("soft", "new"),
    ];
    (listing, BTreeMap::from([(2, b"new".to_vec())]))
}

#[tokio::test]
async fn links_that_were_there_lead_nowhere() {
    let (listing, content) = full();
    for mode in [ReceiveMode::Copy, ReceiveMode::Delete] {
        for planted in ["d", "d/sub", "d/sub/f", "fifo", "hard", "soft"] {
            for target in ["outside", "outside/sub", "outside/secret", "outside/none", "."] {
                let out = Scratch::new();
                let outside = outside(&out);
                let before = look(&outside);
                let at = out.path(planted);
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                symlink(out.temp.path().join(target), &at).unwrap();
                let options = ReceiveOptions::new().mode(mode);
                let report = scripted(&out.dest, options, listing.clone(), content.clone())
                    .await
                    .0;
                assert_eq!(report.unwrap().replaced, 1, "{planted} -> {target}");
                assert_eq!(look(&outside), before, "{planted} -> {target}");
                let seen = look(out.dest.path());
                let file = What::File(b"new".to_vec(), b"d/sub/f".to_vec());
                assert_eq!(seen[&b"d/sub/f"[..]].what, file);
                assert_eq!(seen[&b"hard"[..]].what, file);
                assert_eq!(seen[&b"soft"[..]].what, What::Link(b"new".to_vec()));
                assert_eq!(seen[&b"fifo"[..]].what, What::Fifo);
                assert_eq!(seen.len(), 6);
            }
        }
    }
}

#[tokio::test]
async fn other_names_of_a_file_that_was_there_keep_its_content() {
    let out = Scratch::new();
    let outside = outside(&out);
    for name in ["d/sub/f", "hard"] {
        fs::create_dir_all(out.path("d/sub")).unwrap();
        fs::hard_link(outside.join("secret"), out.path(name)).unwrap();
    }
    let before = look(&outside);
    let (listing, content) = full();
    scripted(&out.dest, ReceiveOptions::new(), listing, content)
        .await
        .0
        .unwrap();
    assert_eq!(look(&outside), before);
    assert_eq!(fs::read(out.path("hard")).unwrap(), b"new");
}

/// What a receiver makes of a listing that it must refuse: the error, and that nothing but `left` is there.
async fn refused(listing: Vec<Stat>, left: &[&str]) -> String {
    let out = Scratch::new();
    let outside = outside(&out);
    let before = look(&outside);
    let (outcome, told) = scripted(&out.dest, ReceiveOptions::new(), listing, BTreeMap::new()).await;
    let err = outcome.unwrap_err();
    assert!(matches!(err, ReceiveError::Protocol(_)), "{err:?}");
    let text = chain(&err);
    assert_eq!(told.unwrap(), text);
    assert_eq!(look(&outside), before);
    let names: Vec<_> = out.names();
    assert!(names.iter().all(|n| left.contains(&n.as_str())), "{names:?}");
    assert!(fs::read_dir(out.temp.path()).unwrap().count() == 2);
    text
}

#[tokio::test]
async fn paths_that_leave_the_destination_are_refused() {
    for path in [
        "../x",
        "..",
        "d/../../x",
        "/etc/x",
        "/",
        "d//x",
        "./x",
        "x/",
        "",
        "x\0y",
        "d/./x",
    ] {
        refused(vec![dir("d"), stat(path, 0o644, 0)], &["d"]).await;
        refused(vec![dir("d"), dir(path)], &["d"]).await;
        refused(vec![dir("d"), link(path, "x")], &["d"]).await;
    }
}

#[tokio::test]
async fn links_that_leave_the_destination_are_refused() {
    for target in [
        "../outside/secret",
        "/etc/passwd",
        "d/../../outside/secret",
        "d",
        "none",
        "l",
        "z",
    ] {
        let text = refused(
            vec![
                dir("d"),
                link("l", "../outside/secret"),
                linked(stat("z", 0o644, 0), target),
            ],
            &["d", "l"],
        );
        assert!(text.await.contains("hard link"), "{target}");
    }
    // Through a link that was just made.
    let text = refused(vec![link("l", "../outside"), stat("l/evil", 0o644, 0)], &["l"]).await;
    assert!(
        text.contains("\"l/evil\" is in no directory that was listed"),
        "{text}"
    );
}

#[tokio::test]
async fn a_listing_in_the_wrong_order_is_refused() {
    let cases: [(Vec<Stat>, &str); 6] = [
        (vec![stat("b", 0, 0), stat("a", 0, 0)], "out of order"),
        (vec![dir("a"), dir("a")], "out of order"),
        (
            vec![dir("a"), stat("a-", 0, 0), stat("a/x", 0, 0)],
            "out of order",
        ),
        (vec![stat("a", 0, 0), stat("a/x", 0, 0)], "in no directory"),
        (vec![stat("a/x", 0, 0)], "in no directory"),
        (vec![dir("a"), stat("a", 0, 0)], "out of order"),
    ];
    for (listing, text) in cases {
        let got = refused(listing, &["a", "a-", "b"]).await;
        assert!(got.contains(text), "{got}");
    }
}

#[tokio::test]
async fn giant_names_are_errors_with_a_name() {
    refused(vec![stat(vec![b'x'; 1 << 20], 0o644, 0)], &[]).await;
    let out = Scratch::new();
    let listing = vec![stat(vec![b'x'; 256], 0o644, 1)];
    let content = BTreeMap::from([(0, vec![1])]);
    let (outcome, _) = scripted(&out.dest, ReceiveOptions::new(), listing, content).await;
    let text = chain(&outcome.unwrap_err());
    assert!(text.contains("xxx") && text.contains("too long"), "{text}");
    assert!(out.names().is_empty());
    // Deeper than the kernel takes in one call.
    let mut path = Vec::new();
    let mut listing = Vec::new();
    for _ in 0..30 {
        path.extend_from_slice(&[b'y'; 200]);
        listing.push(dir(&path));
        path.push(b'/');
    }
    path.push(b'f');
    listing.push(stat(&path, 0o644, 1));
    let content = BTreeMap::from([(30, vec![7])]);
    let out = Scratch::new();
    for _ in 0..2 {
        let options = ReceiveOptions::new().mode(ReceiveMode::Delete);
        let report = scripted(&out.dest, options, listing.clone(), content.clone())
            .await
            .0
            .unwrap();
        assert_eq!(report.created + report.unchanged, 31);
    }
    let options = ReceiveOptions::new().mode(ReceiveMode::Delete);
    let report = scripted(&out.dest, options, Vec::new(), BTreeMap::new())
        .await
        .0
        .unwrap();
    assert_eq!(report.deleted, 31);
    assert!(out.names().is_empty());
}

/// Runs a receiver against packets that come without being asked for.
async fn unasked(packets: Vec<Packet>) -> (ReceiveError, Scratch) {
    let out = Scratch::new();
    let (to_receiver, from_sender) = tokio::sync::mpsc::channel(100);
    let (to_sender, mut from_receiver) = tokio::sync::mpsc::channel::<Packet>(100);
    for packet in packets {
        to_receiver.send(packet).await.unwrap();
    }
    drop(to_receiver);
    let received = bk_fsync::receive(
        out.dest.clone(),
        ReceiveOptions::new(),
        Inbound(from_sender),
        to_sender,
    );
    let err = received.await.unwrap_err();
    while from_receiver.recv().await.is_some() {}
    (err, out)
}

#[tokio::test]
async fn content_for_other_ids_is_refused() {
    for id in [0, 1, 7, u32::MAX] {
        let packets = vec![
            entry(dir("d")),
            entry(stat("f", 0o644, 0)),
            data(id, &b"evil"[..]),
        ];
        let (err, out) = unasked(packets).await;
        let text = chain(&err);
        let wanted = [
            format!("invalid file id {id}"),
            "file \"f\" arrived with more".to_owned(),
        ];
        assert!(wanted.iter().any(|w| text.contains(w)), "{text}");
        assert!(out.names().iter().all(|n| n == "d"), "{:?}", out.names());
    }
    for packet in [typed(PacketType::PacketReq), typed(PacketType::PacketFin)] {
        let (err, _) = unasked(vec![entry(dir("d")), packet]).await;
        assert!(matches!(err, ReceiveError::Protocol(_)));
    }
    let mut error = typed(PacketType::PacketErr);
    error.data = "no space left".into();
    let (err, out) = unasked(vec![entry(dir("d")), entry(stat("f", 0o644, 3)), error]).await;
    assert_eq!(err.to_string(), "error from sender: no space left");
    assert!(out.names().iter().all(|n| n == "d"));
}

#[tokio::test]
async fn an_empty_file_in_place_of_another_is_an_error() {
    let out = Scratch::new();
    fs::write(out.path("f"), "old").unwrap();
    let listing = vec![stat("f", 0o644, 5)];
    let (outcome, told) = scripted(&out.dest, ReceiveOptions::new(), listing, BTreeMap::new()).await;
    let text = chain(&outcome.unwrap_err());
    assert!(text.ends_with("file \"f\" arrived with less than the 5 bytes that were announced"));
    assert_eq!(told.unwrap(), text);
    assert_eq!(fs::read(out.path("f")).unwrap(), b"old");
}

/// While entries arrive, somebody swaps a directory for a link that leads out.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_swapped_for_a_link_leads_nowhere() {
    let out = Scratch::new();
    let outside = outside(&out);
    let before = look(&outside);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapper = {
        let (stop, root, outside) = (stop.clone(), out.dest.path().to_owned(), outside.clone());
        std::thread::spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                swap(&root, &outside);
            }
        })
    };
    for round in 0..30u8 {
        let mut listing = vec![dir("d"), dir("d/sub")];
        let mut content = BTreeMap::new();
        for i in 0..50u32 {
            listing.push(stat(format!("d/sub/{i:02}"), 0o644, 1));
            content.insert(i + 2, vec![round]);
        }
        // It may succeed or fail, whatever the moment; but it stays inside.
        let _ = scripted(&out.dest, ReceiveOptions::new(), listing, content).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    swapper.join().unwrap();
    assert_eq!(look(&outside), before);
}

fn swap(root: &Path, outside: &Path) {
    let (dir, aside) = (root.join("d"), root.join("aside"));
    let _ = fs::rename(&dir, &aside);
    let _ = symlink(outside, &dir);
    let _ = fs::remove_file(&dir);
    let _ = fs::rename(&aside, &dir);
}
