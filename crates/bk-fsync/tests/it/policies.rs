//! What policies do to a transfer, on trees on disk and against a peer that keeps what it has.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bk_fsync::limits::{CONTENT_SECONDS, RACY_NS};
use bk_fsync::{
    ChangePolicy, ContentOptions, DirHashCache, DirTree, FilePolicies, HashCache, MemoryTree, ModePolicy,
    OwnerPolicy, SendObserver, SendOptions, SendReport, SyncPolicy, Tree, Warning,
};
use bk_proto::fsutil::Stat;

use crate::peer::{Op, Received, hooked, transfer, transfer_some};

/// Builds again after what was sent before: as a daemon does, only files of another size or time are asked for.
async fn again(
    tree: impl Tree + 'static,
    policies: &FilePolicies,
    before: &Received,
) -> (SendReport, Received) {
    let known: Vec<(Vec<u8>, i64, i64)> = before.stats.iter().map(key).collect();
    let options = SendOptions::new().policies(policies.clone());
    let (report, got) = transfer_some(Arc::new(tree), options, move |stat| !known.contains(&key(stat))).await;
    (report.unwrap(), got)
}

fn key(stat: &Stat) -> (Vec<u8>, i64, i64) {
    (stat.path.clone(), stat.size, stat.mod_time)
}

fn set_time(path: &Path, seconds: u64) {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// Waits until nothing in the directory counts as changed just now.
fn settle(dir: &Path) {
    let newest = fs::read_dir(dir).unwrap().map(|entry| {
        let meta = entry.unwrap().metadata().unwrap();
        i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec())
    });
    let newest = newest.max().unwrap_or_default();
    while i128::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
        <= newest + i128::from(RACY_NS)
    {
        std::thread::yield_now();
    }
}

fn tree(dir: &Path) -> DirTree {
    DirTree::open(dir).unwrap()
}

fn content() -> FilePolicies {
    FilePolicies::new().sync(SyncPolicy::Content(ContentOptions::new()))
}

#[tokio::test]
async fn an_edit_that_keeps_size_and_time_is_sent_unless_only_time_counts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    for (policies, sent) in [
        (FilePolicies::new(), 1),
        (content(), 1),
        (FilePolicies::new().sync(SyncPolicy::Mtime), 0),
    ] {
        fs::write(&file, "old").unwrap();
        fs::write(dir.path().join("other"), "same").unwrap();
        set_time(&file, 1_600_000_000);
        settle(dir.path());
        let (_, first) = again(tree(dir.path()), &policies, &Received::default()).await;
        assert_eq!(first.files[&b"f"[..]], b"old");
        let (report, _) = again(tree(dir.path()), &policies, &first).await;
        assert_eq!(report.files_sent, 0, "nothing changed: {policies:?}");
        fs::write(&file, "new").unwrap();
        set_time(&file, 1_600_000_000);
        settle(dir.path());
        let (report, second) = again(tree(dir.path()), &policies, &first).await;
        assert_eq!(report.files_sent, sent, "{policies:?}");
        assert_eq!(
            second.files.get(&b"f"[..]).is_some_and(|c| c == b"new"),
            sent == 1
        );
    }
}

#[tokio::test]
async fn a_fresh_copy_sends_nothing_by_content_and_everything_else_by_identity() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (dir, time) in [(&one, 1_500_000_000), (&two, 1_600_000_000)] {
        for name in ["a", "b", "c"] {
            fs::write(dir.path().join(name), name.repeat(300_000)).unwrap();
            set_time(&dir.path().join(name), time);
        }
        settle(dir.path());
    }
    let (_, first) = again(tree(one.path()), &content(), &Received::default()).await;
    assert!(
        first
            .stats
            .iter()
            .all(|s| s.mod_time / 1_000_000_000 == CONTENT_SECONDS)
    );
    let (report, _) = again(tree(two.path()), &content(), &first).await;
    assert_eq!((report.files_requested, report.bytes_sent), (0, 0));
    let (report, _) = again(tree(two.path()), &FilePolicies::new(), &first).await;
    assert_eq!(report.files_sent, 3);
}

#[tokio::test]
async fn known_hashes_save_reading() {
    let (dir, hashes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["a", "b"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    settle(dir.path());
    let mut before: Option<Received> = None;
    for expected in [vec!["a", "b"], vec![], vec!["b"]] {
        if expected.len() == 1 {
            fs::write(dir.path().join("b"), "B").unwrap();
            settle(dir.path());
        }
        let opened = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&opened);
        let watched = hooked(tree(dir.path()), move |op| {
            if let Op::Open(path) = op {
                seen.lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(path).into_owned());
            }
            Ok(())
        });
        // A new one each time, as in another process.
        let cache: Arc<dyn HashCache> = Arc::new(DirHashCache::new(hashes.path()));
        let policies = FilePolicies::new().sync(SyncPolicy::Content(ContentOptions::new().cache(cache)));
        let options = SendOptions::new().policies(policies);
        let (report, got) = transfer_some(Arc::new(watched), options, |_| false).await;
        report.unwrap();
        assert_eq!(*opened.lock().unwrap(), expected);
        if let Some(before) = before {
            assert_eq!(key(before.stat("a")), key(got.stat("a")));
            assert_eq!(key(before.stat("b")) == key(got.stat("b")), expected.is_empty());
        }
        before = Some(got);
    }
}

#[tokio::test]
async fn hashes_that_cannot_be_saved_are_a_warning() {
    struct Full;
    impl HashCache for Full {
        fn get(&self, _: &bk_fsync::policy::HashKey) -> Option<[u8; 32]> {
            None
        }
        fn put(&self, _: &bk_fsync::policy::HashKey, _: &[u8; 32]) {}
        fn flush(&self) -> std::io::Result<()> {
            Err(std::io::Error::other("disk full"))
        }
    }
    let watch = Arc::new(Warnings::default());
    let sync = SyncPolicy::Content(ContentOptions::new().cache(Arc::new(Full)));
    let options = SendOptions::new()
        .policies(FilePolicies::new().sync(sync))
        .observer(watch.clone());
    transfer(MemoryTree::new(), options).await.0.unwrap();
    let said = watch.0.lock().unwrap().concat();
    assert_eq!(said, "cannot remember the hashes of files: disk full");
}

#[tokio::test]
async fn files_of_memory_are_told_apart_by_content() {
    let memory = |text: &'static str| {
        let mut memory = MemoryTree::new();
        memory.add_file("Dockerfile", 0o644, text).unwrap();
        memory
    };
    let policies = FilePolicies::new();
    let (_, first) = again(memory("FROM a"), &policies, &Received::default()).await;
    let (same, _) = again(memory("FROM a"), &policies, &first).await;
    let (other, _) = again(memory("FROM b"), &policies, &first).await;
    assert_eq!((same.files_sent, other.files_sent), (0, 1));
}

#[tokio::test]
async fn checkouts_with_different_umasks_look_the_same() {
    let announced = async |bits: u32, mode| {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "f").unwrap();
        fs::write(dir.path().join("x"), "x").unwrap();
        for (name, full) in [("d", 0o777), ("d/f", 0o666), ("x", 0o777)] {
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(full & !bits)).unwrap();
        }
        let policies = FilePolicies::new()
            .mode(mode)
            .owner(OwnerPolicy::Fixed { uid: 4, gid: 5 });
        let options = SendOptions::new().policies(policies);
        let (_, got) = transfer(tree(dir.path()), options).await;
        got.stats
            .iter()
            .map(|s| (s.mode & 0o7777, s.uid, s.gid))
            .collect::<Vec<_>>()
    };
    let wanted = [(0o755, 4, 5), (0o644, 4, 5), (0o755, 4, 5)];
    assert_eq!(announced(0o002, ModePolicy::Git).await, wanted);
    assert_eq!(announced(0o022, ModePolicy::Git).await, wanted);
    assert_ne!(announced(0o002, ModePolicy::Keep).await, wanted);
}

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl SendObserver for Warnings {
    fn warning(&self, warning: &Warning<'_>) {
        self.0.lock().unwrap().push(warning.to_string());
    }
}

#[tokio::test]
async fn a_file_that_changes_after_it_was_listed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    for (policies, sent) in [
        (FilePolicies::new(), false),
        (FilePolicies::new().change(ChangePolicy::Retry(1)), true),
        (FilePolicies::new().change(ChangePolicy::Warn), true),
        (content().change(ChangePolicy::Warn), false),
        (content().change(ChangePolicy::Retry(1)), false),
    ] {
        fs::write(&file, "old").unwrap();
        set_time(&file, 1_600_000_000);
        settle(dir.path());
        let (path, changed) = (file.clone(), Mutex::new(0));
        let by_content = matches!(policies.sync, SyncPolicy::Content(_));
        let tree = hooked(tree(dir.path()), move |op| {
            if let Op::Open(b"f") = op {
                let mut opened = changed.lock().unwrap();
                *opened += 1;
                // The first time it is opened for its content, not for its hash.
                if *opened == 1 + i32::from(by_content) {
                    fs::write(&path, "new").unwrap();
                    set_time(&path, 1_600_000_000);
                }
            }
            Ok(())
        });
        let watch = Arc::new(Warnings::default());
        let warns = policies.change == ChangePolicy::Warn && sent;
        let options = SendOptions::new()
            .policies(policies.clone())
            .observer(watch.clone());
        let (outcome, got) = transfer(tree, options).await;
        assert_eq!(outcome.is_ok(), sent, "{policies:?}: {outcome:?}");
        if sent {
            assert_eq!(got.files[&b"f"[..]], b"new");
        } else {
            let told = got.error.unwrap();
            assert!(told.contains("\"f\": it changed after it was listed"), "{told}");
        }
        let said = watch.0.lock().unwrap().concat();
        assert_eq!(
            said == "\"f\" was sent although it changed after it was listed",
            warns,
            "{said}"
        );
    }
}
