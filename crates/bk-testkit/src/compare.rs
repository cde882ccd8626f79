//! How two trees differ, said so that a person can act on it.

use std::{collections::BTreeSet, fmt};

use crate::{
    limits,
    snapshot::{Entry, Kind, Snapshot, show},
};

/// What an image is allowed to change against the tree it was built from. [`Rules::image`] is what every daemon does;
/// anything looser is set by a case that says why.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Owner and group must be 0 in what was got; else they must be as expected.
    pub root_owned: bool,
    /// Times of regular files and pipes must agree to the second.
    pub file_times: bool,
    /// Times of directories must agree to the second.
    pub dir_times: bool,
    /// Times of symbolic links must agree to the second.
    pub link_times: bool,
    /// A time may be the next second: archives of BuildKit round to the nearest.
    pub rounded_times: bool,
    /// Hard links must still be links; else each may be a file of its own with the same content.
    pub hard_links: bool,
    /// Named pipes must be there.
    pub pipes: bool,
    /// A path that may be there although nothing asked for it.
    pub surplus: Option<&'static str>,
}

impl Rules {
    /// What `COPY` into an image gives: everything owned by root, times to the second (layers hold no more), links kept.
    pub fn image() -> Self {
        Self {
            root_owned: true,
            file_times: true,
            dir_times: true,
            link_times: true,
            rounded_times: false,
            hard_links: true,
            pipes: true,
            surplus: None,
        }
    }

    /// The same tree on the same disk.
    pub fn exact() -> Self {
        Self {
            root_owned: false,
            ..Self::image()
        }
    }

    /// Content, kinds and modes only: no times.
    #[must_use]
    pub fn without_times(mut self) -> Self {
        (self.file_times, self.dir_times, self.link_times) = (false, false, false);
        self
    }
}

/// How a tree differs from what was expected. `Display` lists the first differences, one a line.
#[derive(Debug)]
pub struct Difference {
    lines: Vec<String>,
}

impl Difference {
    /// Every difference, in path order.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} differences", self.lines.len())?;
        for line in self.lines.iter().take(limits::DIFFERENCES_SHOWN) {
            write!(f, "\n  {line}")?;
        }
        if self.lines.len() > limits::DIFFERENCES_SHOWN {
            write!(
                f,
                "\n  … and {} more",
                self.lines.len() - limits::DIFFERENCES_SHOWN
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Difference {}

/// Compares byte for byte and mode by mode.
///
/// # Errors
/// A [`Difference`] that names every path that differs and how.
pub fn compare(expected: &Snapshot, got: &Snapshot, rules: Rules) -> Result<(), Difference> {
    let paths: BTreeSet<&Vec<u8>> = expected.entries.keys().chain(got.entries.keys()).collect();
    let mut lines = Vec::new();
    for path in paths {
        match (expected.entries.get(path), got.entries.get(path)) {
            (Some(want), Some(have)) => {
                for what in differences(want, have, rules) {
                    lines.push(format!("{}: {what}", show(path)));
                }
            }
            (Some(want), None) if want.kind == Kind::Fifo && !rules.pipes => {}
            (Some(want), None) => lines.push(format!("{}: missing ({:?})", show(path), want.kind)),
            (None, Some(_)) if rules.surplus.is_some_and(|s| s.as_bytes() == path.as_slice()) => {}
            (None, Some(have)) => lines.push(format!("{}: not expected ({:?})", show(path), have.kind)),
            (None, None) => {}
        }
    }
    if lines.is_empty() {
        Ok(())
    } else {
        Err(Difference { lines })
    }
}

fn differences(want: &Entry, have: &Entry, rules: Rules) -> Vec<String> {
    let mut found = Vec::new();
    if want.kind != have.kind {
        return vec![format!("kind {:?}, expected {:?}", have.kind, want.kind)];
    }
    if want.kind != Kind::Symlink && want.mode != have.mode {
        found.push(format!("mode {:04o}, expected {:04o}", have.mode, want.mode));
    }
    let owner = if rules.root_owned {
        (0, 0)
    } else {
        (want.uid, want.gid)
    };
    if owner != (have.uid, have.gid) {
        found.push(format!(
            "owner {}:{}, expected {}:{}",
            have.uid, have.gid, owner.0, owner.1
        ));
    }
    if want.size != have.size {
        found.push(format!("{} bytes, expected {}", have.size, want.size));
    } else if want.digest != have.digest {
        found.push(format!("content {:?}, expected {:?}", have.digest, want.digest));
    }
    if want.target != have.target {
        let text = |t: &Option<Vec<u8>>| t.as_deref().map_or_else(|| "none".to_owned(), show);
        found.push(format!(
            "link text {}, expected {}",
            text(&have.target),
            text(&want.target)
        ));
    }
    if rules.hard_links && want.group != have.group {
        let text = |g: &Option<Vec<u8>>| g.as_deref().map_or_else(|| "alone".to_owned(), show);
        found.push(format!(
            "hard link group {}, expected {}",
            text(&have.group),
            text(&want.group)
        ));
    }
    let timed = match want.kind {
        Kind::Dir => rules.dir_times,
        Kind::Symlink => rules.link_times,
        _ => rules.file_times,
    };
    let rounded = rules.rounded_times && have.mtime == want.mtime.saturating_add(1);
    if timed && want.mtime != have.mtime && !rounded {
        found.push(format!("time {}, expected {}", have.mtime, want.mtime));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::fixture::{Meta, Tree, TreeBuilder, raw};

    fn rich() -> Tree {
        TreeBuilder::new()
            .file_with("secret", "s", Meta::mode(0o600).mtime(1_600_000_000, 5))
            .file_with("setuid", "x", Meta::mode(0o4755))
            .dir_with("sticky", Meta::mode(0o1777))
            .symlink("dangling", "/nowhere/at all")
            .file("a/one", "same")
            .hard_link("b/two", "a/one")
            .fifo("pipe")
            .socket("sub/sock")
            .file(raw(b"bad-\xff\xfe"), "raw")
            .deep("deep", 50)
            .many("many", 700)
            .big("big", 1_000_003, 7)
            .build()
            .expect("fixture")
    }

    /// The tree as a tar stream, written by hand from the snapshot so that names stay bytes.
    fn to_tar(tree: &Tree) -> Vec<u8> {
        let mut out = tar::Builder::new(Vec::new());
        out.follow_symlinks(false);
        out.append_dir_all("rootfs", tree.path()).expect("tar");
        out.into_inner().expect("tar end")
    }

    #[test]
    fn a_fixture_is_what_was_asked() {
        let tree = rich();
        let got = tree.snapshot().expect("snapshot");
        let at = |path: &str| {
            got.entries
                .get(path.as_bytes())
                .unwrap_or_else(|| panic!("{path}"))
        };
        assert_eq!(
            (at("secret").mode, at("secret").mtime, at("secret").size),
            (0o600, 1_600_000_000, 1)
        );
        assert_eq!(at("setuid").mode, 0o4755);
        assert_eq!(
            (at("sticky").kind, at("sticky").mode, at("sticky").mtime),
            (Kind::Dir, 0o1777, DEFAULT)
        );
        assert_eq!(at("dangling").target.as_deref(), Some(&b"/nowhere/at all"[..]));
        assert_eq!(at("b/two").group.as_deref(), Some(&b"a/one"[..]));
        assert_eq!(at("a/one").group, at("b/two").group);
        assert_eq!((at("pipe").kind, at("sub/sock").kind), (Kind::Fifo, Kind::Socket));
        assert_eq!(at("many/d0001/f000699").size, 3 + 699 % 64);
        assert_eq!(at("many").mtime, DEFAULT);
        assert_eq!(at("big").size, 1_000_003);
        assert!(got.entries.contains_key(&b"bad-\xff\xfe"[..]));
        compare(&got, &rich().snapshot().expect("second"), Rules::exact()).expect("the same twice");
    }

    const DEFAULT: i64 = crate::fixture::DEFAULT_MTIME.0;

    #[test]
    fn a_tar_stream_reads_as_the_tree() {
        let tree = rich();
        std::fs::remove_file(tree.join("sub/sock")).expect("tar has no sockets");
        filetime::set_file_mtime(tree.join("sub"), filetime::FileTime::from_unix_time(DEFAULT, 0))
            .expect("time");
        let got = Snapshot::of_tar(&to_tar(&tree)[..]).expect("tar").below("rootfs");
        let mut rules = Rules::exact();
        // The writer used here stores links as files of their own.
        rules.hard_links = false;
        compare(&tree.snapshot().expect("snapshot"), &got, rules).expect("equal");
    }

    #[test]
    fn hard_links_in_a_tar_are_one_group() {
        let mut out = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o640);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        out.append_data(&mut header, "x/z", &b"hi"[..]).expect("file");
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        out.append_link(&mut header, "x/a", "x/z").expect("link");
        let got = Snapshot::of_tar(&out.into_inner().expect("end")[..]).expect("tar");
        assert_eq!(got.entries[&b"x/z"[..]].group.as_deref(), Some(&b"x/a"[..]));
        assert_eq!(got.entries[&b"x/a"[..]].size, 2);
        assert_eq!(got.content_bytes(), 2);
        assert_eq!(got.filter(|p| p == b"x/z").entries[&b"x/z"[..]].group, None);
    }

    #[test]
    fn a_hard_link_to_nothing_is_an_error() {
        let mut out = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        out.append_link(&mut header, "a", "gone").expect("link");
        let e = Snapshot::of_tar(&out.into_inner().expect("end")[..]).expect_err("dangling");
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);
        assert_eq!(e.to_string(), "hard link a to gone: not in the archive");
    }

    #[test]
    fn differences_are_named() {
        let tree = |mode, text: &str| {
            let tree = TreeBuilder::new()
                .file_with("f", text, Meta::mode(mode))
                .build()
                .expect("fixture");
            tree.snapshot().expect("snapshot")
        };
        let text = |a: &Snapshot, b: &Snapshot| {
            compare(a, b, Rules::exact())
                .expect_err("differs")
                .lines()
                .join("; ")
        };
        assert_eq!(
            text(&tree(0o644, "a"), &tree(0o600, "a")),
            "f: mode 0600, expected 0644"
        );
        assert_eq!(
            text(&tree(0o644, "a"), &tree(0o644, "ab")),
            "f: 2 bytes, expected 1"
        );
        assert!(text(&tree(0o644, "a"), &tree(0o644, "b")).starts_with("f: content "));
        assert_eq!(text(&tree(0o644, "a"), &Snapshot::default()), "f: missing (File)");
        assert_eq!(
            text(&Snapshot::default(), &tree(0o644, "a")),
            "f: not expected (File)"
        );
    }
}
