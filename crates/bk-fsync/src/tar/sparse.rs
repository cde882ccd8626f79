//! Where a sparse member has data.
//!
//! The rule: runs are in order and apart, within the size, and together as long as what is stored; a map that says
//! anything else is refused.

use super::fault::TarFault;
use crate::limits::TAR_RUNS_MAX;

/// Runs of data: offset and length, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    runs: Vec<(u64, u64)>,
    count: usize,
    end: u64,
    stored: u64,
}

impl Runs {
    /// Adds the next run.
    pub(super) fn add(&mut self, offset: u64, len: u64) -> Result<(), TarFault> {
        self.count += 1;
        if self.count > TAR_RUNS_MAX {
            return Err(TarFault::Sparse("it has too many runs"));
        }
        if offset < self.end {
            return Err(TarFault::Sparse("runs overlap or are out of order"));
        }
        self.end = offset
            .checked_add(len)
            .ok_or(TarFault::Sparse("a run ends beyond any file"))?;
        self.stored += len;
        if len > 0 {
            self.runs.push((offset, len));
        }
        Ok(())
    }

    /// Checks the map against the file's size and the stored bytes.
    pub(super) fn finish(self, size: u64, stored: u64) -> Result<Vec<(u64, u64)>, TarFault> {
        if self.end > size {
            return Err(TarFault::Sparse("a run ends beyond the file"));
        }
        if self.stored != stored {
            return Err(TarFault::Sparse("its runs are not as long as what is stored"));
        }
        Ok(self.runs)
    }
}

/// Reads the map that stands in front of the content: lines with a count, then offset and length of each run.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    runs: Runs,
    line: u64,
    digits: usize,
    /// Numbers still to come; `None` before the count.
    left: Option<u64>,
    offset: Option<u64>,
}

impl MapReader {
    /// Takes one block. Whether the map is complete; the rest of the block is padding.
    pub(super) fn block(&mut self, block: &[u8]) -> Result<bool, TarFault> {
        for byte in block {
            if *byte != b'\n' {
                let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
                self.line = digit
                    .and_then(|d| self.line.checked_mul(10)?.checked_add(d))
                    .ok_or(TarFault::Sparse("a number is none"))?;
                self.digits += 1;
                continue;
            }
            if self.digits == 0 {
                return Err(TarFault::Sparse("a number is none"));
            }
            let number = std::mem::take(&mut self.line);
            self.digits = 0;
            match &mut self.left {
                None if number > TAR_RUNS_MAX as u64 => {
                    return Err(TarFault::Sparse("it has too many runs"));
                }
                None => self.left = Some(2 * number),
                Some(left) => {
                    *left -= 1;
                    match self.offset.take() {
                        None => self.offset = Some(number),
                        Some(offset) => self.runs.add(offset, number)?,
                    }
                }
            }
            if self.left == Some(0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn finish(self) -> Runs {
        self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_over_blocks_and_checked() {
        let mut map = MapReader::default();
        assert!(!map.block(b"2\n0\n5\n1").unwrap());
        assert!(map.block(b"0\n3\n\0\0\0").unwrap());
        let runs = map.finish();
        assert_eq!(runs.clone().finish(13, 8).unwrap(), [(0, 5), (10, 3)]);
        assert!(runs.clone().finish(12, 8).is_err());
        assert!(runs.finish(13, 9).is_err());
        assert!(MapReader::default().block(b"0\n").unwrap());
        for bad in [
            &b"\n"[..],
            b"x\n",
            b"99999999999\n",
            b"2\n5\n1\n4\n1\n",
            b"1\n18446744073709551615\n1\n",
        ] {
            assert!(MapReader::default().block(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
