//! The holes of a file, which are left out of an archive.
//!
//! The rule: only zeros are left out. What is said to be a hole is looked at all the same when it is read.

use super::TarError;
use super::header::{BLOCK, ZEROS};
use crate::entry::Entry;
use crate::limits::{SPARSE_FROM, TAR_HOLES_FROM, TAR_WRITTEN_RUNS_MAX};
use crate::path::{RelPath, show};
use crate::read::{FileError, FileFault};
use crate::tree::Tree;

/// The runs of data of a file that is being written.
pub(super) struct Gaps {
    /// Offset and length of those to come.
    runs: std::vec::IntoIter<(u64, u64)>,
    /// The one at hand.
    run: Option<(u64, u64)>,
    at: u64,
}

impl Gaps {
    /// Looks for holes that are worth it: the runs, the map that says where they are, and how many bytes they have. What
    /// goes wrong here goes wrong again when the file is read, and is told then.
    pub(super) fn find(tree: &dyn Tree, entry: &Entry) -> Option<(Gaps, Vec<u8>, u64)> {
        let size = entry.meta.size;
        if size < SPARSE_FROM {
            return None;
        }
        let mut file = tree.open(RelPath::trusted(&entry.path)).ok()?;
        if file.stat().ok()?.size != size {
            return None;
        }
        let runs = file.data_runs(TAR_WRITTEN_RUNS_MAX).ok()??;
        let stored = runs.iter().map(|(_, len)| len).sum::<u64>();
        let map = map(&runs, size);
        if (map.len() as u64 + stored).checked_add(TAR_HOLES_FROM)? > size {
            return None;
        }
        let mut runs = runs.into_iter();
        let run = runs.next();
        Some((Gaps { runs, run, at: 0 }, map, stored))
    }

    /// Takes the next bytes of the file and passes on those that are no hole.
    pub(super) fn leave_out(
        &mut self,
        mut data: &[u8],
        path: &[u8],
        mut write: impl FnMut(&[u8]) -> Result<(), TarError>,
    ) -> Result<(), TarError> {
        while !data.is_empty() {
            let (start, end) = self
                .run
                .map_or((u64::MAX, u64::MAX), |(start, len)| (start, start + len));
            let until = if self.at < start { start } else { end };
            let len = usize::try_from(until - self.at)
                .unwrap_or(usize::MAX)
                .min(data.len());
            let (piece, rest) = data.split_at(len);
            if self.at >= start {
                write(piece)?;
            } else if piece.chunks(BLOCK).any(|block| block != &ZEROS[..block.len()]) {
                return Err(TarError::File(FileError {
                    path: show(path).into_owned(),
                    fault: FileFault::ChangedWhileRead,
                }));
            }
            self.at += len as u64;
            data = rest;
            if self.at == end {
                self.run = self.runs.next();
            }
        }
        Ok(())
    }
}

/// The map, filled up to whole blocks: a line with the count of runs, then two for each. A run of nothing says where a file
/// ends that ends in a hole.
fn map(runs: &[(u64, u64)], size: u64) -> Vec<u8> {
    let ends = runs.last().map_or(0, |(start, len)| start + len);
    let last = (ends < size).then_some((size, 0));
    let mut map = format!("{}\n", runs.len() + usize::from(last.is_some()));
    for (start, len) in runs.iter().copied().chain(last) {
        map.push_str(&format!("{start}\n{len}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zeros_are_left_out() {
        let gaps = || {
            let mut runs = vec![(2, 3), (7, 1)].into_iter();
            let run = runs.next();
            Gaps { runs, run, at: 0 }
        };
        for cut in 0..10 {
            let (mut gaps, mut out) = (gaps(), Vec::new());
            let data = b"\0\0abc\0\0d\0\0";
            for piece in [&data[..cut], &data[cut..]] {
                gaps.leave_out(piece, b"f", |data| {
                    out.extend_from_slice(data);
                    Ok(())
                })
                .unwrap();
            }
            assert_eq!(out, b"abcd", "{cut}");
        }
        let err = gaps().leave_out(b"\0\0abc\0x", b"f", |_| Ok(())).unwrap_err();
        assert!(matches!(err, TarError::File(e) if e.path == "f"));
    }

    #[test]
    fn the_map_says_where_the_file_ends() {
        let text = |map: Vec<u8>| String::from_utf8(map).unwrap().trim_end_matches('\0').to_owned();
        assert_eq!(text(map(&[(4, 2)], 9)), "2\n4\n2\n9\n0\n");
        assert_eq!(text(map(&[(4, 5)], 9)), "1\n4\n5\n");
        assert_eq!(text(map(&[], 9)), "1\n9\n0\n");
        assert_eq!(map(&[], 9).len(), BLOCK);
    }
}
