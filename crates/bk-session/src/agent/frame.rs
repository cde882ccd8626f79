//! The agent protocol's messages in a stream of bytes: a length in four bytes, then as many bytes. No I/O here.

use bytes::{Buf, Bytes, BytesMut};

use crate::limits::MAX_AGENT_MESSAGE;

/// A length that no request has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadFrame(pub(crate) u64);

/// Collects bytes and gives out whole messages.
#[derive(Debug, Default)]
pub(crate) struct Frames(BytesMut);

impl Frames {
    /// Adds bytes as they came.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
    }

    /// The next whole message, without its length.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, BadFrame> {
        let Some(length) = self.0.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        let size = match usize::try_from(length) {
            Ok(size) if (1..=MAX_AGENT_MESSAGE).contains(&size) => size,
            _ => return Err(BadFrame(length.into())),
        };
        if self.0.len() < 4 + size {
            return Ok(None);
        }
        self.0.advance(4);
        Ok(Some(self.0.split_to(size).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_however_they_came_in() {
        let wire = [&[0, 0, 0, 1, 11][..], &[0, 0, 0, 3, 13, 1, 2], &[0, 0]].concat();
        for step in 1..wire.len() {
            let (mut frames, mut out) = (Frames::default(), Vec::new());
            for part in wire.chunks(step) {
                frames.push(part);
                while let Some(message) = frames.next().expect("sound") {
                    out.push(message.to_vec());
                }
            }
            assert_eq!(out, [vec![11], vec![13, 1, 2]], "in steps of {step}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        for (length, good) in [(0, false), (262_144, true), (262_145, false), (u32::MAX, false)] {
            let mut frames = Frames::default();
            frames.push(&u32::to_be_bytes(length));
            assert_eq!(frames.next().is_ok(), good, "{length}");
        }
    }
}
