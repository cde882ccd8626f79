//! What a tree consists of, read from a directory or from a tar stream: names as bytes, content as digests.
//!
//! Both sources give the same map for the same tree, so that an image can be compared with the directory it was built
//! from.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    io::{self, Read},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
};

use sha2::{Digest, Sha256};

use crate::limits;

/// What kind of thing an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character or block device.
    Device,
}

/// The SHA-256 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentDigest(pub [u8; 32]);

impl ContentDigest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(6) {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…")
    }
}

/// One file, directory or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky; 0o777 for symbolic links.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content; 0 for everything but regular files.
    pub size: u64,
    /// The digest of the content; only of regular files.
    pub digest: Option<ContentDigest>,
    /// The raw text of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// The first path, in byte order, of the hard link group it belongs to; `None` when it is alone.
    pub group: Option<Vec<u8>>,
    /// Modification time in seconds since the epoch, rounded down.
    pub mtime: i64,
}

impl Entry {
    /// An entry of that kind and mode, owned by root, empty, of time 0.
    pub fn new(kind: Kind, mode: u32) -> Self {
        let digest = (kind == Kind::File).then(|| ContentDigest::of(b""));
        Self {
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            digest,
            target: None,
            group: None,
            mtime: 0,
        }
    }

    /// Sets the content of a file.
    #[must_use]
    pub fn content(mut self, bytes: &[u8]) -> Self {
        self.size = bytes.len() as u64;
        self.digest = Some(ContentDigest::of(bytes));
        self
    }
}

/// A tree: paths relative to its root, without leading or trailing `/`. The root itself is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What it consists of.
    pub entries: BTreeMap<Vec<u8>, Entry>,
}

impl Snapshot {
    /// Reads a directory. Nothing is followed, opened or read but directories and regular files.
    ///
    /// # Errors
    /// When something cannot be read; the error names it.
    pub fn of_dir(root: &Path) -> io::Result<Self> {
        let mut walk = DirWalk {
            entries: BTreeMap::new(),
            groups: HashMap::new(),
        };
        walk.dir(root, &mut Vec::new())?;
        let mut snapshot = Self {
            entries: walk.entries,
        };
        snapshot.regroup();
        Ok(snapshot)
    }

    /// Reads a tar stream: ustar, GNU or PAX, as `docker export` writes it. The stream is never held in memory.
    ///
    /// # Errors
    /// When the stream is not a tar archive, ends early, or links to something it did not hold.
    pub fn of_tar(reader: impl Read) -> io::Result<Self> {
        let mut snapshot = Self::default();
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries()? {
            snapshot.tar_entry(entry?)?;
        }
        snapshot.regroup();
        Ok(snapshot)
    }

    fn tar_entry(&mut self, mut tar: tar::Entry<'_, impl Read>) -> io::Result<()> {
        let path = clean(&tar.path_bytes());
        let header = tar.header();
        let kind = match header.entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => Kind::File,
            tar::EntryType::Directory => Kind::Dir,
            tar::EntryType::Symlink => Kind::Symlink,
            tar::EntryType::Fifo => Kind::Fifo,
            tar::EntryType::Char | tar::EntryType::Block => Kind::Device,
            tar::EntryType::Link => return self.tar_hard_link(path, &tar),
            // Global PAX headers and vendor records describe nothing in the tree.
            _ => return Ok(()),
        };
        if path.is_empty() {
            return Ok(());
        }
        let mut entry = Entry::new(kind, header.mode()? & 0o7777);
        entry.uid = u32::try_from(header.uid()?).unwrap_or(u32::MAX);
        entry.gid = u32::try_from(header.gid()?).unwrap_or(u32::MAX);
        entry.mtime = i64::try_from(header.mtime()?).unwrap_or(i64::MAX);
        match kind {
            Kind::File => (entry.size, entry.digest) = hash(&mut tar)?,
            Kind::Symlink => {
                entry.mode = 0o777;
                entry.target = Some(tar.link_name_bytes().unwrap_or_default().into_owned());
            }
            _ => {}
        }
        self.entries.insert(path, entry);
        Ok(())
    }

    fn tar_hard_link(&mut self, path: Vec<u8>, tar: &tar::Entry<'_, impl Read>) -> io::Result<()> {
        let first = clean(&tar.link_name_bytes().unwrap_or_default());
        let Some(target) = self.entries.get_mut(&first) else {
            let text = format!(
                "hard link {} to {}: not in the archive",
                show(&path),
                show(&first)
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        let group = target.group.get_or_insert(first).clone();
        let mut copy = target.clone();
        copy.group = Some(group);
        self.entries.insert(path, copy);
        Ok(())
    }

    /// What lies below `dir`, with paths relative to it; everything for an empty `dir`.
    #[must_use]
    pub fn below(&self, dir: &str) -> Self {
        if dir.trim_matches('/').is_empty() {
            return self.clone();
        }
        let prefix = [dir.trim_matches('/').as_bytes(), b"/"].concat();
        let strip = |path: &Vec<u8>| path.strip_prefix(&prefix[..]).map(<[u8]>::to_vec);
        let entries = self
            .entries
            .iter()
            .filter_map(|(p, e)| Some((strip(p)?, e.clone())))
            .collect();
        let mut snapshot = Self { entries };
        snapshot.regroup();
        snapshot
    }

    /// What `keep` says, by path.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&[u8]) -> bool) -> Self {
        let entries = self
            .entries
            .iter()
            .filter(|(p, _)| keep(p))
            .map(|(p, e)| (p.clone(), e.clone()));
        let mut snapshot = Self {
            entries: entries.collect(),
        };
        snapshot.regroup();
        snapshot
    }

    /// What is of none of these kinds.
    #[must_use]
    pub fn without(&self, kinds: &[Kind]) -> Self {
        let entries = self.entries.iter().filter(|(_, e)| !kinds.contains(&e.kind));
        Self {
            entries: entries.map(|(p, e)| (p.clone(), e.clone())).collect(),
        }
    }

    /// Bytes of all regular files, hard links counted once.
    pub fn content_bytes(&self) -> u64 {
        let first = |(path, e): &(&Vec<u8>, &Entry)| e.group.as_ref().is_none_or(|g| g == *path);
        self.entries.iter().filter(first).map(|(_, e)| e.size).sum()
    }

    /// Names each hard link group by its first member here; a group of one is none.
    pub(crate) fn regroup(&mut self) {
        let mut members: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
        for (path, entry) in &self.entries {
            if let Some(group) = &entry.group {
                members.entry(group.clone()).or_default().push(path.clone());
            }
        }
        for paths in members.into_values() {
            let name = (paths.len() > 1).then(|| paths.first().cloned()).flatten();
            for path in paths {
                if let Some(entry) = self.entries.get_mut(&path) {
                    entry.group.clone_from(&name);
                }
            }
        }
    }
}

/// A path as text: bytes that are not printable ASCII are escaped.
pub fn show(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

struct DirWalk {
    entries: BTreeMap<Vec<u8>, Entry>,
    groups: HashMap<(u64, u64), Vec<u8>>,
}

impl DirWalk {
    fn dir(&mut self, dir: &Path, prefix: &mut Vec<u8>) -> io::Result<()> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", dir.display()));
        for found in fs::read_dir(dir).map_err(named)? {
            let found = found.map_err(named)?;
            let full = found.path();
            let length = prefix.len();
            if !prefix.is_empty() {
                prefix.push(b'/');
            }
            prefix.extend_from_slice(found.file_name().as_bytes());
            self.one(&full, prefix)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", full.display())))?;
            if fs::symlink_metadata(&full)?.is_dir() {
                self.dir(&full, prefix)?;
            }
            prefix.truncate(length);
        }
        Ok(())
    }

    fn one(&mut self, full: &Path, path: &[u8]) -> io::Result<()> {
        let meta = fs::symlink_metadata(full)?;
        let kind = match meta.file_type() {
            t if t.is_dir() => Kind::Dir,
            t if t.is_symlink() => Kind::Symlink,
            t if t.is_fifo() => Kind::Fifo,
            t if t.is_socket() => Kind::Socket,
            t if t.is_file() => Kind::File,
            _ => Kind::Device,
        };
        let mut entry = Entry::new(kind, meta.mode() & 0o7777);
        (entry.uid, entry.gid, entry.mtime) = (meta.uid(), meta.gid(), meta.mtime());
        match kind {
            Kind::File => (entry.size, entry.digest) = hash(&mut fs::File::open(full)?)?,
            Kind::Symlink => entry.target = Some(fs::read_link(full)?.into_os_string().into_vec()),
            _ => {}
        }
        if kind != Kind::Dir && meta.nlink() > 1 {
            let first = self
                .groups
                .entry((meta.dev(), meta.ino()))
                .or_insert_with(|| path.to_vec());
            entry.group = Some(first.clone());
        }
        self.entries.insert(path.to_vec(), entry);
        Ok(())
    }
}

fn hash(reader: &mut impl Read) -> io::Result<(u64, Option<ContentDigest>)> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0u8; limits::CHUNK];
    let mut size = 0u64;
    loop {
        let n = reader.read(&mut chunk)?;
        if n == 0 {
            return Ok((size, Some(ContentDigest(hasher.finalize().into()))));
        }
        hasher.update(chunk.get(..n).unwrap_or_default());
        size += n as u64;
    }
}

fn clean(path: &[u8]) -> Vec<u8> {
    let parts = path
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}
