//! Checks that a listing is in the order that the protocol demands.
//!
//! The rule: paths are clean and relative, each comes strictly after the one before it, and the directory that
//! holds an entry was listed as a directory before. It holds for both halves: what we send is checked because
//! trees can be written by anyone, what we receive because daemons are not trusted.

use std::cmp::Ordering;

use crate::path::{PathError, RelPath, compare, show};

/// A listing that breaks the order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// The path itself must not travel.
    #[error("an entry has a bad path")]
    Path(#[from] PathError),
    /// The root, or nothing, was listed as an entry.
    #[error("an entry has no path")]
    NoPath,
    /// The entry does not come after the one before it.
    #[error("entry {path:?} is out of order after {after:?}")]
    OutOfOrder {
        /// The entry.
        path: String,
        /// The one listed before it.
        after: String,
    },
    /// The directory of the entry was not listed, or not as a directory.
    #[error("entry {path:?} is in no directory that was listed")]
    NoParent {
        /// The entry.
        path: String,
    },
}

/// A listing so far.
#[derive(Debug, Default)]
pub struct OrderValidator {
    last: Vec<u8>,
    /// Lengths of the prefixes of `last` that are directories, outermost first.
    dirs: Vec<usize>,
}

impl OrderValidator {
    /// Nothing was listed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next entry and returns its depth: 0 at the top of the tree.
    ///
    /// # Errors
    /// [`OrderError`]; the listing must not go on then.
    pub fn check(&mut self, path: &[u8], is_dir: bool) -> Result<usize, OrderError> {
        let Some((dir, _)) = RelPath::new(path)?.split() else {
            return Err(OrderError::NoPath);
        };
        if compare(&self.last, path) != Ordering::Less {
            let (path, after) = (show(path).into_owned(), show(&self.last).into_owned());
            return Err(OrderError::OutOfOrder { path, after });
        }
        let dir = dir.as_bytes();
        while let Some(len) = self.dirs.last() {
            if dir.get(..*len) == Some(&self.last[..*len]) && matches!(dir.get(*len), None | Some(b'/')) {
                break;
            }
            self.dirs.pop();
        }
        if self.dirs.last().map_or(0, |len| *len) != dir.len() {
            return Err(OrderError::NoParent {
                path: show(path).into_owned(),
            });
        }
        let depth = self.dirs.len();
        self.last.clear();
        self.last.extend_from_slice(path);
        if is_dir {
            self.dirs.push(path.len());
        }
        Ok(depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that end in `/` are directories.
    fn run(listing: &[&str]) -> Result<Vec<usize>, OrderError> {
        let mut order = OrderValidator::new();
        listing
            .iter()
            .map(|p| order.check(p.trim_end_matches('/').as_bytes(), p.ends_with('/')))
            .collect()
    }

    #[test]
    fn depth_first_order_passes() {
        let depths = run(&["a/", "a/b/", "a/b/c", "a/b-", "a-b", "b/", "ba", "c/", "c/d"]).unwrap();
        assert_eq!(depths, [0, 1, 2, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn everything_else_is_refused() {
        let out_of_order = |l: &[&str]| matches!(run(l), Err(OrderError::OutOfOrder { .. }));
        let no_parent = |l: &[&str]| matches!(run(l), Err(OrderError::NoParent { .. }));
        assert!(out_of_order(&["b", "a"]));
        assert!(out_of_order(&["a", "a"]));
        assert!(out_of_order(&["a/", "a-b", "a/c"]));
        assert!(no_parent(&["a", "a/b"]));
        assert!(no_parent(&["a/b"]));
        assert!(no_parent(&["a/", "a/b/c"]));
        assert!(no_parent(&["ab/", "b/c"]));
        assert!(no_parent(&["a/", "ab/c"]));
        assert_eq!(OrderValidator::new().check(b"", true), Err(OrderError::NoPath));
        for bad in [&b"/a"[..], b"a/../b", b"..", b"a//b", b"./a", b"a/"] {
            assert!(matches!(
                OrderValidator::new().check(bad, false),
                Err(OrderError::Path(_))
            ));
        }
    }
}
