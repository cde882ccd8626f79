//! The sending half of the protocol as a machine without I/O: entries and packets in, packets and files to read
//! out.
//!
//! The rule: nothing here waits, reads or sends. Whatever a peer does, the machine answers with a packet, a
//! file to read, or a [`ProtocolError`] — never with a panic — and it grows only with the number of entries.

mod largest;

use std::collections::VecDeque;

use bk_proto::Mode;
use bk_proto::fsutil::packet::PacketType;
use bk_proto::fsutil::{Packet, Stat};
use bytes::Bytes;

use crate::limits::{BYTES_PER_JOB, FILES_PER_JOB, PEER_TEXT_MAX};
use crate::order::{OrderError, OrderValidator};
use crate::report::{SendReport, Share};
use largest::Largest;

/// The peer, or the tree, broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A file was requested that does not exist, is no regular file, or was requested before.
    #[error("invalid file id {id}")]
    InvalidFileId {
        /// The id that was requested.
        id: u32,
    },
    /// The peer said it has everything, while it has not.
    #[error("the receiver finished before it had everything")]
    EarlyFinish,
    /// The peer sent what only a sender sends, or something unknown.
    #[error("the receiver sent a packet of type {packet_type}, which only a sender may")]
    UnexpectedPacket {
        /// The number of the type.
        packet_type: i32,
    },
    /// Something came after the end.
    #[error("the transfer went on after its end")]
    AfterEnd,
    /// The tree listed its entries in the wrong order. Not the peer's fault.
    #[error("the tree is listed in the wrong order")]
    Order(#[from] OrderError),
    /// The tree has more entries, or longer names in total, than the protocol and this machine can number.
    #[error("the tree has too many entries")]
    TooManyEntries,
}

/// What to do about a packet.
#[derive(Debug, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever drives the machine must handle all of them"
)]
pub enum Action {
    /// Nothing at once; there may be [files to read](Sender::next_files).
    Continue,
    /// Send this packet; then the transfer is complete.
    Finish(Packet),
    /// The peer gave up, for this reason.
    Abort(String),
}

/// A file to read and send.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileRequest {
    /// Its number.
    pub id: u32,
    /// Its path from the root of the tree.
    pub path: Vec<u8>,
    /// The size that was announced.
    pub size: u64,
    /// Which version of the file was announced; 0 if that is not known.
    pub identity: u64,
}

/// The state of one transfer.
#[derive(Debug, Default)]
pub struct Sender {
    order: OrderValidator,
    table: Table,
    /// Ids of the directories above the latest entry, outermost first, and its own if it is one.
    above: Vec<u32>,
    listing_ended: bool,
    finished: bool,
    /// Requested and not yet handed out. Each id gets in here at most once.
    waiting: VecDeque<u32>,
    /// Handed out and not yet complete.
    reading: u32,
    report: SendReport,
    largest_files: Largest,
}

impl Sender {
    /// Nothing was listed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next entry and returns the packet that announces it. From now on it may be requested.
    ///
    /// # Errors
    /// [`ProtocolError`] if the entry is out of order, or one too many.
    pub fn entry(&mut self, stat: Stat) -> Result<Packet, ProtocolError> {
        self.identified(stat, 0)
    }

    /// As [`entry`](Self::entry), with a number that tells which version of the file was announced, or 0.
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    pub fn identified(&mut self, stat: Stat, identity: u64) -> Result<Packet, ProtocolError> {
        if self.listing_ended {
            return Err(ProtocolError::AfterEnd);
        }
        let mode = Mode::from_bits(stat.mode);
        let depth = self.order.check(&stat.path, mode.is_dir())?;
        self.above.truncate(depth);
        let parent = self.above.last().copied();
        let size = u64::try_from(stat.size).unwrap_or(0);
        let name_at = stat.path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        // Only what can be requested or stand above it is ever looked up.
        let name = if mode.is_dir() || mode.is_regular() {
            &stat.path[name_at..]
        } else {
            &[]
        };
        // A directory's own size says nothing: there the record counts what is sent of the files below.
        let counted = if mode.is_dir() { 0 } else { size };
        let id = self
            .table
            .push(parent, name, (counted, identity), mode.is_regular())?;
        if mode.is_dir() {
            self.above.push(id);
        }
        self.report.entries += 1;
        if mode.is_regular() && stat.linkname.is_empty() {
            self.report.bytes_offered = self.report.bytes_offered.saturating_add(size);
        }
        Ok(packet(PacketType::PacketStat, 0, Some(stat), Bytes::new()))
    }

    /// Ends the listing and returns the packet that says so.
    ///
    /// # Errors
    /// [`ProtocolError::AfterEnd`] if it has ended before.
    pub fn end_of_listing(&mut self) -> Result<Packet, ProtocolError> {
        if std::mem::replace(&mut self.listing_ended, true) {
            return Err(ProtocolError::AfterEnd);
        }
        Ok(packet(PacketType::PacketStat, 0, None, Bytes::new()))
    }

    /// Takes a packet of the peer.
    ///
    /// # Errors
    /// [`ProtocolError`] if the peer may not send this, or not now.
    pub fn packet(&mut self, packet_in: &Packet) -> Result<Action, ProtocolError> {
        if self.finished {
            return Err(ProtocolError::AfterEnd);
        }
        match PacketType::try_from(packet_in.r#type) {
            Ok(PacketType::PacketReq) => {
                if !self.table.take_requestable(packet_in.id) {
                    return Err(ProtocolError::InvalidFileId { id: packet_in.id });
                }
                self.waiting.push_back(packet_in.id);
                self.report.files_requested += 1;
                Ok(Action::Continue)
            }
            Ok(PacketType::PacketFin) => {
                if !self.listing_ended || !self.waiting.is_empty() || self.reading > 0 {
                    return Err(ProtocolError::EarlyFinish);
                }
                self.finished = true;
                Ok(Action::Finish(packet(
                    PacketType::PacketFin,
                    0,
                    None,
                    Bytes::new(),
                )))
            }
            Ok(PacketType::PacketErr) => {
                self.finished = true;
                let text = packet_in.data.get(..PEER_TEXT_MAX).unwrap_or(&packet_in.data);
                Ok(Action::Abort(String::from_utf8_lossy(text).into_owned()))
            }
            Ok(PacketType::PacketStat | PacketType::PacketData) | Err(_) => {
                Err(ProtocolError::UnexpectedPacket {
                    packet_type: packet_in.r#type,
                })
            }
        }
    }

    /// The next files to read, in the order of the requests: one large one, or several small ones. Empty: none
    /// is waiting.
    pub fn next_files(&mut self) -> Vec<FileRequest> {
        let mut files = Vec::new();
        let mut bytes = 0u64;
        while files.len() < FILES_PER_JOB
            && bytes < BYTES_PER_JOB
            && let Some(id) = self.waiting.pop_front()
        {
            let size = self.table.size(id);
            bytes = bytes.saturating_add(size);
            self.reading += 1;
            files.push(FileRequest {
                id,
                path: self.table.path(id),
                size,
                identity: self.table.identity(id),
            });
        }
        files
    }

    /// Whether requested files wait for [`next_files`](Self::next_files).
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The packet for a piece of a file that was handed out; `data` must not be empty.
    pub fn data(&mut self, id: u32, data: Bytes) -> Packet {
        self.report.bytes_sent += data.len() as u64;
        self.table.count_above(id, data.len() as u64);
        packet(PacketType::PacketData, id, None, data)
    }

    /// The packet that ends a file that was handed out, after its last piece.
    pub fn end_of_file(&mut self, id: u32) -> Packet {
        self.reading = self.reading.saturating_sub(1);
        self.report.files_sent += 1;
        self.largest_files.add(self.table.size(id), id);
        packet(PacketType::PacketData, id, None, Bytes::new())
    }

    /// The packet that makes the peer fail, and with it the build.
    #[must_use]
    pub fn error(text: &str) -> Packet {
        packet(
            PacketType::PacketErr,
            0,
            None,
            Bytes::copy_from_slice(text.as_bytes()),
        )
    }

    /// The numbers so far. Sockets are counted by whoever walks, and what was largest is
    /// [asked for](Self::largest).
    #[must_use]
    pub fn report(&self) -> &SendReport {
        &self.report
    }

    /// The files that were sent and have most bytes, and the directories below which most bytes were sent.
    #[must_use]
    pub fn largest(&self) -> (Vec<Share>, Vec<Share>) {
        let named = |largest: &Largest| {
            let shares = largest.iter().map(|(bytes, id)| Share {
                path: self.table.path(id),
                bytes,
            });
            shares.collect()
        };
        (named(&self.largest_files), named(&self.table.largest_above()))
    }
}

fn packet(packet_type: PacketType, id: u32, stat: Option<Stat>, data: Bytes) -> Packet {
    Packet {
        r#type: packet_type.into(),
        stat,
        id,
        data,
    }
}

/// What is kept of every entry: 24 bytes, its name and a bit. Paths are put together when they are needed.
#[derive(Debug, Default)]
struct Table {
    records: Vec<Record>,
    names: Vec<u8>,
    /// One bit an entry: it is regular and was not requested yet.
    requestable: Vec<u64>,
}

#[derive(Debug)]
struct Record {
    /// Id of the directory that holds it; its own id at the top of the tree.
    parent: u32,
    /// Where its name starts. It ends where the next one starts.
    name: u32,
    size: u64,
    identity: u64,
}

impl Table {
    fn push(
        &mut self,
        parent: Option<u32>,
        name: &[u8],
        (size, identity): (u64, u64),
        regular: bool,
    ) -> Result<u32, ProtocolError> {
        let too_many = |_| ProtocolError::TooManyEntries;
        let id = u32::try_from(self.records.len()).map_err(too_many)?;
        let start = u32::try_from(self.names.len()).map_err(too_many)?;
        if id % 64 == 0 {
            self.requestable.push(0);
        }
        if regular && let Some(word) = self.requestable.last_mut() {
            *word |= 1 << (id % 64);
        }
        self.names.extend_from_slice(name);
        self.records.push(Record {
            parent: parent.unwrap_or(id),
            name: start,
            size,
            identity,
        });
        Ok(id)
    }

    /// Whether the entry may be requested; from now on it may not.
    fn take_requestable(&mut self, id: u32) -> bool {
        let bit = 1 << (id % 64);
        match self.requestable.get_mut(id as usize / 64) {
            Some(word) if *word & bit != 0 => {
                *word &= !bit;
                true
            }
            _ => false,
        }
    }

    fn size(&self, id: u32) -> u64 {
        self.records.get(id as usize).map_or(0, |r| r.size)
    }

    /// Counts bytes of an entry for each directory above it.
    fn count_above(&mut self, mut id: u32, bytes: u64) {
        while let Some(parent) = self.records.get(id as usize).map(|r| r.parent)
            && parent != id
        {
            if let Some(record) = self.records.get_mut(parent as usize) {
                record.size = record.size.saturating_add(bytes);
            }
            id = parent;
        }
    }

    /// The directories with the largest counts.
    fn largest_above(&self) -> Largest {
        // Whatever has a count has something below it that says so.
        let mut is_dir = vec![false; self.records.len()];
        for (id, record) in (0..).zip(&self.records) {
            if record.parent != id
                && let Some(mark) = is_dir.get_mut(record.parent as usize)
            {
                *mark = true;
            }
        }
        let mut largest = Largest::default();
        for ((id, record), _) in (0..).zip(&self.records).zip(is_dir).filter(|(_, is_dir)| *is_dir) {
            largest.add(record.size, id);
        }
        largest
    }

    fn identity(&self, id: u32) -> u64 {
        self.records.get(id as usize).map_or(0, |r| r.identity)
    }

    fn path(&self, mut id: u32) -> Vec<u8> {
        let mut names: Vec<&[u8]> = Vec::new();
        while let Some(record) = self.records.get(id as usize) {
            let end = self
                .records
                .get(id as usize + 1)
                .map_or(self.names.len(), |next| next.name as usize);
            names.push(self.names.get(record.name as usize..end).unwrap_or_default());
            if record.parent == id {
                break;
            }
            id = record.parent;
        }
        names.reverse();
        names.join(&b'/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(path: &str, mode: u32, size: i64) -> Stat {
        Stat {
            path: path.into(),
            mode,
            size,
            ..Stat::default()
        }
    }

    fn request(id: u32) -> Packet {
        packet(PacketType::PacketReq, id, None, Bytes::new())
    }

    fn fin() -> Packet {
        packet(PacketType::PacketFin, 0, None, Bytes::new())
    }

    /// a/ (0), a/b/ (1), a/b/f (2), a/l (3, a link), a-f (4)
    fn listed() -> Sender {
        let mut sender = Sender::new();
        for (path, mode) in [
            ("a", Mode::DIR),
            ("a/b", Mode::DIR),
            ("a/b/f", 0),
            ("a/l", Mode::SYMLINK),
            ("a-f", 0),
        ] {
            sender.entry(stat(path, mode | 0o644, 10)).unwrap();
        }
        sender
    }

    #[test]
    fn requests_are_served_while_the_listing_runs() {
        let mut sender = listed();
        assert_eq!(sender.packet(&request(2)), Ok(Action::Continue));
        let files = sender.next_files();
        assert_eq!(
            files,
            [FileRequest {
                id: 2,
                path: b"a/b/f".to_vec(),
                size: 10,
                identity: 0
            }]
        );
        assert!(!sender.has_waiting());
        sender.entry(stat("b", 0o600, 5)).unwrap();
        assert_eq!(sender.packet(&request(5)), Ok(Action::Continue));
        assert_eq!(sender.packet(&request(4)), Ok(Action::Continue));
        let ids: Vec<_> = sender.next_files().into_iter().map(|f| (f.id, f.path)).collect();
        assert_eq!(ids, [(5, b"b".to_vec()), (4, b"a-f".to_vec())]);
    }

    #[test]
    fn a_whole_transfer() {
        let mut sender = listed();
        let end = sender.end_of_listing().unwrap();
        assert_eq!(end, Packet::default());
        sender.packet(&request(4)).unwrap();
        sender.next_files();
        let data = sender.data(4, Bytes::from_static(b"0123456789"));
        assert_eq!((data.r#type, data.id, &data.data[..]), (2, 4, &b"0123456789"[..]));
        let eof = sender.end_of_file(4);
        assert_eq!((eof.r#type, eof.id, eof.data.len()), (2, 4, 0));
        assert_eq!(sender.packet(&fin()), Ok(Action::Finish(fin())));
        let report = sender.report();
        assert_eq!((report.entries, report.bytes_offered), (5, 20));
        assert_eq!(
            (report.files_requested, report.files_sent, report.bytes_sent),
            (1, 1, 10)
        );
        assert_eq!(sender.packet(&fin()), Err(ProtocolError::AfterEnd));
        assert_eq!(sender.packet(&request(2)), Err(ProtocolError::AfterEnd));
    }

    #[test]
    fn bad_requests_are_refused() {
        let bad = |sender: &mut Sender, id| {
            let err = sender.packet(&request(id)).unwrap_err();
            assert_eq!(err.to_string(), format!("invalid file id {id}"));
        };
        let mut sender = Sender::new();
        bad(&mut sender, 0);
        let mut sender = listed();
        bad(&mut sender, 0);
        bad(&mut sender, 3);
        bad(&mut sender, 5);
        bad(&mut sender, u32::MAX);
        sender.packet(&request(2)).unwrap();
        bad(&mut sender, 2);
        sender.next_files();
        bad(&mut sender, 2);
        sender.end_of_file(2);
        bad(&mut sender, 2);
    }

    #[test]
    fn an_early_finish_is_refused_at_every_point() {
        let early = |sender: &mut Sender| assert_eq!(sender.packet(&fin()), Err(ProtocolError::EarlyFinish));
        early(&mut Sender::new());
        let mut sender = listed();
        early(&mut sender);
        sender.packet(&request(2)).unwrap();
        sender.end_of_listing().unwrap();
        early(&mut sender);
        sender.next_files();
        early(&mut sender);
        sender.data(2, Bytes::from_static(b"x"));
        early(&mut sender);
        sender.end_of_file(2);
        assert!(matches!(sender.packet(&fin()), Ok(Action::Finish(_))));
    }

    #[test]
    fn an_error_of_the_peer_aborts_at_every_point() {
        let error = Sender::error("no space");
        assert_eq!((error.r#type, &error.data[..]), (4, &b"no space"[..]));
        for mut sender in [Sender::new(), listed()] {
            assert_eq!(sender.packet(&error), Ok(Action::Abort("no space".to_owned())));
            assert_eq!(sender.packet(&error), Err(ProtocolError::AfterEnd));
        }
    }

    #[test]
    fn only_a_receivers_packets_are_taken() {
        for packet_type in [0, 2, 5, -1, i32::MAX] {
            let strange = Packet {
                r#type: packet_type,
                ..Packet::default()
            };
            let err = listed().packet(&strange).unwrap_err();
            assert_eq!(err, ProtocolError::UnexpectedPacket { packet_type });
        }
    }

    #[test]
    fn a_tree_out_of_order_is_refused() {
        let mut sender = listed();
        assert!(matches!(
            sender.entry(stat("a/c", 0, 0)),
            Err(ProtocolError::Order(_))
        ));
        let mut sender = listed();
        assert!(matches!(
            sender.entry(stat("a-f/x", 0, 0)),
            Err(ProtocolError::Order(_))
        ));
        let mut sender = listed();
        sender.end_of_listing().unwrap();
        assert_eq!(sender.entry(stat("z", 0, 0)), Err(ProtocolError::AfterEnd));
        assert_eq!(sender.end_of_listing(), Err(ProtocolError::AfterEnd));
    }

    #[test]
    fn small_files_are_handed_out_together_and_large_ones_alone() {
        let mut sender = Sender::new();
        for i in 0..100u32 {
            let size = if i == 40 { 1 << 40 } else { 1000 };
            sender.entry(stat(&format!("{i:03}"), 0o644, size)).unwrap();
        }
        for id in 0..100 {
            sender.packet(&request(id)).unwrap();
        }
        let sizes: Vec<_> =
            std::iter::from_fn(|| Some(sender.next_files().len()).filter(|n| *n > 0)).collect();
        assert_eq!(sizes, [32, 9, 32, 27]);
    }

    #[test]
    fn the_largest_files_and_directories_are_named() {
        let mut sender = listed();
        for (id, bytes) in [(2, &b"0123456789"[..]), (4, b"01234")] {
            sender.packet(&request(id)).unwrap();
            sender.next_files();
            sender.data(id, Bytes::from_static(bytes));
            sender.end_of_file(id);
        }
        let share = |path: &str, bytes| Share {
            path: path.into(),
            bytes,
        };
        let (files, dirs) = sender.largest();
        assert_eq!(files, [share("a/b/f", 10), share("a-f", 10)]);
        assert_eq!(dirs, [share("a", 10), share("a/b", 10)]);
        // A directory's own size, as file systems have it, is no byte that was sent.
        let (files, dirs) = listed().largest();
        assert_eq!((files.len(), dirs.len()), (0, 0));
    }

    #[test]
    fn what_is_kept_of_an_entry_is_small() {
        assert_eq!(size_of::<Record>(), 24);
    }
}
