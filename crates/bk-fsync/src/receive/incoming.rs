//! An entry as it arrived, with everything about it checked that can be without the rest of the listing.
//!
//! The rule: the wire form ends here. What comes out has the modes of Unix, sizes that are none below zero, and
//! says by its type what it is.

use std::collections::BTreeMap;

use bk_proto::fsutil::Stat;
use bk_proto::mode::{FileType, Mode};

use super::{EntryFault, ProtocolError};
use crate::entry::Kind;
use crate::limits::{PATH_MAX, RECEIVED_PATH_MAX};
use crate::path::{RelPath, show};

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incoming {
    /// Its number in the listing, counted from 0 over entries of every kind.
    pub id: u32,
    /// Its path: clean and relative.
    pub path: Vec<u8>,
    /// What it is.
    pub body: Body,
    /// Permission bits with setuid, setgid and sticky, as `chmod` takes them.
    pub mode: u32,
    /// Owner as it was sent.
    pub uid: u32,
    /// Group as it was sent.
    pub gid: u32,
    /// Modification time in nanoseconds since the Unix epoch, negative before it.
    pub mtime_ns: i64,
    /// Extended attributes as they were sent.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What an entry is, with what is special to its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "these are all the kinds that the protocol has"
)]
pub enum Body {
    /// A directory.
    Dir,
    /// A regular file whose content can be requested.
    File {
        /// Its size in bytes.
        size: u64,
    },
    /// Another name of a file that was listed before.
    HardLink {
        /// The path of that file.
        target: Vec<u8>,
        /// What the file is.
        kind: Kind,
    },
    /// A symbolic link.
    Symlink {
        /// The raw target: anything but empty, and no NUL byte.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl Body {
    /// The kind of file that it becomes.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Body::Dir => Kind::Dir,
            Body::File { .. } => Kind::File,
            Body::HardLink { kind, .. } => *kind,
            Body::Symlink { .. } => Kind::Symlink,
            Body::Fifo => Kind::Fifo,
            Body::CharDevice { .. } => Kind::CharDevice,
            Body::BlockDevice { .. } => Kind::BlockDevice,
        }
    }
}

impl Incoming {
    pub(super) fn from_stat(id: u32, stat: Stat) -> Result<Self, ProtocolError> {
        let bad = |fault| ProtocolError::BadEntry {
            path: show(stat.path.get(..PATH_MAX).unwrap_or(&stat.path)).into_owned(),
            fault,
        };
        if stat.path.len() > RECEIVED_PATH_MAX || stat.linkname.len() > RECEIVED_PATH_MAX {
            return Err(bad(EntryFault::TooLong));
        }
        let mode = Mode::from_bits(stat.mode);
        let size = u64::try_from(stat.size).map_err(|_| bad(EntryFault::Size))?;
        let number = |n: i64| u32::try_from(n).map_err(|_| bad(EntryFault::Device));
        let numbers = || Ok::<_, ProtocolError>((number(stat.devmajor)?, number(stat.devminor)?));
        let body = match mode.file_type() {
            FileType::Directory => Body::Dir,
            FileType::Symlink => {
                if stat.linkname.is_empty() || stat.linkname.contains(&0) {
                    return Err(bad(EntryFault::Target));
                }
                Body::Symlink {
                    target: stat.linkname,
                }
            }
            FileType::Regular if stat.linkname.is_empty() => Body::File { size },
            FileType::NamedPipe if stat.linkname.is_empty() => Body::Fifo,
            FileType::CharDevice if stat.linkname.is_empty() => {
                let (major, minor) = numbers()?;
                Body::CharDevice { major, minor }
            }
            FileType::BlockDevice if stat.linkname.is_empty() => {
                let (major, minor) = numbers()?;
                Body::BlockDevice { major, minor }
            }
            linked @ (FileType::Regular
            | FileType::NamedPipe
            | FileType::CharDevice
            | FileType::BlockDevice) => Body::HardLink {
                kind: match linked {
                    FileType::NamedPipe => Kind::Fifo,
                    FileType::CharDevice => Kind::CharDevice,
                    FileType::BlockDevice => Kind::BlockDevice,
                    _ => Kind::File,
                },
                target: stat.linkname,
            },
            // A socket travels as an empty file.
            FileType::Socket | FileType::Irregular => return Err(bad(EntryFault::Kind { mode: stat.mode })),
        };
        Ok(Incoming {
            id,
            path: stat.path,
            body,
            mode: mode.unix_permissions(),
            uid: stat.uid,
            gid: stat.gid,
            mtime_ns: stat.mod_time,
            xattrs: stat.xattrs,
        })
    }

    /// The last component of the path.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        RelPath::trusted(&self.path).split().map_or(&[], |(_, name)| name)
    }

    /// Bytes that it takes in memory while it waits, roughly.
    pub(crate) fn weight(&self) -> usize {
        let target = match &self.body {
            Body::HardLink { target, .. } | Body::Symlink { target } => target.len(),
            _ => 0,
        };
        let xattrs = self.xattrs.iter().map(|(k, v)| k.len() + v.len() + 64);
        size_of::<Self>() + self.path.len() + target + xattrs.sum::<usize>()
    }
}
