//! Finds the entries that are further names of a file that was already listed.
//!
//! The rule: it is asked only about entries that are really sent, so the first survivor of a filter is a plain
//! file and later ones link to it. Files are told apart by device and number, and remembered only until their
//! last name was seen.

use std::collections::HashMap;

use crate::entry::{Entry, Kind};

/// The files with several names that were listed so far.
#[derive(Debug, Default)]
pub struct HardLinks {
    seen: HashMap<(u64, u64), First>,
}

#[derive(Debug)]
struct First {
    path: Vec<u8>,
    /// Names that are still to come, at most: others may have been filtered out or lie outside of the tree.
    left: u64,
}

impl HardLinks {
    /// Nothing was listed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The path that was listed first for the file that `entry` names. `None`: `entry` is the first, has only
    /// one name, or is of a kind that is never linked (directories and symbolic links).
    pub fn link_target(&mut self, entry: &Entry) -> Option<Vec<u8>> {
        let meta = &entry.meta;
        if meta.nlink < 2 || matches!(meta.kind, Kind::Dir | Kind::Symlink) {
            return None;
        }
        let key = (meta.dev, meta.ino);
        let Some(first) = self.seen.get_mut(&key) else {
            self.seen.insert(
                key,
                First {
                    path: entry.path.clone(),
                    left: meta.nlink - 1,
                },
            );
            return None;
        };
        first.left = first.left.saturating_sub(1);
        if first.left > 0 {
            return Some(first.path.clone());
        }
        self.seen.remove(&key).map(|first| first.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Meta;

    fn entry(path: &str, kind: Kind, dev: u64, ino: u64, nlink: u64) -> Entry {
        let mut meta = Meta::new(kind);
        (meta.dev, meta.ino, meta.nlink) = (dev, ino, nlink);
        Entry {
            path: path.into(),
            meta,
            target: Vec::new(),
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn later_names_link_to_the_first() {
        let mut links = HardLinks::new();
        assert_eq!(links.link_target(&entry("a", Kind::File, 1, 7, 3)), None);
        assert_eq!(links.link_target(&entry("b", Kind::File, 2, 7, 3)), None);
        assert_eq!(
            links.link_target(&entry("c", Kind::File, 1, 7, 3)),
            Some(b"a".to_vec())
        );
        assert_eq!(
            links.link_target(&entry("d", Kind::File, 1, 7, 3)),
            Some(b"a".to_vec())
        );
        assert_eq!(links.seen.len(), 1);
        assert_eq!(links.link_target(&entry("e", Kind::File, 1, 8, 1)), None);
        assert_eq!(links.link_target(&entry("s", Kind::Symlink, 2, 7, 3)), None);
        assert_eq!(
            links.link_target(&entry("f", Kind::Fifo, 2, 7, 3)),
            Some(b"b".to_vec())
        );
    }
}
