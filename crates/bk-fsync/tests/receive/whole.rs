//! Exports that go well: every kind of entry, many files, holes, several streams.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;

use bk_fsync::receive::{Change, DevicePolicy, ReceivedOwner};
use bk_fsync::{Destination, DirTree, MemoryTree, OwnerPolicy, ReceiveError, ReceiveOptions, SendOptions};
use bk_proto::Mode;

use crate::support::{Log, Scratch, What, chain, copy, dir, linked, look, scripted, stat, symlink as link};

const NS: i64 = 1_600_000_000_123_456_789;

#[tokio::test]
async fn every_kind_arrives_as_it_was_sent() {
    let out = Scratch::new();
    let mut extra = stat("d/x", 0o640, 3);
    extra.xattrs.insert("user.note".to_owned(), b"\0\xff".to_vec());
    extra.xattrs.insert("security.capability".to_owned(), vec![1; 20]);
    extra.xattrs.insert("odd.namespace".to_owned(), vec![1]);
    let mut old = stat("old", 0o600, 0);
    old.mod_time = -1_500_000_000;
    let listing = vec![
        stat("d", Mode::DIR | Mode::STICKY | 0o555, 0),
        dir("d/e"),
        link("d/l", "/no where/\u{e9}"),
        extra,
        stat("fifo", Mode::NAMED_PIPE | 0o622, 0),
        stat("n\u{e9}", Mode::SETUID | Mode::SETGID | 0o755, 100_000),
        old,
        linked(stat("pipe2", Mode::NAMED_PIPE | 0o622, 0), "fifo"),
        linked(stat("z", 0o640, 3), "d/x"),
    ];
    let big: Vec<u8> = (0..100_000u32)
        .flat_map(|i| i.to_le_bytes())
        .take(100_000)
        .collect();
    let content = BTreeMap::from([(3, b"abc".to_vec()), (5, big.clone())]);
    let log = Arc::new(Log::default());
    let options = ReceiveOptions::new().observer(log.clone());
    let report = scripted(&out.dest, options, listing, content).await.0.unwrap();
    assert_eq!((report.entries, report.created, report.bytes), (9, 9, 100_003));
    assert_eq!(
        report.replaced + report.unchanged + report.deleted + report.skipped,
        0
    );
    let seen = look(out.dest.path());
    let at = |path: &str| {
        let seen = &seen[path.as_bytes()];
        (seen.mode, seen.mtime_ns, seen.what.clone())
    };
    assert_eq!(at("d"), (0o1555, NS, What::Dir));
    assert_eq!(at("d/e"), (0o755, NS, What::Dir));
    assert_eq!(at("d/l"), (0o777, NS, What::Link("/no where/\u{e9}".into())));
    let shared = What::File(b"abc".to_vec(), b"d/x".to_vec());
    assert_eq!(at("d/x"), (0o640, NS, shared.clone()));
    assert_eq!(at("z"), (0o640, NS, shared));
    assert_eq!(at("fifo"), (0o622, NS, What::Fifo));
    assert_eq!(at("n\u{e9}"), (0o6755, NS, What::File(big, "n\u{e9}".into())));
    assert_eq!(
        at("old"),
        (0o600, -1_500_000_000, What::File(Vec::new(), b"old".to_vec()))
    );
    let ino = |path: &str| out.path(path).symlink_metadata().unwrap().ino();
    assert_eq!(ino("fifo"), ino("pipe2"));
    assert_eq!(seen.len(), 9);
    // What a file system does not take is told; what could give rights was not tried.
    let mut buffer = [0u8; 8];
    let len = rustix::fs::getxattr(out.path("d/x"), "user.note", &mut buffer[..]);
    let warnings = log.warnings.lock().unwrap();
    assert!(
        len == Ok(2) && buffer[..2] == *b"\0\xff" || warnings.len() == 2,
        "{warnings:?}"
    );
    assert!(warnings.iter().all(|w| w.contains("\"d/x\"")), "{warnings:?}");
    assert!(!warnings.iter().any(|w| w.contains("security")), "{warnings:?}");
}

#[tokio::test]
async fn devices_are_refused_skipped_or_made_as_told() {
    let listing = || {
        vec![
            stat("a", 0o644, 0),
            {
                let mut null = stat("null", Mode::DEVICE | Mode::CHAR_DEVICE | 0o666, 0);
                (null.devmajor, null.devminor) = (1, 3);
                null
            },
            linked(stat("null2", Mode::DEVICE | Mode::CHAR_DEVICE | 0o666, 0), "null"),
        ]
    };
    let out = Scratch::new();
    let (refused, told) = scripted(&out.dest, ReceiveOptions::new(), listing(), BTreeMap::new()).await;
    let text = chain(&refused.unwrap_err());
    assert!(
        text.ends_with("\"null\" is a device, and devices are not allowed"),
        "{text}"
    );
    assert_eq!(told.unwrap(), text);

    let out = Scratch::new();
    let log = Arc::new(Log::default());
    let options = ReceiveOptions::new()
        .devices(DevicePolicy::Skip)
        .observer(log.clone());
    let report = scripted(&out.dest, options, listing(), BTreeMap::new())
        .await
        .0
        .unwrap();
    assert_eq!((report.created, report.skipped), (1, 2));
    assert_eq!(out.names(), ["a"]);
    let warnings = ["skipped device \"null\"", "skipped device \"null2\""];
    assert_eq!(*log.warnings.lock().unwrap(), warnings);

    let out = Scratch::new();
    let options = ReceiveOptions::new().devices(DevicePolicy::Create);
    match scripted(&out.dest, options, listing(), BTreeMap::new()).await.0 {
        Ok(_) => {
            let null = out.path("null").symlink_metadata().unwrap();
            assert_eq!(
                (null.rdev(), null.mode() & 0o7777, null.nlink()),
                (1 << 8 | 3, 0o666, 2)
            );
        }
        // Without privileges.
        Err(err) => assert!(chain(&err).contains("cannot make \"null\""), "{}", chain(&err)),
    }
}

#[tokio::test]
async fn owners_are_those_that_were_sent_if_told_so() {
    let owned = |path: &str, mode: u32| {
        let mut stat = stat(path, mode, 1);
        (stat.uid, stat.gid) = (1234, 2345);
        stat
    };
    let listing = || {
        vec![
            owned("d", Mode::DIR | 0o700),
            owned("d/f", Mode::SETUID | 0o711),
            linked(owned("d/l", Mode::SYMLINK | 0o777), "x"),
        ]
    };
    let content = || BTreeMap::from([(1, b"x".to_vec())]);
    let me = rustix::process::geteuid().as_raw();
    let out = Scratch::new();
    scripted(&out.dest, ReceiveOptions::new(), listing(), content())
        .await
        .0
        .unwrap();
    for path in ["d", "d/f", "d/l"] {
        assert_eq!(out.path(path).symlink_metadata().unwrap().uid(), me);
    }
    let out = Scratch::new();
    let options = ReceiveOptions::new().owner(ReceivedOwner::AsSent);
    let outcome = scripted(&out.dest, options, listing(), content()).await.0;
    if me != 0 {
        assert!(chain(&outcome.unwrap_err()).contains("\"d/"));
        return;
    }
    outcome.unwrap();
    for path in ["d", "d/f", "d/l"] {
        let meta = out.path(path).symlink_metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 2345), "{path}");
    }
    assert_eq!(out.path("d/f").metadata().unwrap().mode() & 0o7777, 0o4711);
}

#[tokio::test]
async fn blocks_of_zeros_become_holes() {
    let out = Scratch::new();
    const MIB: usize = 1 << 20;
    let mut bytes = vec![0u8; 16 * MIB + 77];
    bytes[5 * MIB] = 1;
    bytes[8 * MIB..9 * MIB].fill(7);
    let size = i64::try_from(bytes.len()).unwrap();
    let listing = vec![stat("sparse", 0o644, size), stat("zeros", 0o644, 5 << 20)];
    let content = BTreeMap::from([(0, bytes.clone()), (1, vec![0; 5 << 20])]);
    scripted(&out.dest, ReceiveOptions::new(), listing, content)
        .await
        .0
        .unwrap();
    assert!(fs::read(out.path("sparse")).unwrap() == bytes);
    assert!(fs::read(out.path("zeros")).unwrap() == vec![0; 5 << 20]);
    // In units of 512 bytes; with some room for what a file system needs for itself.
    let blocks = |name: &str| out.path(name).metadata().unwrap().blocks() * 512;
    assert!(blocks("sparse") < 2 * MIB as u64, "{}", blocks("sparse"));
    assert!(blocks("zeros") < 64 * 1024, "{}", blocks("zeros"));
}

/// A directory with `count` small files in groups of a hundred.
fn many(root: &std::path::Path, count: usize) {
    for i in 0..count {
        let dir = root.join(format!("{:03}", i / 100));
        if i % 100 == 0 {
            fs::create_dir(&dir).unwrap();
        }
        fs::write(dir.join(format!("{i}")), vec![b'x'; i % 300]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_files_arrive_and_are_not_sent_again() {
    let mut tree = MemoryTree::new();
    let mut want = BTreeMap::new();
    for i in 0..50_000usize {
        let path = format!("{:03}/{i}", i / 100);
        let content = i.to_string().repeat(i % 50);
        tree.add_file(&path, 0o640, content.clone()).unwrap();
        tree.edit(&path, |meta, _| meta.mtime_ns = NS).unwrap();
        want.insert(path, content);
    }
    let out = Scratch::new();
    let tree = Arc::new(tree);
    let send = || copy(tree.clone(), SendOptions::new(), &out.dest, ReceiveOptions::new());
    let first = send().await.unwrap();
    assert_eq!((first.entries, first.created), (50_500, 50_500));
    for (path, content) in &want {
        assert_eq!(fs::read_to_string(out.path(path)).unwrap(), *content, "{path}");
    }
    let again = send().await.unwrap();
    assert_eq!((again.unchanged, again.bytes), (50_500, 0));
    assert_eq!(again.created + again.replaced, 0);
}

#[tokio::test]
async fn only_what_differs_is_asked_for() {
    let from = tempfile::tempdir().unwrap();
    many(from.path(), 150);
    symlink("a", from.path().join("link")).unwrap();
    fs::write(from.path().join("one"), "1").unwrap();
    fs::hard_link(from.path().join("one"), from.path().join("two")).unwrap();
    let out = Scratch::new();
    let tree = || Arc::new(DirTree::open(from.path()).unwrap());
    copy(tree(), SendOptions::new(), &out.dest, ReceiveOptions::new())
        .await
        .unwrap();
    fs::write(from.path().join("000/7"), "changed").unwrap();
    fs::set_permissions(from.path().join("001/101"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(from.path().join("link")).unwrap();
    symlink("b", from.path().join("link")).unwrap();
    fs::write(out.path("000/9"), "local").unwrap();
    fs::write(out.path("000/mine"), "mine").unwrap();
    fs::remove_file(out.path("two")).unwrap();
    fs::write(out.path("two"), "1").unwrap();
    let log = Arc::new(Log::default());
    let options = ReceiveOptions::new().observer(log.clone());
    let report = copy(tree(), SendOptions::new(), &out.dest, options)
        .await
        .unwrap();
    let replaced = ["000/7", "000/9", "001/101", "link", "two"];
    assert_eq!(log.of(Change::Replaced), replaced);
    assert_eq!((report.replaced, report.created, report.deleted), (5, 0, 0));
    assert_eq!(report.bytes, 7 + 9 + 101);
    assert_eq!(fs::read(out.path("000/mine")).unwrap(), b"mine");
    fs::remove_file(out.path("000/mine")).unwrap();
    let (mut got, mut want) = (look(out.dest.path()), look(from.path()));
    for seen in [&mut got, &mut want] {
        seen.remove(&b"000"[..]);
    }
    assert_eq!(got, want);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_side_by_side_fill_one_directory() {
    let out = Scratch::new();
    let tree = |platform: &str, shared: &str| {
        let mut tree = MemoryTree::new();
        tree.add_dir("shared", 0o555).unwrap();
        tree.add_file(format!("shared/{shared}"), 0o644, shared.to_owned())
            .unwrap();
        for i in 0..500 {
            tree.add_file(format!("{platform}/d{}/{i}", i % 7), 0o644, platform.repeat(i))
                .unwrap();
        }
        Arc::new(tree)
    };
    let (one, two) = tokio::join!(
        copy(
            tree("linux_amd64", "one"),
            SendOptions::new(),
            &out.dest,
            ReceiveOptions::new()
        ),
        copy(
            tree("linux_arm64", "two"),
            SendOptions::new(),
            &out.dest,
            ReceiveOptions::new()
        ),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.entries, two.entries), (510, 510));
    assert_eq!(fs::read(out.path("linux_amd64/d1/1")).unwrap(), b"linux_amd64");
    assert_eq!(
        fs::read(out.path("linux_arm64/d2/2")).unwrap(),
        b"linux_arm64".repeat(2)
    );
    assert_eq!(fs::read(out.path("shared/one")).unwrap(), b"one");
    assert_eq!(fs::read(out.path("shared/two")).unwrap(), b"two");
    assert_eq!(out.names().len(), 510 + 510 - 1);
    assert_eq!(out.path("shared").metadata().unwrap().mode() & 0o777, 0o555);
}

#[tokio::test]
async fn an_empty_export_and_one_of_directories_only() {
    let out = Scratch::new();
    let empty = copy(
        Arc::new(MemoryTree::new()),
        SendOptions::new(),
        &out.dest,
        ReceiveOptions::new(),
    );
    assert_eq!(empty.await.unwrap().entries, 0);
    let mut dirs = MemoryTree::new();
    dirs.add_dir("a/b/c", 0o700).unwrap();
    let report = copy(
        Arc::new(dirs),
        SendOptions::new(),
        &out.dest,
        ReceiveOptions::new(),
    );
    assert_eq!(report.await.unwrap().created, 3);
    assert_eq!(out.names(), ["a", "a/b", "a/b/c"]);
}

#[tokio::test]
async fn directories_that_are_read_only_are_filled_all_the_same() {
    let from = tempfile::tempdir().unwrap();
    fs::create_dir_all(from.path().join("a/b")).unwrap();
    fs::write(from.path().join("a/b/f"), "new").unwrap();
    fs::write(from.path().join("a/b/g"), "g").unwrap();
    let lock = |path: std::path::PathBuf, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let out = Scratch::new();
    fs::create_dir_all(out.path("a/b")).unwrap();
    // Of another size: both may be written in the same tick of the clock.
    fs::write(out.path("a/b/f"), "older").unwrap();
    lock(out.path("a/b"), 0o100);
    lock(out.path("a"), 0);
    lock(from.path().join("a/b"), 0o555);
    lock(from.path().join("a"), 0o511);
    let tree = Arc::new(DirTree::open(from.path()).unwrap());
    let sending = SendOptions::new().owner(OwnerPolicy::Keep);
    let report = copy(tree, sending, &out.dest, ReceiveOptions::new())
        .await
        .unwrap();
    assert_eq!((report.unchanged, report.replaced, report.created), (2, 1, 1));
    let mode = |path: &str| out.path(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode("a"), mode("a/b")), (0o511, 0o555));
    assert_eq!(fs::read(out.path("a/b/f")).unwrap(), b"new");
    for path in [
        from.path().join("a"),
        from.path().join("a/b"),
        out.path("a"),
        out.path("a/b"),
    ] {
        lock(path, 0o755);
    }
}

#[test]
fn a_destination_is_made_for_its_user_only() {
    let temp = tempfile::tempdir().unwrap();
    let made = Destination::create(temp.path().join("x/y")).unwrap();
    assert_eq!(made.path().metadata().unwrap().mode() & 0o777, 0o700);
    assert!(made.path().ends_with("x/y"));
    assert!(Destination::open(temp.path().join("none")).is_err());
    fs::write(temp.path().join("f"), "").unwrap();
    let err = Destination::create(temp.path().join("f")).unwrap_err();
    assert!(err.to_string().ends_with("/f"), "{err}");
    symlink("x/y", temp.path().join("l")).unwrap();
    assert_eq!(
        Destination::create(temp.path().join("l")).unwrap().path(),
        made.path()
    );
}

#[tokio::test]
async fn a_full_or_missing_directory_fails_with_its_path() {
    let out = Scratch::new();
    fs::remove_dir(out.dest.path()).unwrap();
    let (outcome, told) = scripted(&out.dest, ReceiveOptions::new(), vec![dir("d")], BTreeMap::new()).await;
    let err = outcome.unwrap_err();
    assert!(matches!(err, ReceiveError::Write(_)));
    assert!(
        chain(&err).contains("cannot make directory \"d\": No such file"),
        "{}",
        chain(&err)
    );
    assert_eq!(told.unwrap(), chain(&err));
}
