//! Remembers hashes of files between transfers.
//!
//! The rule: a cache may forget anything at any time, but never answers for another version of a file. On disk,
//! what is broken is the same as what is missing.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::entry::Meta;
use crate::limits::{HASH_SHARD_RECORDS, HASH_SHARDS};

/// Which version of which file a hash is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct HashKey {
    /// Device that holds the file.
    pub dev: u64,
    /// Number of the file on its device.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Time of modification in nanoseconds since the Unix epoch.
    pub mtime_ns: i64,
    /// Time of the last change of content or metadata, likewise.
    pub ctime_ns: i64,
}

impl HashKey {
    /// The key for a file with this metadata.
    #[must_use]
    pub fn of(meta: &Meta) -> Self {
        HashKey {
            dev: meta.dev,
            ino: meta.ino,
            size: meta.size,
            mtime_ns: meta.mtime_ns,
            ctime_ns: meta.ctime_ns,
        }
    }

    fn digest(&self) -> [u8; KEY] {
        let mut hash = Sha256::new();
        for number in [
            self.dev,
            self.ino,
            self.size,
            self.mtime_ns.cast_unsigned(),
            self.ctime_ns.cast_unsigned(),
        ] {
            hash.update(number.to_le_bytes());
        }
        let mut key = [0; KEY];
        key.copy_from_slice(&hash.finalize()[..KEY]);
        key
    }
}

/// Remembers the SHA-256 of files. Called from blocking threads, of several transfers at once.
pub trait HashCache: Send + Sync {
    /// The hash of this version of the file, if it is known.
    fn get(&self, key: &HashKey) -> Option<[u8; 32]>;

    /// Takes note of a hash.
    fn put(&self, key: &HashKey, hash: &[u8; 32]);

    /// Called at the end of each listing: what was noted should survive from here on. The default does nothing.
    ///
    /// # Errors
    /// Whatever keeps it from being saved; a transfer reports that as a warning.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of a key on disk: a part of a hash of [`HashKey`].
const KEY: usize = 16;
/// Bytes of a key with its hash.
const RECORD: usize = KEY + 32;
/// The first bytes of a file of the cache; the last one is the version of the format.
const MAGIC: &[u8; 8] = b"bkhash\0\x01";

/// A cache in a directory of its own: at most [`HASH_SHARDS`] files of at most [`HASH_SHARD_RECORDS`] hashes (25 MiB in
/// all), read when they are first needed, replaced whole, and ignored when they are damaged.
///
/// Several processes may share the directory; what one of them writes at the same moment as another may be forgotten.
#[derive(Debug)]
pub struct DirHashCache {
    dir: PathBuf,
    shards: Vec<Mutex<Shard>>,
}

#[derive(Debug, Default)]
struct Shard {
    /// `None`: not read yet.
    known: Option<HashMap<[u8; KEY], Known>>,
    changed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    hash: [u8; 32],
    /// Whether this process has asked for it or noted it. The others are forgotten first.
    used: bool,
}

impl DirHashCache {
    /// Uses `dir`, which is made, for this user only, when there is something to write.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        DirHashCache {
            dir: dir.into(),
            shards: (0..HASH_SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    fn shard(&self, key: &[u8; KEY]) -> Option<(usize, MutexGuard<'_, Shard>)> {
        let index = usize::from(key[0]) % HASH_SHARDS;
        let shard = self.shards.get(index)?;
        Some((index, shard.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn file(&self, index: usize) -> PathBuf {
        self.dir.join(format!("{index:02x}"))
    }
}

impl Shard {
    fn known(&mut self, file: &Path) -> &mut HashMap<[u8; KEY], Known> {
        self.known.get_or_insert_with(|| load(file))
    }
}

impl HashCache for DirHashCache {
    fn get(&self, key: &HashKey) -> Option<[u8; 32]> {
        let key = key.digest();
        let (index, mut shard) = self.shard(&key)?;
        let found = shard.known(&self.file(index)).get_mut(&key)?;
        found.used = true;
        Some(found.hash)
    }

    fn put(&self, key: &HashKey, hash: &[u8; 32]) {
        let key = key.digest();
        let Some((index, mut shard)) = self.shard(&key) else {
            return;
        };
        let known = shard.known(&self.file(index));
        known.insert(
            key,
            Known {
                hash: *hash,
                used: true,
            },
        );
        shrink(known);
        shard.changed = true;
    }

    fn flush(&self) -> io::Result<()> {
        for (index, shard) in self.shards.iter().enumerate() {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            if !shard.changed {
                continue;
            }
            let file = self.file(index);
            // Another process may have added to it.
            let theirs = load(&file);
            let known = shard.known(&file);
            for (key, hash) in theirs {
                known.entry(key).or_insert(hash);
            }
            shrink(known);
            save(&self.dir, &file, known)?;
            shard.changed = false;
        }
        Ok(())
    }
}

/// Forgets what was not used, then anything, once there is too much; a quarter at a time, so that it stays rare.
fn shrink(known: &mut HashMap<[u8; KEY], Known>) {
    if known.len() <= HASH_SHARD_RECORDS {
        return;
    }
    for keep_used in [true, false] {
        let mut over = known.len().saturating_sub(HASH_SHARD_RECORDS / 4 * 3);
        known.retain(|_, k| {
            let goes = over > 0 && !(keep_used && k.used);
            over -= usize::from(goes);
            !goes
        });
    }
}

/// What a file holds; nothing if it is missing or damaged.
fn load(file: &Path) -> HashMap<[u8; KEY], Known> {
    read_whole(file).as_deref().and_then(parse).unwrap_or_default()
}

fn read_whole(file: &Path) -> Option<Vec<u8>> {
    let most = MAGIC.len() + HASH_SHARD_RECORDS * RECORD + 32;
    let mut bytes = Vec::new();
    let file = File::open(file).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    file.take(most as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= most).then_some(bytes)
}

fn parse(bytes: &[u8]) -> Option<HashMap<[u8; KEY], Known>> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Sha256::digest(body)[..] != *sum {
        return None;
    }
    let records = body.strip_prefix(MAGIC)?.chunks_exact(RECORD);
    if !records.remainder().is_empty() {
        return None;
    }
    let known = records.filter_map(|record| {
        let (key, hash) = record.split_at_checked(KEY)?;
        let hash = Known {
            hash: hash.try_into().ok()?,
            used: false,
        };
        Some((key.try_into().ok()?, hash))
    });
    Some(known.collect())
}

/// Writes a file beside its place and renames it there.
fn save(dir: &Path, file: &Path, known: &HashMap<[u8; KEY], Known>) -> io::Result<()> {
    static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
    let mut bytes = Vec::with_capacity(MAGIC.len() + known.len() * RECORD + 32);
    bytes.extend_from_slice(MAGIC);
    for (key, known) in known {
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(&known.hash);
    }
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum);
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)?;
    let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}-{attempt}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = File::create(&beside)
        .and_then(|mut out| out.write_all(&bytes))
        .and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        // The first error is the one to tell; this is only tidying up.
        drop(fs::remove_file(&beside));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(ino: u64) -> HashKey {
        HashKey {
            dev: 1,
            ino,
            size: 2,
            mtime_ns: -3,
            ctime_ns: 4,
        }
    }

    #[test]
    fn hashes_survive_and_belong_to_one_version() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("made/when/needed");
        let cache = DirHashCache::new(&at);
        assert_eq!(cache.get(&key(1)), None);
        cache.flush().unwrap();
        assert!(!at.exists());
        cache.put(&key(1), &[1; 32]);
        cache.flush().unwrap();
        let again = DirHashCache::new(&at);
        assert_eq!(again.get(&key(1)), Some([1; 32]));
        let others = [
            HashKey { dev: 2, ..key(1) },
            HashKey { ino: 2, ..key(1) },
            HashKey { size: 3, ..key(1) },
            HashKey {
                mtime_ns: 0,
                ..key(1)
            },
            HashKey {
                ctime_ns: 5,
                ..key(1)
            },
        ];
        assert!(others.iter().all(|k| again.get(k).is_none()));
        // Nothing stays beside.
        assert_eq!(fs::read_dir(&at).unwrap().count(), 1);
        // Two that share the directory keep what the other has saved.
        for ino in 0..500 {
            let one = if ino % 2 == 0 { &cache } else { &again };
            one.put(&key(ino), &[7; 32]);
        }
        cache.flush().unwrap();
        again.flush().unwrap();
        let third = DirHashCache::new(&at);
        assert!((0..500).all(|ino| third.get(&key(ino)) == Some([7; 32])));
    }

    #[test]
    fn damaged_files_count_as_missing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DirHashCache::new(dir.path());
        cache.put(&key(1), &[1; 32]);
        cache.flush().unwrap();
        let file = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let good = fs::read(&file).unwrap();
        let mut flipped = good.clone();
        flipped[20] ^= 1;
        let bad = [
            flipped,
            good[..good.len() - 1].to_vec(),
            [&good[..], b"x"].concat(),
            Vec::new(),
            vec![0; 10_000_000],
        ];
        for bytes in bad {
            fs::write(&file, bytes).unwrap();
            let again = DirHashCache::new(dir.path());
            assert_eq!(again.get(&key(1)), None);
            again.put(&key(1), &[2; 32]);
            again.flush().unwrap();
            assert_eq!(DirHashCache::new(dir.path()).get(&key(1)), Some([2; 32]));
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let again = DirHashCache::new(dir.path());
        assert_eq!(again.get(&key(1)), None);
        again.put(&key(1), &[3; 32]);
        assert!(again.flush().is_err());
        assert_eq!(again.get(&key(1)), Some([3; 32]));
    }

    #[test]
    fn what_is_not_used_goes_first() {
        let hash = |used| Known { hash: [0; 32], used };
        let number = |n: usize| {
            let mut key = [0; KEY];
            key[..8].copy_from_slice(&(n as u64).to_le_bytes());
            key
        };
        let used = HASH_SHARD_RECORDS / 2;
        let mut known: HashMap<_, _> = (0..=HASH_SHARD_RECORDS)
            .map(|n| (number(n), hash(n < used)))
            .collect();
        shrink(&mut known);
        assert_eq!(known.len(), HASH_SHARD_RECORDS / 4 * 3);
        assert!((0..used).all(|n| known.contains_key(&number(n))));
        let mut known: HashMap<_, _> = (0..=HASH_SHARD_RECORDS)
            .map(|n| (number(n), hash(true)))
            .collect();
        shrink(&mut known);
        assert_eq!(known.len(), HASH_SHARD_RECORDS / 4 * 3);
    }
}
