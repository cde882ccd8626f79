//! A tree put together from places of other trees.
//!
//! The rule: the longest mapped path decides. A mapped directory shows what is in its source, with deeper mappings laid
//! over it; nothing outside of what was mapped can be reached, and no path leads through a symbolic link.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::{Directory, Listed, OpenFile, Tree, vanished};
use crate::entry::{Kind, Meta, Xattr};
use crate::path::{PathError, PathFault, RelPath, join};

/// A view that is made of mappings: a path of the view, and what is shown there. Directories above a mapped path are made
/// as needed. Cloning is cheap.
///
/// ```
/// use std::sync::Arc;
/// use bk_fsync::{MemoryTree, tree::{PathMapTree, Tree}};
///
/// let mut files = MemoryTree::new();
/// files.add_file("services/web/main.go", 0o644, "package main")?;
/// files.add_file("go.mod", 0o644, "module m")?;
/// let files: Arc<dyn Tree> = Arc::new(files);
/// let view = PathMapTree::new()
///     .map("app", files.clone(), "services/web")? // app/main.go
///     .map("app/go.mod", files, "go.mod")?;       // laid over it
/// # Ok::<(), bk_fsync::path::PathError>(())
/// ```
#[derive(Clone, Default)]
pub struct PathMapTree {
    root: Arc<Node>,
}

impl fmt::Debug for PathMapTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathMapTree").finish_non_exhaustive()
    }
}

#[derive(Clone, Default)]
struct Node {
    source: Option<Source>,
    below: BTreeMap<Vec<u8>, Arc<Node>>,
}

/// A place in a tree.
#[derive(Clone)]
struct Source {
    tree: Arc<dyn Tree>,
    path: Vec<u8>,
}

/// A file or directory of the host cannot be mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The path of the view is at fault.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The host's side is at fault.
    #[error("cannot map {}", path.display())]
    Host {
        /// The file or directory as it was given.
        path: std::path::PathBuf,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
}

impl PathMapTree {
    /// A view with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows the entry `from` of `tree` at `at`: a directory with everything in it, or anything else. The empty path is
    /// the root, on both sides. What was mapped to the same path before is replaced; mappings below it stay, and are laid
    /// over it. Nothing is read: an entry that is not there when it is asked for is not shown.
    ///
    /// # Errors
    /// [`PathError`] if one of the paths is not clean and relative.
    pub fn map(
        mut self,
        at: impl AsRef<[u8]>,
        tree: Arc<dyn Tree>,
        from: impl AsRef<[u8]>,
    ) -> Result<Self, PathError> {
        let (at, path) = (RelPath::new(at.as_ref())?, from.as_ref().to_vec());
        RelPath::new(&path)?;
        let mut node = Arc::make_mut(&mut self.root);
        for name in at.components() {
            node = Arc::make_mut(node.below.entry(name.to_vec()).or_default());
        }
        node.source = Some(Source { tree, path });
        Ok(self)
    }

    /// Shows a directory or a regular file of the host at `at`. It may be reached through symbolic links, since the caller
    /// names it; links in a directory are not followed. Blocks.
    ///
    /// # Errors
    /// [`MapError`] if the path of the view is at fault, or the host's is missing, unreadable, or neither a directory nor
    /// a regular file; a file cannot be mapped to the root.
    pub fn map_host(
        self,
        at: impl AsRef<[u8]>,
        path: impl Into<std::path::PathBuf>,
    ) -> Result<Self, MapError> {
        let (at, path) = (at.as_ref(), path.into());
        let fail = |source| MapError::Host {
            path: path.clone(),
            source,
        };
        if std::fs::metadata(&path).map_err(fail)?.is_dir() {
            let tree = super::DirTree::open(&path).map_err(|e| fail(e.source))?;
            return Ok(self.map(at, Arc::new(tree), "")?);
        }
        let name = match RelPath::new(at)?.split() {
            Some((_, name)) => name,
            None => return Err(PathError::new(at, PathFault::Unclean).into()),
        };
        let tree = super::SingleFileTree::open(name, &path).map_err(|e| match e {
            super::single::OpenFileError::Name(e) => MapError::Path(e),
            super::single::OpenFileError::Host { source, .. } => fail(source),
        })?;
        Ok(self.map(at, Arc::new(tree), name)?)
    }
}

/// A directory, and a name in it.
type Place<'a> = (Box<dyn Directory>, &'a [u8]);

impl Source {
    fn path(&self) -> RelPath<'_> {
        RelPath::trusted(&self.path)
    }

    /// The directory that the place is in, and its name there. `None`: it is the root of its tree.
    fn place(&self) -> io::Result<Option<Place<'_>>> {
        let Some((above, name)) = self.path().split() else {
            return Ok(None);
        };
        // The split of a borrowed path lives as long as the path.
        let start = self.path.len() - name.len();
        Ok(Some((self.tree.open_dir(above)?, &self.path[start..])))
    }

    fn meta(&self) -> io::Result<Meta> {
        match self.place()? {
            Some((dir, name)) => dir.stat(name),
            None => self.tree.root_meta(),
        }
    }

    /// The place as a directory. `None`: it is something else.
    fn directory(&self) -> io::Result<Option<Box<dyn Directory>>> {
        match self.place()? {
            None => self.tree.open_dir(RelPath::ROOT).map(Some),
            Some((dir, name)) if dir.stat(name)?.kind == Kind::Dir => dir.open_dir(name).map(Some),
            Some(_) => Ok(None),
        }
    }
}

impl Tree for PathMapTree {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        let mut dir = MapDir::root(&self.root)?;
        for name in path.components() {
            dir = dir.child(name)?;
        }
        Ok(Box::new(dir))
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        let mut node = Some(&self.root);
        let mut source = self.root.source.as_ref().map(|s| (s, s.path.clone()));
        for name in path.components() {
            node = node.and_then(|n| n.below.get(name));
            match node.and_then(|n| n.source.as_ref()) {
                Some(found) => source = Some((found, found.path.clone())),
                None => {
                    source = source.map(|(s, at)| {
                        let at = join(RelPath::trusted(&at), name);
                        (s, at)
                    });
                }
            }
        }
        if node.is_some_and(|n| !n.below.is_empty()) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (source, at) = source.ok_or(io::ErrorKind::NotFound)?;
        source.tree.open(RelPath::trusted(&at))
    }

    fn root_meta(&self) -> io::Result<Meta> {
        match &self.root.source {
            Some(source) => source.meta(),
            None => Ok(Meta::new(Kind::Dir)),
        }
    }
}

struct MapDir {
    /// The mappings at and below this directory.
    node: Option<Arc<Node>>,
    /// The mapped directory that shows here.
    under: Option<Box<dyn Directory>>,
}

impl MapDir {
    fn root(node: &Arc<Node>) -> io::Result<MapDir> {
        let under = match &node.source {
            Some(source) => {
                let found = source.directory()?;
                Some(found.ok_or(io::ErrorKind::NotADirectory)?)
            }
            None => None,
        };
        Ok(MapDir {
            node: Some(Arc::clone(node)),
            under,
        })
    }

    fn mapped(&self, name: &[u8]) -> Option<&Arc<Node>> {
        self.node.as_ref().and_then(|node| node.below.get(name))
    }

    /// What the mapped directory has under a name that leads to deeper mappings, if it is a directory.
    fn merged(&self, name: &[u8]) -> io::Result<Option<(&dyn Directory, Meta)>> {
        let Some(under) = self.under.as_deref() else {
            return Ok(None);
        };
        match under.stat(name) {
            Ok(meta) if meta.kind == Kind::Dir => Ok(Some((under, meta))),
            Ok(_) => Ok(None),
            Err(err) if vanished(&err) => Ok(None),
            Err(err) => Err(err),
        }
    }

    fn under(&self) -> io::Result<&dyn Directory> {
        self.under
            .as_deref()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn child(&self, name: &[u8]) -> io::Result<MapDir> {
        let Some(node) = self.mapped(name) else {
            return Ok(MapDir {
                node: None,
                under: Some(self.under()?.open_dir(name)?),
            });
        };
        let under = match &node.source {
            Some(source) => source.directory()?,
            None => match self.merged(name)? {
                Some((under, _)) => Some(under.open_dir(name)?),
                None => None,
            },
        };
        if under.is_none() && node.below.is_empty() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(MapDir {
            node: Some(Arc::clone(node)),
            under,
        })
    }
}

/// What a source with deeper mappings shows itself as: they make a directory of it, whatever it is.
fn shown(node: &Node, source: &Source) -> io::Result<Meta> {
    match source.meta() {
        Ok(meta) if meta.kind == Kind::Dir || node.below.is_empty() => Ok(meta),
        Ok(_) => Ok(Meta::new(Kind::Dir)),
        Err(err) if vanished(&err) && !node.below.is_empty() => Ok(Meta::new(Kind::Dir)),
        Err(err) => Err(err),
    }
}

impl Directory for MapDir {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let mut listed = match &mut self.under {
            Some(under) => under.list()?,
            None => Vec::new(),
        };
        if let Some(node) = &self.node {
            listed.retain(|l| !node.below.contains_key(&l.name));
            listed.extend(node.below.keys().map(|name| Listed {
                name: name.clone(),
                kind: None,
            }));
        }
        Ok(listed)
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        let Some(node) = self.mapped(name) else {
            return self.under()?.stat(name);
        };
        match &node.source {
            Some(source) => shown(node, source),
            None => Ok(self
                .merged(name)?
                .map_or_else(|| Meta::new(Kind::Dir), |(_, meta)| meta)),
        }
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        match self.mapped(name) {
            None => self.under()?.read_link(name),
            Some(node) => match node.source.as_ref().map(Source::place).transpose()?.flatten() {
                Some((dir, name)) => dir.read_link(name),
                None => Err(io::ErrorKind::InvalidInput.into()),
            },
        }
    }

    fn xattrs(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        let Some(node) = self.mapped(name) else {
            return self.under()?.xattrs(name);
        };
        let Some(source) = &node.source else {
            return match self.merged(name)? {
                Some((under, _)) => under.xattrs(name),
                None => Ok(Vec::new()),
            };
        };
        match source.place() {
            Ok(Some((dir, name))) => dir.xattrs(name),
            Ok(None) => Ok(Vec::new()),
            Err(err) if vanished(&err) && !node.below.is_empty() => Ok(Vec::new()),
            Err(err) => Err(err),
        }
    }

    fn is_implied(&self, name: &[u8]) -> bool {
        let Some(node) = self.mapped(name) else {
            return self.under.as_ref().is_some_and(|under| under.is_implied(name));
        };
        if node.source.is_some() {
            return false;
        }
        match self.merged(name) {
            Ok(Some((under, _))) => under.is_implied(name),
            _ => true,
        }
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn Directory>> {
        Ok(Box::new(self.child(name)?))
    }
}
