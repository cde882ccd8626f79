//! The few largest of many.
//!
//! The rule: memory is bounded by how many are wanted, and of equals the one listed first stays.

use std::cmp::Reverse;

use crate::limits::LARGEST_KEPT;

/// The entries with the largest numbers of bytes, largest first.
#[derive(Debug, Default)]
pub(super) struct Largest(Vec<(u64, u32)>);

impl Largest {
    /// Looks at one entry; one without bytes is never among the largest.
    pub(super) fn add(&mut self, bytes: u64, id: u32) {
        if bytes == 0 {
            return;
        }
        let at = self
            .0
            .partition_point(|kept| (Reverse(kept.0), kept.1) < (Reverse(bytes), id));
        if at < LARGEST_KEPT {
            self.0.truncate(LARGEST_KEPT - 1);
            self.0.insert(at, (bytes, id));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_largest_stay() {
        let mut largest = Largest::default();
        for (id, bytes) in (0..).zip([5, 0, 9, 5, 1, 7, 7, 2, 3, 4, 6, 8, 1]) {
            largest.add(bytes, id);
        }
        let kept: Vec<_> = largest.iter().collect();
        assert_eq!(
            kept,
            [
                (9, 2),
                (8, 11),
                (7, 5),
                (7, 6),
                (6, 10),
                (5, 0),
                (5, 3),
                (4, 9),
                (3, 8),
                (2, 7)
            ]
        );
    }
}
