//! Names in a directory that is held open: how they are looked up, made and moved.
//!
//! The rule: a name is one component and is never followed. What was locked against its own owner is unlocked when
//! it stands in the way, since the listing sets its mode again at the end.

use std::fs::DirBuilder;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{Destination, WriteError};
use crate::entry::{Kind, Meta};
use crate::limits::TEMP_NAME_TRIES;
use crate::path::RelPath;
use crate::tree::{meta_of, open_below};

/// Flags of a handle by which names in a directory are reached. On Linux it needs no permission to list it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) const HANDLE: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Flags of a handle by which names in a directory are reached.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) const HANDLE: OFlags = READ_DIR;

/// Flags to open a directory that is listed or whose metadata is set.
pub(super) const READ_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// The open handle of the directory that everything is reached from.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Root(rustix::fs::open(path, HANDLE, Mode::empty())?))
    }

    /// Makes the directory, for the current user only, and those above it.
    pub(super) fn make(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    /// Whether `path` leads to this directory.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        let own = rustix::fs::fstat(&self.0)?;
        match rustix::fs::stat(path) {
            Ok(there) => Ok((there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

impl Destination {
    /// Opens the directory `path` below the root, following no link.
    pub(super) fn dir(&self, path: RelPath<'_>, flags: OFlags) -> io::Result<OwnedFd> {
        if path.is_root() {
            return Ok(rustix::fs::openat(&self.root.0, ".", flags, Mode::empty())?);
        }
        open_below(self.root.0.as_fd(), path, flags)
    }

    /// Gives the owner all rights to the directories along `path`, itself included, where it is us who own them.
    pub(super) fn unlock(&self, path: RelPath<'_>, uid: u32) -> io::Result<()> {
        let bytes = path.as_bytes();
        let ends = bytes
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'/')
            .map(|(at, _)| at);
        for end in ends.chain([bytes.len()]) {
            let dir = RelPath::trusted(&bytes[..end]);
            let Some((above, name)) = dir.split() else {
                continue;
            };
            let above = self.dir(above, HANDLE)?;
            if let Some(meta) = stat(&above, name)?
                && meta.uid == uid
                && meta.mode & 0o700 != 0o700
            {
                chmod(&above, name, meta.mode | 0o700)?;
            }
        }
        Ok(())
    }
}

/// A directory that was opened last. Entries and files come directory by directory.
#[derive(Debug, Default)]
pub(super) struct DirCache(Option<(Vec<u8>, Arc<OwnedFd>)>);

impl DirCache {
    /// Opens `path`. If it is locked it is unlocked for `owner`, if that is given.
    pub(super) fn dir(
        &mut self,
        dest: &Destination,
        path: RelPath<'_>,
        owner: Option<u32>,
    ) -> io::Result<Arc<OwnedFd>> {
        if let Some((last, fd)) = &self.0
            && last == path.as_bytes()
        {
            return Ok(Arc::clone(fd));
        }
        let fd = match (dest.dir(path, HANDLE), owner) {
            (Err(err), Some(uid)) if err.kind() == io::ErrorKind::PermissionDenied => {
                dest.unlock(path, uid)?;
                dest.dir(path, HANDLE)?
            }
            (other, _) => other?,
        };
        let fd = Arc::new(fd);
        self.0 = Some((path.as_bytes().to_vec(), Arc::clone(&fd)));
        Ok(fd)
    }
}

/// What is at `name`; `None` if nothing is.
pub(super) fn stat(dir: &OwnedFd, name: &[u8]) -> io::Result<Option<Meta>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => meta_of(&stat).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

/// Sets the mode of `name`, which is no symbolic link; fails if it has become one.
pub(super) fn chmod(dir: &OwnedFd, name: &[u8], mode: u32) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // The kernel sets modes without following links only through a handle, and only by way of its path.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        Ok(rustix::fs::chmod(fd_path(&fd), bits(mode))?)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    Ok(rustix::fs::chmodat(
        dir,
        name,
        bits(mode),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// The path by which the kernel finds an open handle.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn fd_path(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The twelve bits that all systems have, in a type that has different widths.
pub(super) fn bits(mode: u32) -> Mode {
    Mode::from_raw_mode((mode & 0o7777) as _)
}

/// Makes a pipe or a device with a mode that lets nobody in, to be set later.
pub(super) fn make_special(
    dir: &OwnedFd,
    name: &[u8],
    kind: Kind,
    (major, minor): (u32, u32),
) -> Result<(), Errno> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::FileType;
        let file_type = match kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        rustix::fs::mknodat(
            dir,
            name,
            file_type,
            Mode::empty(),
            rustix::fs::makedev(major, minor),
        )
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (dir, name, kind, major, minor);
        Err(Errno::NOTSUP)
    }
}

/// A name that did not exist and was made for this. On drop it is removed, if it is still there.
#[derive(Debug)]
pub(super) struct Temp {
    dir: Arc<OwnedFd>,
    name: Vec<u8>,
    gone: bool,
    /// Another name of a file: moving it over a third name of that file does nothing, and leaves it there.
    pub(super) may_stay: bool,
}

impl Temp {
    /// Calls `make` with names until one did not exist.
    pub(super) fn make<T>(
        dir: &Arc<OwnedFd>,
        mut make: impl FnMut(&OwnedFd, &[u8]) -> Result<T, Errno>,
    ) -> io::Result<(Self, T)> {
        let mut last = Errno::EXIST;
        for _ in 0..TEMP_NAME_TRIES {
            // Seeded by the system, and by a counter of the thread.
            let random = RandomState::new().hash_one(0);
            let name = format!(".bk-{random:016x}.tmp").into_bytes();
            match make(dir, &name) {
                Ok(made) => {
                    let dir = Arc::clone(dir);
                    let gone = false;
                    let may_stay = false;
                    let temp = Temp {
                        dir,
                        name,
                        gone,
                        may_stay,
                    };
                    return Ok((temp, made));
                }
                Err(Errno::EXIST) => last = Errno::EXIST,
                Err(err) => return Err(err.into()),
            }
        }
        Err(last.into())
    }

    pub(super) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Moves it to `name` in its directory, over whatever is there.
    pub(super) fn move_to(&mut self, name: &[u8]) -> Result<(), Errno> {
        rustix::fs::renameat(&self.dir, &self.name, &self.dir, name)?;
        self.gone = !self.may_stay;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.gone {
            // Nobody is left who could be told; what fails here fails because the directory is gone or locked.
            let _ = rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty());
        }
    }
}

/// Whether a rename failed since a directory has the name.
pub(super) fn is_dir_in_the_way(err: Errno) -> bool {
    matches!(err, Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST)
}

/// Splits a path that is not the root.
pub(super) fn split(path: &[u8]) -> Result<(RelPath<'_>, &[u8]), WriteError> {
    RelPath::trusted(path)
        .split()
        .ok_or_else(|| WriteError::io("write", path, io::ErrorKind::InvalidInput))
}
