//! What a transfer tells while it runs and when it is done.
//!
//! The rule: numbers are facts of this side (what was offered, asked for, sent), and nothing that was left out
//! is left out silently.

/// Watches a transfer. Called from blocking threads and from the task that drives the transfer, so every
/// method must return at once. The default of each does nothing.
pub trait SendObserver: Send + Sync {
    /// An entry was announced: how many so far, and the bytes that they have in total.
    fn listed(&self, entries: u64, bytes: u64) {
        let _ = (entries, bytes);
    }

    /// The daemon asked for a file.
    fn requested(&self, path: &[u8], size: u64) {
        let _ = (path, size);
    }

    /// A piece of a file was handed to the wire.
    fn sent_bytes(&self, bytes: u64) {
        let _ = bytes;
    }

    /// A file was handed to the wire completely.
    fn file_sent(&self, path: &[u8], size: u64) {
        let _ = (path, size);
    }

    /// Something was left out, or may be refused.
    fn warning(&self, warning: &Warning<'_>) {
        let _ = warning;
    }
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to add to nothing")]
pub struct Unobserved;

impl SendObserver for Unobserved {}

/// Something about one entry that its owner may want to know: most of them were left out of the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning<'a> {
    /// A socket. Upstream's client would send an empty file in its place.
    SocketSkipped {
        /// The path from the root of the tree.
        path: &'a [u8],
    },
    /// A directory that is hidden by the patterns and cannot be read, although an exception could match in it.
    HiddenUnreadable {
        /// The path from the root of the tree.
        path: &'a [u8],
    },
    /// The name or the link target is not valid UTF-8. It was sent as it is, but a daemon may refuse it without
    /// naming it.
    NotUtf8 {
        /// The path from the root of the tree.
        path: &'a [u8],
    },
    /// The file changed while it was sent, and was sent all the same, as the policy has it: what arrives may be a mix of
    /// several versions, cut off, or filled up with zero bytes.
    Changed {
        /// The path from the root of the tree.
        path: &'a [u8],
        /// What changed.
        reason: &'a str,
    },
    /// Hashes that were made cannot be remembered: the next transfer will make them again.
    HashesNotSaved {
        /// What the file system says.
        reason: &'a str,
    },
}

impl Warning<'_> {
    /// The path that the warning is about; empty if it is not about one.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        match self {
            Warning::SocketSkipped { path }
            | Warning::HiddenUnreadable { path }
            | Warning::NotUtf8 { path }
            | Warning::Changed { path, .. } => path,
            Warning::HashesNotSaved { .. } => &[],
        }
    }
}

impl std::fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = crate::path::show(self.path());
        match self {
            Warning::SocketSkipped { .. } => write!(f, "skipped socket {path:?}"),
            Warning::NotUtf8 { .. } => {
                write!(f, "{path:?} has a name or link target that is not valid UTF-8")
            }
            Warning::Changed { reason, .. } => {
                write!(f, "{path:?} was sent although {reason}")
            }
            Warning::HashesNotSaved { reason } => {
                write!(f, "cannot remember the hashes of files: {reason}")
            }
            Warning::HiddenUnreadable { .. } => {
                write!(
                    f,
                    "cannot read excluded directory {path:?}, in which an exception could match"
                )
            }
        }
    }
}

/// A file or directory, and the bytes that were sent of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Share {
    /// The path from the root of the tree.
    pub path: Vec<u8>,
    /// Bytes of file content that were sent; for a directory those of everything below it.
    pub bytes: u64,
}

/// What was transferred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendReport {
    /// Entries announced.
    pub entries: u64,
    /// Bytes of the regular files announced, each hard-linked file counted once.
    pub bytes_offered: u64,
    /// Files that the daemon asked for.
    pub files_requested: u64,
    /// Files that were sent completely.
    pub files_sent: u64,
    /// Bytes of file content that were sent.
    pub bytes_sent: u64,
    /// Sockets left out.
    pub sockets_skipped: u64,
    /// The files of which most was sent, largest first, at most [`LARGEST_KEPT`](crate::limits::LARGEST_KEPT).
    pub largest_files: Vec<Share>,
    /// The directories below which most was sent, largest first, as many. The root of the tree is none of them.
    pub largest_directories: Vec<Share>,
}
