//! A tree that holds one file of the host under a name of the caller's choice.
//!
//! The rule: the file is there or it is an error. A tree that is empty because its only file went away would look like a
//! context without files.

use std::io;
use std::path::PathBuf;

use super::{Directory, FilesTree, Listed, OpenFile, Tree, vanished};
use crate::entry::Meta;
use crate::path::{PathError, RelPath};

/// One regular file of the host. Cloning is cheap; the file is opened anew whenever it is asked for.
#[derive(Debug, Clone)]
pub struct SingleFileTree {
    files: FilesTree,
    name: Vec<u8>,
    path: PathBuf,
}

/// The file that was to be a tree cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenFileError {
    /// The name that it was to have is at fault.
    #[error(transparent)]
    Name(#[from] PathError),
    /// The file system is.
    #[error("cannot use file {}", path.display())]
    Host {
        /// The file as it was given.
        path: PathBuf,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
}

impl SingleFileTree {
    /// Shows the regular file at `path` as `name`, one component, in the root. The file may be reached through symbolic
    /// links. Blocks.
    ///
    /// # Errors
    /// [`OpenFileError`] if the name is no single component, or the file is missing, unreadable or not a regular file.
    pub fn open(name: impl AsRef<[u8]>, path: impl Into<PathBuf>) -> Result<Self, OpenFileError> {
        let (name, path) = (name.as_ref(), path.into());
        let this = SingleFileTree {
            files: FilesTree::new().with(name, &path)?,
            name: name.to_vec(),
            path,
        };
        match this.files.open(RelPath::trusted(&this.name)) {
            Ok(_) => Ok(this),
            Err(source) => Err(OpenFileError::Host {
                path: this.path,
                source,
            }),
        }
    }
}

impl Tree for SingleFileTree {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        if path.is_root() {
            Ok(Box::new(self.clone()))
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        self.files.open(path)
    }
}

impl Directory for SingleFileTree {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let meta = self.stat(&self.name)?;
        Ok(vec![Listed {
            name: self.name.clone(),
            kind: Some(meta.kind),
        }])
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        let found = Directory::stat(&self.files, name);
        if name != self.name {
            return found;
        }
        found.map_err(|err| {
            if vanished(&err) {
                // Not of a kind that lets a walk skip it.
                io::Error::other(format!("{}: {err}", self.path.display()))
            } else {
                err
            }
        })
    }

    fn read_link(&self, _: &[u8]) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn open_dir(&self, _: &[u8]) -> io::Result<Box<dyn Directory>> {
        Err(io::ErrorKind::NotADirectory.into())
    }
}
