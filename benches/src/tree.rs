//! Trees that exist nowhere: entries are computed when they are asked for, and files are zeros.

use std::io;

use bk_fsync::entry::{Kind, Meta};
use bk_fsync::path::RelPath;
use bk_fsync::tree::{Directory, Listed, OpenFile, Tree};

/// Files in one directory.
const FILES_PER_DIR: u64 = 100;

/// `count` files of `size` bytes, in directories of a hundred.
#[derive(Debug, Clone, Copy)]
pub struct Generated {
    count: u64,
    size: u64,
}

impl Generated {
    /// A tree of `count` files of `size` bytes.
    #[must_use]
    pub fn new(count: u64, size: u64) -> Self {
        Generated { count, size }
    }

    /// The files in it.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.count
    }

    /// The entries in it: files and directories.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.count + self.count.div_ceil(FILES_PER_DIR)
    }

    fn meta(&self, kind: Kind) -> Meta {
        let mut meta = Meta::new(kind);
        meta.size = if kind == Kind::File { self.size } else { 0 };
        meta
    }
}

impl Tree for Generated {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        if path.is_root() {
            return Ok(Box::new(Root(*self)));
        }
        Root(*self).open_dir(path.as_bytes())
    }

    fn open(&self, _: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(Zeros {
            meta: self.meta(Kind::File),
            left: self.size,
        }))
    }
}

struct Root(Generated);

struct Leaves {
    tree: Generated,
    at: u64,
}

struct Zeros {
    meta: Meta,
    left: u64,
}

fn named(kind: Kind) -> impl Fn(u64) -> Listed {
    move |number| Listed {
        name: format!("entry{number:08}").into_bytes(),
        kind: Some(kind),
    }
}

impl Directory for Root {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        Ok((0..self.0.count.div_ceil(FILES_PER_DIR))
            .map(named(Kind::Dir))
            .collect())
    }

    fn stat(&self, _: &[u8]) -> io::Result<Meta> {
        Ok(self.0.meta(Kind::Dir))
    }

    fn read_link(&self, _: &[u8]) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn Directory>> {
        let digits = name
            .strip_prefix(b"entry")
            .and_then(|d| std::str::from_utf8(d).ok());
        let at = digits
            .and_then(|d| d.parse().ok())
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Leaves { tree: self.0, at }))
    }
}

impl Directory for Leaves {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let first = self.at * FILES_PER_DIR;
        Ok((first..self.tree.count.min(first + FILES_PER_DIR))
            .map(named(Kind::File))
            .collect())
    }

    fn stat(&self, _: &[u8]) -> io::Result<Meta> {
        Ok(self.tree.meta(Kind::File))
    }

    fn read_link(&self, _: &[u8]) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn open_dir(&self, _: &[u8]) -> io::Result<Box<dyn Directory>> {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

impl io::Read for Zeros {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        into[..count].fill(0);
        self.left -= count as u64;
        Ok(count)
    }
}

impl OpenFile for Zeros {
    fn stat(&self) -> io::Result<Meta> {
        Ok(self.meta.clone())
    }
}
