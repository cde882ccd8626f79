//! Where files come from: the trait that every tree implements, and the trees of this crate.
//!
//! The rule: a tree answers what is there and never interprets it; no method follows a symbolic link below
//! the root. Every method may block and is called from blocking threads only.

#[cfg(unix)]
mod dir;
#[cfg(windows)]
#[path = "windows.rs"]
mod dir;
mod files;
#[cfg(unix)]
pub(crate) mod host;
mod listed;
mod memory;
mod overlay;
mod path_map;
mod single;
mod spool;
mod tar;

pub use dir::DirTree;
#[cfg(unix)]
pub(crate) use dir::{meta_of, open_below};
pub use files::FilesTree;
pub use listed::ListedTree;
pub use memory::MemoryTree;
pub use overlay::OverlayTree;
pub use path_map::{MapError, PathMapTree};
pub use single::{OpenFileError, SingleFileTree};
pub use tar::TarTree;

use std::io;
use std::path::PathBuf;

use crate::entry::{Kind, Meta, Xattr};
use crate::path::RelPath;

/// A tree of files to be sent.
///
/// Errors of the kinds [`NotFound`](io::ErrorKind::NotFound) and
/// [`NotADirectory`](io::ErrorKind::NotADirectory) mean that an entry has vanished since it was listed: a walk
/// skips it then. Any other error ends a walk.
///
/// # Trees without file numbers
/// [`Meta::dev`] and [`Meta::ino`] say which file an entry is, and [`Meta::ctime_ns`] which state of it. A tree that has
/// them passes them on, also when it shows the files of another tree: hard links are found by them, a file that changes
/// between listing and reading is caught by them, and the sync policy
/// [`Exact`](crate::SyncPolicy::Exact) makes its tag of them without reading the file. A tree that has none leaves `ino`
/// at 0: `Exact` then reads each offered file once more to make the tag of its content, and a change is caught by size
/// and time alone. A tree may also number its files by their content, so that equal numbers mean equal bytes in every
/// run.
pub trait Tree: Send + Sync {
    /// Opens a directory for listing and for asking about what is in it.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>>;

    /// Opens a regular file for reading. Must not block on a pipe or touch a device that took its place.
    ///
    /// # Errors
    /// Whatever the file system says; anything but a regular file may be refused here, or by the metadata of
    /// the open file.
    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>>;

    /// The metadata of the root. It never travels; it counts where the root becomes a directory of another tree. The
    /// default is a directory with mode 0755 and the time of the epoch.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn root_meta(&self) -> io::Result<Meta> {
        Ok(Meta::new(Kind::Dir))
    }
}

/// A directory held open.
pub trait Directory: Send {
    /// The names in it, in any order, without `.` and `..`.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn list(&mut self) -> io::Result<Vec<Listed>>;

    /// The metadata of `name`, not through a link.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn stat(&self, name: &[u8]) -> io::Result<Meta>;

    /// The raw target of the symbolic link `name`.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>>;

    /// The extended attributes of `name`, not through a link. Those whose value cannot be read are left out.
    /// The default is none.
    ///
    /// # Errors
    /// Whatever the file system says, but not that it has none or does not show them.
    fn xattrs(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        let _ = name;
        Ok(Vec::new())
    }

    /// Whether `name` is a directory that is there only because something below it is, so that nobody chose its
    /// metadata. Where it is laid over another directory, the other one's metadata holds. The default is no.
    fn is_implied(&self, name: &[u8]) -> bool {
        let _ = name;
        false
    }

    /// Opens the directory `name` in this one, not through a link.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn Directory>>;
}

/// A regular file open for reading from its start.
pub trait OpenFile: io::Read + Send {
    /// The metadata of what is open, not of what now has its name.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn stat(&self) -> io::Result<Meta>;

    /// Looks at what comes next. If it is a hole, the file stands behind it afterwards; else nothing has moved. Asked at
    /// the start and at the end of each run.
    ///
    /// The default knows of no holes: everything is data.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn next_run(&mut self) -> io::Result<Run> {
        Ok(Run::Data(u64::MAX))
    }

    /// Where the file has data: offset and length of each run in order, apart from each other. Everything else up to its
    /// size is holes. Nothing has moved afterwards. `None`: the file has no holes, does not tell, or has more than
    /// `limit` runs.
    ///
    /// The default is `None`.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn data_runs(&mut self, limit: usize) -> io::Result<Option<Vec<(u64, u64)>>> {
        let _ = limit;
        Ok(None)
    }
}

/// The directory that was to be a tree cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open directory {}", path.display())]
#[non_exhaustive]
pub struct OpenTreeError {
    /// The directory as it was given.
    pub path: PathBuf,
    /// What the file system says.
    #[source]
    pub source: io::Error,
}

/// A part of a file. At least one byte, unless it is the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "bytes are there or they are not")]
pub enum Run {
    /// At most this many bytes are to be read before asking again.
    Data(u64),
    /// This many zero bytes are stored nowhere and need not be read.
    Hole(u64),
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "trees outside of this crate build it")]
pub struct Listed {
    /// The name: one component, any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// Its kind if listing told it, which saves asking again for what a filter hides.
    pub kind: Option<Kind>,
}

/// Whether an error means that the entry is gone.
pub(crate) fn vanished(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
