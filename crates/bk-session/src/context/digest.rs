//! A digest of what would be sent, and what differs between two contexts.
//!
//! The rule: only what ends up in an image counts: path, kind, permission bits after the policy, content. Files are read
//! whole, in pieces, and a file that is not as long as its entry says is an error.

use std::{
    cmp::Ordering,
    io::{self, Read as _},
    sync::atomic::{self, AtomicBool},
};

use bk_build::BuildError;
use bk_fsync::{
    entry::{Entry, Kind},
    path::{RelPath, compare, show},
};
use sha2::{Digest as _, Sha256};

use super::view::{ContextView, Warn};
use crate::{context_tar::local, limits::READ_BUFFER};

/// Stands in front of everything, so that another definition never has the same digests.
const FORMAT: &[u8] = b"bk-context-1\n";

/// How two contexts differ in one path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContextDifference {
    /// The path from the root of both.
    pub path: Vec<u8>,
    /// What differs.
    pub what: Differs,
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Differs {
    /// Only the first context has it.
    Added,
    /// Only the second context has it.
    Removed,
    /// It is of another kind.
    Kind,
    /// The content, the target of the link or the number of the device is another one, and the permission bits perhaps
    /// too.
    Content,
    /// Only the permission bits differ.
    Mode,
    /// Only the owner differs, where owners are sent.
    Owner,
}

impl ContextView {
    /// The SHA-256 of what would be sent, as `sha256:` and hexadecimal digits. Blocks.
    ///
    /// It is the same wherever and whenever the same files are: it is made of the line `bk-context-1` and, for each entry
    /// in the order of the wire, of its kind (one of the letters `f`, `d`, `l`, `p`, `c`, `b`), the permission bits that
    /// would be sent (32 bits), the length (64 bits) and bytes of the path; then for a file the length (64 bits) and
    /// SHA-256 of its content, for a link the length (64 bits) and bytes of its target, for a device its number (64
    /// bits). Numbers have the highest byte first. Times, owners and extended attributes do not count.
    ///
    /// # Errors
    /// As [`list`](Self::list); and a file that cannot be read, or changes while it is, is named.
    pub fn digest(
        &self,
        stop: &AtomicBool,
        warn: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<String, BuildError> {
        let mut all = Sha256::new_with_prefix(FORMAT);
        let mut buffer = vec![0; READ_BUFFER];
        self.list(stop, warn, |entry| {
            let kind = entry.meta.kind;
            all.update([letter(kind)]);
            all.update(self.mode(entry).to_be_bytes());
            sized(&mut all, &entry.path);
            match kind {
                Kind::File => {
                    let mut content = Sha256::new();
                    self.read(entry, stop, &mut buffer, |piece| content.update(piece))?;
                    all.update(entry.meta.size.to_be_bytes());
                    all.update(content.finalize());
                }
                Kind::Symlink => sized(&mut all, &entry.target),
                Kind::CharDevice | Kind::BlockDevice => all.update(entry.meta.rdev.to_be_bytes()),
                _ => {}
            }
            Ok::<_, BuildError>(())
        })?;
        let digits = all.finalize();
        Ok(digits.iter().fold("sha256:".to_owned(), |mut text, byte| {
            text.push_str(&format!("{byte:02x}"));
            text
        }))
    }

    /// Calls `each` with every difference from `other`, in the order of the wire. Files of the same length are read and
    /// compared. Blocks.
    ///
    /// # Errors
    /// As [`digest`](Self::digest), and what `each` ends with.
    pub fn differences<E: From<BuildError>>(
        &self,
        other: &Self,
        stop: &AtomicBool,
        warn: &(dyn Fn(&str) + Send + Sync),
        mut each: impl FnMut(ContextDifference) -> Result<(), E>,
    ) -> Result<(), E> {
        let observer = Warn(warn);
        let (mut ours, mut theirs) = (self.walk(&observer, stop), other.walk(&observer, stop));
        let mut our_next = || ours.next().transpose().map_err(|e| self.explain(e));
        let mut their_next = || theirs.next().transpose().map_err(|e| other.explain(e));
        let (mut a, mut b) = (our_next()?, their_next()?);
        let mut buffers = (vec![0; READ_BUFFER], vec![0; READ_BUFFER]);
        while !stop.load(atomic::Ordering::Relaxed) {
            let order = match (&a, &b) {
                (Some(a), Some(b)) => compare(&a.path, &b.path),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Ok(()),
            };
            let what = match (order, &a, &b) {
                (Ordering::Less, ..) => Some(Differs::Added),
                (Ordering::Greater, ..) => Some(Differs::Removed),
                (_, Some(a), Some(b)) => self.differs(a, other, b, stop, &mut buffers)?,
                _ => None,
            };
            let path = match order {
                Ordering::Greater => b.as_ref().map(|b| &b.path),
                _ => a.as_ref().map(|a| &a.path),
            };
            if let (Some(what), Some(path)) = (what, path) {
                let path = path.clone();
                each(ContextDifference { path, what })?;
            }
            if order != Ordering::Greater {
                a = our_next()?;
            }
            if order != Ordering::Less {
                b = their_next()?;
            }
        }
        Err(BuildError::Cancelled.into())
    }

    fn differs(
        &self,
        ours: &Entry,
        other: &Self,
        theirs: &Entry,
        stop: &AtomicBool,
        buffers: &mut (Vec<u8>, Vec<u8>),
    ) -> Result<Option<Differs>, BuildError> {
        let (a, b) = (&ours.meta, &theirs.meta);
        if a.kind != b.kind {
            return Ok(Some(Differs::Kind));
        }
        let same = match a.kind {
            Kind::File if a.size != b.size => false,
            Kind::File => self.same_content(ours, other, theirs, stop, buffers)?,
            Kind::Symlink => ours.target == theirs.target,
            Kind::CharDevice | Kind::BlockDevice => a.rdev == b.rdev,
            _ => true,
        };
        Ok(match same {
            false => Some(Differs::Content),
            true if self.mode(ours) != other.mode(theirs) => Some(Differs::Mode),
            true => None,
        })
    }

    fn same_content(
        &self,
        ours: &Entry,
        other: &Self,
        theirs: &Entry,
        stop: &AtomicBool,
        (mine, yours): &mut (Vec<u8>, Vec<u8>),
    ) -> Result<bool, BuildError> {
        let fail = |e| other.unread(theirs, e);
        let mut file = other
            .source
            .tree
            .open(RelPath::new(&theirs.path).unwrap_or(RelPath::ROOT))
            .map_err(fail)?;
        let (mut same, mut failed) = (true, None);
        self.read(ours, stop, mine, |piece| {
            if same && failed.is_none() {
                let yours = &mut yours[..piece.len()];
                match file.read_exact(yours) {
                    Ok(()) => same = piece == yours,
                    Err(e) => failed = Some(e),
                }
            }
        })?;
        match failed {
            Some(e) => Err(fail(e)),
            None => Ok(same),
        }
    }

    /// Reads a file whole, in pieces of `buffer` at most.
    fn read(
        &self,
        entry: &Entry,
        stop: &AtomicBool,
        buffer: &mut [u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), BuildError> {
        let fail = |e| self.unread(entry, e);
        let mut file = self
            .source
            .tree
            .open(RelPath::new(&entry.path).unwrap_or(RelPath::ROOT))
            .map_err(fail)?;
        let mut done = 0_u64;
        loop {
            if stop.load(atomic::Ordering::Relaxed) {
                return Err(BuildError::Cancelled);
            }
            match file.read(buffer) {
                Ok(0) => break,
                Ok(count) => {
                    done += count as u64;
                    if done > entry.meta.size {
                        break;
                    }
                    each(&buffer[..count]);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(fail(e)),
            }
        }
        if done != entry.meta.size {
            return Err(fail(io::Error::other("it changed while it was read")));
        }
        Ok(())
    }

    fn unread(&self, entry: &Entry, error: io::Error) -> BuildError {
        local(&self.source, &show(&entry.path), "cannot read the file", error)
    }

    fn mode(&self, entry: &Entry) -> u32 {
        self.policies().mode.apply(entry.meta.kind, entry.meta.mode)
    }
}

fn sized(all: &mut Sha256, bytes: &[u8]) {
    all.update((bytes.len() as u64).to_be_bytes());
    all.update(bytes);
}

fn letter(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'f',
        Kind::Dir => b'd',
        Kind::Symlink => b'l',
        Kind::Fifo => b'p',
        Kind::Socket => b's',
        Kind::CharDevice => b'c',
        Kind::BlockDevice => b'b',
    }
}
