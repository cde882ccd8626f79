//! How the daemon tells which files it lacks: the time of modification that is announced for each.
//!
//! The facts: a daemon asks for a file again when its size or its time differs, in any digit; it leaves times out of its
//! cache keys, and layers hold whole seconds. So the digits below the second are free to carry a tag that
//! differs whenever the file may differ. The rule: equal tags mean equal files, and when in doubt a tag is never used
//! twice, so that the file is sent again.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::cache::{HashCache, HashKey};
use crate::entry::{Entry, Kind, Meta};
use crate::limits::{COARSE_RACY_NS, CONTENT_SECONDS, DATA_CHUNK, RACY_NS};
use crate::path::RelPath;
use crate::read::Content;
use crate::tree::Tree;

const SECOND: i64 = 1_000_000_000;

/// How the daemon tells which files it lacks.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// By what the file system knows of each file. The whole seconds go out as they are; the digits below are a tag
    /// made of device, number, time of the last change (`ctime`), true time of modification and extended attributes.
    /// A write that restores size and time is sent all the same. No file is read for it, except in trees whose files
    /// have no number (such as those in memory): there the tag is made of the content.
    ///
    /// A file that changed so recently that a further change could have the same time gets a tag that is never used
    /// again, so it is sent once more by the next build.
    #[default]
    Exact,
    /// By size and time alone, as upstream's client: a changed file of the same size and time is **not** sent, and the
    /// image holds the old one.
    Mtime,
    /// By content. The time of every entry is the same fixed second, and the digits below it are a tag made of the
    /// SHA-256 of the content and the extended attributes: a fresh copy of a tree that the daemon has sends no file.
    /// Every file that is offered is read for it, unless a [cache](ContentOptions::cache) knows its hash.
    Content(ContentOptions),
}

/// What goes with [`SyncPolicy::Content`].
#[derive(Clone)]
#[non_exhaustive]
pub struct ContentOptions {
    /// The time of every entry, in seconds since the Unix epoch. It shows in the image. Default:
    /// [`CONTENT_SECONDS`]. The value of `SOURCE_DATE_EPOCH` belongs here.
    pub seconds: i64,
    /// Where hashes are remembered between transfers. Default: nowhere.
    pub cache: Option<Arc<dyn HashCache>>,
}

impl Default for ContentOptions {
    fn default() -> Self {
        ContentOptions {
            seconds: CONTENT_SECONDS,
            cache: None,
        }
    }
}

impl fmt::Debug for ContentOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentOptions")
            .field("seconds", &self.seconds)
            .field("cache", &self.cache.is_some())
            .finish()
    }
}

impl ContentOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time of every entry, in seconds since the Unix epoch. Default: [`CONTENT_SECONDS`].
    #[must_use]
    pub fn seconds(mut self, seconds: i64) -> Self {
        self.seconds = seconds;
        self
    }

    /// Sets where hashes are remembered. Default: nowhere.
    #[must_use]
    pub fn cache(mut self, cache: Arc<dyn HashCache>) -> Self {
        self.cache = Some(cache);
        self
    }
}

/// A number that tells whether a file is still the one that it was, within this process. 0: the tree cannot tell.
pub(crate) fn identity(meta: &Meta) -> u64 {
    if meta.ino == 0 {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    (meta.dev, meta.ino, meta.ctime_ns, meta.mtime_ns, meta.size).hash(&mut hasher);
    hasher.finish() | 1
}

/// Makes the times that are announced.
pub(crate) struct Stamper<'a> {
    tree: &'a dyn Tree,
    policy: &'a SyncPolicy,
    stop: &'a AtomicBool,
    /// The time announced for files with several names: all names must have the same.
    linked: HashMap<(u64, u64), i64>,
    /// The present, in nanoseconds since the epoch.
    clock: fn() -> i64,
    once: u64,
}

impl<'a> Stamper<'a> {
    pub(crate) fn new(tree: &'a dyn Tree, policy: &'a SyncPolicy, stop: &'a AtomicBool) -> Self {
        Stamper {
            tree,
            policy,
            stop,
            linked: HashMap::new(),
            clock: present,
            once: 0,
        }
    }

    /// The time to announce for `entry`, in nanoseconds since the epoch. May read the file.
    pub(crate) fn mod_time(&mut self, entry: &Entry) -> i64 {
        let meta = &entry.meta;
        if meta.kind == Kind::Dir || matches!(self.policy, SyncPolicy::Mtime) {
            return seconds_only(self.policy, meta.mtime_ns);
        }
        let key = (meta.dev, meta.ino);
        let linked = meta.nlink > 1 && meta.kind == Kind::File && meta.ino != 0;
        if linked && let Some(known) = self.linked.get(&key) {
            return *known;
        }
        let (seconds, tag) = match self.policy {
            SyncPolicy::Content(options) => {
                (options.seconds, self.content_tag(entry, options.cache.as_deref()))
            }
            _ if meta.ino == 0 => (meta.mtime_ns.div_euclid(SECOND), self.content_tag(entry, None)),
            _ => (meta.mtime_ns.div_euclid(SECOND), self.exact_tag(entry)),
        };
        let time = at(seconds, tag);
        if linked {
            self.linked.insert(key, time);
        }
        time
    }

    /// Saves what the cache of hashes has learned.
    pub(crate) fn finish(&self) -> io::Result<()> {
        match self.policy {
            SyncPolicy::Content(options) => options.cache.as_ref().map_or(Ok(()), |cache| cache.flush()),
            _ => Ok(()),
        }
    }

    fn exact_tag(&mut self, entry: &Entry) -> u32 {
        let meta = &entry.meta;
        let mut hash = Sha256::new_with_prefix(b"bk exact 1\0");
        for number in [
            meta.dev,
            meta.ino,
            meta.ctime_ns.cast_unsigned(),
            meta.mtime_ns.cast_unsigned(),
        ] {
            hash.update(number.to_le_bytes());
        }
        add_xattrs(&mut hash, entry);
        if is_racy(meta, (self.clock)()) {
            self.add_once(&mut hash);
        }
        digits(hash)
    }

    /// The tag of a content. A file that cannot be hashed, or changes meanwhile, gets one that is used once: the
    /// daemon asks for the file then, and reading it says what is wrong.
    fn content_tag(&mut self, entry: &Entry, cache: Option<&dyn HashCache>) -> u32 {
        let mut hash = Sha256::new_with_prefix(b"bk content 1\0");
        if entry.meta.kind == Kind::File {
            match self.content_hash(entry, cache) {
                Some(content) => hash.update(content),
                None => self.add_once(&mut hash),
            }
        }
        hash.update(&entry.target);
        add_xattrs(&mut hash, entry);
        digits(hash)
    }

    fn content_hash(&self, entry: &Entry, cache: Option<&dyn HashCache>) -> Option<[u8; 32]> {
        let meta = &entry.meta;
        // A hash of a file that may change within the same tick of its file system must not be remembered.
        let cache = cache.filter(|_| meta.ino != 0 && !is_racy(meta, (self.clock)()));
        let key = HashKey::of(meta);
        if let Some(known) = cache.and_then(|cache| cache.get(&key)) {
            return Some(known);
        }
        let mut file = self.tree.open(RelPath::trusted(&entry.path)).ok()?;
        let same = |found: Meta| {
            found.kind == Kind::File
                && found.size == meta.size
                && (found.ino == 0 || identity(&found) == identity(meta))
        };
        if !same(file.stat().ok()?) {
            return None;
        }
        let mut hash = Sha256::new();
        let mut content = Content::new(&mut *file);
        let mut read = 0u64;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let piece = content.next(DATA_CHUNK).ok()?;
            if piece.is_empty() {
                break;
            }
            read = read.saturating_add(piece.len() as u64);
            if read > meta.size {
                return None;
            }
            hash.update(&piece);
        }
        if read != meta.size || !same(file.stat().ok()?) {
            return None;
        }
        let hash = hash.finalize().into();
        if let Some(cache) = cache {
            cache.put(&key, &hash);
        }
        Some(hash)
    }

    fn add_once(&mut self, hash: &mut Sha256) {
        self.once += 1;
        hash.update(b"\0once");
        hash.update((self.clock)().to_le_bytes());
        hash.update(self.once.to_le_bytes());
        hash.update(std::process::id().to_le_bytes());
    }
}

/// The time that is announced for what carries no tag.
pub(crate) fn seconds_only(policy: &SyncPolicy, mtime_ns: i64) -> i64 {
    match policy {
        SyncPolicy::Content(options) => at(options.seconds, 0),
        _ => mtime_ns,
    }
}

/// Whether a change right after this one could leave the same time behind: file systems take times from a clock that
/// ticks, and some keep whole seconds only.
fn is_racy(meta: &Meta, now: i64) -> bool {
    let window = if meta.ctime_ns % SECOND == 0 {
        COARSE_RACY_NS
    } else {
        RACY_NS
    };
    now.saturating_sub(meta.ctime_ns).saturating_abs() < window
}

fn present() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn add_xattrs(hash: &mut Sha256, entry: &Entry) {
    // In the order of their names: a file system may list them in any.
    let mut sorted: Vec<_> = entry.xattrs.iter().collect();
    sorted.sort_unstable();
    for bytes in sorted.into_iter().flat_map(|(name, value)| [name, value]) {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
}

/// Nanoseconds below a second, made of a hash.
fn digits(hash: Sha256) -> u32 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    u32::try_from(u64::from_le_bytes(first) % SECOND.cast_unsigned()).unwrap_or_default()
}

/// A time from its parts, kept within what 64 bits of nanoseconds hold without touching the digits.
fn at(seconds: i64, digits: u32) -> i64 {
    const MOST: i64 = i64::MAX / SECOND - 1;
    seconds.clamp(-MOST, MOST) * SECOND + i64::from(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryTree;

    const LATER: fn() -> i64 = || 2_000_000_000 * SECOND;

    fn entry(path: &str, change: impl FnOnce(&mut Meta)) -> Entry {
        let mut meta = Meta::new(Kind::File);
        (meta.dev, meta.ino, meta.size) = (1, 2, 3);
        (meta.mtime_ns, meta.ctime_ns) = (1_600_000_000_123_456_789, 1_700_000_000_987_654_321);
        change(&mut meta);
        Entry {
            path: path.into(),
            meta,
            target: Vec::new(),
            xattrs: Vec::new(),
        }
    }

    fn times(tree: &dyn Tree, policy: &SyncPolicy, clock: fn() -> i64, entries: &[Entry]) -> Vec<i64> {
        let stop = AtomicBool::new(false);
        let mut stamper = Stamper::new(tree, policy, &stop);
        stamper.clock = clock;
        entries.iter().map(|e| stamper.mod_time(e)).collect()
    }

    #[test]
    fn an_exact_tag_follows_every_trace_of_a_change() {
        let tree = MemoryTree::new();
        let mut attribute = entry("f", |_| {});
        attribute.xattrs.push((b"user.a".to_vec(), b"1".to_vec()));
        let mut split = entry("f", |_| {});
        split.xattrs.push((b"user.".to_vec(), b"a1".to_vec()));
        let entries = [
            entry("f", |_| {}),
            entry("f", |m| m.dev = 2),
            entry("f", |m| m.ino = 3),
            entry("f", |m| m.ctime_ns += 1),
            entry("f", |m| m.mtime_ns += 1),
            attribute,
            split,
        ];
        let found = times(&tree, &SyncPolicy::Exact, LATER, &entries);
        assert!(found.iter().all(|t| t.div_euclid(SECOND) == 1_600_000_000));
        let mut distinct = found.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), entries.len());
        assert_eq!(times(&tree, &SyncPolicy::Exact, LATER, &entries), found);
        let old = entry("f", |m| m.mtime_ns = -1);
        assert_eq!(
            times(&tree, &SyncPolicy::Exact, LATER, &[old])[0].div_euclid(SECOND),
            -1
        );
        let plain = times(&tree, &SyncPolicy::Mtime, LATER, &entries[..1]);
        assert_eq!(plain, [1_600_000_000_123_456_789]);
    }

    #[test]
    fn a_file_that_has_just_changed_gets_a_tag_of_its_own() {
        let tree = MemoryTree::new();
        let just: fn() -> i64 = || 1_700_000_000_987_654_321 + 5_000_000;
        let twice = [entry("f", |_| {}), entry("f", |_| {})];
        let found = times(&tree, &SyncPolicy::Exact, just, &twice);
        assert_ne!(found[0], found[1]);
        // But the names of one file share it.
        let names = [entry("f", |m| m.nlink = 2), entry("g", |m| m.nlink = 2)];
        let found = times(&tree, &SyncPolicy::Exact, just, &names);
        assert_eq!(found[0], found[1]);
        let coarse = entry("f", |m| m.ctime_ns = 1_700_000_000 * SECOND);
        assert!(is_racy(&coarse.meta, 1_700_000_001 * SECOND));
        assert!(!is_racy(&coarse.meta, 1_700_000_010 * SECOND));
    }

    #[test]
    fn a_content_tag_is_of_the_content() {
        let mut tree = MemoryTree::new();
        tree.add_file("a", 0o644, "abc").unwrap();
        tree.add_file("b", 0o644, "abc").unwrap();
        tree.add_file("c", 0o644, "abd").unwrap();
        let memory = |path| entry(path, |m| (m.dev, m.ino, m.mtime_ns) = (0, 0, 7));
        let entries = [memory("a"), memory("b"), memory("c")];
        let exact = times(&tree, &SyncPolicy::Exact, LATER, &entries);
        assert_eq!(exact[0], exact[1]);
        assert_ne!(exact[0], exact[2]);
        assert!(exact.iter().all(|t| (0..SECOND).contains(t)));
        let content = SyncPolicy::Content(ContentOptions::new());
        let found = times(&tree, &content, LATER, &entries);
        assert_eq!(found[0], CONTENT_SECONDS * SECOND + exact[0]);
        let other = SyncPolicy::Content(ContentOptions::new().seconds(9));
        assert_eq!(times(&tree, &other, LATER, &entries)[0], 9 * SECOND + exact[0]);
        let dir = entry("d", |m| m.kind = Kind::Dir);
        assert_eq!(times(&tree, &other, LATER, &[dir]), [9 * SECOND]);
        // What cannot be hashed is asked for.
        let gone = [memory("none"), memory("none")];
        let found = times(&tree, &content, LATER, &gone);
        assert_ne!(found[0], found[1]);
    }

    #[test]
    fn times_keep_their_digits_at_the_ends_of_the_range() {
        assert_eq!(at(i64::MAX, 5).rem_euclid(SECOND), 5);
        assert_eq!(at(i64::MIN, 5).rem_euclid(SECOND), 5);
    }
}
