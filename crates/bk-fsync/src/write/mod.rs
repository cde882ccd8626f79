//! A directory of the host that is written to, and that nothing gets out of.
//!
//! The rule: everything is reached from one open handle of the directory, component by component or by a call that
//! follows no link; every name is created under a temporary name that did not exist and then moved over what is
//! there. Nothing that existed before is ever opened for writing, so a link that somebody left, or puts there while
//! we run, leads nowhere. Content is visible only when it is complete.

#[cfg(unix)]
mod apply;
#[cfg(unix)]
mod meta;
#[cfg(unix)]
mod part;
#[cfg(unix)]
mod place;
#[cfg(unix)]
mod prune;
#[cfg(windows)]
mod refused;

#[cfg(unix)]
pub(crate) use apply::Applier;
#[cfg(windows)]
pub(crate) use refused::Applier;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(unix)]
use place::Root;
#[cfg(windows)]
use refused::Root;

use crate::path::show;
use crate::receive::ReceiveMode;

/// The destination could not be written to: the local file system is at fault, or what is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The file system refused something.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The path in the destination.
        path: String,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
    /// A directory that is not empty stands where something else shall be. It is removed in
    /// [`ReceiveMode::Delete`] only.
    #[error("directory {path:?} is in the way and is not empty")]
    DirectoryInTheWay {
        /// The path in the destination.
        path: String,
    },
    /// A device was sent, and the [policy](crate::receive::DevicePolicy) does not allow it.
    #[error("{path:?} is a device, and devices are not allowed")]
    DeviceRefused {
        /// The path in the destination.
        path: String,
    },
}

impl WriteError {
    #[cfg_attr(windows, expect(dead_code, reason = "no directory is written to there yet"))]
    fn io(action: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        WriteError::Io {
            action,
            path: show(path).into_owned(),
            source: source.into(),
        }
    }
}

/// The directory that was to be written to cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} directory {}", path.display())]
#[non_exhaustive]
pub struct OpenDestinationError {
    /// What was to be done.
    pub action: &'static str,
    /// The directory as it was given.
    pub path: PathBuf,
    /// What the file system says.
    #[source]
    pub source: io::Error,
}

/// Other streams write to the same destination, or this one wants to delete and must be alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stream that deletes other files must be the only one into its directory")]
#[non_exhaustive]
pub struct BusyError;

/// A directory that exports are written to. Several streams may write to it at the same time, as long as none of
/// them deletes.
#[derive(Debug)]
pub struct Destination {
    root: Root,
    path: PathBuf,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    copying: usize,
    deleting: bool,
}

impl Destination {
    /// Opens the directory `path`, which may itself be a symbolic link to one. Blocks.
    ///
    /// # Errors
    /// [`OpenDestinationError`] naming the path if it is missing, not accessible, or not a directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Arc<Self>, OpenDestinationError> {
        let given = path.as_ref();
        let open = || -> io::Result<Self> {
            let path = given.canonicalize()?;
            let root = Root::open(&path)?;
            Ok(Destination {
                root,
                path,
                streams: Mutex::default(),
            })
        };
        open().map(Arc::new).map_err(|source| OpenDestinationError {
            action: "open",
            path: given.to_owned(),
            source,
        })
    }

    /// Opens the directory `path`; if it is missing it is made first, with all directories above it, for the current
    /// user only (mode 0700), as upstream's client does. Blocks.
    ///
    /// # Errors
    /// [`OpenDestinationError`].
    ///
    /// # Windows
    /// Nothing can be written there yet: this and [`open`](Self::open) fail with
    /// [`Unsupported`](io::ErrorKind::Unsupported), and nothing is made.
    pub fn create(path: impl AsRef<Path>) -> Result<Arc<Self>, OpenDestinationError> {
        let given = path.as_ref();
        Root::make(given).map_err(|source| OpenDestinationError {
            action: "make",
            path: given.to_owned(),
            source,
        })?;
        Self::open(given)
    }

    /// The directory with every symbolic link in its own path resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether [`path`](Self::path) still leads to this directory: not when somebody removed, moved or replaced it while
    /// it was written to. Blocks.
    ///
    /// # Errors
    /// When that cannot be found out; a path that is not there any more is no error.
    pub fn is_in_place(&self) -> io::Result<bool> {
        self.root.is_at(&self.path)
    }

    /// Registers a stream until the lease is dropped.
    pub(crate) fn lease(self: &Arc<Self>, mode: ReceiveMode) -> Result<Lease, BusyError> {
        // Nothing can panic while it is locked.
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let deletes = mode == ReceiveMode::Delete;
        if streams.deleting || (deletes && streams.copying > 0) {
            return Err(BusyError);
        }
        if deletes {
            streams.deleting = true;
        } else {
            streams.copying += 1;
        }
        drop(streams);
        Ok(Lease {
            dest: Arc::clone(self),
            deletes,
        })
    }
}

/// The right of one stream to write.
#[derive(Debug)]
pub(crate) struct Lease {
    dest: Arc<Destination>,
    deletes: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut streams = self.dest.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if self.deletes {
            streams.deleting = false;
        } else {
            streams.copying -= 1;
        }
    }
}
