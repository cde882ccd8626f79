//! Makes the destination what was sent: one stream's entries and content, in the order in which they arrive.
//!
//! The rule: what is in a directory comes after it, so directories are made at once and get their metadata last;
//! links wait until the files that they link to are complete; nothing is deleted before everything that was sent
//! is there. Whatever ends a transfer early, no temporary file stays and no directory stays unlocked.

mod publish;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::meta::Wanted;
use super::part::Part;
use super::place::{DirCache, HANDLE, READ_DIR, Temp, chmod, make_special, split, stat};
use super::prune::Removal;
use super::{Destination, Lease, WriteError};
use crate::diff::{Rules, compare};
use crate::entry::{Kind, Meta};
use crate::limits::{BYTES_IN_FLIGHT, REQUESTS_IN_FLIGHT};
use crate::path::{RelPath, show};
use crate::receive::{
    Body, Change, DevicePolicy, Incoming, Names, ReceiveMode, ReceiveOptions, ReceiveReport, ReceiveWarning,
};

/// One stream's work on the destination. All methods block.
#[derive(Debug)]
pub(crate) struct Applier {
    dest: Arc<Destination>,
    options: ReceiveOptions,
    rules: Rules,
    stop: Arc<AtomicBool>,
    /// One for the listing and one for content, which lags behind it.
    entry_dirs: DirCache,
    file_dirs: DirCache,
    /// Directories in the order of the listing, for the last pass.
    dirs: Vec<ListedDir>,
    /// Hard links and what they link to.
    links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Devices that were left out, to which links cannot be made. Empty but for odd exports.
    skipped: Vec<Vec<u8>>,
    /// Files to be asked for.
    wanted: VecDeque<WantedFile>,
    /// Files that were asked for, by id.
    in_flight: HashMap<u32, (WantedFile, Option<Part>)>,
    bytes_in_flight: u64,
    /// Set once the listing is over.
    names: Option<Arc<Names>>,
    report: ReceiveReport,
    _lease: Lease,
}

#[derive(Debug)]
struct ListedDir {
    path: Vec<u8>,
    meta: Wanted,
    /// It was there before.
    existed: bool,
    /// The mode it had before it was unlocked.
    locked: Option<u32>,
}

#[derive(Debug)]
struct WantedFile {
    id: u32,
    size: u64,
    path: Vec<u8>,
    meta: Wanted,
    change: Change,
}

/// What a name is made by.
type Make<'a> = dyn Fn(&OwnedFd, &[u8]) -> Result<(), Errno> + 'a;

impl Applier {
    pub(crate) fn new(
        dest: Arc<Destination>,
        options: ReceiveOptions,
        lease: Lease,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let rules = Rules {
            owner: options.owner,
            unchanged: options.unchanged,
            uid: rustix::process::geteuid().as_raw(),
        };
        Applier {
            dest,
            options,
            rules,
            stop,
            entry_dirs: DirCache::default(),
            file_dirs: DirCache::default(),
            dirs: Vec::new(),
            links: Vec::new(),
            skipped: Vec::new(),
            wanted: VecDeque::new(),
            in_flight: HashMap::new(),
            bytes_in_flight: 0,
            names: None,
            report: ReceiveReport::default(),
            _lease: lease,
        }
    }

    /// Takes the next entry of the listing.
    pub(crate) fn entry(&mut self, mut entry: Incoming) -> Result<(), WriteError> {
        self.report.entries += 1;
        let there = self.look(&entry.path)?;
        let change = compare(
            &entry,
            there.as_ref().map(|(meta, target)| (meta, &target[..])),
            self.rules,
        );
        let meta = Wanted::of(&mut entry, &self.options);
        let Incoming { id, path, body, .. } = entry;
        match body {
            Body::Dir => self.directory(path, meta, there.map(|(meta, _)| meta), change),
            Body::HardLink { target, .. } => {
                self.links.push((path, target));
                Ok(())
            }
            Body::CharDevice { .. } | Body::BlockDevice { .. }
                if self.options.devices != DevicePolicy::Create =>
            {
                self.device_not_allowed(path)
            }
            _ if change == Change::Unchanged || self.options.dry_run => {
                self.tell(&path, change);
                Ok(())
            }
            Body::File { size } => {
                self.wanted.push_back(WantedFile {
                    id,
                    size,
                    path,
                    meta,
                    change,
                });
                Ok(())
            }
            Body::Symlink { target } => {
                let make = |dir: &OwnedFd, name: &[u8]| rustix::fs::symlinkat(&target[..], dir, name);
                self.node(&path, &meta, change, true, &make)
            }
            Body::Fifo => {
                let make = |dir: &OwnedFd, name: &[u8]| make_special(dir, name, Kind::Fifo, (0, 0));
                self.node(&path, &meta, change, false, &make)
            }
            Body::CharDevice { major, minor } => {
                let make =
                    |dir: &OwnedFd, name: &[u8]| make_special(dir, name, Kind::CharDevice, (major, minor));
                self.node(&path, &meta, change, false, &make)
            }
            Body::BlockDevice { major, minor } => {
                let make =
                    |dir: &OwnedFd, name: &[u8]| make_special(dir, name, Kind::BlockDevice, (major, minor));
                self.node(&path, &meta, change, false, &make)
            }
        }
    }

    /// The listing is over, and these are its names.
    pub(crate) fn end_of_listing(&mut self, names: Arc<Names>) {
        self.names = Some(names);
    }

    /// The next file to ask for, if there is one and not enough was asked for already.
    pub(crate) fn next_request(&mut self) -> Option<u32> {
        if self.in_flight.len() >= REQUESTS_IN_FLIGHT {
            return None;
        }
        let size = self.wanted.front()?.size;
        if self.names.is_none() && self.bytes_in_flight.saturating_add(size) > BYTES_IN_FLIGHT {
            return None;
        }
        let file = self.wanted.pop_front()?;
        let id = file.id;
        self.bytes_in_flight = self.bytes_in_flight.saturating_add(size);
        self.in_flight.insert(id, (file, None));
        Some(id)
    }

    /// Takes the next bytes of a file that was asked for.
    pub(crate) fn data(&mut self, id: u32, data: &[u8]) -> Result<(), WriteError> {
        // Content of a file that was not asked for does not get through the machine of the protocol.
        let Some((file, part)) = self.in_flight.get_mut(&id) else {
            return Ok(());
        };
        self.report.bytes += data.len() as u64;
        self.options.observer.received_bytes(data.len() as u64);
        let (dest, dirs, uid) = (&self.dest, &mut self.file_dirs, self.rules.uid);
        let mut write = || -> io::Result<()> {
            let part = match part {
                Some(part) => part,
                None => part.insert(unlocking(dest, dirs, &file.path, uid, Part::create)?),
            };
            part.write(data)
        };
        write().map_err(|err| WriteError::io("write", &file.path, err))
    }

    /// A file that was asked for is complete.
    pub(crate) fn end_of_file(&mut self, id: u32) -> Result<(), WriteError> {
        let Some((file, part)) = self.in_flight.remove(&id) else {
            return Ok(());
        };
        self.bytes_in_flight = self.bytes_in_flight.saturating_sub(file.size);
        let (dest, dirs, uid) = (&self.dest, &mut self.file_dirs, self.rules.uid);
        let complete = || -> io::Result<Temp> {
            let part = match part {
                Some(part) => part,
                None => unlocking(dest, dirs, &file.path, uid, Part::create)?,
            };
            let (open, temp) = part.complete()?;
            file.meta.apply(&open, &file.path, &self.options)?;
            Ok(temp)
        };
        let temp = complete().map_err(|err| WriteError::io("write", &file.path, err))?;
        self.publish(temp, &file.path)?;
        self.tell(&file.path, file.change);
        Ok(())
    }

    /// Whether everything that was listed is there, but for what waits for the [end](Self::finish).
    pub(crate) fn is_complete(&self) -> bool {
        self.names.is_some() && self.wanted.is_empty() && self.in_flight.is_empty()
    }

    /// Makes links, deletes what was not sent, and sets the metadata of directories.
    pub(crate) fn finish(mut self) -> Result<ReceiveReport, WriteError> {
        for (path, target) in mem::take(&mut self.links) {
            self.hard_link(&path, &target)?;
        }
        if self.options.mode == ReceiveMode::Delete
            && let Some(names) = self.names.take()
        {
            let mut deleted = 0;
            let outcome = self.removal().others(&names, &mut |path| {
                deleted += 1;
                self.options.observer.changed(path, Change::Deleted);
            });
            self.report.deleted += deleted;
            outcome?;
        }
        // Deepest first: the mode of a directory can forbid to reach what is in it.
        while let Some(dir) = self.dirs.pop() {
            if let Err(err) = self.settle(&dir) {
                self.dirs.push(dir);
                return Err(err);
            }
        }
        Ok(self.report)
    }

    /// What is at `path`, and the target if that is a symbolic link.
    fn look(&mut self, path: &[u8]) -> Result<Option<(Meta, Vec<u8>)>, WriteError> {
        let (above, name) = split(path)?;
        // A dry run changes nothing, so it cannot look into what is locked.
        let owner = (!self.options.dry_run).then_some(self.rules.uid);
        let dir = match self.entry_dirs.dir(&self.dest, above, owner) {
            // In a dry run the directory was not made.
            Err(err) if self.options.dry_run && crate::tree::vanished(&err) => return Ok(None),
            other => other.map_err(|err| WriteError::io("open", above.as_bytes(), err))?,
        };
        let look = || -> io::Result<_> {
            let Some(meta) = stat(&dir, name)? else {
                return Ok(None);
            };
            let target = match meta.kind {
                Kind::Symlink => rustix::fs::readlinkat(&*dir, name, Vec::new())?.into_bytes(),
                _ => Vec::new(),
            };
            Ok(Some((meta, target)))
        };
        look().map_err(|err| WriteError::io("look at", path, err))
    }

    fn tell(&mut self, path: &[u8], change: Change) {
        self.report.count(change);
        self.options.observer.changed(path, change);
    }

    fn device_not_allowed(&mut self, path: Vec<u8>) -> Result<(), WriteError> {
        if self.options.devices == DevicePolicy::Refuse {
            let path = show(&path).into_owned();
            return Err(WriteError::DeviceRefused { path });
        }
        self.skip(&path);
        self.skipped.push(path);
        Ok(())
    }

    fn skip(&mut self, path: &[u8]) {
        self.report.skipped += 1;
        let warning = ReceiveWarning::DeviceSkipped { path };
        self.options.observer.warning(&warning);
    }

    fn directory(
        &mut self,
        path: Vec<u8>,
        meta: Wanted,
        there: Option<Meta>,
        change: Change,
    ) -> Result<(), WriteError> {
        let mut locked = None;
        if !self.options.dry_run {
            let uid = self.rules.uid;
            let make = |dir: &Arc<OwnedFd>| -> io::Result<Option<u32>> {
                let (_, name) = RelPath::trusted(&path)
                    .split()
                    .ok_or(io::ErrorKind::InvalidInput)?;
                match &there {
                    Some(there) if there.kind == Kind::Dir => {
                        if there.uid == uid && there.mode & 0o700 != 0o700 {
                            chmod(dir, name, there.mode | 0o700)?;
                            return Ok(Some(there.mode));
                        }
                        return Ok(None);
                    }
                    Some(_) => rustix::fs::unlinkat(&**dir, name, AtFlags::empty())?,
                    None => {}
                }
                match rustix::fs::mkdirat(&**dir, name, Mode::RWXU) {
                    // Another stream was faster, or somebody interferes: then it must be a directory all the same.
                    Err(Errno::EXIST) if stat(dir, name)?.is_some_and(|m| m.kind == Kind::Dir) => Ok(None),
                    other => Ok(other.map(|()| None)?),
                }
            };
            locked = unlocking(&self.dest, &mut self.entry_dirs, &path, uid, make)
                .map_err(|err| WriteError::io("make directory", &path, err))?;
        }
        self.tell(&path, change);
        if !self.options.dry_run {
            self.dirs.push(ListedDir {
                path,
                meta,
                existed: change == Change::Unchanged,
                locked,
            });
        }
        Ok(())
    }

    /// Gives a directory its metadata.
    fn settle(&self, dir: &ListedDir) -> Result<(), WriteError> {
        let apply = || -> io::Result<()> {
            let fd = self.dest.dir(RelPath::trusted(&dir.path), READ_DIR)?;
            dir.meta.apply(&fd, &dir.path, &self.options)
        };
        match apply() {
            Err(cause) if dir.existed && cause.kind() == io::ErrorKind::PermissionDenied => {
                let path = &dir.path;
                let warning = ReceiveWarning::MetadataKept { path, cause: &cause };
                self.options.observer.warning(&warning);
                Ok(())
            }
            other => other.map_err(|err| WriteError::io("set the metadata of directory", &dir.path, err)),
        }
    }

    fn removal(&self) -> Removal<'_> {
        Removal {
            dest: &self.dest,
            uid: self.rules.uid,
            dry_run: self.options.dry_run,
            stop: &self.stop,
        }
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        // Only what a transfer that failed has left. First its temporary files, then the locks of the directories
        // that they are in.
        self.in_flight.clear();
        while let Some(dir) = self.dirs.pop() {
            if let Some(mode) = dir.locked
                && let Some((above, name)) = RelPath::trusted(&dir.path).split()
                && let Ok(above) = self.dest.dir(above, HANDLE)
            {
                // The transfer has failed for another reason, which is the one to tell.
                let _ = chmod(&above, name, mode);
            }
        }
    }
}

/// Does `what` with the directory that holds `path`; once more after unlocking it, if it was locked in between. That
/// happens when another stream has finished with it.
fn unlocking<T>(
    dest: &Destination,
    dirs: &mut DirCache,
    path: &[u8],
    uid: u32,
    what: impl Fn(&Arc<OwnedFd>) -> io::Result<T>,
) -> io::Result<T> {
    let (above, _) = RelPath::trusted(path)
        .split()
        .ok_or(io::ErrorKind::InvalidInput)?;
    let dir = dirs.dir(dest, above, Some(uid))?;
    match what(&dir) {
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
            dest.unlock(above, uid)?;
            what(&dir)
        }
        other => other,
    }
}
