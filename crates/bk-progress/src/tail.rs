//! The last lines of a step's output, clean, in bounded memory.

use std::collections::VecDeque;

use bk_build::limits::LOG_TAIL_LINE_BYTES;

use crate::{
    limits::{TAIL_BYTES, TAIL_LINES},
    text::{Cleaner, Piece},
};

/// The last lines that a step wrote.
#[derive(Default)]
pub(crate) struct Tail {
    cleaner: Cleaner,
    lines: VecDeque<String>,
    bytes: usize,
    /// The line that is being received.
    current: Option<String>,
    /// Lines that came before those that are kept.
    dropped: u64,
}

impl Tail {
    /// Takes more output.
    pub(crate) fn take(&mut self, data: &[u8]) {
        let Self {
            cleaner,
            lines,
            bytes,
            current,
            dropped,
        } = self;
        cleaner.feed(data, &mut |piece| match piece {
            Piece::Text(text) => {
                let line = current.get_or_insert_default();
                line.push_str(prefix(text, LOG_TAIL_LINE_BYTES.saturating_sub(line.len())));
            }
            Piece::LineEnd => {
                let line = current.take().unwrap_or_default();
                *bytes += line.len();
                lines.push_back(line);
                while lines.len() > TAIL_LINES || *bytes > TAIL_BYTES {
                    let Some(old) = lines.pop_front() else { break };
                    *bytes -= old.len();
                    *dropped += 1;
                }
            }
        });
    }

    /// The last `count` lines, the unfinished one among them.
    pub(crate) fn last(&self, count: usize) -> impl Iterator<Item = &str> {
        let all = self.lines.len() + usize::from(self.current.is_some());
        self.lines
            .iter()
            .chain(&self.current)
            .skip(all.saturating_sub(count))
            .map(String::as_str)
    }

    /// How many lines are kept.
    pub(crate) fn len(&self) -> usize {
        self.lines.len() + usize::from(self.current.is_some())
    }

    /// How many lines came before those.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// As much of the beginning of `text` as fits into `room` bytes.
pub(crate) fn prefix(text: &str, room: usize) -> &str {
    (0..=room.min(text.len()))
        .rev()
        .find_map(|end| text.get(..end))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_stay() {
        let mut tail = Tail::default();
        for n in 0..TAIL_LINES + 5 {
            tail.take(format!("line {n}\n").as_bytes());
        }
        tail.take(b"and \x1b[31mmore");
        assert_eq!(tail.dropped(), 5);
        assert_eq!(tail.len(), TAIL_LINES + 1);
        let last: Vec<_> = tail.last(2).collect();
        assert_eq!(last, [format!("line {}", TAIL_LINES + 4).as_str(), "and more"]);
    }

    #[test]
    fn bytes_are_bounded_as_lines_are() {
        let mut tail = Tail::default();
        for _ in 0..1000 {
            tail.take(&[b'x'; 1000]);
        }
        tail.take(b"\n");
        let long = [&[b'y'; LOG_TAIL_LINE_BYTES][..], b"\n"].concat();
        for _ in 0..1000 {
            tail.take(&long);
        }
        assert!(tail.bytes <= TAIL_BYTES);
        assert_eq!(tail.dropped() + tail.len() as u64, 1001);
    }
}
