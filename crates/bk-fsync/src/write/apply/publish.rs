//! Puts what is complete in its place.
//!
//! The rule: whatever is there is replaced in one step, and a directory with something in it only where deleting is
//! the order.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::{Applier, Make, unlocking};
use crate::path::{RelPath, show};
use crate::receive::{Change, ReceiveMode};
use crate::write::WriteError;
use crate::write::meta::Wanted;
use crate::write::place::{HANDLE, Temp, is_dir_in_the_way, split};

impl Applier {
    /// Makes something that has no content, under a temporary name first.
    pub(super) fn node(
        &mut self,
        path: &[u8],
        meta: &Wanted,
        change: Change,
        is_link: bool,
        make: &Make<'_>,
    ) -> Result<(), WriteError> {
        let (dest, dirs, uid) = (&self.dest, &mut self.entry_dirs, self.rules.uid);
        let mut create = || -> io::Result<Temp> {
            let temp = unlocking(dest, dirs, path, uid, |dir| Ok(Temp::make(dir, make)?.0))?;
            meta.apply_at(temp.dir(), temp.name(), is_link, path, &self.options)?;
            Ok(temp)
        };
        let temp = create().map_err(|err| WriteError::io("make", path, err))?;
        self.publish(temp, path)?;
        self.tell(path, change);
        Ok(())
    }

    pub(super) fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), WriteError> {
        if self.skipped.iter().any(|p| p == target) {
            self.skip(path);
            return Ok(());
        }
        let there = self.look(path)?;
        let first = self.look(target)?;
        let change = match (&there, &first) {
            (Some((a, _)), Some((b, _))) if (a.dev, a.ino) == (b.dev, b.ino) => Change::Unchanged,
            (Some(_), _) => Change::Replaced,
            (None, _) => Change::Created,
        };
        if change != Change::Unchanged && !self.options.dry_run {
            let (dest, dirs, uid) = (&self.dest, &mut self.entry_dirs, self.rules.uid);
            let mut link = || -> io::Result<Temp> {
                let (above, name) = RelPath::trusted(target)
                    .split()
                    .ok_or(io::ErrorKind::InvalidInput)?;
                let from = dest.dir(above, HANDLE)?;
                let make =
                    |dir: &OwnedFd, temp: &[u8]| rustix::fs::linkat(&from, name, dir, temp, AtFlags::empty());
                unlocking(dest, dirs, path, uid, |dir| Ok(Temp::make(dir, make)?.0))
            };
            let mut temp = link().map_err(|err| WriteError::io("make hard link", path, err))?;
            temp.may_stay = true;
            self.publish(temp, path)?;
        }
        self.tell(path, change);
        Ok(())
    }

    /// Moves what is complete to its place.
    pub(super) fn publish(&mut self, mut temp: Temp, path: &[u8]) -> Result<(), WriteError> {
        let (above, name) = split(path)?;
        let mut moved = temp.move_to(name);
        if moved == Err(Errno::ACCESS) && self.dest.unlock(above, self.rules.uid).is_ok() {
            moved = temp.move_to(name);
        }
        if let Err(err) = moved
            && is_dir_in_the_way(err)
        {
            self.clear_directory(path)?;
            moved = temp.move_to(name);
        }
        moved.map_err(|err| WriteError::io("put in place", path, err))
    }

    /// Removes a directory that stands where a file shall be: in copy mode only if nothing is in it.
    fn clear_directory(&mut self, path: &[u8]) -> Result<(), WriteError> {
        if self.options.mode == ReceiveMode::Delete {
            let mut deleted = 0;
            let outcome = self.removal().tree(path, &mut |removed| {
                if removed != path {
                    deleted += 1;
                    self.options.observer.changed(removed, Change::Deleted);
                }
            });
            self.report.deleted += deleted;
            return outcome;
        }
        let (above, name) = split(path)?;
        let remove = || -> io::Result<()> {
            let dir = self.dest.dir(above, HANDLE)?;
            Ok(rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR)?)
        };
        match remove() {
            Err(err) if err.kind() == io::ErrorKind::DirectoryNotEmpty => {
                let path = show(path).into_owned();
                Err(WriteError::DirectoryInTheWay { path })
            }
            other => other.map_err(|err| WriteError::io("remove directory", path, err)),
        }
    }
}
