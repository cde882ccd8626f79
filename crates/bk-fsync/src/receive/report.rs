//! What an export tells while it runs and when it is done.
//!
//! The rule: nothing that was left out is left out silently.

use std::io;

/// What became of a path in the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Change {
    /// There was nothing; now it is there.
    Created,
    /// Something else was there, and is gone.
    Replaced,
    /// It was there already. The metadata of a directory may have changed.
    Unchanged,
    /// It was not sent, and is gone.
    Deleted,
}

/// Watches an export. Called from blocking threads, in the order in which things happen. The default of each
/// method does nothing.
pub trait ReceiveObserver: Send + Sync {
    /// Something became of a path, or would have, in a dry run.
    fn changed(&self, path: &[u8], change: Change) {
        let _ = (path, change);
    }

    /// Bytes of files were taken from the wire.
    fn received_bytes(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Something is not quite as it was sent.
    fn warning(&self, warning: &ReceiveWarning<'_>) {
        let _ = warning;
    }
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NobodyReceives;

impl ReceiveObserver for NobodyReceives {}

/// Something about one path that is not as it was sent.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReceiveWarning<'a> {
    /// A device, or a link to one, that was left out because of the policy.
    DeviceSkipped {
        /// The path in the destination.
        path: &'a [u8],
    },
    /// An extended attribute that the file system did not take.
    XattrSkipped {
        /// The path in the destination.
        path: &'a [u8],
        /// The name of the attribute.
        name: &'a str,
        /// What the file system says.
        cause: &'a io::Error,
    },
    /// A directory that was there before, belongs to somebody else, and so kept its metadata.
    MetadataKept {
        /// The path in the destination.
        path: &'a [u8],
        /// What the file system says.
        cause: &'a io::Error,
    },
}

impl ReceiveWarning<'_> {
    /// The path that the warning is about.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        match self {
            ReceiveWarning::DeviceSkipped { path }
            | ReceiveWarning::XattrSkipped { path, .. }
            | ReceiveWarning::MetadataKept { path, .. } => path,
        }
    }
}

impl std::fmt::Display for ReceiveWarning<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = crate::path::show(self.path());
        match self {
            ReceiveWarning::DeviceSkipped { .. } => write!(f, "skipped device {path:?}"),
            ReceiveWarning::XattrSkipped { name, cause, .. } => {
                write!(f, "{path:?} goes without attribute {name:?}: {cause}")
            }
            ReceiveWarning::MetadataKept { cause, .. } => {
                write!(f, "directory {path:?} keeps its metadata: {cause}")
            }
        }
    }
}

/// What was received. In a dry run: what would have been.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiveReport {
    /// Entries in the listing.
    pub entries: u64,
    /// Paths at which there was nothing.
    pub created: u64,
    /// Paths at which there was something else, or another content.
    pub replaced: u64,
    /// Paths at which it was already there, directories included.
    pub unchanged: u64,
    /// Paths that were not sent and are gone, each entry of a tree counted.
    pub deleted: u64,
    /// Devices left out.
    pub skipped: u64,
    /// Bytes of file content that were received.
    pub bytes: u64,
}

impl ReceiveReport {
    #[cfg_attr(windows, expect(dead_code, reason = "no directory is written to there yet"))]
    pub(crate) fn count(&mut self, change: Change) {
        match change {
            Change::Created => self.created += 1,
            Change::Replaced => self.replaced += 1,
            Change::Unchanged => self.unchanged += 1,
            Change::Deleted => self.deleted += 1,
        }
    }
}
