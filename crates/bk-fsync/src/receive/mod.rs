//! The receiving half of the protocol as a machine without I/O: packets in, entries and pieces of files out.
//!
//! The rule: nothing that a peer sends is trusted. Paths, kinds, links, sizes and ids are checked here, once, so
//! that whoever writes to the disk sees nothing but clean relative paths in depth-first order, links to files that
//! were listed, and exactly as many bytes of a file as were announced. Whatever a peer does, the machine answers
//! with an action or a [`ProtocolError`], never with a panic.

mod incoming;
mod names;
mod options;
mod report;

pub use incoming::{Body, Incoming};
pub use names::Names;
pub use options::{DevicePolicy, ReceiveMode, ReceiveOptions, ReceivedOwner, Unchanged};
pub use report::{Change, ReceiveObserver, ReceiveReport, ReceiveWarning};

use std::collections::BTreeMap;
use std::sync::Arc;

use bk_proto::fsutil::Packet;
use bk_proto::fsutil::packet::PacketType;
use bytes::Bytes;

use crate::entry::Kind;
use crate::limits::PEER_TEXT_MAX;
use crate::order::{OrderError, OrderValidator};
use crate::path::show;

/// The peer broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The listing is in the wrong order, or an entry has a path that must not travel.
    #[error("the listing is not in order")]
    Order(#[from] OrderError),
    /// An entry says something about itself that cannot be.
    #[error("entry {path:?} {fault}")]
    BadEntry {
        /// The entry.
        path: String,
        /// What is wrong with it.
        fault: EntryFault,
    },
    /// Content came for a file that was not asked for, or that was complete.
    #[error("invalid file id {id}")]
    InvalidFileId {
        /// The id that was sent.
        id: u32,
    },
    /// A file has more or fewer bytes than were announced. An empty file in place of another is how upstream's
    /// sender says that it could not open it.
    #[error("file {path:?} arrived with {what} than the {announced} bytes that were announced")]
    WrongSize {
        /// The file.
        path: String,
        /// Which of the two it is.
        what: &'static str,
        /// The size in the listing.
        announced: u64,
    },
    /// The peer said that it is done, while it is not.
    #[error("the sender finished before everything was there")]
    EarlyFinish,
    /// The peer sent what only a receiver sends, or something unknown.
    #[error("the sender sent a packet of type {packet_type}, which a sender may not")]
    UnexpectedPacket {
        /// The number of the type.
        packet_type: i32,
    },
    /// Something came after its end.
    #[error("the sender went on after the end")]
    AfterEnd,
    /// There are more entries, or longer names in total, than are kept.
    #[error("the listing has too many entries")]
    TooManyEntries,
    /// This side asked for what cannot be asked for. A bug of whoever drives the machine.
    #[error("file id {id} cannot be requested")]
    NotRequestable {
        /// The id.
        id: u32,
    },
}

/// What can be wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// Its path or link target is longer than any system takes.
    #[error("has a path or link target that is too long")]
    TooLong,
    /// Its mode names no kind of file, or several.
    #[error("is of no known kind (mode {mode:#x})")]
    Kind {
        /// The mode as it was sent.
        mode: u32,
    },
    /// Its size is negative.
    #[error("has a negative size")]
    Size,
    /// It is a device with a number that no device has.
    #[error("has a device number that cannot be")]
    Device,
    /// It is a symbolic link to nothing, or to a target with a NUL byte.
    #[error("is a symbolic link with a target that cannot be")]
    Target,
    /// It is a hard link to something that was not listed before, is itself a link, or is of another kind.
    #[error("is a hard link to {target:?}, which is no file that was listed before")]
    Link {
        /// The target as it was sent.
        target: String,
    },
}

/// What a packet of the peer means.
#[derive(Debug, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever drives the machine must handle all of them"
)]
pub enum Action {
    /// The next entry of the listing. If it is a [`Body::File`] it may be [requested](Receiver::request).
    Entry(Incoming),
    /// The listing is complete; these are all names in it.
    EndOfListing(Arc<Names>),
    /// The next bytes of a file that was requested; never empty.
    Data {
        /// The file.
        id: u32,
        /// The bytes.
        data: Bytes,
    },
    /// A file that was requested is complete: it has exactly the announced size.
    EndOfFile {
        /// The file.
        id: u32,
    },
    /// The peer confirmed the end.
    Finished,
    /// The peer gave up, for this reason.
    Abort(String),
}

/// The state of one transfer.
#[derive(Debug, Default)]
pub struct Receiver {
    order: OrderValidator,
    names: Arc<Names>,
    /// Ids of the directories above the latest entry, outermost first, and its own if it is one.
    above: Vec<u32>,
    /// Files that were listed and not requested yet, with their sizes.
    offered: BTreeMap<u32, u64>,
    /// Files that were requested and are not complete: what was announced, and what is still to come.
    open: BTreeMap<u32, (u64, u64)>,
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Listing,
    Listed,
    /// We said that we have everything.
    Finishing,
    Over,
}

impl Receiver {
    /// Nothing arrived yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a packet of the peer.
    ///
    /// # Errors
    /// [`ProtocolError`] if the peer may not send this, or not now. The transfer must not go on then.
    pub fn packet(&mut self, packet: Packet) -> Result<Action, ProtocolError> {
        if self.phase == Phase::Over {
            return Err(ProtocolError::AfterEnd);
        }
        let packet_type = packet.r#type;
        match PacketType::try_from(packet_type) {
            Ok(PacketType::PacketErr) => {
                self.phase = Phase::Over;
                let text = packet.data.get(..PEER_TEXT_MAX).unwrap_or(&packet.data);
                Ok(Action::Abort(String::from_utf8_lossy(text).into_owned()))
            }
            Ok(PacketType::PacketFin) if self.phase == Phase::Finishing => {
                self.phase = Phase::Over;
                Ok(Action::Finished)
            }
            Ok(PacketType::PacketFin) => Err(ProtocolError::EarlyFinish),
            Ok(PacketType::PacketStat) => {
                if self.phase != Phase::Listing {
                    return Err(ProtocolError::AfterEnd);
                }
                match packet.stat {
                    Some(stat) => self.entry(stat).map(Action::Entry),
                    None => {
                        self.phase = Phase::Listed;
                        Ok(Action::EndOfListing(Arc::clone(&self.names)))
                    }
                }
            }
            Ok(PacketType::PacketData) => self.data(packet.id, packet.data),
            Ok(PacketType::PacketReq) | Err(_) => Err(ProtocolError::UnexpectedPacket { packet_type }),
        }
    }

    fn entry(&mut self, stat: bk_proto::fsutil::Stat) -> Result<Incoming, ProtocolError> {
        let is_dir = bk_proto::Mode::from_bits(stat.mode).is_dir();
        let id = self.names.len();
        let mut entry = Incoming::from_stat(id, stat)?;
        let depth = self.order.check(&entry.path, is_dir)?;
        let mut kind = entry.body.kind();
        let link = matches!(entry.body, Body::HardLink { .. });
        if let Body::HardLink { target, kind: linked } = &mut entry.body {
            let found = self.names.find(target);
            // Kinds agree: a pipe that says it is a link to a file would be a file at the end.
            if found.and_then(|id| self.names.plain_kind(id)) != Some(*linked) || *linked == Kind::Dir {
                return Err(ProtocolError::BadEntry {
                    path: show(&entry.path).into_owned(),
                    fault: EntryFault::Link {
                        target: show(target).into_owned(),
                    },
                });
            }
            kind = *linked;
        }
        self.above.truncate(depth);
        let parent = self.above.last().copied();
        Arc::make_mut(&mut self.names).push(parent, entry.name(), kind, link)?;
        if is_dir {
            self.above.push(id);
        }
        if let Body::File { size } = entry.body {
            self.offered.insert(id, size);
        }
        Ok(entry)
    }

    fn data(&mut self, id: u32, data: Bytes) -> Result<Action, ProtocolError> {
        let Some((announced, left)) = self.open.get_mut(&id) else {
            return Err(ProtocolError::InvalidFileId { id });
        };
        let wrong = |what, announced: &u64| ProtocolError::WrongSize {
            path: show(&self.names.path(id)).into_owned(),
            what,
            announced: *announced,
        };
        if data.is_empty() {
            if *left > 0 {
                return Err(wrong("less", announced));
            }
            self.open.remove(&id);
            return Ok(Action::EndOfFile { id });
        }
        *left = left
            .checked_sub(data.len() as u64)
            .ok_or_else(|| wrong("more", announced))?;
        Ok(Action::Data { id, data })
    }

    /// The packet that asks for the content of a file that was listed. A file can be asked for once.
    ///
    /// # Errors
    /// [`ProtocolError::NotRequestable`] for anything else.
    pub fn request(&mut self, id: u32) -> Result<Packet, ProtocolError> {
        let Some(size) = self.offered.remove(&id) else {
            return Err(ProtocolError::NotRequestable { id });
        };
        self.open.insert(id, (size, size));
        Ok(Packet {
            r#type: PacketType::PacketReq.into(),
            id,
            ..Packet::default()
        })
    }

    /// The packet that says that everything is there.
    ///
    /// # Errors
    /// [`ProtocolError::EarlyFinish`] while the listing runs or a file that was requested is not complete.
    pub fn finish(&mut self) -> Result<Packet, ProtocolError> {
        if self.phase != Phase::Listed || !self.open.is_empty() {
            return Err(ProtocolError::EarlyFinish);
        }
        self.phase = Phase::Finishing;
        Ok(Packet {
            r#type: PacketType::PacketFin.into(),
            ..Packet::default()
        })
    }

    /// Whether [`finish`](Self::finish) was called: everything is there, and only the confirmation may come.
    #[must_use]
    pub fn is_finishing(&self) -> bool {
        matches!(self.phase, Phase::Finishing | Phase::Over)
    }
}

#[cfg(test)]
mod tests;
