//! Turns entries of a walk into their wire form.
//!
//! The rule: everything upstream's sender would say about the entry is said the same way; times and sizes are
//! exact. What a policy changes is changed here and nowhere else.

use bk_proto::Mode;
use bk_proto::fsutil::Stat;

use crate::entry::{Entry, Kind, Meta};
use crate::policy::FilePolicies;

/// The wire form of `entry`, with the time that is to be announced for it. `link` is the earlier path that it is a
/// hard link to, if it is one.
///
/// Extended attributes whose name is no UTF-8 are left out: the wire has no way to name them.
#[must_use]
pub fn stat_of(entry: Entry, link: Option<Vec<u8>>, policies: &FilePolicies, mod_time: i64) -> Stat {
    let Entry {
        path,
        meta,
        target,
        xattrs,
    } = entry;
    let (uid, gid) = policies.owner.apply(meta.uid, meta.gid);
    let (devmajor, devminor) = match meta.kind {
        Kind::CharDevice | Kind::BlockDevice => device(meta.rdev),
        _ => (0, 0),
    };
    let (devmajor, devminor) = (devmajor.cast_signed(), devminor.cast_signed());
    Stat {
        path,
        mode: mode_of(&meta, policies).bits(),
        uid,
        gid,
        size: if meta.kind == Kind::Dir {
            0
        } else {
            i64::try_from(meta.size).unwrap_or(i64::MAX)
        },
        mod_time,
        linkname: link.unwrap_or(target),
        devmajor,
        devminor,
        xattrs: xattrs
            .into_iter()
            .filter_map(|(k, v)| Some((String::from_utf8(k).ok()?, v)))
            .collect(),
    }
}

fn mode_of(meta: &Meta, policies: &FilePolicies) -> Mode {
    let format = match meta.kind {
        Kind::File => 0o100_000,
        Kind::Dir => 0o040_000,
        Kind::Symlink => 0o120_000,
        Kind::Fifo => 0o010_000,
        Kind::Socket => 0o140_000,
        Kind::CharDevice => 0o020_000,
        Kind::BlockDevice => 0o060_000,
    };
    let permissions = policies.mode.apply(meta.kind, meta.mode);
    Mode::from_st_mode(format | permissions).without_socket()
}

/// Major and minor number, split the way the receiving side puts them together again.
pub(crate) fn device(rdev: u64) -> (u64, u64) {
    let major = (rdev >> 8) & 0xfff;
    let minor = (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00);
    (major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{ModePolicy, OwnerPolicy};

    fn entry(kind: Kind, mode: u32) -> Entry {
        let mut meta = Meta::new(kind);
        meta.mode = mode;
        (meta.uid, meta.gid, meta.size, meta.mtime_ns) = (1000, 1001, 4096, 1_234_567_890_987_654_321);
        Entry {
            path: b"d/p\xff".to_vec(),
            meta,
            target: Vec::new(),
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn every_field_is_exact() {
        let mut file = entry(Kind::File, 0o6755);
        file.xattrs = vec![
            (b"user.a".to_vec(), vec![0, 255]),
            (b"user.\xff".to_vec(), vec![1]),
        ];
        let stat = stat_of(file.clone(), None, &FilePolicies::new(), 77);
        assert_eq!(stat.path, b"d/p\xff");
        assert_eq!(stat.mode, 0o755 | 1 << 23 | 1 << 22);
        assert_eq!((stat.uid, stat.gid, stat.size), (0, 0, 4096));
        assert_eq!(stat.mod_time, 77);
        assert_eq!(
            stat.xattrs.into_iter().collect::<Vec<_>>(),
            [("user.a".to_owned(), vec![0, 255])]
        );
        let policies = FilePolicies::new().owner(OwnerPolicy::Keep).mode(ModePolicy::Git);
        let kept = stat_of(file, Some(b"first".to_vec()), &policies, 0);
        assert_eq!(kept.mode, 0o755);
        assert_eq!(
            (kept.uid, kept.gid, kept.linkname.as_slice()),
            (1000, 1001, &b"first"[..])
        );
    }

    #[test]
    fn kinds_have_their_bits() {
        let stat = |kind, mode| stat_of(entry(kind, mode), None, &FilePolicies::new(), 0);
        let dir = stat(Kind::Dir, 0o1777);
        assert_eq!((dir.mode, dir.size), (1 << 31 | 1 << 20 | 0o777, 0));
        assert_eq!(stat(Kind::Fifo, 0o600).mode, 1 << 25 | 0o600);
        assert_eq!(stat(Kind::Symlink, 0o777).mode, 1 << 27 | 0o777);
        assert_eq!(stat(Kind::Socket, 0o755).mode, 0o755);
        let mut tty = entry(Kind::CharDevice, 0o620);
        tty.meta.rdev = 0x50_0341;
        let tty = stat_of(tty, None, &FilePolicies::new(), 0);
        assert_eq!((tty.mode, tty.devmajor), (1 << 26 | 1 << 21 | 0o620, 3));
        assert_eq!(tty.devminor, 0x541);
    }
}
