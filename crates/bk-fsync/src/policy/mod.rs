//! What is changed on the way from the file system to the wire, and what is left out.
//!
//! The rule: the daemon decides by this metadata which files it lacks and which steps are cached, so nothing is
//! changed but by a named policy, and the default of each policy can never leave an old file in an image.

mod cache;
mod sync;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::entry::Kind;

pub use cache::{DirHashCache, HashCache, HashKey};
pub use sync::{ContentOptions, SyncPolicy};
pub(crate) use sync::{Stamper, identity, seconds_only};

/// The policies of a transfer. The default of each is right for a build context.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FilePolicies {
    /// How the daemon tells which files it lacks. Default: [`SyncPolicy::Exact`].
    pub sync: SyncPolicy,
    /// Which permission bits go out. Default: [`ModePolicy::Keep`].
    pub mode: ModePolicy,
    /// Who owns the files. Default: [`OwnerPolicy::Reset`].
    pub owner: OwnerPolicy,
    /// What happens when a file changes under our hands. Default: [`ChangePolicy::Error`].
    pub change: ChangePolicy,
}

impl FilePolicies {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how the daemon tells which files it lacks. Default: [`SyncPolicy::Exact`].
    #[must_use]
    pub fn sync(mut self, sync: SyncPolicy) -> Self {
        self.sync = sync;
        self
    }

    /// Sets which permission bits go out. Default: [`ModePolicy::Keep`].
    #[must_use]
    pub fn mode(mut self, mode: ModePolicy) -> Self {
        self.mode = mode;
        self
    }

    /// Sets who owns the files. Default: [`OwnerPolicy::Reset`].
    #[must_use]
    pub fn owner(mut self, owner: OwnerPolicy) -> Self {
        self.owner = owner;
        self
    }

    /// Sets what happens when a file changes under our hands. Default: [`ChangePolicy::Error`].
    #[must_use]
    pub fn change(mut self, change: ChangePolicy) -> Self {
        self.change = change;
        self
    }

    /// What the readers do about a change. A tag that names a content must never go out with another one: the daemon
    /// would take that for the tagged content in every later build.
    pub(crate) fn change_allowed(&self) -> ChangePolicy {
        match self.sync {
            SyncPolicy::Content(_) => ChangePolicy::Error,
            _ => self.change,
        }
    }
}

/// Which permission bits go out. They are part of the daemon's cache keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ModePolicy {
    /// Those of the file system.
    #[default]
    Keep,
    /// Those that Git would record: files 0644, or 0755 if their owner may execute them; directories 0755; symbolic
    /// links 0777; anything else 0644; never setuid, setgid, sticky or group write. Checkouts made with different
    /// umasks look the same then.
    Git,
}

impl ModePolicy {
    /// The permission bits (of `0o7777`) to send for those found.
    #[must_use]
    pub fn apply(self, kind: Kind, mode: u32) -> u32 {
        match (self, kind) {
            (ModePolicy::Keep, _) => mode & 0o7777,
            (ModePolicy::Git, Kind::Dir) => 0o755,
            (ModePolicy::Git, Kind::Symlink) => 0o777,
            (ModePolicy::Git, Kind::File) if mode & 0o100 != 0 => 0o755,
            (ModePolicy::Git, _) => 0o644,
        }
    }
}

/// Who owns the files as the daemon sees them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OwnerPolicy {
    /// Everything belongs to 0:0, so that all users of a project share cache entries. What every client does
    /// for build contexts.
    #[default]
    Reset,
    /// Owner and group go out as they are.
    Keep,
    /// Everything belongs to one owner and group.
    Fixed {
        /// The owner.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// Owners and groups are looked up.
    Map(Arc<OwnerMap>),
}

impl OwnerPolicy {
    /// The owner and group to send for those found.
    #[must_use]
    pub fn apply(&self, uid: u32, gid: u32) -> (u32, u32) {
        match self {
            OwnerPolicy::Reset => (0, 0),
            OwnerPolicy::Keep => (uid, gid),
            OwnerPolicy::Fixed { uid, gid } => (*uid, *gid),
            OwnerPolicy::Map(map) => {
                let find = |ids: &BTreeMap<u32, u32>, id| ids.get(&id).copied().unwrap_or(0);
                (find(&map.uids, uid), find(&map.gids, gid))
            }
        }
    }
}

/// Which owner and group is sent as which. Those that are not named are sent as 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OwnerMap {
    /// Owners: found to sent.
    pub uids: BTreeMap<u32, u32>,
    /// Groups: found to sent.
    pub gids: BTreeMap<u32, u32>,
}

impl OwnerMap {
    /// A map that names nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends the owner `found` as `sent`.
    #[must_use]
    pub fn uid(mut self, found: u32, sent: u32) -> Self {
        self.uids.insert(found, sent);
        self
    }

    /// Sends the group `found` as `sent`.
    #[must_use]
    pub fn gid(mut self, found: u32, sent: u32) -> Self {
        self.gids.insert(found, sent);
        self
    }
}

/// What happens when a file changes between its announcement and its last byte: its size, or which file it is
/// (device, number, time of its last change).
///
/// The wire cannot take back bytes, so what is possible depends on whether a piece has left. Files of up to
/// [`DATA_CHUNK`](crate::limits::DATA_CHUNK) bytes are read and checked before any of it leaves; of larger ones the first
/// piece leaves after one check when it was opened. A file that cannot be read at all is an error with every policy.
///
/// With [`SyncPolicy::Content`] every change is an error: the announcement named a content, and the daemon
/// would take anything else for it in later builds too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ChangePolicy {
    /// It is an error that names the file; the build fails.
    #[default]
    Error,
    /// It is read again, at most this many times, [`RETRY_PAUSE`](crate::limits::RETRY_PAUSE) apart, as long as none
    /// of it has left. What is sent is then what the file holds now, if that is as long as was announced and did not
    /// change while it was read. Else it is an error. Three times is
    /// plenty.
    Retry(u32),
    /// It is a warning. Exactly as many bytes as were announced are sent: what is too much is cut off, what is missing
    /// is made up by zero bytes, as archivers do; the content may be a mix of several versions.
    Warn,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_knows_one_bit() {
        let git = |kind, mode| ModePolicy::Git.apply(kind, mode);
        for mode in [0o644, 0o664, 0o600, 0o666, 0o2644, 0o611] {
            assert_eq!(git(Kind::File, mode), 0o644, "{mode:o}");
        }
        for mode in [0o755, 0o775, 0o700, 0o6777, 0o1744] {
            assert_eq!(git(Kind::File, mode), 0o755, "{mode:o}");
        }
        assert_eq!(git(Kind::Dir, 0o2775), 0o755);
        assert_eq!(git(Kind::Symlink, 0o755), 0o777);
        assert_eq!(git(Kind::Fifo, 0o777), 0o644);
        assert_eq!(ModePolicy::Keep.apply(Kind::File, 0o106_755), 0o6755);
    }

    #[test]
    fn owners_are_reset_kept_fixed_or_mapped() {
        assert_eq!(OwnerPolicy::Reset.apply(5, 6), (0, 0));
        assert_eq!(OwnerPolicy::Keep.apply(5, 6), (5, 6));
        assert_eq!(OwnerPolicy::Fixed { uid: 1, gid: 2 }.apply(5, 6), (1, 2));
        let map = OwnerPolicy::Map(Arc::new(OwnerMap::new().uid(5, 50).gid(7, 70)));
        assert_eq!(map.apply(5, 6), (50, 0));
        assert_eq!(map.apply(6, 7), (0, 70));
    }
}
