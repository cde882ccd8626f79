//! Uploads as they are begun, broken off and taken up again, by one writer and by several.

use std::time::Duration;

use super::*;

fn layout() -> (tempfile::TempDir, Arc<Layout>) {
    let dir = tempfile::tempdir().expect("a directory");
    let layout = Layout::open(dir.path()).expect("a layout");
    (dir, Arc::new(layout))
}

fn digest(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(bytes);
    hasher.digest()
}

fn begin(layout: &Arc<Layout>, reference: &str, total: u64) -> Ingest {
    Ingest::open(layout.clone(), reference, total, None, true).expect("an upload")
}

fn uploads(layout: &Layout) -> Vec<(String, u64)> {
    let all = statuses(layout).expect("a list");
    all.into_iter().map(|s| (s.reference, s.offset)).collect()
}

#[test]
fn an_upload_is_taken_up_again_with_its_digest() {
    let (dir, layout) = layout();
    let mut first = begin(&layout, "../../evil\n", 6);
    first.write(0, b"abc").expect("written");
    let started = first.status().started;
    drop(first);
    assert_eq!(uploads(&layout), [("../../evil\n".to_owned(), 3)]);

    let mut second = begin(&layout, "../../evil\n", 6);
    assert_eq!(second.status().offset, 3);
    assert_eq!(second.digest(), digest(b"abc"));
    let apart = |a: SystemTime, b: SystemTime| a.duration_since(b).unwrap_or_else(|e| e.duration());
    assert!(apart(second.status().started, started) < Duration::from_millis(1));
    second.write(3, b"def").expect("written");
    let whole = second.commit(6, Some(&digest(b"abcdef"))).expect("a blob");
    let place = dir.path().join("blobs/sha256").join(whole.hex());
    assert_eq!(std::fs::read(&place).expect("a blob"), b"abcdef");
    let mode = std::fs::metadata(&place).expect("a blob").permissions().mode();
    assert_eq!(mode & 0o222, 0);
    assert!(uploads(&layout).is_empty());
    // Nothing lies where the name led.
    assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 2);
}

#[test]
fn what_is_to_be_something_else_begins_again() {
    let (_dir, layout) = layout();
    begin(&layout, "r", 9).write(0, b"abc").expect("written");
    let mut other = begin(&layout, "r", 4);
    assert_eq!(other.status().offset, 0);
    other.write(0, b"abcd").expect("written");
    assert!(matches!(other.write(4, b"e"), Err(Fault::OutOfRange(_))));
    assert!(matches!(other.write(3, b""), Err(Fault::OutOfRange(_))));
    other.write(0, b"xy").expect("begun again");
    assert_eq!((other.status().offset, other.digest()), (2, digest(b"xy")));
    assert!(matches!(other.commit(4, None), Err(Fault::Mismatch(_))));
    drop(other);
    assert_eq!(uploads(&layout), [("r".to_owned(), 2)]);
    // Without a size it may have become anything.
    assert_eq!(begin(&layout, "r", 0).status().offset, 2);
}

#[test]
fn one_writer_at_a_time() {
    let (dir, layout) = layout();
    let mut first = begin(&layout, "r", 0);
    first.write(0, b"abc").expect("written");
    // As another process would see it.
    let theirs = Arc::new(Layout::open(dir.path()).expect("a layout"));
    let second = || Ingest::open(theirs.clone(), "r", 0, None, true);
    assert!(matches!(second(), Err(Fault::Busy)));
    assert!(matches!(abort(&theirs, "r"), Err(Fault::Busy)));
    assert_eq!(
        expire(&theirs, SystemTime::now() + Duration::from_secs(60)).expect("done"),
        3
    );
    first.commit(3, None).expect("a blob");
    // The file that was locked is a blob now, and is not written to.
    drop(first);
    let mut again = second().expect("an upload");
    again.write(0, b"abc").expect("written");
    assert!(matches!(again.commit(0, None), Err(Fault::Exists(d)) if d == digest(b"abc")));
    assert!(uploads(&layout).is_empty());
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let (dir, layout) = layout();
    let mut upload = begin(&layout, "r", 0);
    upload.write(0, b"abc").expect("written");
    assert!(matches!(
        upload.commit(0, Some(&digest(b"abd"))),
        Err(Fault::Mismatch(_))
    ));
    drop(upload);
    assert!(uploads(&layout).is_empty());
    assert!(!dir.path().join("blobs").exists());
    // Another algorithm than that of the beginning.
    let mut upload = begin(&layout, "r", 0);
    upload.write(0, b"abc").expect("written");
    let text = "sha384:cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7";
    let expected = Digest::parse(text).expect("a digest");
    assert_eq!(upload.commit(3, Some(&expected)).expect("a blob"), expected);
    assert!(dir.path().join("blobs/sha384").join(expected.hex()).exists());
}

#[test]
fn results_keep_no_parts() {
    let (dir, layout) = layout();
    let mut upload = Ingest::open(layout.clone(), "r", 0, None, false).expect("an upload");
    upload.write(0, b"abc").expect("written");
    drop(upload);
    assert!(uploads(&layout).is_empty());
    layout.tidy(false);
    assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
}

#[test]
fn old_uploads_expire() {
    let (_dir, layout) = layout();
    begin(&layout, "a", 0).write(0, b"abc").expect("written");
    let past = SystemTime::now() - Duration::from_secs(60);
    assert_eq!(expire(&layout, past).expect("done"), 3);
    assert_eq!(
        expire(&layout, SystemTime::now() + Duration::from_secs(60)).expect("done"),
        0
    );
    assert!(uploads(&layout).is_empty());
    assert!(matches!(abort(&layout, "a"), Err(Fault::Io(_))));
}

#[test]
fn links_are_not_followed() {
    let (dir, layout) = layout();
    let outside = tempfile::tempdir().expect("a directory");
    let abc = digest(b"abc");
    std::fs::write(outside.path().join(abc.hex()), "abc").expect("writable");
    std::os::unix::fs::symlink(outside.path(), dir.path().join("ingest")).expect("a link");
    assert!(Ingest::open(layout.clone(), "r", 0, None, true).is_err());
    std::fs::create_dir(dir.path().join("blobs")).expect("a directory");
    std::os::unix::fs::symlink(outside.path(), dir.path().join("blobs/sha256")).expect("a link");
    assert!(layout.blob(&abc).is_err() && layout.list().is_err());
    std::fs::remove_file(dir.path().join("blobs/sha256")).expect("a link");
    std::fs::create_dir(dir.path().join("blobs/sha256")).expect("a directory");
    let blob = dir.path().join("blobs/sha256").join(abc.hex());
    std::os::unix::fs::symlink(outside.path().join(abc.hex()), &blob).expect("a link");
    assert!(layout.blob(&abc).is_err() && layout.list().expect("a list").is_empty());
    // Nor is anything opened that never ends.
    std::fs::remove_file(&blob).expect("a link");
    rustix::fs::mkfifoat(rustix::fs::CWD, &blob, rustix::fs::Mode::from_raw_mode(0o600)).expect("a pipe");
    assert!(layout.blob(&abc).is_err());
    assert_eq!(std::fs::read_dir(outside.path()).expect("readable").count(), 1);
}
