//! How soon a session answers the health checks of a real daemon, seen from between the two.
//!
//! The frames of HTTP/2 are enough for that: a check is the only call of a daemon whose message is empty, and its answer
//! one of two bytes. What was sealed or compressed would not be seen, and neither is here.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How an HTTP/2 client begins. The daemon is the client of a session.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The end of the head of an HTTP/1 request, after which the session speaks HTTP/2.
const HEAD: &[u8] = b"\r\n\r\n";
/// A head of a frame.
const FRAME: usize = 9;
/// An empty gRPC message, and one that says `SERVING`.
const EMPTY: &[u8] = &[0, 0, 0, 0, 0];
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// What was seen of the health checks of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Checks that were answered.
    pub answered: usize,
    /// The slowest answer.
    pub worst: Duration,
}

/// Looks at the bytes of connections.
#[derive(Debug, Default)]
pub(crate) struct HealthWatch {
    connections: HashMap<usize, Connection>,
    seen: Health,
}

#[derive(Debug, Default)]
struct Connection {
    asked: HashMap<u32, Instant>,
    /// Towards the daemon and towards the client.
    frames: [Frames; 2],
}

impl HealthWatch {
    /// What was seen so far.
    pub(crate) fn seen(&self) -> Health {
        self.seen
    }

    /// Takes bytes of a connection that went towards the daemon, or towards the client.
    pub(crate) fn take(&mut self, connection: usize, to_daemon: bool, bytes: &[u8]) {
        let connection = self.connections.entry(connection).or_default();
        let (start, side) = match to_daemon {
            true => (HEAD, 0),
            false => (PREFACE, 1),
        };
        for (stream, data) in connection.frames[side].take(start, bytes) {
            if !to_daemon && data == EMPTY {
                connection.asked.insert(stream, Instant::now());
            } else if to_daemon
                && data == SERVING
                && let Some(asked) = connection.asked.remove(&stream)
            {
                self.seen.answered += 1;
                self.seen.worst = self.seen.worst.max(asked.elapsed());
            }
        }
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Frames {
    begun: bool,
    held: Vec<u8>,
    /// Bytes of a frame that matters to nobody, yet to come.
    skip: usize,
}

impl Frames {
    /// The small pieces of data that have come whole, with their streams. Frames begin behind `start`.
    fn take(&mut self, start: &[u8], bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut found = Vec::new();
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.held.extend_from_slice(&bytes[skipped..]);
        if !self.begun {
            let Some(at) = self.held.windows(start.len()).position(|window| window == start) else {
                // Its beginning may be at the end of what is here.
                let keep = self.held.len().min(start.len() - 1);
                self.held.drain(..self.held.len() - keep);
                return found;
            };
            self.held.drain(..at + start.len());
            self.begun = true;
        }
        loop {
            let Some((head, rest)) = self.held.split_at_checked(FRAME) else {
                return found;
            };
            let size = head[..3]
                .iter()
                .fold(0, |size, byte| size << 8 | usize::from(*byte));
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            // DATA is 0.
            if head[3] == 0 && size <= SERVING.len() {
                let Some(data) = rest.get(..size) else {
                    return found;
                };
                found.push((stream, data.to_vec()));
            }
            let here = size.min(rest.len());
            self.skip = size - here;
            self.held.drain(..FRAME + here);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, payload.len() as u8, kind, 1, 0, 0, 0, stream];
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn a_check_and_its_answer_are_found_however_the_bytes_are_cut() {
        let asked = [
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec(),
            PREFACE.to_vec(),
            frame(4, 0, &[0; 12]),
            frame(0, 1, &[7; 200]),
            frame(1, 3, EMPTY),
            frame(0, 3, EMPTY),
        ]
        .concat();
        let answered = [
            b"POST /session HTTP/1.1\r\nHost: docker\r\n\r\n".to_vec(),
            frame(0, 1, SERVING),
            frame(0, 3, &[9; 90]),
            frame(0, 3, SERVING),
        ]
        .concat();
        for size in [1, 5, 7, 64, 1000] {
            let mut watch = HealthWatch::default();
            asked.chunks(size).for_each(|piece| watch.take(1, false, piece));
            assert_eq!(watch.seen().answered, 0);
            // Of another connection.
            answered.chunks(size).for_each(|piece| watch.take(2, true, piece));
            assert_eq!(watch.seen().answered, 0);
            answered.chunks(size).for_each(|piece| watch.take(1, true, piece));
            assert_eq!(watch.seen().answered, 1, "{size}");
        }
    }
}
