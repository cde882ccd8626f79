//! An archive as a tree.
//!
//! The rule: the archive is read once, from front to back, and checked as a whole before anything of it is shown. Content
//! waits in an unnamed temporary file; memory holds an index of names and numbers.

mod build;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use build::{Build, unpack};

#[cfg(target_os = "linux")]
use super::Run;
use super::spool::Spool;
use super::{Directory, Listed, OpenFile, Tree};
use crate::entry::{Kind, Meta, Xattr};
use crate::limits::{SPARSE_FROM, SPOOL_CHUNK};
use crate::offset::{read_at, read_exact_at};
use crate::path::RelPath;
use crate::tar::read::Reader;
use crate::tar::{ArchiveFormat, TarFault, TarReadError};

/// The files of a tar archive, from standard input or anywhere else. Cloning is cheap and shares them.
///
/// Read are ustar, PAX with global headers, GNU long names, hard links, and sparse files in the three PAX forms and
/// GNU's own; and all of these compressed with gzip. If a path comes twice, the last one counts, and directories merge.
/// Symbolic links are shown as they are, wherever they point, and no member can lie behind one. A member that is
/// absolute, has a `..`, links to what is not in the archive, or is of an unknown type is an error that names it, and so
/// is an archive without its end mark, since it may have been cut off. The root's own entry is left out.
///
/// Files are numbered by what they are: [`Meta::ino`] is a hash of path, metadata and content of the member, so that
/// equal archives have equal numbers, hard links are told apart, and the sync policy
/// [`Exact`](crate::SyncPolicy::Exact) need not read a file twice.
///
/// Memory holds about a hundred bytes an entry; contents are in an unnamed temporary file (with holes where the archive
/// has holes or long runs of zeros), which is gone when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct TarTree {
    index: Arc<Index>,
}

#[derive(Debug)]
struct Index {
    nodes: Vec<Node>,
    /// What is in each directory.
    dirs: Vec<BTreeMap<Name, u32>>,
    /// Where the attributes of a node are; most have none.
    xattrs: HashMap<u32, (u64, usize)>,
    spool: File,
}

#[derive(Debug, Clone)]
struct Node {
    size: u64,
    mtime_ns: i64,
    /// Where its content or target is in the spool; the number of a device; the place of a directory in `dirs`.
    at: u64,
    ino: u64,
    uid: u32,
    gid: u32,
    nlink: u32,
    mode: u16,
    kind: Kind,
    implied: bool,
}

/// A name in a directory.
type Name = Box<[u8]>;

/// The root's place in `nodes`.
const ROOT: u32 = 0;
/// What all archives have as device: their files are told apart by number alone.
const DEVICE: u64 = u64::from_be_bytes(*b"bk tar 1");

impl TarTree {
    /// Reads an archive to its end, keeping contents in an unnamed temporary file in the directory `spool`. Blocks for as
    /// long as `archive` does.
    ///
    /// # Errors
    /// [`TarReadError`] naming the member and the place.
    pub fn read(archive: impl Read, spool: impl AsRef<Path>) -> Result<Self, TarReadError> {
        let whole = |fault| TarReadError {
            member: None,
            offset: 0,
            fault,
        };
        let spool = Spool::new(spool.as_ref()).map_err(|e| whole(TarFault::Spool(e)))?;
        let input = decompress(archive).map_err(whole)?;
        let mut build = Build::new(spool);
        let mut reader = Reader::new(input);
        while let Some(member) = reader.next()? {
            build.take(&mut reader, member)?;
        }
        Ok(TarTree {
            index: Arc::new(build.finish()),
        })
    }
}

/// Looks at the first bytes for a compression.
fn decompress<'a>(mut archive: impl Read + 'a) -> Result<Box<dyn Read + 'a>, TarFault> {
    let mut magic = Vec::new();
    (&mut archive)
        .take(6)
        .read_to_end(&mut magic)
        .map_err(TarFault::Read)?;
    let gzip = match ArchiveFormat::of(&magic) {
        None | Some(ArchiveFormat::Tar) => false,
        Some(ArchiveFormat::Gzip) => true,
        Some(other) => return Err(TarFault::Compressed(other.name())),
    };
    let whole = BufReader::with_capacity(SPOOL_CHUNK, Cursor::new(magic).chain(archive));
    Ok(if gzip {
        Box::new(BufReader::with_capacity(
            SPOOL_CHUNK,
            flate2::bufread::MultiGzDecoder::new(whole),
        ))
    } else {
        Box::new(whole)
    })
}

impl Index {
    fn find(&self, path: RelPath<'_>) -> io::Result<u32> {
        path.components().try_fold(ROOT, |at, name| self.child(at, name))
    }

    fn children(&self, dir: u32) -> io::Result<&BTreeMap<Name, u32>> {
        let node = self.node(dir)?;
        if node.kind != Kind::Dir {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        usize::try_from(node.at)
            .ok()
            .and_then(|place| self.dirs.get(place))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn child(&self, dir: u32, name: &[u8]) -> io::Result<u32> {
        let found = self.children(dir)?.get(name).copied();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn node(&self, at: u32) -> io::Result<&Node> {
        self.nodes
            .get(at as usize)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn meta(&self, at: u32) -> io::Result<Meta> {
        let node = self.node(at)?;
        let mut meta = Meta::new(node.kind);
        meta.mode = node.mode.into();
        meta.size = node.size;
        meta.mtime_ns = node.mtime_ns;
        (meta.uid, meta.gid) = (node.uid, node.gid);
        meta.nlink = node.nlink.into();
        if node.ino != 0 {
            (meta.dev, meta.ino) = (DEVICE, node.ino);
        }
        if matches!(node.kind, Kind::CharDevice | Kind::BlockDevice) {
            meta.rdev = node.at;
        }
        Ok(meta)
    }

    fn stored(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        read_exact_at(&self.spool, &mut bytes, at)?;
        Ok(bytes)
    }
}

impl Tree for TarTree {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        let at = self.index.find(path)?;
        self.index.children(at)?;
        Ok(Box::new(TarDir {
            index: Arc::clone(&self.index),
            at,
        }))
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        let meta = self.index.meta(self.index.find(path)?)?;
        let node = self.index.node(self.index.find(path)?)?;
        if node.kind != Kind::File {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        Ok(Box::new(TarFile {
            index: Arc::clone(&self.index),
            start: node.at,
            at: 0,
            holes: node.size >= SPARSE_FROM,
            meta,
        }))
    }
}

struct TarDir {
    index: Arc<Index>,
    at: u32,
}

impl TarDir {
    fn get(&self, name: &[u8]) -> io::Result<u32> {
        self.index.child(self.at, name)
    }
}

impl Directory for TarDir {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let listed = |(name, at): (&Name, &u32)| {
            Ok(Listed {
                name: name.to_vec(),
                kind: Some(self.index.node(*at)?.kind),
            })
        };
        self.index.children(self.at)?.iter().map(listed).collect()
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        self.index.meta(self.get(name)?)
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        let node = self.index.node(self.get(name)?)?;
        if node.kind != Kind::Symlink {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let len = usize::try_from(node.size).map_err(io::Error::other)?;
        self.index.stored(node.at, len)
    }

    fn xattrs(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        let Some((at, len)) = self.index.xattrs.get(&self.get(name)?) else {
            return Ok(Vec::new());
        };
        unpack(&self.index.stored(*at, *len)?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn is_implied(&self, name: &[u8]) -> bool {
        let node = self.get(name).and_then(|at| self.index.node(at));
        node.is_ok_and(|node| node.implied)
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn Directory>> {
        let at = self.get(name)?;
        self.index.children(at)?;
        Ok(Box::new(TarDir {
            index: Arc::clone(&self.index),
            at,
        }))
    }
}

struct TarFile {
    index: Arc<Index>,
    start: u64,
    /// Bytes that were read.
    at: u64,
    /// Whether looking for holes pays.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "holes are looked for on Linux only")
    )]
    holes: bool,
    meta: Meta,
}

impl Read for TarFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.meta.size - self.at).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let got = read_at(&self.index.spool, &mut buffer[..len], self.start + self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl OpenFile for TarFile {
    fn stat(&self) -> io::Result<Meta> {
        Ok(self.meta.clone())
    }

    // The position of the shared file means nothing: it is read by place.
    #[cfg(target_os = "linux")]
    fn next_run(&mut self) -> io::Result<Run> {
        use rustix::fs::{SeekFrom, seek};
        let left = self.meta.size - self.at;
        if !self.holes || left == 0 {
            return Ok(Run::Data(u64::MAX));
        }
        let here = self.start + self.at;
        match seek(&self.index.spool, SeekFrom::Data(here)) {
            Ok(data) if data == here => match seek(&self.index.spool, SeekFrom::Hole(here)) {
                Ok(hole) if hole > here => Ok(Run::Data((hole - here).min(left))),
                _ => Ok(Run::Data(u64::MAX)),
            },
            Ok(data) => {
                let hole = (data - here).min(left);
                self.at += hole;
                Ok(Run::Hole(hole))
            }
            Err(rustix::io::Errno::NXIO) => {
                self.at = self.meta.size;
                Ok(Run::Hole(left))
            }
            // A file system that does not tell.
            Err(_) => {
                self.holes = false;
                Ok(Run::Data(u64::MAX))
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn data_runs(&mut self, limit: usize) -> io::Result<Option<Vec<(u64, u64)>>> {
        if !self.holes {
            return Ok(None);
        }
        let end = self.start + self.meta.size;
        let runs = super::host::data_runs(&self.index.spool, self.start, end, limit)?;
        Ok(runs.map(|runs| runs.into_iter().map(|(at, len)| (at - self.start, len)).collect()))
    }
}
