//! Paths as they travel: relative, clean, `/`-separated bytes, ordered component by component.
//!
//! Names come from the file system and need not be UTF-8, so nothing here is a `str`. The rule: a
//! [`RelPath`] is always clean — no empty, `.` or `..` component, no leading or trailing `/`, no NUL byte —
//! and the empty path is the root of its tree, which never goes on the wire.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// A clean path relative to the root of a tree. Empty means the root itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelPath<'a>(&'a [u8]);

impl<'a> RelPath<'a> {
    /// The root of the tree.
    pub const ROOT: RelPath<'static> = RelPath(b"");

    /// Accepts `bytes` if they are a clean relative path.
    ///
    /// # Errors
    /// [`PathError`] naming the path and what is wrong with it.
    pub fn new(bytes: &'a [u8]) -> Result<RelPath<'a>, PathError> {
        if bytes.is_empty() {
            return Ok(RelPath::ROOT);
        }
        if bytes[0] == b'/' {
            return Err(PathError::new(bytes, PathFault::Absolute));
        }
        for name in bytes.split(|b| *b == b'/') {
            if let Err(fault) = check_name(name) {
                return Err(PathError::new(bytes, fault));
            }
        }
        Ok(RelPath(bytes))
    }

    /// Takes bytes that were put together from checked names.
    pub(crate) fn trusted(bytes: &'a [u8]) -> RelPath<'a> {
        RelPath(bytes)
    }

    /// The bytes of the path.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether this is the root of the tree.
    #[must_use]
    pub fn is_root(self) -> bool {
        self.0.is_empty()
    }

    /// The components from the top down; none for the root.
    pub fn components(self) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.0.split(|b| *b == b'/').filter(|c| !c.is_empty())
    }

    /// The directory that holds this path, and the name in it. `None` for the root.
    #[must_use]
    pub fn split(self) -> Option<(RelPath<'a>, &'a [u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => Some((RelPath(&self.0[..at]), &self.0[at + 1..])),
            None => Some((RelPath::ROOT, self.0)),
        }
    }

    /// The path as text, with bytes that are no UTF-8 escaped as `\xNN`.
    #[must_use]
    pub fn display(self) -> Cow<'a, str> {
        show(self.0)
    }
}

impl fmt::Debug for RelPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.display())
    }
}

/// A path that must not travel, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?} {fault}")]
#[non_exhaustive]
pub struct PathError {
    /// The offending path, with bytes that are no UTF-8 escaped.
    pub path: String,
    /// What is wrong with it.
    pub fault: PathFault,
}

impl PathError {
    pub(crate) fn new(path: &[u8], fault: PathFault) -> Self {
        PathError {
            path: show(path).into_owned(),
            fault,
        }
    }
}

/// What can be wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathFault {
    /// It starts with `/`.
    #[error("is absolute")]
    Absolute,
    /// It has an empty or `.` component, or ends in `/`.
    #[error("is not clean")]
    Unclean,
    /// It has a `..` component.
    #[error("leaves the tree")]
    Escapes,
    /// It has a NUL byte, or a name has a `/`.
    #[error("has a byte that no file name may have")]
    BadByte,
    /// A component before the last is no directory.
    #[error("leads through something that is no directory")]
    BelowFile,
    /// A tree of chosen files was given too many of them.
    #[error("is one file too many")]
    TooMany,
}

/// Whether `name` may be a single component of a path.
///
/// # Errors
/// The [`PathFault`] that speaks against it.
pub fn check_name(name: &[u8]) -> Result<(), PathFault> {
    match name {
        b"" | b"." => Err(PathFault::Unclean),
        b".." => Err(PathFault::Escapes),
        _ if name.iter().any(|b| *b == 0 || *b == b'/') => Err(PathFault::BadByte),
        _ => Ok(()),
    }
}

/// The order in which paths travel: component by component, each by its raw bytes, so that `/` ranks below
/// every other byte (`a`, `a/b`, `a-b`). This is depth-first order with sorted directories.
#[must_use]
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    match (a.get(common), b.get(common)) {
        (Some(x), Some(y)) => rank(*x).cmp(&rank(*y)),
        _ => a.len().cmp(&b.len()),
    }
}

/// Puts `name` below `dir`.
#[must_use]
pub fn join(dir: RelPath<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.0.len() + 1 + name.len());
    if !dir.is_root() {
        path.extend_from_slice(dir.0);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// The shortest path that lexically means the same: no `.`, no doubled or trailing `/`, `..` folded into the
/// component before it (and dropped right below `/`). An empty result is written `.`. This is what the
/// daemon's side does to every pattern, so it is done to patterns here.
#[must_use]
pub fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(last) if *last != b".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    if rooted {
        out.push(b'/');
    }
    out.extend_from_slice(&parts.join(&b'/'));
    if out.is_empty() {
        out.push(b'.');
    }
    out
}

/// Bytes as text for messages: valid UTF-8 as it is, every other byte as `\xNN`.
#[must_use]
pub fn show(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_ranks_the_separator_first() {
        let mut paths: Vec<&[u8]> = vec![b"a-b", b"a/b", b"a", b"a.b", b"a/b/c", b"a/b-c", b"\xff", b"b"];
        paths.sort_by(|x, y| compare(x, y));
        let want: Vec<&[u8]> = vec![b"a", b"a/b", b"a/b/c", b"a/b-c", b"a-b", b"a.b", b"b", b"\xff"];
        assert_eq!(paths, want);
        assert_eq!(compare(b"a\x01", b"a/"), Ordering::Greater);
    }

    #[test]
    fn only_clean_relative_paths_pass() {
        for good in [&b"a"[..], b"a/b", b"", b"..a/b..", b"\xff\xfe", b"a b/ c"] {
            assert!(RelPath::new(good).is_ok(), "{}", show(good));
        }
        for (bad, fault) in [
            (&b"/a"[..], PathFault::Absolute),
            (b"a/", PathFault::Unclean),
            (b"a//b", PathFault::Unclean),
            (b"./a", PathFault::Unclean),
            (b"a/../b", PathFault::Escapes),
            (b"..", PathFault::Escapes),
            (b"a\0b", PathFault::BadByte),
        ] {
            assert_eq!(RelPath::new(bad).unwrap_err().fault, fault, "{}", show(bad));
        }
    }

    #[test]
    fn cleaning_is_lexical() {
        for (from, to) in [
            ("", "."),
            ("/", "/"),
            ("a//b/./c/", "a/b/c"),
            ("a/../..", ".."),
            ("/../a", "/a"),
            ("../../a", "../../a"),
            ("!/b/", "!/b"),
            ("a/..", "."),
        ] {
            assert_eq!(show(&clean(from.as_bytes())), to, "{from}");
        }
    }

    #[test]
    fn splitting_and_joining_agree() {
        let path = RelPath::new(b"a/b/c").unwrap();
        let (dir, name) = path.split().unwrap();
        assert_eq!((dir.as_bytes(), name), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(join(dir, name), b"a/b/c");
        assert_eq!(path.components().count(), 3);
        assert_eq!(RelPath::ROOT.components().count(), 0);
        assert_eq!(show(b"a\xffb"), "a\\xffb");
    }
}
