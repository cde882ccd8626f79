//! Trees on disk with everything that a Unix file system can hold.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use bk_fsync::{
    DirTree, FilesTree, FilterOptions, MemoryTree, OwnerPolicy, SendError, SendObserver, SendOptions,
    Utf8Policy, Warning,
};
use rustix::fs::{CWD, Mode, OFlags};

use crate::peer::{transfer, transfer_some};

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl SendObserver for Warnings {
    fn warning(&self, warning: &Warning<'_>) {
        self.0.lock().unwrap().push(warning.to_string());
    }
}

fn put(dir: &Path, name: &[u8], mode: u32, content: &[u8]) {
    let path = dir.join(OsStr::from_bytes(name));
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn filter(include: &[&str], exclude: &[&str], follow: &[&str]) -> FilterOptions {
    let bytes = |list: &[&str]| list.iter().map(|p| p.as_bytes().to_vec()).collect();
    FilterOptions::new(bytes(include), bytes(exclude), bytes(follow))
}

#[tokio::test]
async fn every_kind_of_entry_arrives_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    put(root, b"secret", 0o600, b"s3cret");
    put(root, b"suid", 0o4755, b"#!");
    put(root, b"empty", 0o644, b"");
    put(root, b"bad\xff\xfename", 0o644, b"odd");
    put(root, b"big", 0o644, &vec![7; 1_000_003]);
    fs::create_dir(root.join("d")).unwrap();
    fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o1777)).unwrap();
    put(&root.join("d"), b"x", 0o644, b"x");
    put(root, b"d-x", 0o644, b"between d and d/x in byte order");
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    symlink(OsStr::from_bytes(b"to\xff"), root.join("oddlink")).unwrap();
    rustix::fs::mkfifoat(CWD, root.join("fifo"), Mode::from_raw_mode(0o620)).unwrap();
    fs::set_permissions(root.join("fifo"), fs::Permissions::from_mode(0o620)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("sock")).unwrap();
    let time = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    fs::File::open(root.join("secret"))
        .unwrap()
        .set_modified(time)
        .unwrap();

    let watch = Arc::new(Warnings::default());
    let options = SendOptions::new().observer(watch.clone());
    let (report, got) = transfer(DirTree::open(root).unwrap(), options).await;
    let report = report.unwrap();
    let paths = [
        "bad\\xff\\xfename",
        "big",
        "d",
        "d/x",
        "d-x",
        "dangling",
        "empty",
        "fifo",
        "oddlink",
        "secret",
        "suid",
    ];
    assert_eq!(got.paths(), paths);
    assert!(got.finished);
    assert_eq!(got.stat("secret").mode, 0o600);
    assert_eq!(
        got.stat("secret").mod_time.div_euclid(1_000_000_000),
        1_700_000_000
    );
    assert_eq!(got.stat("suid").mode, 0o755 | 1 << 23);
    assert_eq!(got.stat("d").mode, 0o777 | 1 << 20 | 1 << 31);
    assert_eq!(got.stat("fifo").mode, 0o620 | 1 << 25);
    assert_eq!(got.stat("dangling").linkname, b"/nowhere/at/all");
    assert_eq!(got.stat("dangling").size, 15);
    assert_eq!(got.stat("oddlink").linkname, b"to\xff");
    assert!(got.stats.iter().all(|s| (s.uid, s.gid) == (0, 0)));
    let contents: Vec<_> = got.files.iter().map(|(p, c)| (p.as_slice(), c.len())).collect();
    let sizes: [(&[u8], usize); 7] = [
        (b"bad\xff\xfename", 3),
        (b"big", 1_000_003),
        (b"d/x", 1),
        (b"d-x", 31),
        (b"empty", 0),
        (b"secret", 6),
        (b"suid", 2),
    ];
    assert_eq!(contents.len(), sizes.len());
    assert!(sizes.iter().all(|s| contents.contains(s)));
    assert_eq!(got.files[&b"secret"[..]], b"s3cret");
    assert!(got.files[&b"big"[..]].iter().all(|b| *b == 7));
    assert_eq!(
        (report.entries, report.files_requested, report.files_sent),
        (11, 7, 7)
    );
    assert_eq!(
        (report.bytes_offered, report.bytes_sent, report.sockets_skipped),
        (1_000_046, 1_000_046, 1)
    );
    let odd = "has a name or link target that is not valid UTF-8";
    let warnings = [
        format!("\"bad\\\\xff\\\\xfename\" {odd}"),
        format!("\"oddlink\" {odd}"),
        "skipped socket \"sock\"".to_owned(),
    ];
    assert_eq!(*watch.0.lock().unwrap(), warnings);
}

#[tokio::test]
async fn owners_are_kept_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), b"f", 0o644, b"");
    let found = fs::metadata(dir.path().join("f")).unwrap();
    let options = SendOptions::new().owner(OwnerPolicy::Keep);
    let (_, got) = transfer(DirTree::open(dir.path()).unwrap(), options).await;
    assert_eq!((got.stat("f").uid, got.stat("f").gid), (found.uid(), found.gid()));
}

#[tokio::test]
async fn the_first_survivor_of_a_group_of_hard_links_is_the_file() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), b"a", 0o644, b"shared");
    for name in ["b", "c", "d"] {
        fs::hard_link(dir.path().join("a"), dir.path().join(name)).unwrap();
    }
    let (report, all) = transfer(DirTree::open(dir.path()).unwrap(), SendOptions::new()).await;
    let links: Vec<_> = all.stats.iter().map(|s| s.linkname.as_slice()).collect();
    assert_eq!(links, [&b""[..], b"a", b"a", b"a"]);
    assert_eq!(all.files.len(), 1);
    assert_eq!(all.stat("d").size, 6);
    assert_eq!(report.unwrap().bytes_offered, 6);
    let options = SendOptions::new().filter(filter(&[], &["a", "c"], &[]));
    let (_, some) = transfer(DirTree::open(dir.path()).unwrap(), options).await;
    let links: Vec<_> = some
        .stats
        .iter()
        .map(|s| (s.path.as_slice(), s.linkname.as_slice()))
        .collect();
    assert_eq!(links, [(&b"b"[..], &b""[..]), (b"d", b"b")]);
    assert_eq!(some.files[&b"b"[..]], b"shared");
}

#[tokio::test]
async fn names_that_are_no_utf8_can_be_refused() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), b"fine", 0o644, b"");
    put(dir.path(), b"q\xe9", 0o644, b"");
    let strict = SendOptions::new().names(Utf8Policy::RequireUtf8);
    let (outcome, got) = transfer(DirTree::open(dir.path()).unwrap(), strict.clone()).await;
    assert!(matches!(outcome, Err(SendError::List(_))));
    let text = got.error.unwrap();
    assert!(text.contains("the name of \"q\\\\xe9\""), "{text}");
    // What is hidden does not matter.
    let hidden = strict.filter(filter(&["fine"], &[], &[]));
    let (outcome, _) = transfer(DirTree::open(dir.path()).unwrap(), hidden).await;
    assert_eq!(outcome.unwrap().entries, 1);
}

#[tokio::test]
async fn extended_attributes_travel() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), b"f", 0o644, b"");
    let file = dir.path().join("f");
    let set =
        |name: &str, value: &[u8]| rustix::fs::setxattr(&file, name, value, rustix::fs::XattrFlags::empty());
    if set("user.small", b"\x00\xff").is_err() {
        // This file system has none; the memory tree in the other test has.
        return;
    }
    // File systems differ in how large a value may be.
    let large = vec![b'v'; 2000];
    let has_large = set("user.large", &large).is_ok();
    set("user.com.apple.quarantine", b"q").unwrap();
    let (_, got) = transfer(DirTree::open(dir.path()).unwrap(), SendOptions::new()).await;
    let xattrs = &got.stat("f").xattrs;
    assert_eq!(xattrs["user.small"], b"\x00\xff");
    assert_eq!(xattrs.contains_key("user.large"), has_large);
    assert!(xattrs.contains_key("user.com.apple.quarantine"));
}

#[tokio::test]
async fn attributes_of_macos_stay_here() {
    let mut tree = MemoryTree::new();
    tree.add_file("f", 0o644, "").unwrap();
    tree.edit("f", |_, xattrs| {
        xattrs.push((b"com.apple.provenance".to_vec(), vec![1]));
        xattrs.push((b"security.capability".to_vec(), vec![2]));
    })
    .unwrap();
    let (_, got) = transfer(tree, SendOptions::new()).await;
    assert_eq!(
        got.stat("f").xattrs.keys().collect::<Vec<_>>(),
        ["security.capability"]
    );
}

#[tokio::test]
async fn trees_two_thousand_levels_deep() {
    let dir = tempfile::tempdir().unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
    let put_in = |at: &std::os::fd::OwnedFd, name: &str| {
        let file = rustix::fs::openat(at, name, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        rustix::io::write(&file, name.as_bytes()).unwrap();
    };
    for level in 0..2000 {
        rustix::fs::mkdirat(&at, "ddd", Mode::RWXU).unwrap();
        if level % 500 == 0 {
            // Comes after the directory, so the walk has to come back to it.
            put_in(&at, "later");
        }
        at = rustix::fs::openat(&at, "ddd", flags, Mode::empty()).unwrap();
    }
    put_in(&at, "deep");
    let (report, got) = transfer(DirTree::open(dir.path()).unwrap(), SendOptions::new()).await;
    assert_eq!(report.unwrap().entries, 2005);
    let deepest = got.stats.iter().find(|s| s.path.ends_with(b"/deep")).unwrap();
    assert_eq!(deepest.path.len(), 2000 * 4 + 4);
    assert_eq!(got.files[&deepest.path], b"deep");
    assert_eq!(got.stats[2004].path, b"later");
    flatten(dir.path());
}

/// Takes a deep chain of directories apart from the top, since removing it in one go holds a handle for each.
fn flatten(dir: &Path) {
    let (chain, spare) = (dir.join("ddd"), dir.join("spare"));
    while chain.exists() {
        let _ = fs::rename(chain.join("ddd"), &spare);
        for entry in fs::read_dir(&chain).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::remove_dir(&chain).unwrap();
        let _ = fs::rename(&spare, &chain);
    }
}

#[tokio::test]
async fn chosen_files_are_served_without_their_directory() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), b"app.Dockerfile", 0o640, b"FROM scratch");
    put(dir.path(), b"other", 0o644, b"not for the daemon");
    let names = ["app.Dockerfile", "app.Dockerfile.dockerignore"];
    let tree = FilesTree::in_dir(dir.path(), names).unwrap();
    let options = SendOptions::new().filter(filter(&[], &[], &names));
    let (report, got) = transfer(tree, options).await;
    assert_eq!(report.unwrap().entries, 1);
    assert_eq!(got.stat("app.Dockerfile").mode, 0o640);
    assert_eq!(got.files[&b"app.Dockerfile"[..]], b"FROM scratch");
}

#[tokio::test]
async fn an_unchanged_tree_sends_metadata_only() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..200 {
        put(dir.path(), format!("f{i}").as_bytes(), 0o644, &[b'x'; 100]);
    }
    let tree = Arc::new(DirTree::open(dir.path()).unwrap());
    let (report, _) = transfer_some(tree, SendOptions::new(), |_| false).await;
    let report = report.unwrap();
    assert_eq!((report.entries, report.bytes_offered), (200, 20_000));
    assert_eq!(
        (report.files_requested, report.files_sent, report.bytes_sent),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn links_on_disk_are_followed_to_what_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("real/deep")).unwrap();
    put(&dir.path().join("real/deep"), b"wanted", 0o644, b"yes");
    put(&dir.path().join("real/deep"), b"other", 0o644, b"no");
    put(dir.path(), b"unrelated", 0o644, b"no");
    symlink("/real", dir.path().join("abs")).unwrap();
    symlink("../../../real/deep/wanted", dir.path().join("real/up")).unwrap();
    let options = SendOptions::new().filter(filter(&[], &[], &["abs/up", "missing/file"]));
    let (report, got) = transfer(DirTree::open(dir.path()).unwrap(), options).await;
    report.unwrap();
    assert_eq!(
        got.paths(),
        ["abs", "real", "real/deep", "real/deep/wanted", "real/up"]
    );
    assert_eq!(got.files.keys().collect::<Vec<_>>(), [b"real/deep/wanted"]);
}

#[derive(Default)]
struct Counts(Mutex<(u64, u64, u64, u64, u64)>);

impl SendObserver for Counts {
    fn listed(&self, entries: u64, bytes: u64) {
        let mut counts = self.0.lock().unwrap();
        (counts.0, counts.1) = (entries, bytes);
    }

    fn requested(&self, _: &[u8], _: u64) {
        self.0.lock().unwrap().2 += 1;
    }

    fn sent_bytes(&self, bytes: u64) {
        self.0.lock().unwrap().3 += bytes;
    }

    fn file_sent(&self, path: &[u8], size: u64) {
        assert_eq!((path, size), (&b"d/f"[..], 200_000));
        self.0.lock().unwrap().4 += 1;
    }
}

#[tokio::test]
async fn an_observer_sees_it_all() {
    let mut tree = MemoryTree::new();
    tree.add_file("d/f", 0o644, vec![1; 200_000]).unwrap();
    tree.add_file("d/g", 0o644, vec![1; 10]).unwrap();
    let watch = Arc::new(Counts::default());
    let options = SendOptions::new().observer(watch.clone());
    let (report, _) = transfer_some(Arc::new(tree), options, |s| s.path == b"d/f").await;
    assert_eq!(report.unwrap().bytes_offered, 200_010);
    assert_eq!(*watch.0.lock().unwrap(), (3, 200_010, 1, 200_000, 1));
}
