//! A directory of the host as a tree.
//!
//! The rule: nothing below the root is reached through a symbolic link, nothing but regular files and
//! directories is opened, and paths may be longer than the kernel takes in one call.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::{ffi::OsStrExt, fs::MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::host::HostFile;
use super::{Directory, Listed, OpenFile, OpenTreeError, Tree};
use crate::entry::{Kind, Meta, Xattr};
use crate::limits::{PATH_MAX, XATTR_FIRST, XATTR_MAX};
use crate::path::{RelPath, join, show};

/// A directory of the host. Cloning is cheap and shares the open root.
#[derive(Debug, Clone)]
pub struct DirTree {
    root: Arc<Root>,
}

#[derive(Debug)]
struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl DirTree {
    /// Opens the directory `path`, which may itself be a symbolic link to one. Blocks.
    ///
    /// # Errors
    /// [`OpenTreeError`] naming the path if it is missing, unreadable, or not a directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenTreeError> {
        let given = path.as_ref();
        let open = || -> io::Result<Root> {
            let path = given.canonicalize()?;
            let fd = rustix::fs::open(&path, DIR_FLAGS, Mode::empty())?;
            Ok(Root { fd, path })
        };
        match open() {
            Ok(root) => Ok(DirTree { root: Arc::new(root) }),
            Err(source) => Err(OpenTreeError {
                path: given.to_owned(),
                source,
            }),
        }
    }

    /// The directory with every symbolic link in its own path resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root.path
    }
}

impl Tree for DirTree {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        // A handle of its own even for the root: listing moves the position of a handle.
        let fd = if path.is_root() {
            rustix::fs::openat(&self.root.fd, ".", DIR_FLAGS, Mode::empty()).map_err(link_is_gone)?
        } else {
            open_below(self.root.fd.as_fd(), path, DIR_FLAGS)?
        };
        Ok(Box::new(HostDir {
            fd,
            path: path.as_bytes().to_vec(),
            root: Arc::clone(&self.root),
        }))
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        let fd = open_below(self.root.fd.as_fd(), path, FILE_FLAGS)?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is no longer a regular file",
            ));
        }
        Ok(Box::new(HostFile::new(fd.into(), &stat)))
    }

    fn root_meta(&self) -> io::Result<Meta> {
        meta_of(&rustix::fs::fstat(&self.root.fd)?)
    }
}

const DIR_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// `NONBLOCK`, so that a pipe which took the place of a file is not waited for; it has no effect on files.
const FILE_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

struct HostDir {
    fd: OwnedFd,
    /// Where it is below the root, for attributes, which the kernel finds by path only.
    path: Vec<u8>,
    root: Arc<Root>,
}

impl Directory for HostDir {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let mut entries = rustix::fs::Dir::read_from(&self.fd)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                listed.push(Listed {
                    name: name.to_vec(),
                    kind: kind_of(entry.file_type()),
                });
            }
        }
        Ok(listed)
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        meta_of(&stat)
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.fd, name, Vec::new())?.into_bytes())
    }

    fn xattrs(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        let inside = RelPath::new(&self.path).map_err(io::Error::other)?;
        let mut path = self.root.path.join(OsStr::from_bytes(&join(inside, name)));
        if path.as_os_str().len() >= PATH_MAX {
            path = format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into();
            path.push(OsStr::from_bytes(name));
        }
        read_xattrs(&path)
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn Directory>> {
        let fd = rustix::fs::openat(&self.fd, name, DIR_FLAGS, Mode::empty()).map_err(link_is_gone)?;
        let inside = RelPath::new(&self.path).map_err(io::Error::other)?;
        Ok(Box::new(HostDir {
            fd,
            path: join(inside, name),
            root: Arc::clone(&self.root),
        }))
    }
}

/// Opens what is at `path` below `root`, following no link on the way.
pub(crate) fn open_below(root: BorrowedFd<'_>, path: RelPath<'_>, flags: OFlags) -> io::Result<OwnedFd> {
    #[cfg(target_os = "linux")]
    if path.as_bytes().len() < PATH_MAX {
        use rustix::fs::ResolveFlags;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(root, path.as_bytes(), flags, Mode::empty(), resolve) {
            // Kernels before 5.6 do not know the call, and some sandboxes refuse it as forbidden. A true EPERM
            // comes back from the slow way too.
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {}
            other => return other.map_err(link_is_gone),
        }
    }
    let Some((dir, name)) = path.split() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut above: Option<OwnedFd> = None;
    for part in dir.components() {
        let at = above.as_ref().map_or(root, AsFd::as_fd);
        above = Some(rustix::fs::openat(at, part, DIR_FLAGS, Mode::empty()).map_err(link_is_gone)?);
    }
    let at = above.as_ref().map_or(root, AsFd::as_fd);
    rustix::fs::openat(at, name, flags, Mode::empty()).map_err(link_is_gone)
}

/// A link where a directory or file was: what was there has vanished.
fn link_is_gone(errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP => io::ErrorKind::NotADirectory.into(),
        other => other.into(),
    }
}

fn kind_of(file_type: FileType) -> Option<Kind> {
    Some(match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        _ => return None,
    })
}

#[expect(
    clippy::unnecessary_cast,
    reason = "the fields have different widths on different systems"
)]
pub(crate) fn meta_of(stat: &rustix::fs::Stat) -> io::Result<Meta> {
    let kind = kind_of(FileType::from_raw_mode(stat.st_mode as _))
        .ok_or_else(|| io::Error::other("the file system shows a kind of file that is not known"))?;
    Ok(Meta {
        kind,
        mode: stat.st_mode as u32 & 0o7777,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        ctime_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        uid: stat.st_uid,
        gid: stat.st_gid,
        nlink: stat.st_nlink as u64,
        dev: stat.st_dev as u64,
        ino: stat.st_ino as u64,
        rdev: stat.st_rdev as u64,
    })
}

/// Opens a file of the host that the caller named, also through a link.
pub(super) fn open_file(path: &Path, name: &[u8]) -> io::Result<Box<dyn OpenFile>> {
    let file = File::open(path)?;
    regular(&file.metadata()?, name)?;
    let stat = rustix::fs::fstat(&file)?;
    Ok(Box::new(HostFile::new(file, &stat)))
}

/// The metadata of a regular file.
pub(super) fn regular(found: &fs::Metadata, name: &[u8]) -> io::Result<Meta> {
    if !found.is_file() {
        let text = format!("{} is not a regular file", show(name));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut meta = Meta::new(Kind::File);
    meta.size = found.len();
    meta.mode = found.mode() & 0o7777;
    meta.mtime_ns = nanoseconds(found.mtime(), found.mtime_nsec());
    meta.ctime_ns = nanoseconds(found.ctime(), found.ctime_nsec());
    (meta.dev, meta.ino) = (found.dev(), found.ino());
    meta.uid = found.uid();
    meta.gid = found.gid();
    Ok(meta)
}

/// A name that travels as a name of this host. `None`: it can be no name here.
#[expect(
    clippy::unnecessary_wraps,
    reason = "on other systems some names are impossible"
)]
pub(super) fn file_name(name: &[u8]) -> Option<&Path> {
    Some(Path::new(OsStr::from_bytes(name)))
}

/// A time as nanoseconds since the epoch, kept within what 64 bits hold (the years 1677 to 2262).
fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// All attributes of `path` whose values can be read.
fn read_xattrs(path: &Path) -> io::Result<Vec<Xattr>> {
    let names = match grow(|buffer| rustix::fs::llistxattr(path, buffer)) {
        Ok(names) => names,
        Err(err) if hidden(err) => return Ok(Vec::new()),
        Err(err) => return Err(err.into()),
    };
    let mut found = Vec::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        if let Ok(value) = grow(|buffer| rustix::fs::lgetxattr(path, name, buffer)) {
            found.push((name.to_vec(), value));
        }
    }
    Ok(found)
}

/// Whether the file system has no attributes or does not show them to us.
fn hidden(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOTSUP | Errno::ACCESS | Errno::PERM | Errno::NODATA | Errno::NOSYS
    )
}

/// Calls with a small buffer first, then with as much as it takes; the size may change in between.
fn grow(mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut size = XATTR_FIRST;
    loop {
        let mut buffer = vec![0u8; size];
        match call(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if size < XATTR_MAX => size = (size * 4).min(XATTR_MAX),
            Err(err) => return Err(err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn rel(path: &[u8]) -> RelPath<'_> {
        RelPath::new(path).unwrap()
    }

    #[test]
    fn attributes_that_cannot_be_seen_are_none() {
        // A file system without any.
        assert_eq!(read_xattrs(Path::new("/proc/self/status")).unwrap(), []);
        for errno in [Errno::NOTSUP, Errno::ACCESS, Errno::PERM] {
            assert!(hidden(errno), "{errno}");
        }
        assert!(!hidden(Errno::IO));
        assert!(read_xattrs(Path::new("/proc/self/nowhere")).is_err());
    }

    #[test]
    fn metadata_and_names_are_exact() {
        let dir = tempfile::tempdir().unwrap();
        let odd = OsStr::from_bytes(b"n\xff\xfe");
        fs::write(dir.path().join(odd), "12345").unwrap();
        fs::set_permissions(dir.path().join(odd), fs::Permissions::from_mode(0o4601)).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_789);
        File::open(dir.path().join(odd))
            .unwrap()
            .set_modified(time)
            .unwrap();
        symlink("/nowhere/at all", dir.path().join("l")).unwrap();
        let tree = DirTree::open(dir.path()).unwrap();
        let mut root = tree.open_dir(RelPath::ROOT).unwrap();
        let mut names = root.list().unwrap();
        names.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(
            names[0],
            Listed {
                name: b"l".to_vec(),
                kind: Some(Kind::Symlink)
            }
        );
        assert_eq!(names[1].name, b"n\xff\xfe");
        let meta = root.stat(b"n\xff\xfe").unwrap();
        assert_eq!((meta.mode, meta.size, meta.nlink), (0o4601, 5, 1));
        assert_eq!(meta.mtime_ns, 1_234_567_890_123_456_789);
        assert_eq!(root.read_link(b"l").unwrap(), b"/nowhere/at all");
        assert!(super::super::vanished(&root.stat(b"none").unwrap_err()));
    }

    #[test]
    fn nothing_is_reached_through_links_and_no_pipe_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "x").unwrap();
        symlink("d", dir.path().join("l")).unwrap();
        symlink("d/f", dir.path().join("lf")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("p"), Mode::RWXU).unwrap();
        let tree = DirTree::open(dir.path()).unwrap();
        for gone in [&b"l/f"[..], b"lf", b"none", b"d/f/x"] {
            let err = tree.open(rel(gone)).err().unwrap();
            assert!(super::super::vanished(&err), "{} {err}", gone.escape_ascii());
        }
        assert!(tree.open_dir(rel(b"l")).is_err());
        assert!(
            tree.open(rel(b"p"))
                .err()
                .unwrap()
                .to_string()
                .contains("regular")
        );
        let mut text = String::new();
        tree.open(rel(b"d/f")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn the_root_may_be_a_link_but_must_be_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "x").unwrap();
        symlink("d", dir.path().join("l")).unwrap();
        let tree = DirTree::open(dir.path().join("l")).unwrap();
        assert_eq!(tree.open_dir(RelPath::ROOT).unwrap().list().unwrap().len(), 1);
        let err = DirTree::open(dir.path().join("d/f")).unwrap_err();
        assert!(err.to_string().ends_with("d/f"), "{err}");
        assert!(DirTree::open(dir.path().join("none")).is_err());
    }

    #[test]
    fn paths_longer_than_the_kernel_takes() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = rustix::fs::open(dir.path(), DIR_FLAGS, Mode::empty()).unwrap();
        let name = "x".repeat(200);
        let mut path = Vec::new();
        for _ in 0..30 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, &name, DIR_FLAGS, Mode::empty()).unwrap();
            path.extend_from_slice(name.as_bytes());
            path.push(b'/');
        }
        path.push(b'f');
        assert!(path.len() > PATH_MAX);
        let file = rustix::fs::openat(&at, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        rustix::io::write(&file, b"deep").unwrap();
        let tree = DirTree::open(dir.path()).unwrap();
        let mut text = String::new();
        tree.open(rel(&path)).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "deep");
        let (above, _) = rel(&path).split().unwrap();
        let mut deep = tree.open_dir(above).unwrap();
        assert_eq!(deep.list().unwrap().len(), 1);
        assert!(deep.xattrs(b"f").is_ok());
    }
}
