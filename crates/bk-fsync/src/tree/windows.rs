//! A directory of a Windows host as a tree.
//!
//! The rule: nothing below the root is reached through a link. Every directory on the way is held open, and nobody can
//! rename, remove or replace it meanwhile; what is opened is never a link itself. Modes and owners are those that the
//! world's other clients send from Windows: 0755 (0555 for what is read-only), and root.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::windows::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Directory, Listed, OpenFile, OpenTreeError, Tree};
use crate::entry::{Kind, Meta};
use crate::path::{RelPath, show};

// Numbers of the Windows API.
const FILE_SHARE_READ: u32 = 1;
const FILE_SHARE_WRITE: u32 = 2;
const FILE_ATTRIBUTE_READONLY: u32 = 0x1;
const FILE_ATTRIBUTE_REPARSE_POINT: u32 = 0x400;
const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
/// From the first of January 1601, in units of 100 ns, to the epoch of Unix.
const EPOCH: i64 = 116_444_736_000_000_000;

/// A directory of the host. Cloning is cheap and shares the open root.
///
/// While it or a directory of it is open, nobody can rename or remove that directory.
///
/// # Windows
/// Files have no numbers there ([`Meta::ino`] is 0) and one name each. Links of both kinds, symbolic links and junctions,
/// are symbolic links, with `/` in their targets. A name that is no valid Unicode is an error.
#[derive(Debug, Clone)]
pub struct DirTree {
    root: Arc<Held>,
}

/// A directory that is held open, together with those above it.
#[derive(Debug)]
struct Held {
    file: File,
    path: PathBuf,
    _above: Option<Arc<Held>>,
}

impl DirTree {
    /// Opens the directory `path`, which may itself be a symbolic link to one. Blocks.
    ///
    /// # Errors
    /// [`OpenTreeError`] naming the path if it is missing, unreadable, or not a directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenTreeError> {
        let given = path.as_ref();
        // The form that this gives leaves every name below it as it is: no device, no dot or blank at its end is special.
        let open = || Held::open(given.canonicalize()?, None);
        match open() {
            Ok(root) => Ok(DirTree { root }),
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

    fn dir(&self, path: RelPath<'_>) -> io::Result<Arc<Held>> {
        path.components()
            .try_fold(Arc::clone(&self.root), |at, name| at.enter(name))
    }
}

impl Tree for DirTree {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        Ok(Box::new(HostDir(self.dir(path)?)))
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        let Some((above, name)) = path.split() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let path = self.dir(above)?.child(name)?;
        let (mut file, found) = hold(&path)?;
        if !found.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is no longer a regular file",
            ));
        }
        if found.file_attributes() & FILE_ATTRIBUTE_REPARSE_POINT != 0 {
            // No link, but a file that a filter brings from elsewhere. What is held cannot become another one meanwhile.
            let filled = File::open(&path)?;
            drop(std::mem::replace(&mut file, filled));
        }
        Ok(Box::new(HostFile(file)))
    }

    fn root_meta(&self) -> io::Result<Meta> {
        meta_of(&self.root.file.metadata()?)
    }
}

impl Held {
    fn open(path: PathBuf, above: Option<Arc<Held>>) -> io::Result<Arc<Held>> {
        let (file, found) = hold(&path)?;
        if !found.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Arc::new(Held {
            file,
            path,
            _above: above,
        }))
    }

    fn enter(self: Arc<Held>, name: &[u8]) -> io::Result<Arc<Held>> {
        let path = self.child(name)?;
        Held::open(path, Some(self))
    }

    fn child(&self, name: &[u8]) -> io::Result<PathBuf> {
        match file_name(name) {
            Some(name) => Ok(self.path.join(name)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Opens a file or directory, not through a link, so that it stays what it is. A link there is not what was asked for.
fn hold(path: &Path) -> io::Result<(File, fs::Metadata)> {
    let file = OpenOptions::new()
        .read(true)
        .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT)
        .open(path)?;
    let found = file.metadata()?;
    if found.is_symlink() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok((file, found))
}

struct HostDir(Arc<Held>);

impl Directory for HostDir {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in fs::read_dir(&self.0.path)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|name| {
                let text = format!("the name {name:?} is no valid Unicode");
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
            listed.push(Listed {
                name: name.into_bytes(),
                kind: kind_of(entry.file_type()?),
            });
        }
        Ok(listed)
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        let path = self.0.child(name)?;
        let mut meta = meta_of(&fs::symlink_metadata(&path)?)?;
        if meta.kind == Kind::Symlink {
            meta.size = target(&path)?.len() as u64;
        }
        Ok(meta)
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        target(&self.0.child(name)?)
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn Directory>> {
        Ok(Box::new(HostDir(Arc::clone(&self.0).enter(name)?)))
    }
}

fn target(path: &Path) -> io::Result<Vec<u8>> {
    let target = fs::read_link(path)?.into_os_string().into_string();
    let target = target.map_err(|target| {
        let text = format!("the target {target:?} of a link is no valid Unicode");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })?;
    Ok(target.replace('\\', "/").into_bytes())
}

struct HostFile(File);

impl Read for HostFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl OpenFile for HostFile {
    fn stat(&self) -> io::Result<Meta> {
        meta_of(&self.0.metadata()?)
    }
}

fn kind_of(found: fs::FileType) -> Option<Kind> {
    if found.is_symlink() {
        Some(Kind::Symlink)
    } else if found.is_dir() {
        Some(Kind::Dir)
    } else if found.is_file() {
        Some(Kind::File)
    } else {
        None
    }
}

fn meta_of(found: &fs::Metadata) -> io::Result<Meta> {
    let kind = kind_of(found.file_type())
        .ok_or_else(|| io::Error::other("the file system shows a kind of file that is not known"))?;
    let mut meta = Meta::new(kind);
    meta.mode = match found.file_attributes() & FILE_ATTRIBUTE_READONLY {
        // Of a directory the attribute says something else.
        0 => 0o755,
        _ if kind == Kind::Dir => 0o755,
        _ => 0o555,
    };
    if kind == Kind::File {
        meta.size = found.len();
    }
    meta.mtime_ns = i64::try_from(found.last_write_time())
        .unwrap_or(i64::MAX)
        .saturating_sub(EPOCH)
        .saturating_mul(100);
    Ok(meta)
}

/// Opens a file of the host that the caller named, also through a link.
pub(super) fn open_file(path: &Path, name: &[u8]) -> io::Result<Box<dyn OpenFile>> {
    let file = File::open(path)?;
    regular(&file.metadata()?, name)?;
    Ok(Box::new(HostFile(file)))
}

/// The metadata of a regular file.
pub(super) fn regular(found: &fs::Metadata, name: &[u8]) -> io::Result<Meta> {
    if !found.is_file() {
        let text = format!("{} is not a regular file", show(name));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    meta_of(found)
}

/// A name that travels as a name of this host. `None`: it can be no name here, or would lead elsewhere.
pub(super) fn file_name(name: &[u8]) -> Option<&Path> {
    // What separates directories, names a drive, and names a stream of a file.
    let leads_elsewhere = name.iter().any(|b| matches!(b, b'\\' | b'/' | b':' | 0));
    if leads_elsewhere || matches!(name, b"" | b"." | b"..") {
        return None;
    }
    std::str::from_utf8(name).ok().map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(path: &[u8]) -> RelPath<'_> {
        RelPath::new(path).unwrap()
    }

    #[test]
    fn metadata_is_what_other_clients_send() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "12345").unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_700);
        let file = OpenOptions::new()
            .write(true)
            .open(dir.path().join("d/f"))
            .unwrap();
        file.set_modified(time).unwrap();
        drop(file);
        let tree = DirTree::open(dir.path()).unwrap();
        let mut root = tree.open_dir(RelPath::ROOT).unwrap();
        let listed = root.list().unwrap();
        assert_eq!(
            (&listed[0].name[..], listed[0].kind),
            (&b"d"[..], Some(Kind::Dir))
        );
        assert_eq!(root.stat(b"d").unwrap().mode, 0o755);
        let meta = root.open_dir(b"d").unwrap().stat(b"f").unwrap();
        assert_eq!((meta.kind, meta.mode, meta.size), (Kind::File, 0o755, 5));
        assert_eq!(meta.mtime_ns, 1_234_567_890_123_456_700);
        assert_eq!((meta.uid, meta.gid, meta.nlink, meta.ino), (0, 0, 1, 0));
        let mut open = tree.open(rel(b"d/f")).unwrap();
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), open.stat().unwrap()), ("12345", meta));
        drop(open);
        let path = dir.path().join("d/f");
        let mut rights = fs::metadata(&path).unwrap().permissions();
        rights.set_readonly(true);
        fs::set_permissions(&path, rights.clone()).unwrap();
        let mode = root.open_dir(b"d").unwrap().stat(b"f").unwrap().mode;
        assert_eq!(mode, 0o555);
        #[expect(clippy::permissions_set_readonly_false, reason = "the attribute of Windows")]
        rights.set_readonly(false);
        fs::set_permissions(&path, rights).unwrap();
    }

    #[test]
    fn names_that_lead_elsewhere_are_not_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d").join("f"), "x").unwrap();
        let tree = DirTree::open(dir.path()).unwrap();
        for name in [
            &b"d\\f"[..],
            b"..\\d",
            b"C:",
            b"C:\\",
            b"d/f::$DATA",
            b"\\\\?\\C:",
            b"none",
        ] {
            let err = tree.open(rel(name)).err().unwrap();
            assert!(super::super::vanished(&err), "{}: {err}", name.escape_ascii());
            assert!(tree.open_dir(rel(name)).is_err(), "{}", name.escape_ascii());
        }
        assert!(
            tree.open(rel(b"d"))
                .err()
                .unwrap()
                .to_string()
                .contains("regular")
        );
        let err = tree.open_dir(rel(b"d/f")).err().unwrap();
        assert!(super::super::vanished(&err), "{err}");
    }

    #[test]
    fn a_directory_that_is_open_stays_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        let tree = DirTree::open(dir.path()).unwrap();
        let open = tree.open_dir(rel(b"d")).unwrap();
        assert!(fs::rename(dir.path().join("d"), dir.path().join("e")).is_err());
        drop(open);
        fs::rename(dir.path().join("d"), dir.path().join("e")).unwrap();
    }
}
