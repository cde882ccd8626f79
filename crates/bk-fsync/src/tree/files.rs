//! A flat tree of a few chosen files, so that a Dockerfile outside of the context can be served without
//! listing the directory it is in.
//!
//! The rule: only the names that were given exist, and only while their file does. The files may be reached
//! through symbolic links, since the caller named them; what is served is always a regular file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dir::{file_name, open_file, regular};
use super::{Directory, Listed, OpenFile, Tree};
use crate::entry::Meta;
use crate::limits::FILES_TREE_MAX;
use crate::path::{PathError, PathFault, RelPath, check_name};

/// A handful of names, each mapped to a file of the host.
#[derive(Debug, Clone, Default)]
pub struct FilesTree {
    files: Arc<BTreeMap<Vec<u8>, PathBuf>>,
}

impl FilesTree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves each of `names` from the file of that name in `dir`, if there is one when it is asked for.
    ///
    /// # Errors
    /// [`PathError`] if a name is not a single component, or if there are more than
    /// [`FILES_TREE_MAX`] of them.
    pub fn in_dir<N: AsRef<[u8]>>(
        dir: impl AsRef<Path>,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Self, PathError> {
        let mut tree = Self::new();
        for name in names {
            let name = name.as_ref();
            let file = file_name(name).ok_or_else(|| PathError::new(name, PathFault::BadByte))?;
            tree = tree.with(name, dir.as_ref().join(file))?;
        }
        Ok(tree)
    }

    /// Serves the file at `path` under `name`.
    ///
    /// # Errors
    /// As [`in_dir`](Self::in_dir).
    pub fn with(mut self, name: impl AsRef<[u8]>, path: impl Into<PathBuf>) -> Result<Self, PathError> {
        let name = name.as_ref();
        check_name(name).map_err(|fault| PathError::new(name, fault))?;
        if self.files.len() >= FILES_TREE_MAX {
            return Err(PathError::new(name, PathFault::TooMany));
        }
        Arc::make_mut(&mut self.files).insert(name.to_vec(), path.into());
        Ok(self)
    }

    fn meta(&self, name: &[u8]) -> io::Result<Meta> {
        let path = self.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        regular(&fs::metadata(path)?, name)
    }
}

impl Tree for FilesTree {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        if path.is_root() {
            Ok(Box::new(self.clone()))
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        let name = path.as_bytes();
        let file = self.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        // Asked first, so that a pipe that took the place of the file is not waited for.
        regular(&fs::metadata(file)?, name)?;
        open_file(file, name)
    }
}

impl Directory for FilesTree {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for name in self.files.keys() {
            match self.meta(name) {
                Ok(meta) => listed.push(Listed {
                    name: name.clone(),
                    kind: Some(meta.kind),
                }),
                Err(err) if super::vanished(&err) => {}
                Err(err) => return Err(err),
            }
        }
        Ok(listed)
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        self.meta(name)
    }

    fn read_link(&self, _: &[u8]) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn open_dir(&self, _: &[u8]) -> io::Result<Box<dyn Directory>> {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::entry::Kind;

    #[test]
    fn only_the_given_names_exist() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Dockerfile"), "FROM scratch").unwrap();
        fs::write(dir.path().join("secret"), "no").unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        std::os::unix::fs::symlink("Dockerfile", dir.path().join("link")).unwrap();
        let mut tree =
            FilesTree::in_dir(dir.path(), ["Dockerfile", "Dockerfile.dockerignore", "link"]).unwrap();
        let names: Vec<_> = tree.list().unwrap().into_iter().map(|l| l.name).collect();
        assert_eq!(names, [b"Dockerfile".to_vec(), b"link".to_vec()]);
        assert_eq!(tree.stat(b"link").unwrap().kind, Kind::File);
        assert!(tree.open(RelPath::new(b"secret").unwrap()).is_err());
        let mut text = String::new();
        tree.open(RelPath::new(b"link").unwrap())
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "FROM scratch");
        assert!(FilesTree::in_dir(dir.path(), ["a/b"]).is_err());
        let other = FilesTree::in_dir(dir.path(), ["d"]).unwrap();
        assert!(
            other
                .stat(b"d")
                .unwrap_err()
                .to_string()
                .contains("d is not a regular file")
        );
    }
}
