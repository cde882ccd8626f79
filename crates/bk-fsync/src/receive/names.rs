//! The names of a listing, kept small.
//!
//! The rule: an entry costs 12 bytes and its own name. Entries come in the order of the wire, so that a path is
//! found by halving, without an index.

use std::cmp::Ordering;

use super::ProtocolError;
use crate::entry::Kind;
use crate::limits::{LISTING_MAX, LISTING_NAMES_MAX};
use crate::path::compare;

/// The entries of a listing by number and by path.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Names {
    records: Vec<Record>,
    names: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    /// Id of the directory that holds it; its own id at the top of the tree.
    parent: u32,
    /// Where its name starts. It ends where the next one starts.
    name: u32,
    kind: Kind,
    link: bool,
}

impl Names {
    /// How many entries there are; also the id of the next one.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "never more than LISTING_MAX, which is an u32"
    )]
    pub fn len(&self) -> u32 {
        self.records.len() as u32
    }

    /// Whether nothing was listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Adds the next entry; its path must come after all that are there.
    pub(super) fn push(
        &mut self,
        parent: Option<u32>,
        name: &[u8],
        kind: Kind,
        link: bool,
    ) -> Result<(), ProtocolError> {
        let id = self.len();
        let start = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        if id >= LISTING_MAX || start >= LISTING_NAMES_MAX {
            return Err(ProtocolError::TooManyEntries);
        }
        self.names.extend_from_slice(name);
        self.records.push(Record {
            parent: parent.unwrap_or(id),
            name: start,
            kind,
            link,
        });
        Ok(())
    }

    /// The entry at `path`.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<u32> {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match compare(&self.path(middle), path) {
                Ordering::Equal => return Some(middle),
                Ordering::Less => from = middle + 1,
                Ordering::Greater => to = middle,
            }
        }
        None
    }

    /// What the entry is; of a hard link, what it links to.
    #[must_use]
    pub fn kind(&self, id: u32) -> Option<Kind> {
        self.records.get(id as usize).map(|r| r.kind)
    }

    /// What the entry is, if it is neither a directory nor a link of either sort.
    pub(super) fn plain_kind(&self, id: u32) -> Option<Kind> {
        let record = self.records.get(id as usize)?;
        (!record.link && !matches!(record.kind, Kind::Dir | Kind::Symlink)).then_some(record.kind)
    }

    /// The path of the entry; empty if there is none with this id.
    #[must_use]
    pub fn path(&self, mut id: u32) -> Vec<u8> {
        let mut parts: Vec<&[u8]> = Vec::new();
        while let Some(record) = self.records.get(id as usize) {
            let end = self
                .records
                .get(id as usize + 1)
                .map_or(self.names.len(), |next| next.name as usize);
            parts.push(self.names.get(record.name as usize..end).unwrap_or_default());
            if record.parent == id {
                break;
            }
            id = record.parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_found_and_nothing_else() {
        assert_eq!(size_of::<Record>(), 12);
        let mut names = Names::default();
        let listing: [(Option<u32>, &str, Kind); 6] = [
            (None, "a", Kind::Dir),
            (Some(0), "b", Kind::Dir),
            (Some(1), "f", Kind::File),
            (Some(0), "b-", Kind::File),
            (None, "a-b", Kind::Fifo),
            (None, "b", Kind::File),
        ];
        for (parent, name, kind) in listing {
            names.push(parent, name.as_bytes(), kind, false).unwrap();
        }
        for (id, path) in (0..).zip(["a", "a/b", "a/b/f", "a/b-", "a-b", "b"]) {
            assert_eq!(names.path(id), path.as_bytes());
            assert_eq!(names.find(path.as_bytes()), Some(id));
        }
        for none in ["", "a/", "a/b/", "a/b/f/", "c", "a/c", "B"] {
            assert_eq!(names.find(none.as_bytes()), None, "{none}");
        }
        assert_eq!(names.path(6), b"");
        assert_eq!(names.plain_kind(4), Some(Kind::Fifo));
        assert_eq!((names.plain_kind(0), names.kind(0)), (None, Some(Kind::Dir)));
    }
}
