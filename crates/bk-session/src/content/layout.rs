//! An OCI layout on disk: its blobs, its unfinished uploads and its few files of JSON.
//!
//! The rule: below the directory that the user named no symlink is followed, and every name is either a constant, a
//! checked digest or a hash. All of this blocks.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Timespec, Timestamps},
    io::Errno,
};

use super::digest::{Algorithm, Digest};
use crate::limits::MAX_LAYOUT_JSON;

/// Flags of the directory that the user named.
const ROOT: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);
/// Flags of the directories inside.
const INSIDE: OFlags = ROOT.union(OFlags::NOFOLLOW);
/// Flags of files inside; the last keeps a named pipe from stopping the thread.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
const BLOBS: &str = "blobs";
const INGEST: &str = "ingest";
/// The mark of a layout, and what it says.
pub(crate) const MARK: &str = "oci-layout";
const MARK_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
pub(crate) const INDEX: &str = "index.json";

/// What is known of a blob without reading it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlobInfo {
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
}

/// A layout that is held open. While it is, clean-ups by others wait.
#[derive(Debug)]
pub(crate) struct Layout {
    path: PathBuf,
    root: OwnedFd,
    /// The topmost directory that was made for it.
    made: Option<PathBuf>,
}

impl Layout {
    /// Opens a directory that is there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(path, ROOT, Mode::empty())?;
        // A clean-up holds it for moments. Where there are no such locks, there is no protection against one either.
        let _ = rustix::fs::flock(&root, FlockOperation::LockShared);
        Ok(Self {
            path: path.to_owned(),
            root,
            made: None,
        })
    }

    /// Opens a directory, and makes it when it is missing.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut made = None;
        for above in path.ancestors() {
            if above.as_os_str().is_empty() || above.symlink_metadata().is_ok() {
                break;
            }
            made = Some(above.to_owned());
        }
        std::fs::create_dir_all(path)?;
        Ok(Self {
            made,
            ..Self::open(path)?
        })
    }

    /// Whether nobody else uses the layout; if so nobody can begin to, until it is closed.
    pub(crate) fn lock_alone(&self) -> bool {
        rustix::fs::flock(&self.root, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Ends what [`lock_alone`](Self::lock_alone) began.
    pub(crate) fn unlock(&self) {
        let _ = rustix::fs::flock(&self.root, FlockOperation::NonBlockingLockShared);
    }

    fn blobs(&self, algorithm: Algorithm, make: bool) -> io::Result<OwnedFd> {
        let blobs = inside(&self.root, BLOBS, make)?;
        inside(&blobs, algorithm.name(), make)
    }

    /// Opens a blob to be read.
    pub(crate) fn blob(&self, digest: &Digest) -> io::Result<(File, BlobInfo)> {
        let dir = self.blobs(digest.algorithm(), false)?;
        let file = File::from(rustix::fs::openat(
            &dir,
            digest.hex(),
            OFlags::RDONLY.union(FILE),
            Mode::empty(),
        )?);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "is no regular file"));
        }
        let info = BlobInfo {
            size: meta.len(),
            modified: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        };
        Ok((file, info))
    }

    /// A blob in memory; one that is larger than `limit` is an error.
    pub(crate) fn blob_bytes(&self, digest: &Digest, limit: u64) -> io::Result<Vec<u8>> {
        let (file, info) = self.blob(digest)?;
        bounded(file, info.size, limit)
    }

    /// Whether there is such a blob, and of that size if it is known.
    pub(crate) fn has(&self, digest: &Digest, size: u64) -> io::Result<bool> {
        match self.blob(digest) {
            Ok((_, info)) => Ok(size == 0 || info.size == size),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Sets the time of a blob to now: it was needed.
    pub(crate) fn touch(&self, digest: &Digest) -> io::Result<()> {
        let dir = self.blobs(digest.algorithm(), false)?;
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        Ok(rustix::fs::utimensat(
            &dir,
            digest.hex(),
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Gives a file of `from` its place among the blobs.
    pub(crate) fn publish(&self, from: &OwnedFd, name: &str, digest: &Digest) -> io::Result<()> {
        let dir = self.blobs(digest.algorithm(), true)?;
        Ok(rustix::fs::renameat(from, name, &dir, digest.hex())?)
    }

    /// Removes a blob; one that is not there is fine.
    pub(crate) fn remove_blob(&self, digest: &Digest) -> io::Result<()> {
        let dir = match self.blobs(digest.algorithm(), false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        match rustix::fs::unlinkat(&dir, digest.hex(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Every blob, in no order. What has another name than a blob's, or is no regular file, is left out.
    pub(crate) fn list(&self) -> io::Result<Vec<(Digest, BlobInfo)>> {
        let mut all = Vec::new();
        for algorithm in Algorithm::ALL {
            let dir = match self.blobs(algorithm, false) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            for entry in Dir::read_from(&dir)? {
                let entry = entry?;
                let name = entry.file_name().to_str().ok();
                let Some(digest) = name.and_then(|n| Digest::of_name(algorithm, n)) else {
                    continue;
                };
                let stat = match rustix::fs::statat(&dir, digest.hex(), AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    other => other?,
                };
                if FileType::from_raw_mode(stat.st_mode).is_file() {
                    let info = BlobInfo {
                        size: u64::try_from(stat.st_size).unwrap_or(0),
                        modified: time_of(stat.st_mtime, stat.st_mtime_nsec),
                    };
                    all.push((digest, info));
                }
            }
        }
        Ok(all)
    }

    /// The directory of unfinished uploads.
    pub(crate) fn ingests(&self, make: bool) -> io::Result<OwnedFd> {
        inside(&self.root, INGEST, make)
    }

    /// A file at the top, if it is there.
    pub(crate) fn top(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::openat(&self.root, name, flags, Mode::empty()) {
            Ok(fd) => {
                let file = File::from(fd);
                let size = file.metadata()?.len();
                bounded(file, size, MAX_LAYOUT_JSON).map(Some)
            }
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Puts a file at the top in the place of the one that is there, whole or not at all.
    pub(crate) fn set_top(&self, name: &str, text: &[u8]) -> io::Result<()> {
        let fresh = format!(".{name}.bk-{}", bk_proto::Id::random());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.root, &*fresh, flags, NEW_FILE)?);
        let written = file
            .write_all(text)
            .and_then(|()| Ok(rustix::fs::renameat(&self.root, &*fresh, &self.root, name)?));
        if written.is_err() {
            // The error that matters is the first one.
            let _ = rustix::fs::unlinkat(&self.root, &*fresh, AtFlags::empty());
        }
        written
    }

    /// Opens a file at the top to be locked, and makes it when it is missing.
    pub(crate) fn lock_file(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.root, name, flags, NEW_FILE)?)
    }

    /// Whether `name` at the top is the file behind `fd`.
    pub(crate) fn is_at_top(&self, name: &str, fd: &OwnedFd) -> io::Result<bool> {
        is_same(&self.root, name, fd)
    }

    /// Removes a file at the top; one that is not there is fine.
    pub(crate) fn remove_top(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.root, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes the mark of a layout unless there is one.
    pub(crate) fn mark(&self) -> io::Result<()> {
        match self.top(MARK)? {
            Some(_) => Ok(()),
            None => self.set_top(MARK, MARK_TEXT.as_bytes()),
        }
    }

    /// Whether it says of itself that it is a layout of a version that is known.
    pub(crate) fn is_marked(&self) -> io::Result<bool> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Mark {
            image_layout_version: String,
        }
        let mark = self
            .top(MARK)?
            .and_then(|m| serde_json::from_slice::<Mark>(&m).ok());
        Ok(mark.is_some_and(|m| m.image_layout_version.starts_with("1.")))
    }

    /// Whether a layout may be written here: there is one, or the beginning of one, or nothing at all.
    pub(crate) fn may_be_written(&self) -> io::Result<bool> {
        let mut empty = true;
        for entry in Dir::read_from(&self.root)? {
            match entry?.file_name().to_bytes() {
                b"." | b".." => {}
                b"oci-layout" | b"index.json" | b"blobs" | b"ingest" => return Ok(true),
                _ => empty = false,
            }
        }
        Ok(empty)
    }

    /// Removes the directories that are empty, and those that were made for this layout if they are.
    pub(crate) fn tidy(&self, all: bool) {
        let remove = |dir: &OwnedFd, name: &str| {
            // What holds something stays, and what stays does no harm.
            let _ = rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
        };
        remove(&self.root, INGEST);
        if !all {
            return;
        }
        if let Ok(blobs) = inside(&self.root, BLOBS, false) {
            for algorithm in Algorithm::ALL {
                remove(&blobs, algorithm.name());
            }
        }
        remove(&self.root, BLOBS);
        if let Some(top) = &self.made {
            for dir in self.path.ancestors() {
                if std::fs::remove_dir(dir).is_err() || dir == top {
                    break;
                }
            }
        }
    }
}

/// The mode of a new file before the process's mask applies.
pub(crate) const NEW_FILE: Mode = Mode::from_raw_mode(0o666);
const NEW_DIR: Mode = Mode::from_raw_mode(0o777);

/// Opens a directory inside of another one, and makes it if it may.
pub(crate) fn inside(dir: &OwnedFd, name: &str, make: bool) -> io::Result<OwnedFd> {
    match rustix::fs::openat(dir, name, INSIDE, Mode::empty()) {
        Err(Errno::NOENT) if make => {
            match rustix::fs::mkdirat(dir, name, NEW_DIR) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            Ok(rustix::fs::openat(dir, name, INSIDE, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// Opens a file inside of a directory.
pub(crate) fn file_in(dir: &OwnedFd, name: &str, flags: OFlags) -> io::Result<File> {
    let file = File::from(rustix::fs::openat(dir, name, flags | FILE, NEW_FILE)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "is no regular file"));
    }
    Ok(file)
}

/// Whether `name` is the file behind `fd`.
pub(crate) fn is_same(dir: &OwnedFd, name: &str, fd: impl AsFd) -> io::Result<bool> {
    let ours = rustix::fs::fstat(fd)?;
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn time_of(seconds: impl TryInto<u64>, nanoseconds: impl TryInto<u32>) -> SystemTime {
    let (seconds, nanoseconds) = (
        seconds.try_into().unwrap_or(0),
        nanoseconds.try_into().unwrap_or(0),
    );
    let since = Duration::new(seconds, nanoseconds.min(999_999_999));
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Reads a file that must not be larger than `limit`, not even if it grows.
pub(crate) fn bounded(file: File, size: u64, limit: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        let text = format!("is larger than {} MiB", limit >> 20);
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    if size > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(bytes)
}
