//! One tree over another.
//!
//! The rule: what the upper tree has at a path is what is there; where both have a directory, the two merge. Everything
//! that is known of a file comes from the tree that it is in, so its identity and its holes pass through.

use std::collections::BTreeSet;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::{Directory, Listed, OpenFile, Tree, vanished};
use crate::entry::{Kind, Meta, Xattr};
use crate::path::{PathError, PathFault, RelPath, join};

/// An upper tree laid over a lower one, for instance a few files from memory over a directory.
///
/// An entry of the upper tree replaces the lower one of the same path, unless both are directories: then the view has what
/// is in either, and the metadata of the upper one, or of the lower one if the upper directory is
/// [implied](Directory::is_implied). Symbolic links are entries like any other: no path leads through one. Cloning is
/// cheap.
///
/// ```
/// use std::sync::Arc;
/// use bk_fsync::{MemoryTree, tree::OverlayTree};
///
/// let mut lower = MemoryTree::new();
/// lower.add_file("src/main.rs", 0o644, "fn main() {}")?;
/// let mut upper = MemoryTree::new();
/// upper.add_file("src/version.rs", 0o644, "pub const V: u8 = 1;")?;
/// let both = OverlayTree::new(Arc::new(upper), Arc::new(lower)).hide("target")?;
/// # Ok::<(), bk_fsync::path::PathError>(())
/// ```
#[derive(Clone)]
pub struct OverlayTree {
    upper: Arc<dyn Tree>,
    lower: Arc<dyn Tree>,
    hidden: Arc<BTreeSet<Vec<u8>>>,
}

impl fmt::Debug for OverlayTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OverlayTree")
            .field("hidden", &self.hidden.len())
            .finish_non_exhaustive()
    }
}

impl OverlayTree {
    /// Lays `upper` over `lower`. Nothing is read.
    #[must_use]
    pub fn new(upper: Arc<dyn Tree>, lower: Arc<dyn Tree>) -> Self {
        OverlayTree {
            upper,
            lower,
            hidden: Arc::default(),
        }
    }

    /// Hides `path` of the lower tree, and everything below it; the upper tree may have the path all the same. It need not
    /// exist.
    ///
    /// # Errors
    /// [`PathError`] if the path is not clean and relative, or is the root.
    pub fn hide(mut self, path: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let path = path.as_ref();
        if RelPath::new(path)?.is_root() {
            return Err(PathError::new(path, PathFault::Unclean));
        }
        Arc::make_mut(&mut self.hidden).insert(path.to_vec());
        Ok(self)
    }

    fn root(&self) -> io::Result<OverlayDir> {
        Ok(OverlayDir {
            upper: Some(self.upper.open_dir(RelPath::ROOT)?),
            lower: Some(self.lower.open_dir(RelPath::ROOT)?),
            path: Vec::new(),
            hidden: Arc::clone(&self.hidden),
        })
    }

    /// Whether the upper tree and the hidden paths let the lower tree's `path` be seen.
    fn lower_is_visible(&self, path: RelPath<'_>) -> io::Result<bool> {
        let mut at = Vec::new();
        let mut above = Some(self.upper.open_dir(RelPath::ROOT)?);
        for name in path.components() {
            at = join(RelPath::trusted(&at), name);
            if self.hidden.contains(&at) {
                return Ok(false);
            }
            let Some(dir) = above.take() else { continue };
            match dir.stat(name) {
                Ok(meta) if meta.kind == Kind::Dir && at.len() < path.as_bytes().len() => {
                    above = Some(dir.open_dir(name)?);
                }
                Ok(_) => return Ok(false),
                Err(err) if vanished(&err) => {}
                Err(err) => return Err(err),
            }
        }
        Ok(true)
    }
}

impl Tree for OverlayTree {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        let mut dir = self.root()?;
        for name in path.components() {
            dir = dir.child(name)?;
        }
        Ok(Box::new(dir))
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        match self.upper.open(path) {
            Err(err) if vanished(&err) => {
                if self.lower_is_visible(path)? {
                    self.lower.open(path)
                } else {
                    Err(err)
                }
            }
            other => other,
        }
    }

    fn root_meta(&self) -> io::Result<Meta> {
        self.lower.root_meta()
    }
}

struct OverlayDir {
    upper: Option<Box<dyn Directory>>,
    lower: Option<Box<dyn Directory>>,
    path: Vec<u8>,
    hidden: Arc<BTreeSet<Vec<u8>>>,
}

/// Which tree tells what an entry is.
enum Side<'a> {
    Upper(&'a dyn Directory, Meta),
    Lower(&'a dyn Directory, Meta),
}

impl OverlayDir {
    fn hides(&self, name: &[u8]) -> bool {
        !self.hidden.is_empty() && self.hidden.contains(&join(RelPath::trusted(&self.path), name))
    }

    fn upper(&self, name: &[u8]) -> io::Result<Option<(&dyn Directory, Meta)>> {
        found(self.upper.as_deref(), name)
    }

    fn lower(&self, name: &[u8]) -> io::Result<Option<(&dyn Directory, Meta)>> {
        if self.hides(name) {
            return Ok(None);
        }
        found(self.lower.as_deref(), name)
    }

    fn side(&self, name: &[u8]) -> io::Result<Side<'_>> {
        let Some((upper, meta)) = self.upper(name)? else {
            return match self.lower(name)? {
                Some((lower, meta)) => Ok(Side::Lower(lower, meta)),
                None => Err(io::ErrorKind::NotFound.into()),
            };
        };
        if meta.kind == Kind::Dir
            && upper.is_implied(name)
            && let Some((lower, below)) = self.lower(name)?
            && below.kind == Kind::Dir
        {
            return Ok(Side::Lower(lower, below));
        }
        Ok(Side::Upper(upper, meta))
    }

    fn child(&self, name: &[u8]) -> io::Result<OverlayDir> {
        let upper = match self.upper(name)? {
            Some((_, meta)) if meta.kind != Kind::Dir => return Err(io::ErrorKind::NotADirectory.into()),
            Some((upper, _)) => Some(upper.open_dir(name)?),
            None => None,
        };
        let lower = match self.lower(name)? {
            Some((lower, meta)) if meta.kind == Kind::Dir => match lower.open_dir(name) {
                Ok(dir) => Some(dir),
                Err(err) if upper.is_some() && vanished(&err) => None,
                Err(err) => return Err(err),
            },
            Some(_) if upper.is_none() => return Err(io::ErrorKind::NotADirectory.into()),
            _ => None,
        };
        if upper.is_none() && lower.is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(OverlayDir {
            upper,
            lower,
            path: join(RelPath::trusted(&self.path), name),
            hidden: Arc::clone(&self.hidden),
        })
    }
}

fn found<'a>(dir: Option<&'a dyn Directory>, name: &[u8]) -> io::Result<Option<(&'a dyn Directory, Meta)>> {
    let Some(dir) = dir else { return Ok(None) };
    match dir.stat(name) {
        Ok(meta) => Ok(Some((dir, meta))),
        Err(err) if vanished(&err) => Ok(None),
        Err(err) => Err(err),
    }
}

impl Directory for OverlayDir {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let mut listed = match &mut self.upper {
            Some(upper) => upper.list()?,
            None => Vec::new(),
        };
        let below = match &mut self.lower {
            Some(lower) => lower.list()?,
            None => Vec::new(),
        };
        let known: HashSet<Vec<u8>> = listed.iter().map(|l| l.name.clone()).collect();
        for entry in below {
            if !known.contains(&entry.name) && !self.hides(&entry.name) {
                listed.push(entry);
            }
        }
        Ok(listed)
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        let (Side::Upper(_, meta) | Side::Lower(_, meta)) = self.side(name)?;
        Ok(meta)
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        let (Side::Upper(dir, _) | Side::Lower(dir, _)) = self.side(name)?;
        dir.read_link(name)
    }

    fn xattrs(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        let (Side::Upper(dir, _) | Side::Lower(dir, _)) = self.side(name)?;
        dir.xattrs(name)
    }

    fn is_implied(&self, name: &[u8]) -> bool {
        match self.side(name) {
            Ok(Side::Upper(dir, _) | Side::Lower(dir, _)) => dir.is_implied(name),
            Err(_) => false,
        }
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn Directory>> {
        Ok(Box::new(self.child(name)?))
    }
}
