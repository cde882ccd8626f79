//! What has to be done so that the destination has an entry that was sent.
//!
//! The rule: no I/O. One function looks at what arrived and at what is there, and everything that is not proven to
//! be the same is replaced.

use crate::entry::{Kind, Meta};
use crate::receive::{Body, Change, Incoming, ReceivedOwner, Unchanged};

/// What a difference is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "built by whoever compares")]
pub struct Rules {
    /// Who shall own the files.
    pub owner: ReceivedOwner,
    /// Which evidence is enough for a regular file.
    pub unchanged: Unchanged,
    /// The user that this process runs as.
    pub uid: u32,
}

/// Compares an entry with what is at its path: `there`, and the target if that is a symbolic link.
///
/// Hard links are never [`Change::Unchanged`] here: that takes a look at their target, too.
#[must_use]
pub fn compare(entry: &Incoming, there: Option<(&Meta, &[u8])>, rules: Rules) -> Change {
    let Some((meta, link)) = there else {
        return Change::Created;
    };
    let same_owner = match rules.owner {
        ReceivedOwner::CurrentUser => meta.uid == rules.uid,
        ReceivedOwner::AsSent => (meta.uid, meta.gid) == (entry.uid, entry.gid),
    };
    let device = |major, minor| {
        let (there_major, there_minor) = crate::wire::device(meta.rdev);
        (there_major, there_minor) == (u64::from(major), u64::from(minor))
    };
    let same = match (&entry.body, meta.kind) {
        // What is in it stays, its metadata is set anyway.
        (Body::Dir, Kind::Dir) => true,
        (Body::File { size }, Kind::File) => {
            let fine = entry.mtime_ns.rem_euclid(1_000_000_000) != 0;
            let evidence = match rules.unchanged {
                Unchanged::SameFineTime => fine,
                Unchanged::SameTime => true,
                Unchanged::Never => false,
            };
            evidence
                && same_owner
                && (meta.size, meta.mode, meta.mtime_ns) == (*size, entry.mode, entry.mtime_ns)
        }
        (Body::Symlink { target }, Kind::Symlink) => {
            same_owner && target == link && meta.mtime_ns == entry.mtime_ns
        }
        (Body::Fifo, Kind::Fifo) => same_owner && (meta.mode, meta.mtime_ns) == (entry.mode, entry.mtime_ns),
        (Body::CharDevice { major, minor }, Kind::CharDevice)
        | (Body::BlockDevice { major, minor }, Kind::BlockDevice) => {
            same_owner && (meta.mode, meta.mtime_ns) == (entry.mode, entry.mtime_ns) && device(*major, *minor)
        }
        _ => false,
    };
    if same { Change::Unchanged } else { Change::Replaced }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const RULES: Rules = Rules {
        owner: ReceivedOwner::CurrentUser,
        unchanged: Unchanged::SameFineTime,
        uid: 7,
    };

    fn entry(body: Body) -> Incoming {
        Incoming {
            id: 0,
            path: b"p".to_vec(),
            body,
            mode: 0o644,
            uid: 1,
            gid: 2,
            mtime_ns: 1_500_000_000,
            xattrs: BTreeMap::new(),
        }
    }

    fn there(kind: Kind) -> Meta {
        let mut meta = Meta::new(kind);
        (meta.mode, meta.uid, meta.gid, meta.mtime_ns, meta.size) = (0o644, 7, 9, 1_500_000_000, 5);
        meta
    }

    #[test]
    fn a_file_is_unchanged_only_if_everything_agrees() {
        let file = entry(Body::File { size: 5 });
        let same = there(Kind::File);
        let of = |meta: &Meta, rules| compare(&file, Some((meta, b"")), rules);
        assert_eq!(compare(&file, None, RULES), Change::Created);
        assert_eq!(of(&same, RULES), Change::Unchanged);
        let changes: [fn(&mut Meta); 5] = [
            |m| m.size = 6,
            |m| m.mode = 0o4644,
            |m| m.mtime_ns += 1,
            |m| m.uid = 1,
            |m| m.kind = Kind::Fifo,
        ];
        for change in changes {
            let mut other = same.clone();
            change(&mut other);
            assert_eq!(of(&other, RULES), Change::Replaced);
        }
        let sent = Rules {
            owner: ReceivedOwner::AsSent,
            ..RULES
        };
        assert_eq!(of(&same, sent), Change::Replaced);
        let mut owned = same.clone();
        (owned.uid, owned.gid) = (1, 2);
        assert_eq!(of(&owned, sent), Change::Unchanged);
        let never = Rules {
            unchanged: Unchanged::Never,
            ..RULES
        };
        assert_eq!(of(&same, never), Change::Replaced);
    }

    #[test]
    fn a_time_of_whole_seconds_is_no_evidence() {
        let (mut file, mut meta) = (entry(Body::File { size: 5 }), there(Kind::File));
        for time in [0, 1_000_000_000, -3_000_000_000] {
            (file.mtime_ns, meta.mtime_ns) = (time, time);
            assert_eq!(compare(&file, Some((&meta, b"")), RULES), Change::Replaced);
            let trusting = Rules {
                unchanged: Unchanged::SameTime,
                ..RULES
            };
            assert_eq!(compare(&file, Some((&meta, b"")), trusting), Change::Unchanged);
        }
    }

    #[test]
    fn other_kinds() {
        let link = entry(Body::Symlink {
            target: b"t".to_vec(),
        });
        let meta = there(Kind::Symlink);
        assert_eq!(compare(&link, Some((&meta, b"t")), RULES), Change::Unchanged);
        assert_eq!(compare(&link, Some((&meta, b"u")), RULES), Change::Replaced);
        let dir = entry(Body::Dir);
        assert_eq!(
            compare(&dir, Some((&there(Kind::Dir), b"")), RULES),
            Change::Unchanged
        );
        assert_eq!(compare(&dir, Some((&meta, b"t")), RULES), Change::Replaced);
        let hard = entry(Body::HardLink {
            target: b"t".to_vec(),
            kind: Kind::File,
        });
        assert_eq!(
            compare(&hard, Some((&there(Kind::File), b"")), RULES),
            Change::Replaced
        );
        let tty = entry(Body::CharDevice { major: 5, minor: 1 });
        let mut meta = there(Kind::CharDevice);
        meta.rdev = 5 << 8 | 1;
        assert_eq!(compare(&tty, Some((&meta, b"")), RULES), Change::Unchanged);
        meta.rdev = 5 << 8 | 2;
        assert_eq!(compare(&tty, Some((&meta, b"")), RULES), Change::Replaced);
    }
}
