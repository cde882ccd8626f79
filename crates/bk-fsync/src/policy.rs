//! What is changed on the way from the file system to the wire, and what is left out.
//!
//! The rule: cache keys on the daemon are made of this metadata, so nothing is changed but by a named policy.

/// Who owns the files as the daemon sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OwnerPolicy {
    /// Everything belongs to 0:0, so that all users of a project share cache entries. What every client does
    /// for build contexts.
    #[default]
    Reset,
    /// Owner and group go out as they are.
    Keep,
}

impl OwnerPolicy {
    /// The owner and group to send for those found.
    #[must_use]
    pub fn apply(self, uid: u32, gid: u32) -> (u32, u32) {
        match self {
            OwnerPolicy::Reset => (0, 0),
            OwnerPolicy::Keep => (uid, gid),
        }
    }
}

/// Which bytes may be in names and link targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Utf8Policy {
    /// Any; buildkitd takes them.
    #[default]
    Any,
    /// Only UTF-8, since a daemon whose decoder is strict (dockerd from 28 on) would otherwise end the stream
    /// without naming the file. Anything else is an error that does name it.
    RequireUtf8,
}

/// Whether an extended attribute travels: all do but the ones that macOS keeps for itself.
#[must_use]
pub fn sends_xattr(name: &[u8]) -> bool {
    !name.starts_with(b"com.apple.")
}
