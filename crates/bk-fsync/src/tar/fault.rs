//! What can be wrong with an archive that is read.
//!
//! The rule: the member is named as soon as its name is known, and the place is always told.

use std::fmt;
use std::io;

use crate::path::PathFault;

/// An archive cannot be read as a tree. Archives come from anywhere, so everything in them is checked.
#[derive(Debug)]
#[non_exhaustive]
pub struct TarReadError {
    /// The member at fault, with bytes that are no UTF-8 escaped; `None` if it has no name yet.
    pub member: Option<String>,
    /// Where its header begins, in bytes of the archive when it is not compressed.
    pub offset: u64,
    /// What is wrong.
    pub fault: TarFault,
}

impl fmt::Display for TarReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.member {
            Some(member) => write!(
                f,
                "cannot take {member:?} (byte {}) from the archive",
                self.offset
            ),
            None => write!(f, "cannot read the archive at byte {}", self.offset),
        }
    }
}

impl std::error::Error for TarReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.fault)
    }
}

/// What is wrong with an archive or a member of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarFault {
    /// The archive cannot be read, or its compression is broken.
    #[error("reading failed")]
    Read(#[source] io::Error),
    /// The temporary file that holds the contents cannot be made, written or read.
    #[error("the temporary file for its content cannot be written")]
    Spool(#[source] io::Error),
    /// A compression that is not read here.
    #[error("it is compressed with {0}: decompress it first, or use gzip")]
    Compressed(&'static str),
    /// The first block is no tar header.
    #[error("it is not a tar archive")]
    NotTar,
    /// The sum over a header is wrong.
    #[error("the checksum of the header is wrong")]
    Checksum,
    /// A field or record of a header makes no sense.
    #[error("the header has a bad {0}")]
    Header(&'static str),
    /// The archive ends inside a member.
    #[error("the archive ends in the middle of it")]
    Truncated,
    /// The archive stops without the blocks of zeros that end it.
    #[error("the archive has no end mark: it was cut off")]
    NoEnd,
    /// Much follows the end mark.
    #[error("more than {0} bytes follow the end of the archive")]
    Trailing(u64),
    /// Something is longer than any honest archive has it.
    #[error("the {what} is longer than {limit} bytes")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Bytes that are accepted.
        limit: u64,
    },
    /// The archive has more members, or longer names, than are accepted.
    #[error("the archive has more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How much is accepted.
        limit: u64,
    },
    /// All files together are larger than any file system takes.
    #[error("the files up to this one are larger than any disk")]
    TooLarge,
    /// Its path must not be in a tree.
    #[error("the path {0}")]
    Path(PathFault),
    /// It is a hard link, and the path of its target must not be in a tree.
    #[error("it is a hard link to {target:?}, which {fault}")]
    LinkPath {
        /// The target, with bytes that are no UTF-8 escaped.
        target: String,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// It is a hard link to something that the archive has not, or not before it.
    #[error("it is a hard link to {target:?}, which the archive does not have before it")]
    LinkMissing {
        /// The target, with bytes that are no UTF-8 escaped.
        target: String,
    },
    /// It is a hard link to a directory.
    #[error("it is a hard link to {target:?}, which is a directory")]
    LinkToDir {
        /// The target, with bytes that are no UTF-8 escaped.
        target: String,
    },
    /// Something above it is in the archive and no directory.
    #[error("it is below {above:?}, which is no directory in the archive")]
    BelowFile {
        /// What is above it, with bytes that are no UTF-8 escaped.
        above: String,
    },
    /// The map of its holes contradicts itself or the size.
    #[error("the map of its holes is wrong: {0}")]
    Sparse(&'static str),
    /// A kind of member that cannot be in a tree.
    #[error("it is of type {0:?}, which is not supported")]
    Type(char),
}
