//! The receiving machine beside a model, and a peer that sends any listing and then serves it.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bk_fsync::receive::{Action, Body, Receiver};
use bk_proto::Mode;
use bk_proto::fsutil::packet::PacketType;
use bk_proto::fsutil::{Packet, Stat};
use bytes::Bytes;
use futures_util::Stream;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use tokio::sync::mpsc;

/// Names that paths and links are made of.
pub const NAMES: [&str; 8] = ["a", "b", "keep", "l", "outside", "..", ".", ""];
const KINDS: [u32; 6] = [0, Mode::DIR, Mode::DIR, Mode::SYMLINK, Mode::NAMED_PIPE, Mode::SOCKET];

/// Something that a peer sends, or that this side does.
#[derive(Arbitrary, Clone, Debug)]
pub enum Step {
    /// An entry of the listing: names of its path, what it is, and names of the path that it leads to.
    Entry { path: [u8; 3], kind: u8, mode: u16, size: u8, link: [u8; 3] },
    /// The end of the listing.
    EndOfListing,
    /// Some bytes of a file, or its end.
    Data { id: u8, count: u8 },
    /// Any other packet.
    Other { kind: i8 },
    /// This side asks for a file.
    Request { id: u8 },
    /// This side has everything.
    Finish,
}

impl Step {
    /// The packet, if a peer sends one.
    pub fn packet(&self) -> Option<Packet> {
        let of_type = |r#type| Packet { r#type, ..Packet::default() };
        match self {
            Step::Entry { path, kind, mode, size, link } => {
                let stat = Stat {
                    path: join(path),
                    mode: KINDS[usize::from(*kind) % KINDS.len()] | u32::from(*mode) & 0o777,
                    size: i64::from(*size) - 1,
                    linkname: join(link),
                    ..Stat::default()
                };
                Some(Packet { stat: Some(stat), ..Packet::default() })
            }
            Step::EndOfListing => Some(Packet::default()),
            Step::Data { id, count } => {
                let data = vec![b'x'; usize::from(*count)].into();
                Some(Packet { id: u32::from(*id), data, ..of_type(PacketType::PacketData.into()) })
            }
            Step::Other { kind } => Some(of_type(i32::from(*kind))),
            Step::Request { .. } | Step::Finish => None,
        }
    }
}

/// Joins up to three names; three numbers of eleven are no name and end the path.
fn join(numbers: &[u8]) -> Vec<u8> {
    let names: Vec<&str> = numbers.iter().map_while(|n| NAMES.get(usize::from(*n) % 11).copied()).collect();
    names.join("/").into_bytes()
}

/// A machine and its model.
#[derive(Default)]
pub struct ReceiverModel {
    machine: Receiver,
    offered: BTreeMap<u32, u64>,
    open: BTreeMap<u32, u64>,
    listed: bool,
    finishing: bool,
}

impl ReceiverModel {
    /// Lets both take a step and compares them. Whether the transfer goes on.
    pub fn step(&mut self, step: &Step) -> bool {
        match (step, step.packet()) {
            (_, Some(packet)) => return self.packet(packet),
            (Step::Request { id }, _) => {
                let size = self.offered.remove(&u32::from(*id));
                assert_eq!(self.machine.request(u32::from(*id)).is_ok(), size.is_some());
                self.open.extend(size.map(|size| (u32::from(*id), size)));
            }
            _ => {
                let may = self.listed && self.open.is_empty() && !self.finishing;
                assert_eq!(self.machine.finish().is_ok(), may);
                self.finishing |= may;
            }
        }
        true
    }

    fn packet(&mut self, packet: Packet) -> bool {
        match self.machine.packet(packet) {
            Ok(Action::Entry(entry)) => {
                assert!(
                    !self.listed
                        && entry.path.split(|b| *b == b'/').all(|n| !matches!(n, b"" | b"." | b".."))
                );
                if let Body::File { size } = entry.body {
                    assert_eq!(self.offered.insert(entry.id, size), None);
                }
            }
            Ok(Action::EndOfListing(_)) => self.listed = true,
            Ok(Action::Data { id, data }) => {
                let left = self.open.get_mut(&id).expect("it was requested");
                *left = left.checked_sub(data.len() as u64).expect("no more than announced");
            }
            Ok(Action::EndOfFile { id }) => assert_eq!(self.open.remove(&id), Some(0)),
            Ok(Action::Finished) => assert!(self.finishing),
            Ok(Action::Abort(_)) | Err(_) => return false,
        }
        true
    }
}

/// A peer that sends what it is told to and then everything that it is asked for.
pub struct Peer {
    told: VecDeque<Packet>,
    sizes: Vec<usize>,
    requests: mpsc::Receiver<Packet>,
}

impl Peer {
    /// A peer that begins with the packets of `steps`, and where to send it requests. It always ends its listing.
    pub fn new(steps: &[Step]) -> (Self, mpsc::Sender<Packet>) {
        let mut told: VecDeque<Packet> = steps.iter().filter_map(Step::packet).collect();
        if !told.contains(&Packet::default()) {
            told.push_back(Packet::default());
        }
        let sizes = told.iter().filter_map(|p| p.stat.as_ref()).map(|s| usize::try_from(s.size).unwrap_or(0));
        let (sender, requests) = mpsc::channel(8);
        (Peer { sizes: sizes.collect(), told, requests }, sender)
    }
}

impl Stream for Peer {
    type Item = Result<Packet, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(packet) = self.told.pop_front() {
            return Poll::Ready(Some(Ok(packet)));
        }
        let Some(request) = ready!(self.requests.poll_recv(cx)) else { return Poll::Ready(None) };
        let answer =
            |data: Bytes| Packet { r#type: PacketType::PacketData.into(), id: request.id, data, stat: None };
        match PacketType::try_from(request.r#type) {
            Ok(PacketType::PacketReq) => {
                let size = self.sizes.get(request.id as usize).copied().unwrap_or(0);
                self.told.push_back(answer(Bytes::new()));
                if size == 0 {
                    return self.poll_next(cx);
                }
                Poll::Ready(Some(Ok(answer(vec![b'x'; size].into()))))
            }
            Ok(PacketType::PacketFin) => Poll::Ready(Some(Ok(request))),
            _ => Poll::Ready(None),
        }
    }
}
