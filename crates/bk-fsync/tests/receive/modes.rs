//! What becomes of files that were not sent.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;

use bk_fsync::receive::{Change, ReceiveMode, Unchanged};
use bk_fsync::{ReceiveError, ReceiveOptions};

use crate::support::{Inbound, Log, Scratch, chain, dir, look, scripted, stat};

/// Things that are not sent, beside some that are, and links that lead out.
fn occupy(out: &Scratch) {
    fs::create_dir(out.temp.path().join("outside")).unwrap();
    fs::write(out.temp.path().join("outside/keep"), "keep").unwrap();
    fs::create_dir_all(out.path("d/old/deep")).unwrap();
    fs::write(out.path("d/old/deep/f"), "1").unwrap();
    fs::write(out.path("d/stale"), "2").unwrap();
    fs::write(out.path("f"), "3").unwrap();
    fs::write(out.path("f-"), "4").unwrap();
    symlink("../outside", out.path("out-link")).unwrap();
    symlink("../../outside", out.path("d/old/out-link")).unwrap();
    fs::set_permissions(out.path("d/old/deep"), fs::Permissions::from_mode(0o500)).unwrap();
}

fn listing() -> (Vec<bk_proto::fsutil::Stat>, BTreeMap<u32, Vec<u8>>) {
    let listing = vec![dir("d"), stat("d/n", 0o644, 1), stat("f", 0o644, 1)];
    (listing, BTreeMap::from([(1, b"n".to_vec()), (2, b"f".to_vec())]))
}

const GONE: [&str; 7] = [
    "d/old",
    "d/old/deep",
    "d/old/deep/f",
    "d/old/out-link",
    "d/stale",
    "f-",
    "out-link",
];

#[tokio::test]
async fn copying_leaves_everything_else_alone() {
    let out = Scratch::new();
    occupy(&out);
    let before = look(out.dest.path());
    let (listing, content) = listing();
    let report = scripted(&out.dest, ReceiveOptions::new(), listing, content)
        .await
        .0
        .unwrap();
    assert_eq!((report.created, report.replaced, report.deleted), (1, 1, 0));
    let mut after = look(out.dest.path());
    assert!(after.remove(&b"d/n"[..]).is_some());
    for changed in [&b"d"[..], b"f"] {
        assert_ne!(after.remove(changed), before.get(changed).cloned());
    }
    for (path, seen) in &after {
        assert_eq!(seen, &before[path]);
    }
    assert_eq!(after.len() + 2, before.len());
}

#[tokio::test]
async fn deleting_removes_everything_else_and_a_dry_run_only_tells() {
    let out = Scratch::new();
    occupy(&out);
    let before = look(out.dest.path());
    let inode = out.path("d").metadata().unwrap().ctime_nsec();
    for dry_run in [true, false] {
        let log = Arc::new(Log::default());
        let options = ReceiveOptions::new()
            .mode(ReceiveMode::Delete)
            .dry_run(dry_run)
            .observer(log.clone());
        let (listing, content) = listing();
        let report = scripted(&out.dest, options, listing, content).await.0.unwrap();
        assert_eq!(log.of(Change::Deleted), GONE);
        assert_eq!(log.of(Change::Created), ["d/n"]);
        assert_eq!(log.of(Change::Replaced), ["f"]);
        assert_eq!(log.of(Change::Unchanged), ["d"]);
        assert_eq!((report.deleted, report.created, report.replaced), (7, 1, 1));
        if dry_run {
            assert_eq!(report.bytes, 0);
            assert_eq!(look(out.dest.path()), before);
            assert_eq!(out.path("d").metadata().unwrap().ctime_nsec(), inode);
        }
    }
    assert_eq!(out.names(), ["d", "d/n", "f"]);
    assert_eq!(fs::read(out.temp.path().join("outside/keep")).unwrap(), b"keep");
}

#[tokio::test]
async fn nothing_is_deleted_by_an_export_that_fails() {
    let out = Scratch::new();
    occupy(&out);
    let options = ReceiveOptions::new().mode(ReceiveMode::Delete);
    let (listing, mut content) = listing();
    content.insert(2, b"too long".to_vec());
    let (outcome, told) = scripted(&out.dest, options, listing, content).await;
    let err = outcome.unwrap_err();
    assert!(matches!(err, ReceiveError::Protocol(_)));
    assert!(
        told.unwrap()
            .contains("file \"f\" arrived with more than the 1 bytes")
    );
    assert_eq!(fs::read(out.path("f")).unwrap(), b"3");
    for path in GONE {
        assert!(out.path(path).symlink_metadata().is_ok(), "{path}");
    }
}

#[tokio::test]
async fn a_stream_that_deletes_must_be_alone() {
    let out = Scratch::new();
    let stream = |mode| {
        let (_to_receiver, from_sender) = tokio::sync::mpsc::channel(1);
        let (to_sender, from_receiver) = tokio::sync::mpsc::channel(1);
        let receiving = bk_fsync::receive(
            Arc::clone(&out.dest),
            ReceiveOptions::new().mode(mode),
            Inbound(from_sender),
            to_sender,
        );
        (_to_receiver, from_receiver, Box::pin(receiving))
    };
    for (first, second) in [
        (ReceiveMode::Copy, ReceiveMode::Delete),
        (ReceiveMode::Delete, ReceiveMode::Copy),
        (ReceiveMode::Delete, ReceiveMode::Delete),
    ] {
        let mut one = stream(first);
        assert!(futures_poll(&mut one.2).is_none());
        let (_to_receiver, mut from_receiver, receiving) = stream(second);
        assert!(matches!(receiving.await, Err(ReceiveError::Busy(_))));
        assert_eq!(from_receiver.recv().await.unwrap().r#type, 4);
        drop(one.0);
        assert!(matches!(one.2.await, Err(ReceiveError::Ended)));
    }
}

/// Polls once.
fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut cx) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_directory_in_the_way_is_removed_only_if_it_is_empty() {
    let out = Scratch::new();
    fs::create_dir_all(out.path("f")).unwrap();
    fs::create_dir_all(out.path("g/sub")).unwrap();
    fs::write(out.path("g/sub/x"), "x").unwrap();
    let listing = || vec![stat("f", 0o644, 1), stat("g", 0o644, 1)];
    let content = || BTreeMap::from([(0, b"f".to_vec()), (1, b"g".to_vec())]);
    let (outcome, told) = scripted(&out.dest, ReceiveOptions::new(), listing(), content()).await;
    let text = chain(&outcome.unwrap_err());
    assert!(
        text.ends_with("directory \"g\" is in the way and is not empty"),
        "{text}"
    );
    assert_eq!(told.unwrap(), text);
    assert_eq!(out.names(), ["f", "g", "g/sub", "g/sub/x"]);
    assert_eq!(fs::read(out.path("f")).unwrap(), b"f");
    let log = Arc::new(Log::default());
    let options = ReceiveOptions::new()
        .mode(ReceiveMode::Delete)
        .unchanged(Unchanged::SameTime)
        .observer(log.clone());
    let report = scripted(&out.dest, options, listing(), content())
        .await
        .0
        .unwrap();
    assert_eq!((report.unchanged, report.replaced, report.deleted), (1, 1, 2));
    assert_eq!(log.of(Change::Deleted), ["g/sub", "g/sub/x"]);
    assert_eq!(out.names(), ["f", "g"]);
    // And the other way round.
    let (listing, content) = (vec![dir("f"), stat("f/x", 0o644, 0)], BTreeMap::new());
    let report = scripted(&out.dest, ReceiveOptions::new(), listing, content)
        .await
        .0
        .unwrap();
    assert_eq!((report.replaced, report.created), (1, 1));
    assert_eq!(out.names(), ["f", "f/x", "g"]);
}
