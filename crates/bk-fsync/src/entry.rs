//! What is known of one file of a tree before a byte of it is read.
//!
//! The rule: values are as the file system gave them. Policies (owner, names) are applied later, where an
//! entry is turned into its wire form.

/// What kind of thing a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "these are all the kinds that a Unix file system has"
)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe; listed, never opened.
    Fifo,
    /// A Unix socket; skipped with a warning.
    Socket,
    /// A character device; listed, never opened.
    CharDevice,
    /// A block device; listed, never opened.
    BlockDevice,
}

/// The metadata of one entry, never through a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky, as in `st_mode & 0o7777`.
    pub mode: u32,
    /// Size in bytes; for a symbolic link the length of its target.
    pub size: u64,
    /// Modification time in nanoseconds since the Unix epoch, negative before it.
    pub mtime_ns: i64,
    /// Time of the last change of content or metadata, likewise; 0 if the tree does not know.
    pub ctime_ns: i64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names the file has. Entries with the same `dev` and `ino` are looked for only above 1.
    pub nlink: u64,
    /// Device that holds the file; with `ino` it identifies the file.
    pub dev: u64,
    /// Number of the file on its device. 0: the tree does not number its files.
    pub ino: u64,
    /// For a device: its number as `st_rdev` has it.
    pub rdev: u64,
}

impl Meta {
    /// Metadata of `kind` with usual permission bits (0755 for a directory, 0777 for a link, else 0644), owned
    /// by root, of size 0, at the epoch, with one name.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let mode = match kind {
            Kind::Dir => 0o755,
            Kind::Symlink => 0o777,
            _ => 0o644,
        };
        Meta {
            kind,
            mode,
            size: 0,
            mtime_ns: 0,
            ctime_ns: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            dev: 0,
            ino: 0,
            rdev: 0,
        }
    }
}

/// An extended attribute: name and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// One entry of a walk, in the order and with the names in which it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Path from the root of the tree, `/`-separated.
    pub path: Vec<u8>,
    /// What is known of it.
    pub meta: Meta,
    /// The raw target of a symbolic link; empty for everything else.
    pub target: Vec<u8>,
    /// Extended attributes that travel.
    pub xattrs: Vec<Xattr>,
}
