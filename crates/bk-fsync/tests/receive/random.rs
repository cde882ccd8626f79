//! For random trees, what is sent is what arrives.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bk_fsync::receive::{ReceiveMode, Unchanged};
use bk_fsync::{DirTree, OwnerPolicy, ReceiveOptions, SendOptions};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::support::{Scratch, copy, look};

/// A small generator, the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// Fills `root` with files of every kind whose names are near to each other in the order of the wire.
fn fill(root: &Path, random: &mut Random) {
    let mut dirs: Vec<PathBuf> = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let names: [&[u8]; 10] = [
        b"a",
        b"a-",
        b"a.b",
        b"b",
        b"a0",
        b"\xff",
        b"\xc3\xa9",
        b"...",
        b" ",
        b"A",
    ];
    for _ in 0..random.below(30) {
        let at = usize::try_from(random.below(dirs.len() as u64)).unwrap();
        let name = names[usize::try_from(random.below(10)).unwrap()];
        let path = dirs[at].join(std::ffi::OsStr::from_bytes(name));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match random.below(8) {
            0 | 1 => {
                fs::create_dir(&path).unwrap();
                dirs.push(path);
            }
            2 => symlink(
                ["a", "/etc", "../..", "\u{e9} x"][usize::try_from(random.below(4)).unwrap()],
                &path,
            )
            .unwrap(),
            3 if !files.is_empty() => {
                let first = usize::try_from(random.below(files.len() as u64)).unwrap();
                fs::hard_link(&files[first], &path).unwrap();
            }
            4 => rustix::fs::mkfifoat(CWD, &path, rustix::fs::Mode::RUSR).unwrap(),
            _ => {
                let len = [0, 1, 4095, 4096, 4097, 200_000][usize::try_from(random.below(6)).unwrap()];
                let mut bytes = vec![0u8; len];
                for _ in 0..random.below(4) {
                    if len > 0 {
                        let at = usize::try_from(random.below(len as u64)).unwrap();
                        bytes[at] = 1;
                    }
                }
                fs::write(&path, bytes).unwrap();
                let mode = u32::try_from(random.below(0o10000)).unwrap() | 0o400;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                files.push(path);
            }
        }
    }
    let mut all: Vec<PathBuf> = dirs.split_off(1);
    for dir in &all {
        let mode = u32::try_from(random.below(0o10)).unwrap() << 9 | 0o700 | 0o55;
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
    }
    all.extend(files);
    for path in all {
        let last_modification = Timespec {
            tv_sec: i64::try_from(random.below(1 << 31)).unwrap() - (1 << 20),
            tv_nsec: i64::try_from(random.below(1_000_000_000)).unwrap(),
        };
        let times = Timestamps {
            last_access: last_modification,
            last_modification,
        };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

#[tokio::test]
async fn what_is_sent_is_what_arrives() {
    for seed in 1..=150u64 {
        let random = &mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let from = tempfile::tempdir().unwrap();
        fill(from.path(), random);
        let tree = || Arc::new(DirTree::open(from.path()).unwrap());
        let sending = || SendOptions::new().owner(OwnerPolicy::Keep);
        let want = look(from.path());

        let out = Scratch::new();
        let report = copy(tree(), sending(), &out.dest, ReceiveOptions::new())
            .await
            .unwrap();
        assert_eq!(look(out.dest.path()), want, "seed {seed}");
        assert_eq!(report.created, want.len() as u64, "seed {seed}");

        // Again, onto the same: nothing is asked for, and nothing changes.
        let report = copy(tree(), sending(), &out.dest, ReceiveOptions::new())
            .await
            .unwrap();
        assert_eq!(
            (report.unchanged, report.bytes),
            (want.len() as u64, 0),
            "seed {seed}"
        );
        assert_eq!(look(out.dest.path()), want, "seed {seed}");

        // Onto another tree, of which nothing is to stay.
        let out = Scratch::new();
        fill(out.dest.path(), random);
        let before = look(out.dest.path());
        let delete = || ReceiveOptions::new().mode(ReceiveMode::Delete);
        let dry = copy(tree(), sending(), &out.dest, delete().dry_run(true))
            .await
            .unwrap();
        assert_eq!(look(out.dest.path()), before, "seed {seed}");
        let real = copy(tree(), sending(), &out.dest, delete().unchanged(Unchanged::Never));
        let real = real.await.unwrap();
        assert_eq!(look(out.dest.path()), want, "seed {seed}");
        let kept = |r: &bk_fsync::ReceiveReport| r.created + r.replaced + r.unchanged;
        assert_eq!(kept(&dry), want.len() as u64, "seed {seed}");
        assert_eq!(kept(&real), want.len() as u64, "seed {seed}");
        assert!(dry.deleted <= real.deleted, "seed {seed}");
    }
}
