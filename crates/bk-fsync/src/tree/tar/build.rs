//! Makes the index of an archive, member by member.
//!
//! The rule: the last entry of a path counts, nothing lies below what is no directory, and everything that memory is held
//! for is counted.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use sha2::{Digest, Sha256};

use super::{Index, Name, Node, ROOT};
use crate::entry::{Kind, Xattr};
use crate::limits::{TAR_ENTRIES_MAX, TAR_NAMES_MAX};
use crate::path::{PathFault, RelPath, show};
use crate::tar::read::{Member, Reader, What};
use crate::tar::{TarFault, TarReadError};
use crate::tree::spool::{Spool, StoreError};

/// An index while it is made.
pub(super) struct Build {
    nodes: Vec<Node>,
    dirs: Vec<BTreeMap<Name, u32>>,
    xattrs: HashMap<u32, (u64, usize)>,
    /// Names that were given, and their bytes.
    entries: usize,
    names: u64,
    spool: Spool,
}

impl Build {
    pub(super) fn new(spool: Spool) -> Self {
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

    pub(super) fn finish(self) -> Index {
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

    pub(super) fn take<R: Read>(
        &mut self,
        reader: &mut Reader<R>,
        member: Member,
    ) -> Result<(), TarReadError> {
        let path = RelPath::trusted(&member.path);
        let Some((dir, name)) = path.split() else {
            return match member.what {
                What::Dir => Ok(()),
                _ => Err(reader.error(TarFault::Path(PathFault::Unclean))),
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

    fn children(&mut self, dir: u32) -> Option<&mut BTreeMap<Name, u32>> {
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

/// Attributes from those bytes; `None` if they are none.
pub(super) fn unpack(mut packed: &[u8]) -> Option<Vec<Xattr>> {
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
