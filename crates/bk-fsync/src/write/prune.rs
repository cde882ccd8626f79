//! Removes what was not sent.
//!
//! The rule: no link is followed and nothing that was listed is touched. Depth costs memory, not stack.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::place::READ_DIR;
use super::{Destination, WriteError};
use crate::entry::Kind;
use crate::path::{RelPath, join};
use crate::receive::Names;

/// A name, and whether it is a directory.
type Child = (Vec<u8>, bool);

/// How a removal is done.
pub(super) struct Removal<'a> {
    pub(super) dest: &'a Destination,
    pub(super) uid: u32,
    pub(super) dry_run: bool,
    pub(super) stop: &'a AtomicBool,
}

impl Removal<'_> {
    /// Removes everything that is not in `listed`, and calls `removed` with each path.
    pub(super) fn others(&self, listed: &Names, removed: &mut dyn FnMut(&[u8])) -> Result<(), WriteError> {
        let mut to_visit: Vec<Vec<u8>> = vec![Vec::new()];
        while let Some(path) = to_visit.pop() {
            let (dir, children) = self.list(&path)?;
            for (name, is_dir) in children {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let child = join(RelPath::trusted(&path), &name);
                match listed.find(&child).and_then(|id| listed.kind(id)) {
                    Some(Kind::Dir) if is_dir => to_visit.push(child),
                    Some(_) => {}
                    None if is_dir => self.tree(&child, removed)?,
                    None => self.unlink(&dir, &name, &child, AtFlags::empty(), removed)?,
                }
            }
        }
        Ok(())
    }

    /// Removes the directory `path` and everything in it, and calls `removed` with each path.
    pub(super) fn tree(&self, path: &[u8], removed: &mut dyn FnMut(&[u8])) -> Result<(), WriteError> {
        let mut to_do = vec![(path.to_vec(), false)];
        while let Some((path, emptied)) = to_do.pop() {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if emptied {
                let (above, name) = super::place::split(&path)?;
                let above = self
                    .dest
                    .dir(above, READ_DIR)
                    .map_err(|err| WriteError::io("open", above.as_bytes(), err))?;
                self.unlink(&above, name, &path, AtFlags::REMOVEDIR, removed)?;
                continue;
            }
            let (dir, children) = self.list(&path)?;
            to_do.push((path.clone(), true));
            for (name, is_dir) in children {
                let child = join(RelPath::trusted(&path), &name);
                if is_dir {
                    to_do.push((child, false));
                } else {
                    self.unlink(&dir, &name, &child, AtFlags::empty(), removed)?;
                }
            }
        }
        Ok(())
    }

    fn unlink(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        path: &[u8],
        flags: AtFlags,
        removed: &mut dyn FnMut(&[u8]),
    ) -> Result<(), WriteError> {
        if !self.dry_run {
            let mut outcome = rustix::fs::unlinkat(dir, name, flags);
            if outcome == Err(Errno::ACCESS)
                && let Some((above, _)) = RelPath::trusted(path).split()
                && self.dest.unlock(above, self.uid).is_ok()
            {
                outcome = rustix::fs::unlinkat(dir, name, flags);
            }
            match outcome {
                // Somebody else was faster.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(err) => return Err(WriteError::io("remove", path, err)),
            }
        }
        removed(path);
        Ok(())
    }

    /// Opens a directory and lists it in order, telling which entries are directories.
    fn list(&self, path: &[u8]) -> Result<(OwnedFd, Vec<Child>), WriteError> {
        let open = || match self.dest.dir(RelPath::trusted(path), READ_DIR) {
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied && !self.dry_run => {
                self.dest.unlock(RelPath::trusted(path), self.uid)?;
                self.dest.dir(RelPath::trusted(path), READ_DIR)
            }
            other => other,
        };
        let dir = open().map_err(|err| WriteError::io("open", path, err))?;
        let children = read(&dir).map_err(|err| WriteError::io("list", path, err))?;
        Ok((dir, children))
    }
}

fn read(dir: &OwnedFd) -> io::Result<Vec<Child>> {
    let mut children = Vec::new();
    let mut entries = Dir::read_from(dir.as_fd())?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let is_dir = match entry.file_type() {
            FileType::Unknown => match super::place::stat(dir, name)? {
                Some(meta) => meta.kind == Kind::Dir,
                None => continue,
            },
            known => known == FileType::Directory,
        };
        children.push((name.to_vec(), is_dir));
    }
    children.sort_unstable();
    Ok(children)
}
