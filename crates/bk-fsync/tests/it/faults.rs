//! Trees that change or fail under a transfer, and peers that break the protocol. None may end in an empty or
//! torn file, a hang, or a leak.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;

use bk_fsync::entry::{Kind, Meta};
use bk_fsync::path::RelPath;
use bk_fsync::read::FileFault;
use bk_fsync::send::ProtocolError;
use bk_fsync::tree::{Directory, Listed, OpenFile};
use bk_fsync::{
    DirTree, FilePolicies, FilterOptions, MemoryTree, SendError, SendObserver, SendOptions, SyncPolicy, Tree,
    Warning,
};

use crate::peer::{Op, Received, err, hooked, receive, request, start, transfer};

fn small_tree() -> MemoryTree {
    let mut tree = MemoryTree::new();
    tree.add_file("a", 0o644, "first").unwrap();
    tree.add_file("d/b", 0o644, "second").unwrap();
    tree.add_file("d/c", 0o644, "third").unwrap();
    tree
}

fn exclude(patterns: &[&str]) -> SendOptions {
    let exclude = patterns.iter().map(|p| p.as_bytes().to_vec()).collect();
    SendOptions::new().filter(FilterOptions::new(Vec::new(), exclude, Vec::new()))
}

fn denied() -> io::Result<()> {
    Err(io::ErrorKind::PermissionDenied.into())
}

/// Runs a transfer of `dir` in which `change` happens after the listing and before any file is requested.
async fn change_after_listing(dir: &std::path::Path, change: impl Fn()) -> (SendError, Received) {
    let tree = Arc::new(DirTree::open(dir).unwrap());
    let (to_sender, mut from_sender, sending) = start(tree, SendOptions::new(), 64);
    let sending = tokio::spawn(sending);
    let mut listed = 0;
    while from_sender.recv().await.unwrap().stat.is_some() {
        listed += 1;
    }
    change();
    for id in 0..listed {
        // The sender may have given up on an earlier one.
        let _ = to_sender.send(request(id)).await;
    }
    let mut got = Received::default();
    while let Some(packet) = from_sender.recv().await {
        match packet.r#type {
            2 if packet.data.is_empty() => drop(got.files.insert(vec![], vec![])),
            4 => got.error = Some(String::from_utf8_lossy(&packet.data).into_owned()),
            _ => {}
        }
    }
    (sending.await.unwrap().unwrap_err(), got)
}

fn fault(err: SendError) -> FileFault {
    match err {
        SendError::File(err) => err.fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_that_changes_after_it_was_listed_fails_the_transfer_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("victim");
    type Change = (fn(&std::path::Path), &'static str, fn(&FileFault) -> bool);
    let changes: [Change; 6] = [
        (
            |f| fs::remove_file(f).unwrap(),
            "cannot open it",
            |f| matches!(f, FileFault::Open(_)),
        ),
        (
            |f| fs::write(f, "shorter").unwrap(),
            "its size changed from 11 to 7 bytes",
            |f| matches!(f, FileFault::SizeChanged { listed: 11, found: 7 }),
        ),
        (
            |f| fs::write(f, "rather longer").unwrap(),
            "its size changed from 11 to 13 bytes",
            |f| matches!(f, FileFault::SizeChanged { .. }),
        ),
        (
            |f| {
                fs::remove_file(f).unwrap();
                std::os::unix::fs::symlink("/etc/hostname", f).unwrap();
            },
            "cannot open it",
            |f| matches!(f, FileFault::Open(_)),
        ),
        (
            |f| {
                fs::remove_file(f).unwrap();
                rustix::fs::mkfifoat(rustix::fs::CWD, f, rustix::fs::Mode::RWXU).unwrap();
            },
            "no longer a regular file",
            |f| matches!(f, FileFault::Open(_)),
        ),
        (
            |f| {
                fs::remove_file(f).unwrap();
                fs::create_dir(f).unwrap();
            },
            "no longer a regular file",
            |f| matches!(f, FileFault::Open(_)),
        ),
    ];
    for (change, text, is_expected) in changes {
        let _ = fs::remove_file(&file).or_else(|_| fs::remove_dir(&file));
        fs::write(&file, "eleven byte").unwrap();
        let (err, got) = change_after_listing(dir.path(), || change(&file)).await;
        let told = got.error.unwrap();
        assert!(told.contains("\"victim\"") && told.contains(text), "{told}");
        assert!(
            got.files.is_empty(),
            "a file that failed was ended as if it were whole: {told}"
        );
        let found = fault(err);
        assert!(is_expected(&found), "{found:?}");
    }
}

#[tokio::test]
async fn a_file_that_shrinks_or_fails_while_it_is_read() {
    let mut tree = MemoryTree::new();
    tree.add_file("short", 0o644, vec![0; 300_000]).unwrap();
    tree.edit("short", |meta, _| meta.size = 300_001).unwrap();
    let (outcome, got) = transfer(tree, SendOptions::new()).await;
    assert!(matches!(
        fault(outcome.unwrap_err()),
        FileFault::SizeChanged {
            listed: 300_001,
            found: 300_000
        }
    ));
    assert!(got.files.is_empty());

    let mut tree = MemoryTree::new();
    tree.add_file("long", 0o644, vec![0; 300_000]).unwrap();
    tree.edit("long", |meta, _| meta.size = 299_999).unwrap();
    let (outcome, _) = transfer(tree, SendOptions::new()).await;
    assert!(matches!(
        fault(outcome.unwrap_err()),
        FileFault::SizeChanged {
            listed: 299_999,
            found: 300_000
        }
    ));

    let reads = Mutex::new(0);
    let mut tree = MemoryTree::new();
    tree.add_file("broken", 0o644, vec![0; 600_000]).unwrap();
    let tree = hooked(tree, move |op| match op {
        Op::Read(_) => {
            *reads.lock().unwrap() += 1;
            if *reads.lock().unwrap() == 3 {
                Err(io::Error::other("bad sector"))
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    });
    // By time: files in memory are else read while they are listed.
    let options = SendOptions::new().policies(FilePolicies::new().sync(SyncPolicy::Mtime));
    let (outcome, got) = transfer(tree, options).await;
    assert!(matches!(fault(outcome.unwrap_err()), FileFault::Read(_)));
    let told = got.error.unwrap();
    assert_eq!(
        told,
        "cannot send a file: cannot send \"broken\": cannot read it: bad sector"
    );
}

#[tokio::test]
async fn an_unreadable_file_is_an_error_only_if_it_is_wanted() {
    let tree = || {
        hooked(small_tree(), |op| match op {
            Op::Open(b"d/b") => denied(),
            _ => Ok(()),
        })
    };
    let (outcome, got) = transfer(tree(), SendOptions::new()).await;
    assert!(matches!(fault(outcome.unwrap_err()), FileFault::Open(_)));
    assert!(got.error.unwrap().contains("\"d/b\""));
    let (outcome, got) = transfer(tree(), exclude(&["d/b"])).await;
    assert_eq!(outcome.unwrap().files_sent, 2);
    assert_eq!(got.paths(), ["a", "d", "d/c"]);
}

#[tokio::test]
async fn an_unreadable_directory_is_an_error_only_if_it_is_visible() {
    let tree = || {
        hooked(small_tree(), |op| match op {
            Op::List(b"d") => denied(),
            _ => Ok(()),
        })
    };
    let (outcome, got) = transfer(tree(), SendOptions::new()).await;
    assert!(matches!(outcome, Err(SendError::List(_))));
    let told = got.error.unwrap();
    assert!(
        told.contains("cannot list directory \"d\": permission denied"),
        "{told}"
    );
    let (outcome, _) = transfer(tree(), exclude(&["d"])).await;
    assert_eq!(outcome.unwrap().entries, 1);

    // Hidden, but an exception could match in it: a warning.
    #[derive(Default)]
    struct Warnings(Mutex<Vec<String>>);
    impl SendObserver for Warnings {
        fn warning(&self, warning: &Warning<'_>) {
            self.0.lock().unwrap().push(warning.to_string());
        }
    }
    let watch = Arc::new(Warnings::default());
    let (outcome, _) = transfer(tree(), exclude(&["d", "!d/b"]).observer(watch.clone())).await;
    assert_eq!(outcome.unwrap().entries, 1);
    assert!(watch.0.lock().unwrap()[0].contains("excluded directory \"d\""));
}

#[tokio::test]
async fn excluded_directories_are_never_opened() {
    let opened = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&opened);
    let mut tree = small_tree();
    tree.add_file("node_modules/x/y", 0o644, "").unwrap();
    tree.add_file("src/lib.rs", 0o644, "").unwrap();
    let tree = hooked(tree, move |op| {
        if let Op::OpenDir(path) = op {
            seen.lock()
                .unwrap()
                .push(String::from_utf8_lossy(path).into_owned());
        }
        Ok(())
    });
    let (outcome, got) = transfer(tree, exclude(&["d", "node_modules", "!src/*.rs", "!d/sub/*"])).await;
    outcome.unwrap();
    assert_eq!(got.paths(), ["a", "src", "src/lib.rs"]);
    assert_eq!(*opened.lock().unwrap(), ["", "d", "src"]);
}

#[tokio::test]
async fn what_vanishes_during_the_listing_is_skipped() {
    let tree = hooked(small_tree(), |op| match op {
        Op::Stat(b"d/b") | Op::Xattrs(b"d/c") => Err(io::ErrorKind::NotFound.into()),
        _ => Ok(()),
    });
    let (outcome, got) = transfer(tree, SendOptions::new()).await;
    outcome.unwrap();
    assert_eq!(got.paths(), ["a", "d"]);
    let tree = hooked(small_tree(), |op| match op {
        Op::OpenDir(b"d") => Err(io::ErrorKind::NotADirectory.into()),
        _ => Ok(()),
    });
    let (outcome, got) = transfer(tree, SendOptions::new()).await;
    outcome.unwrap();
    assert_eq!(got.paths(), ["a", "d"]);
}

#[tokio::test]
async fn a_tree_that_panics_or_lists_nonsense_is_an_error() {
    let tree = hooked(small_tree(), |op| match op {
        Op::Stat(b"d/b") => panic!("on purpose"),
        _ => Ok(()),
    });
    let (outcome, got) = transfer(tree, SendOptions::new()).await;
    assert!(matches!(outcome, Err(SendError::TaskLost)), "{outcome:?}");
    assert!(got.error.is_some());
    let tree = hooked(small_tree(), |op| match op {
        Op::Open(b"d/b") => panic!("on purpose"),
        _ => Ok(()),
    });
    let (outcome, _) = transfer(tree, SendOptions::new()).await;
    assert!(matches!(outcome, Err(SendError::TaskLost)), "{outcome:?}");

    /// Lists the names it is given, all of them files.
    struct Nonsense(Vec<&'static str>);
    struct NonsenseDir(Vec<&'static str>);
    impl Tree for Nonsense {
        fn open_dir(&self, _: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
            Ok(Box::new(NonsenseDir(self.0.clone())))
        }
        fn open(&self, _: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
            Err(io::ErrorKind::NotFound.into())
        }
    }
    impl Directory for NonsenseDir {
        fn list(&mut self) -> io::Result<Vec<Listed>> {
            Ok(self
                .0
                .iter()
                .map(|n| Listed {
                    name: n.as_bytes().to_vec(),
                    kind: None,
                })
                .collect())
        }
        fn stat(&self, _: &[u8]) -> io::Result<Meta> {
            Ok(Meta::new(Kind::File))
        }
        fn read_link(&self, _: &[u8]) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }
        fn open_dir(&self, _: &[u8]) -> io::Result<Box<dyn Directory>> {
            Err(io::ErrorKind::NotFound.into())
        }
    }
    for names in [vec!["a/b"], vec![".."], vec![""], vec!["a\0"], vec!["x", "x"]] {
        let (outcome, got) = transfer(Nonsense(names.clone()), SendOptions::new()).await;
        assert!(outcome.is_err(), "{names:?}");
        assert!(got.error.is_some());
    }
}

#[tokio::test]
async fn malformed_patterns_are_named_to_the_daemon() {
    let (outcome, got) = transfer(small_tree(), exclude(&["ok", "a[z-"])).await;
    assert!(matches!(outcome, Err(SendError::List(_))));
    let told = got.error.unwrap();
    assert!(
        told.contains("in the list of excludes: malformed pattern \"a[z-\""),
        "{told}"
    );
}

/// Lets the peer see `packets` packets (asking for nothing), then send `last`, if anything, and hang up.
async fn peer_stops(packets: usize, last: Option<bk_proto::fsutil::Packet>) -> (SendError, Option<String>) {
    let (to_sender, mut from_sender, sending) = start(Arc::new(small_tree()), SendOptions::new(), 2);
    let peer = async move {
        for _ in 0..packets {
            from_sender.recv().await.unwrap();
        }
        if let Some(last) = last {
            to_sender.send(last).await.unwrap();
        } else {
            drop(to_sender);
        }
        let mut told = None;
        while let Some(packet) = from_sender.recv().await {
            if packet.r#type == 4 {
                told = Some(String::from_utf8_lossy(&packet.data).into_owned());
            }
        }
        told
    };
    let (outcome, told) = tokio::join!(sending, peer);
    (outcome.unwrap_err(), told)
}

#[tokio::test]
async fn a_peer_that_fails_or_goes_at_any_point() {
    // Five packets: four entries and the end of the listing.
    for packets in 0..=5 {
        let (error, told) = peer_stops(packets, Some(err("disk full"))).await;
        assert!(
            matches!(error, SendError::Receiver(ref text) if text == "disk full"),
            "{error:?}"
        );
        assert_eq!(told, None);
        let (error, told) = peer_stops(packets, None).await;
        assert!(matches!(error, SendError::Ended), "{error:?}");
        assert_eq!(told, None);
    }
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_told() {
    for (last, text) in [
        (request(1), "invalid file id 1"),
        (request(99), "invalid file id 99"),
        (
            bk_proto::fsutil::Packet {
                r#type: 2,
                ..Default::default()
            },
            "a packet of type 2",
        ),
        (
            bk_proto::fsutil::Packet {
                r#type: 77,
                ..Default::default()
            },
            "a packet of type 77",
        ),
    ] {
        let (error, told) = peer_stops(5, Some(last)).await;
        assert!(matches!(error, SendError::Protocol(_)), "{error:?}");
        let told = told.unwrap();
        assert!(told.contains(text), "{told}");
    }
}

#[tokio::test]
async fn a_file_may_be_requested_once() {
    let (to_sender, from_sender, sending) = start(Arc::new(small_tree()), SendOptions::new(), 8);
    let twice = to_sender.clone();
    let peer = async move {
        let got = receive(to_sender, from_sender, |s| s.path != b"a", |_| {}).await;
        got.error.unwrap()
    };
    let ask = async move {
        // Whether it is refused for coming twice or too early, it is the same error.
        while twice.send(request(0)).await.is_ok() {}
    };
    let (outcome, told, ()) = tokio::join!(sending, peer, ask);
    assert!(matches!(
        outcome,
        Err(SendError::Protocol(ProtocolError::InvalidFileId { id: 0 }))
    ));
    assert!(told.contains("invalid file id 0"));
}

#[tokio::test]
async fn nobody_taking_packets_ends_the_transfer() {
    let (_to_sender, from_sender, sending) = start(Arc::new(small_tree()), SendOptions::new(), 2);
    drop(from_sender);
    assert!(matches!(sending.await, Err(SendError::Closed)));
}
