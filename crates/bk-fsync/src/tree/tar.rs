//! An archive as a tree.
//!
//! The rule: the archive is read once, from front to back, and checked as a whole before anything of it is shown. Content
//! waits in an unnamed temporary file; memory holds an index of names and numbers.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::spool::{Spool, StoreError};
use super::{Directory, Listed, OpenFile, Run, Tree};
use crate::entry::{Kind, Meta, Xattr};
use crate::limits::{SPARSE_FROM, SPOOL_CHUNK, TAR_ENTRIES_MAX, TAR_NAMES_MAX};
use crate::path::{RelPath, show};
use crate::tar::read::{Member, Reader, What};
use crate::tar::{TarFault, TarReadError};

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
    dirs: Vec<BTreeMap<Box<[u8]>, u32>>,
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
    let known = |name| Err(TarFault::Compressed(name));
    match magic[..] {
        [0x42, 0x5a, 0x68, ..] => return known("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return known("xz"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return known("zstd"),
        _ => {}
    }
    let gzip = magic.starts_with(&[0x1f, 0x8b]);
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

/// An index while it is made.
struct Build {
    nodes: Vec<Node>,
    dirs: Vec<BTreeMap<Box<[u8]>, u32>>,
    xattrs: HashMap<u32, (u64, usize)>,
    /// Names that were given, and their bytes.
    entries: usize,
    names: u64,
    spool: Spool,
}

impl Build {
    fn new(spool: Spool) -> Self {
        let mut this = Build {
            nodes: Vec::new(),
            dirs: Vec::new(),
            xattrs: HashMap::new(),
            entries: 0,
            names: 0,
            spool,
        };
        let root = this.new_dir();
        this.nodes.push(root);
        this
    }

    fn finish(self) -> Index {
        Index {
            nodes: self.nodes,
            dirs: self.dirs,
            xattrs: self.xattrs,
            spool: self.spool.finish(),
        }
    }

    fn new_dir(&mut self) -> Node {
        self.dirs.push(BTreeMap::new());
        Node {
            size: 0,
            mtime_ns: 0,
            at: self.dirs.len() as u64 - 1,
            ino: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            mode: 0o755,
            kind: Kind::Dir,
            implied: true,
        }
    }

    fn take<R: Read>(&mut self, reader: &mut Reader<R>, member: Member) -> Result<(), TarReadError> {
        let path = RelPath::trusted(&member.path);
        let Some((dir, name)) = path.split() else {
            return match member.what {
                What::Dir => Ok(()),
                _ => Err(reader.error(TarFault::Path(crate::path::PathFault::Unclean))),
            };
        };
        let above = self.directory(dir).map_err(|fault| reader.error(fault))?;
        if let What::Link(target) = &member.what {
            return self
                .link(above, name, target)
                .map_err(|fault| reader.error(fault));
        }
        let mut node = Node {
            size: 0,
            mtime_ns: member.mtime_ns,
            at: 0,
            ino: 0,
            uid: member.uid,
            gid: member.gid,
            nlink: 1,
            mode: member.mode,
            kind: Kind::File,
            implied: false,
        };
        let mut hash = Sha256::new_with_prefix(b"bk tar 1\0");
        for number in [
            member.path.len() as u64,
            u64::from(member.mode),
            u64::from(member.uid),
            u64::from(member.gid),
        ] {
            hash.update(number.to_le_bytes());
        }
        hash.update(&member.path);
        match member.what {
            What::Link(_) => {}
            What::Dir => {
                node.kind = Kind::Dir;
                self.merge_dir(above, name, &mut node);
            }
            What::File { size, runs, .. } => {
                node.size = size;
                let stored = self
                    .spool
                    .store(size, &runs, &mut hash, |piece| reader.content(piece));
                node.at = stored.map_err(|e| match e {
                    StoreError::From(e) => e,
                    StoreError::To(e) => reader.error(TarFault::Spool(e)),
                    StoreError::TooLarge => reader.error(TarFault::TooLarge),
                })?;
            }
            What::Symlink(target) => {
                node.kind = Kind::Symlink;
                node.size = target.len() as u64;
                hash.update(b"->");
                hash.update(&target);
                node.at = self
                    .spool
                    .put(&target)
                    .map_err(|e| reader.error(TarFault::Spool(e)))?;
            }
            What::Special(kind, rdev) => {
                node.kind = kind;
                node.at = rdev;
                hash.update([kind as u8]);
                hash.update(rdev.to_le_bytes());
            }
        }
        if node.kind != Kind::Dir {
            let digest = hash.finalize();
            let mut number = [0; 8];
            number.copy_from_slice(&digest[..8]);
            // 0 would mean that it has no number.
            node.ino = u64::from_le_bytes(number) | 1;
        }
        let index = self.put(above, name, node).map_err(|fault| reader.error(fault))?;
        self.xattrs.remove(&index);
        if !member.xattrs.is_empty() {
            let packed = pack(&member.xattrs);
            let at = self
                .spool
                .put(&packed)
                .map_err(|e| reader.error(TarFault::Spool(e)))?;
            self.xattrs.insert(index, (at, packed.len()));
        }
        Ok(())
    }

    /// The directory at a path, made as needed.
    fn directory(&mut self, path: RelPath<'_>) -> Result<u32, TarFault> {
        let mut at = ROOT;
        let mut len = 0;
        for name in path.components() {
            len += name.len() + usize::from(len > 0);
            at = match self.child(at, name) {
                Some(child) if self.nodes[child as usize].kind == Kind::Dir => child,
                Some(_) => {
                    return Err(TarFault::BelowFile {
                        above: show(&path.as_bytes()[..len]).into_owned(),
                    });
                }
                None => {
                    let node = self.new_dir();
                    self.put(at, name, node)?
                }
            };
        }
        Ok(at)
    }

    fn children(&mut self, dir: u32) -> Option<&mut BTreeMap<Box<[u8]>, u32>> {
        let place = usize::try_from(self.nodes.get(dir as usize)?.at).ok()?;
        self.dirs.get_mut(place)
    }

    fn child(&mut self, dir: u32, name: &[u8]) -> Option<u32> {
        self.children(dir)?.get(name).copied()
    }

    /// Gives a directory that comes again what is in the one that is there.
    fn merge_dir(&mut self, above: u32, name: &[u8], node: &mut Node) {
        let known = self.child(above, name).map(|at| &self.nodes[at as usize]);
        match known {
            Some(known) if known.kind == Kind::Dir => node.at = known.at,
            _ => node.at = self.new_dir().at,
        }
    }

    /// Puts a node into a directory; what had its name is replaced. Returns its place.
    fn put(&mut self, dir: u32, name: &[u8], node: Node) -> Result<u32, TarFault> {
        if let Some(known) = self.child(dir, name) {
            if self.nodes[known as usize].nlink == 1 {
                // Nobody else has it: an archive that repeats itself takes no memory.
                self.nodes[known as usize] = node;
                return self.bounded().map(|()| known);
            }
            self.nodes[known as usize].nlink -= 1;
        }
        let index = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(node);
        self.name(dir, name, index)?;
        Ok(index)
    }

    fn name(&mut self, dir: u32, name: &[u8], index: u32) -> Result<(), TarFault> {
        self.entries += 1;
        self.names += name.len() as u64;
        self.bounded()?;
        if let Some(children) = self.children(dir) {
            children.insert(name.into(), index);
        }
        Ok(())
    }

    fn bounded(&self) -> Result<(), TarFault> {
        if self.entries.max(self.dirs.len()) > TAR_ENTRIES_MAX {
            return Err(TarFault::TooMany {
                what: "entries",
                limit: TAR_ENTRIES_MAX as u64,
            });
        }
        if self.names > TAR_NAMES_MAX {
            return Err(TarFault::TooMany {
                what: "bytes of names",
                limit: TAR_NAMES_MAX,
            });
        }
        Ok(())
    }

    fn link(&mut self, above: u32, name: &[u8], target: &[u8]) -> Result<(), TarFault> {
        let shown = || show(target).into_owned();
        let mut found = Some(ROOT);
        for part in RelPath::trusted(target).components() {
            found = found
                .filter(|at| self.nodes[*at as usize].kind == Kind::Dir)
                .and_then(|at| self.child(at, part));
        }
        let index = found.ok_or_else(|| TarFault::LinkMissing { target: shown() })?;
        if self.nodes[index as usize].kind == Kind::Dir {
            return Err(TarFault::LinkToDir { target: shown() });
        }
        match self.child(above, name) {
            Some(known) if known == index => return Ok(()),
            Some(known) => self.nodes[known as usize].nlink -= 1,
            None => {}
        }
        self.nodes[index as usize].nlink += 1;
        self.name(above, name, index)
    }
}

/// Attributes as bytes: each name and value behind its length.
fn pack(xattrs: &[Xattr]) -> Vec<u8> {
    let mut packed = Vec::new();
    for part in xattrs.iter().flat_map(|(name, value)| [name, value]) {
        packed.extend_from_slice(&(part.len() as u64).to_le_bytes());
        packed.extend_from_slice(part);
    }
    packed
}

fn unpack(mut packed: &[u8]) -> Option<Vec<Xattr>> {
    let mut next = || {
        let (len, rest) = packed.split_first_chunk::<8>()?;
        let (part, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        packed = rest;
        Some(part.to_vec())
    };
    let mut found = Vec::new();
    while let Some(name) = next() {
        found.push((name, next()?));
    }
    Some(found)
}

impl Index {
    fn find(&self, path: RelPath<'_>) -> io::Result<u32> {
        path.components().try_fold(ROOT, |at, name| self.child(at, name))
    }

    fn children(&self, dir: u32) -> io::Result<&BTreeMap<Box<[u8]>, u32>> {
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
        self.spool.read_exact_at(&mut bytes, at)?;
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
        let listed = |(name, at): (&Box<[u8]>, &u32)| {
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
        let got = self
            .index
            .spool
            .read_at(&mut buffer[..len], self.start + self.at)?;
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
