//! One upload of a blob into a layout: begun or taken up again, written, checked and published.
//!
//! The rule: nothing becomes a blob whose size and digest were not verified. An upload has one writer at a time, in this
//! process or another: its file is locked. The layout of `ingest/` is that of other clients. All of this blocks.

use std::{
    fs::{File, Permissions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    sync::Arc,
    time::SystemTime,
};

use rustix::{
    fs::{AtFlags, Dir, FlockOperation, OFlags},
    io::Errno,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    digest::{Algorithm, Digest, Hasher, name_of},
    layout::{Layout, bounded, file_in, inside, is_same},
};
use crate::limits::{FILE_BUFFER, MAX_INGEST_NOTE, MAX_INGESTS_LISTED};

/// What is known of an upload.
#[derive(Clone, Debug)]
pub(crate) struct IngestStatus {
    pub(crate) reference: String,
    pub(crate) offset: u64,
    pub(crate) total: u64,
    pub(crate) started: SystemTime,
    pub(crate) updated: SystemTime,
}

/// Why a step of an upload was not taken.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The blob is there.
    Exists(Digest),
    /// Somebody else writes.
    Busy,
    /// The offset is not where the upload stands.
    OutOfRange(String),
    /// Size or digest are not those that were said.
    Mismatch(String),
    /// The disk.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<Errno> for Fault {
    fn from(e: Errno) -> Self {
        Self::Io(e.into())
    }
}

const DATA: &str = "data";
const REFERENCE: &str = "ref";
const STARTED: &str = "startedat";
const UPDATED: &str = "updatedat";
const TOTAL: &str = "total";

/// An upload that this side writes.
#[derive(Debug)]
pub(crate) struct Ingest {
    layout: Arc<Layout>,
    /// `ingest/`, and the upload's own directory there.
    above: OwnedFd,
    name: String,
    dir: OwnedFd,
    data: File,
    hasher: Hasher,
    status: IngestStatus,
    /// Whether an unfinished upload stays to be taken up again.
    keep: bool,
    gone: bool,
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

impl Ingest {
    /// Begins the upload `reference`, or takes it up where it was left.
    ///
    /// `total` is its size in the end, 0 if that is not known.
    pub(crate) fn open(
        layout: Arc<Layout>,
        reference: &str,
        total: u64,
        expected: Option<&Digest>,
        keep: bool,
    ) -> Result<Self, Fault> {
        let above = layout.ingests(true)?;
        let name = name_of(reference);
        let dir = inside(&above, &name, true)?;
        let data = match file_in(&dir, DATA, OFlags::RDWR | OFlags::CREATE) {
            // Its directory was removed just now.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Fault::Busy),
            other => other?,
        };
        match rustix::fs::flock(&data, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Fault::Busy),
            Err(e) => return Err(e.into()),
        }
        // Whoever held it may have published or removed the file meanwhile; then the next attempt will do.
        if !is_same(&dir, DATA, &data)? {
            return Err(Fault::Busy);
        }
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let before = status_of(&dir).ok();
        let now = SystemTime::now();
        let fresh = before.as_ref().is_none_or(|b| b.reference != reference);
        let started = match &before {
            Some(before) if !fresh => before.started,
            _ => now,
        };
        let mut this = Self {
            status: IngestStatus {
                reference: reference.to_owned(),
                offset: 0,
                total,
                started,
                updated: now,
            },
            layout,
            above,
            name,
            dir,
            data,
            hasher: Hasher::new(algorithm),
            keep,
            gone: false,
        };
        if fresh {
            this.note(REFERENCE, reference)?;
            this.note(STARTED, &text_of(now))?;
        }
        let size = this.data.metadata()?.len();
        // What was said to become something else, or more than it can be, is no beginning of this.
        let other = before.is_some_and(|b| b.total != 0 && total != 0 && b.total != total);
        if other || fresh || (total != 0 && size > total) {
            this.restart()?;
        } else {
            this.hash_all(algorithm)?;
        }
        if total != 0 {
            this.note(TOTAL, &total.to_string())?;
        }
        Ok(this)
    }

    /// Where the upload stands.
    pub(crate) fn status(&self) -> &IngestStatus {
        &self.status
    }

    /// The digest of what is there.
    pub(crate) fn digest(&self) -> Digest {
        self.hasher.digest()
    }

    /// Sets what the size will be in the end.
    pub(crate) fn set_total(&mut self, total: u64) {
        self.status.total = total;
    }

    fn note(&self, name: &str, text: &str) -> io::Result<()> {
        let mut file = file_in(&self.dir, name, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?;
        file.write_all(text.as_bytes())
    }

    /// Throws away what is there.
    fn restart(&mut self) -> io::Result<()> {
        self.data.set_len(0)?;
        self.data.seek(SeekFrom::Start(0))?;
        self.hasher = Hasher::new(self.hasher.algorithm());
        self.status.offset = 0;
        Ok(())
    }

    fn hash_all(&mut self, algorithm: Algorithm) -> io::Result<()> {
        self.hasher = Hasher::new(algorithm);
        self.data.seek(SeekFrom::Start(0))?;
        let mut buffer = vec![0; FILE_BUFFER];
        let mut offset = 0;
        loop {
            match self.data.read(&mut buffer)? {
                0 => break,
                n => {
                    self.hasher.update(&buffer[..n]);
                    offset += n as u64;
                }
            }
        }
        self.status.offset = offset;
        Ok(())
    }

    /// Adds bytes at `offset`, which is where the upload stands; 0 begins it again.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let at = self.status.offset;
        if offset != 0 && offset != at {
            return Err(Fault::OutOfRange(format!(
                "the upload stands at {at}, and cannot go on at {offset}"
            )));
        }
        if offset == 0 && at != 0 {
            self.restart()?;
        }
        let (end, total) = (self.status.offset + bytes.len() as u64, self.status.total);
        if total != 0 && end > total {
            return Err(Fault::OutOfRange(format!(
                "{end} bytes are more than the {total} that were announced"
            )));
        }
        self.data.write_all(bytes)?;
        self.hasher.update(bytes);
        self.status.offset = end;
        self.status.updated = SystemTime::now();
        Ok(())
    }

    /// Checks the whole and makes it a blob. Size 0 and no digest mean that nothing was said.
    pub(crate) fn commit(&mut self, size: u64, expected: Option<&Digest>) -> Result<Digest, Fault> {
        if let Some(expected) = expected
            && expected.algorithm() != self.hasher.algorithm()
        {
            self.hash_all(expected.algorithm())?;
        }
        let (offset, digest) = (self.status.offset, self.digest());
        if size != 0 && size != offset {
            return Err(Fault::Mismatch(format!(
                "{offset} bytes arrived, and {size} were announced"
            )));
        }
        if let Some(expected) = expected
            && *expected != digest
        {
            // Nothing that is added could make it right.
            self.discard();
            return Err(Fault::Mismatch(format!(
                "what arrived is {digest}, and {expected} was announced"
            )));
        }
        if self.layout.has(&digest, offset)? {
            self.discard();
            return Err(Fault::Exists(digest));
        }
        // Blobs never change.
        let mode = self.data.metadata()?.permissions().mode();
        self.data.set_permissions(Permissions::from_mode(mode & 0o444))?;
        self.layout.publish(&self.dir, DATA, &digest)?;
        self.discard();
        Ok(digest)
    }

    /// Removes what is left of the upload.
    pub(crate) fn discard(&mut self) {
        self.gone = true;
        // What cannot be removed now is a leftover that a clean-up removes.
        drop(remove(&self.above, &self.name, &self.dir));
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // An upload without a byte is not worth keeping.
        if !self.gone && (!self.keep || self.status.offset == 0) {
            self.discard();
        }
    }
}

fn remove(above: &OwnedFd, name: &str, dir: &OwnedFd) -> io::Result<()> {
    for file in [DATA, REFERENCE, STARTED, UPDATED, TOTAL] {
        match rustix::fs::unlinkat(dir, file, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR)?)
}

/// The text of a note of an upload.
fn note_in(dir: &OwnedFd, name: &str) -> io::Result<String> {
    let file = file_in(dir, name, OFlags::RDONLY)?;
    let size = file.metadata()?.len();
    let bytes = bounded(file, size, MAX_INGEST_NOTE)?;
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn status_of(dir: &OwnedFd) -> io::Result<IngestStatus> {
    let data = file_in(dir, DATA, OFlags::RDONLY)?.metadata()?;
    let updated = data.modified()?;
    let started = note_in(dir, STARTED).ok();
    let started = started.and_then(|text| OffsetDateTime::parse(text.trim(), &Rfc3339).ok());
    Ok(IngestStatus {
        reference: note_in(dir, REFERENCE)?,
        offset: data.len(),
        total: note_in(dir, TOTAL)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0),
        started: started.map_or(updated, SystemTime::from),
        updated,
    })
}

fn text_of(time: SystemTime) -> String {
    // The format has no other failure than years with five digits.
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

/// What is known of the upload `reference`.
pub(crate) fn status(layout: &Layout, reference: &str) -> io::Result<IngestStatus> {
    status_of(&inside(&layout.ingests(false)?, &name_of(reference), false)?)
}

/// The names of the directories of all uploads.
fn names(above: &OwnedFd) -> io::Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in Dir::read_from(above)?.take(MAX_INGESTS_LISTED) {
        let entry = entry?;
        if let Some(digest) = entry
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| Digest::of_name(Algorithm::Sha256, name))
        {
            all.push(digest.hex().to_owned());
        }
    }
    Ok(all)
}

/// What is known of all uploads, up to a bound.
pub(crate) fn statuses(layout: &Layout) -> io::Result<Vec<IngestStatus>> {
    let above = match layout.ingests(false) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let found = names(&above)?.into_iter();
    Ok(found
        .filter_map(|name| status_of(&inside(&above, &name, false).ok()?).ok())
        .collect())
}

/// Throws the upload `reference` away, unless somebody writes it.
pub(crate) fn abort(layout: &Layout, reference: &str) -> Result<(), Fault> {
    let above = layout.ingests(false)?;
    let name = name_of(reference);
    let dir = inside(&above, &name, false)?;
    abandon(&above, &name, &dir)
}

fn abandon(above: &OwnedFd, name: &str, dir: &OwnedFd) -> Result<(), Fault> {
    let _held = match file_in(dir, DATA, OFlags::RDWR) {
        Ok(data) => match rustix::fs::flock(&data, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(Fault::Busy),
            _ => Some(data),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e.into()),
    };
    Ok(remove(above, name, dir)?)
}

/// Removes the uploads that were left before `since`, and returns the bytes of those that stay.
pub(crate) fn expire(layout: &Layout, since: SystemTime) -> io::Result<u64> {
    let above = match layout.ingests(false) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut left = 0;
    for name in names(&above)? {
        let Ok(dir) = inside(&above, &name, false) else {
            continue;
        };
        let (size, updated) = match file_in(&dir, DATA, OFlags::RDONLY).and_then(|f| f.metadata()) {
            Ok(meta) => (meta.len(), meta.modified()?),
            Err(_) => (0, SystemTime::UNIX_EPOCH),
        };
        if updated >= since || abandon(&above, &name, &dir).is_err() {
            left += size;
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests;
