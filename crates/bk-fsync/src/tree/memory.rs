//! A small tree whose files are given by code, such as a Dockerfile that exists only as a string.
//!
//! The rule: it looks to a walk exactly like a directory; it is for small files, since all of it is memory.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;

use super::{Directory, Listed, OpenFile, Tree};
use crate::entry::{Kind, Meta, Xattr};
use crate::path::{PathError, PathFault, RelPath};

/// A tree of files held in memory. Directories above an entry are made as needed, with mode 0755.
#[derive(Debug, Clone)]
pub struct MemoryTree {
    root: Arc<Node>,
}

#[derive(Debug, Clone)]
struct Node {
    meta: Meta,
    body: Body,
    xattrs: Vec<Xattr>,
    /// A directory that was made for what is below it.
    implied: bool,
}

#[derive(Debug, Clone)]
enum Body {
    Dir(BTreeMap<Vec<u8>, Arc<Node>>),
    File(Bytes),
    Link(Vec<u8>),
    Special,
}

impl Default for MemoryTree {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryTree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        MemoryTree {
            root: Arc::new(Node::empty_dir()),
        }
    }

    /// Adds a regular file, or replaces it.
    ///
    /// # Errors
    /// [`PathError`] if the path is not clean and relative, or leads through something that is no directory.
    pub fn add_file(
        &mut self,
        path: impl AsRef<[u8]>,
        mode: u32,
        content: impl Into<Bytes>,
    ) -> Result<&mut Self, PathError> {
        let content = content.into();
        let mut meta = Meta::new(Kind::File);
        meta.mode = mode;
        meta.size = content.len() as u64;
        self.put(
            path.as_ref(),
            Node {
                meta,
                body: Body::File(content),
                xattrs: Vec::new(),
                implied: false,
            },
        )
    }

    /// Adds a directory, or changes the mode of one that is there.
    ///
    /// # Errors
    /// As [`add_file`](Self::add_file).
    pub fn add_dir(&mut self, path: impl AsRef<[u8]>, mode: u32) -> Result<&mut Self, PathError> {
        let path = path.as_ref();
        let mut node = match self.find(RelPath::new(path)?) {
            Some(node) if node.meta.kind == Kind::Dir => (*node).clone(),
            _ => Node::empty_dir(),
        };
        node.meta.mode = mode;
        node.implied = false;
        self.put(path, node)
    }

    /// Adds a symbolic link, or replaces it.
    ///
    /// # Errors
    /// As [`add_file`](Self::add_file).
    pub fn add_symlink(
        &mut self,
        path: impl AsRef<[u8]>,
        target: impl Into<Vec<u8>>,
    ) -> Result<&mut Self, PathError> {
        let target = target.into();
        let mut meta = Meta::new(Kind::Symlink);
        meta.size = target.len() as u64;
        self.put(
            path.as_ref(),
            Node {
                meta,
                body: Body::Link(target),
                xattrs: Vec::new(),
                implied: false,
            },
        )
    }

    /// Adds an entry that has no content of its own (a pipe, socket or device).
    ///
    /// # Errors
    /// As [`add_file`](Self::add_file).
    pub fn add_special(&mut self, path: impl AsRef<[u8]>, meta: Meta) -> Result<&mut Self, PathError> {
        self.put(
            path.as_ref(),
            Node {
                meta,
                body: Body::Special,
                xattrs: Vec::new(),
                implied: false,
            },
        )
    }

    /// Changes the metadata or the extended attributes of an entry that is there; does nothing if it is not.
    /// Changing the kind or the size makes the tree lie, which tests want.
    ///
    /// # Errors
    /// [`PathError`] if the path is not clean and relative.
    pub fn edit(
        &mut self,
        path: impl AsRef<[u8]>,
        change: impl FnOnce(&mut Meta, &mut Vec<Xattr>),
    ) -> Result<&mut Self, PathError> {
        let mut node = Arc::make_mut(&mut self.root);
        for name in RelPath::new(path.as_ref())?.components() {
            let Body::Dir(children) = &mut node.body else {
                return Ok(self);
            };
            let Some(child) = children.get_mut(name) else {
                return Ok(self);
            };
            node = Arc::make_mut(child);
        }
        node.implied = false;
        change(&mut node.meta, &mut node.xattrs);
        Ok(self)
    }

    fn put(&mut self, path: &[u8], new: Node) -> Result<&mut Self, PathError> {
        let fault = |fault| PathError::new(path, fault);
        let Some((dir, name)) = RelPath::new(path)?.split() else {
            return Err(fault(PathFault::Unclean));
        };
        let mut node = Arc::make_mut(&mut self.root);
        for part in dir.components() {
            let Body::Dir(children) = &mut node.body else {
                return Err(fault(PathFault::BelowFile));
            };
            node = Arc::make_mut(
                children
                    .entry(part.to_vec())
                    .or_insert_with(|| Arc::new(Node::empty_dir())),
            );
        }
        let Body::Dir(children) = &mut node.body else {
            return Err(fault(PathFault::BelowFile));
        };
        children.insert(name.to_vec(), Arc::new(new));
        Ok(self)
    }

    fn find(&self, path: RelPath<'_>) -> Option<Arc<Node>> {
        let mut node = &self.root;
        for name in path.components() {
            let Body::Dir(children) = &node.body else {
                return None;
            };
            node = children.get(name)?;
        }
        Some(Arc::clone(node))
    }
}

impl Node {
    fn empty_dir() -> Self {
        Node {
            meta: Meta::new(Kind::Dir),
            body: Body::Dir(BTreeMap::new()),
            xattrs: Vec::new(),
            implied: true,
        }
    }
}

impl Tree for MemoryTree {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        open_node(self.find(path))
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        let node = self.find(path).ok_or(io::ErrorKind::NotFound)?;
        match &node.body {
            Body::File(content) => Ok(Box::new(MemoryFile {
                rest: content.clone(),
                meta: node.meta.clone(),
            })),
            _ => Err(io::Error::other("not a regular file")),
        }
    }
}

fn open_node(node: Option<Arc<Node>>) -> io::Result<Box<dyn Directory>> {
    let node = node.ok_or(io::ErrorKind::NotFound)?;
    match node.body {
        Body::Dir(_) => Ok(Box::new(MemoryDir(node))),
        _ => Err(io::ErrorKind::NotADirectory.into()),
    }
}

struct MemoryDir(Arc<Node>);

impl MemoryDir {
    fn get(&self, name: &[u8]) -> Option<&Arc<Node>> {
        match &self.0.body {
            Body::Dir(children) => children.get(name),
            _ => None,
        }
    }
}

impl Directory for MemoryDir {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let Body::Dir(children) = &self.0.body else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        let listed = |(name, node): (&Vec<u8>, &Arc<Node>)| Listed {
            name: name.clone(),
            kind: Some(node.meta.kind),
        };
        Ok(children.iter().map(listed).collect())
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        Ok(self.get(name).ok_or(io::ErrorKind::NotFound)?.meta.clone())
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        match &self.get(name).ok_or(io::ErrorKind::NotFound)?.body {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn xattrs(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        Ok(self.get(name).ok_or(io::ErrorKind::NotFound)?.xattrs.clone())
    }

    fn is_implied(&self, name: &[u8]) -> bool {
        self.get(name).is_some_and(|node| node.implied)
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn Directory>> {
        open_node(self.get(name).cloned())
    }
}

struct MemoryFile {
    rest: Bytes,
    meta: Meta,
}

impl Read for MemoryFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.rest.split_to(buffer.len().min(self.rest.len()));
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

impl OpenFile for MemoryFile {
    fn stat(&self) -> io::Result<Meta> {
        Ok(self.meta.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_where_they_were_put() {
        let mut tree = MemoryTree::new();
        tree.add_file("a/b/c.txt", 0o600, "hello").unwrap();
        tree.add_symlink("a/l", "b/c.txt").unwrap();
        tree.add_dir("a", 0o700).unwrap();
        let mut dir = tree.open_dir(RelPath::new(b"a").unwrap()).unwrap();
        let names: Vec<_> = dir.list().unwrap().into_iter().map(|l| l.name).collect();
        assert_eq!(names, [b"b".to_vec(), b"l".to_vec()]);
        assert_eq!(dir.read_link(b"l").unwrap(), b"b/c.txt");
        let root = tree.open_dir(RelPath::ROOT).unwrap();
        assert_eq!(root.stat(b"a").unwrap().mode, 0o700);
        let mut file = tree.open(RelPath::new(b"a/b/c.txt").unwrap()).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), file.stat().unwrap().size), ("hello", 5));
    }

    #[test]
    fn bad_paths_are_refused() {
        let mut tree = MemoryTree::new();
        tree.add_file("f", 0o644, "").unwrap();
        assert_eq!(
            tree.add_file("f/x", 0o644, "").unwrap_err().fault,
            PathFault::BelowFile
        );
        assert_eq!(
            tree.add_file("../x", 0o644, "").unwrap_err().fault,
            PathFault::Escapes
        );
        assert!(tree.add_file("", 0o644, "").is_err());
        assert!(tree.open_dir(RelPath::new(b"f").unwrap()).is_err());
    }
}
