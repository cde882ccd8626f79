//! The packets of one transfer as the body of a gRPC response.
//!
//! The rule: contents of files go from where they were read to the connection as they are; only small packets are
//! copied, many of them into one piece. A generated server would copy every byte into a buffer of its own.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bk_proto::fsutil::Packet;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::{Body, Frame};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::limits::{BODY_PIECE, COPIED_DATA, OUTBOUND_PACKETS};

/// The key of `Packet.data`, the last field of a packet, on the wire.
const DATA_KEY: u8 = 4 << 3 | 2;

/// Bytes before every message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// The packets of one transfer, then its result.
pub(super) struct PacketBody {
    packets: mpsc::Receiver<Packet>,
    task: Option<AbortOnDropHandle<Result<(), Status>>>,
    taken: Vec<Packet>,
    encoder: Encoder,
}

impl PacketBody {
    /// What arrives at `packets`, and then what `task` ends with. Dropping it stops the task.
    pub(super) fn new(packets: mpsc::Receiver<Packet>, task: AbortOnDropHandle<Result<(), Status>>) -> Self {
        PacketBody {
            packets,
            task: Some(task),
            taken: Vec::new(),
            encoder: Encoder::default(),
        }
    }
}

impl Body for PacketBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(piece) = this.encoder.full() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(task) = &mut this.task else {
                return Poll::Ready(None);
            };
            match this.packets.poll_recv_many(cx, &mut this.taken, OUTBOUND_PACKETS) {
                Poll::Ready(0) => {
                    if let Some(piece) = this.encoder.rest() {
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                    let status = match ready!(Pin::new(task).poll(cx)) {
                        Ok(Ok(())) => Status::ok(""),
                        Ok(Err(status)) => status,
                        Err(e) => Status::internal(format!("the transfer ended early: {e}")),
                    };
                    this.task = None;
                    let mut trailers = http::HeaderMap::new();
                    status.add_header(&mut trailers)?;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Poll::Ready(_) => {
                    for packet in this.taken.drain(..) {
                        this.encoder.add(packet);
                    }
                }
                Poll::Pending => {
                    return match this.encoder.rest() {
                        Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }
}

/// Turns packets into pieces of a body.
#[derive(Default)]
struct Encoder {
    /// Pieces that are complete.
    pieces: VecDeque<Bytes>,
    /// Packets after the last of them.
    buffer: BytesMut,
}

impl Encoder {
    fn add(&mut self, mut packet: Packet) {
        let data = if packet.data.len() > COPIED_DATA {
            std::mem::take(&mut packet.data)
        } else {
            Bytes::new()
        };
        let mut length = packet.encoded_len();
        if !data.is_empty() {
            length += 1 + prost::length_delimiter_len(data.len()) + data.len();
        }
        let copied = HEAD + length - data.len();
        if self.buffer.capacity() - self.buffer.len() < copied {
            self.buffer.reserve(copied.max(BODY_PIECE));
        }
        // Not compressed; a packet of more than 4 GiB is never made.
        self.buffer.put_u8(0);
        self.buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        packet.encode_raw(&mut self.buffer);
        if !data.is_empty() {
            self.buffer.put_u8(DATA_KEY);
            // There is room: the buffer grows.
            let _ = prost::encode_length_delimiter(data.len(), &mut self.buffer);
            self.pieces.push_back(self.buffer.split().freeze());
            self.pieces.push_back(data);
        } else if self.buffer.len() >= BODY_PIECE {
            self.pieces.push_back(self.buffer.split().freeze());
        }
    }

    /// The next complete piece.
    fn full(&mut self) -> Option<Bytes> {
        self.pieces.pop_front()
    }

    /// What there is after the complete pieces.
    fn rest(&mut self) -> Option<Bytes> {
        (!self.buffer.is_empty()).then(|| self.buffer.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use bk_proto::fsutil::{Stat, packet::PacketType};

    use super::*;

    #[test]
    fn every_packet_is_what_prost_makes_of_it() {
        let data = |id, len: usize| Packet {
            r#type: PacketType::PacketData.into(),
            id,
            data: vec![7; len].into(),
            stat: None,
        };
        let stat = Packet {
            stat: Some(Stat {
                path: b"a/b".to_vec(),
                mode: 0o644,
                size: 300,
                ..Stat::default()
            }),
            ..Packet::default()
        };
        let packets = [
            stat.clone(),
            data(0, 0),
            data(1, 1),
            data(2, COPIED_DATA),
            data(300, COPIED_DATA + 1),
            stat.clone(),
            data(4, 200_000),
            data(u32::MAX, 0),
            Packet::default(),
            stat,
        ];
        let mut expected = Vec::new();
        let mut encoder = Encoder::default();
        for packet in packets {
            expected.push(0);
            expected.put_u32(u32::try_from(packet.encoded_len()).expect("is small"));
            packet.encode(&mut expected).expect("there is room");
            encoder.add(packet);
        }
        let mut got = Vec::new();
        while let Some(piece) = encoder.full() {
            got.extend_from_slice(&piece);
        }
        got.extend_from_slice(&encoder.rest().expect("the last packet is small"));
        assert!(got == expected);
        assert!(encoder.rest().is_none());
    }

    #[test]
    fn large_contents_are_not_copied() {
        let data = Bytes::from(vec![1; COPIED_DATA + 1]);
        let mut encoder = Encoder::default();
        encoder.add(Packet {
            data: data.clone(),
            ..Packet::default()
        });
        encoder.full().expect("a head");
        assert_eq!(encoder.full().expect("the contents").as_ptr(), data.as_ptr());
    }
}
