//! The sending machine beside a model that knows what was listed, what was requested, and what is unfinished.

use bk_fsync::send::{Action, Sender};
use bk_proto::Mode;
use bk_proto::fsutil::packet::PacketType;
use bk_proto::fsutil::{Packet, Stat};
use libfuzzer_sys::arbitrary::{self, Arbitrary};

/// Something that happens to a sender.
#[derive(Arbitrary, Clone, Debug)]
pub enum Op {
    /// The tree lists an entry, beside or below the last one.
    Entry { name: u8, dir: bool, mode: u32, size: i64 },
    /// The tree is listed.
    EndOfListing,
    /// The peer sends a packet.
    Packet { kind: i8, id: u16 },
    /// A reader takes work.
    NextFiles,
    /// A reader is done with a file.
    EndOfFile,
}

/// A machine and its model.
#[derive(Default)]
pub struct SenderModel {
    machine: Sender,
    /// Path of each entry, and whether it is a directory.
    listed: Vec<(Vec<u8>, bool)>,
    /// Whether each entry may still be requested.
    open: Vec<bool>,
    ended: bool,
    over: bool,
    waiting: Vec<u32>,
    reading: Vec<u32>,
}

impl SenderModel {
    /// Lets both take a step and compares them.
    pub fn step(&mut self, op: Op) {
        match op {
            Op::Entry { name, dir, mode, size } => self.entry(name, dir, mode, size),
            Op::EndOfListing => {
                let first = !std::mem::replace(&mut self.ended, true);
                assert_eq!(self.machine.end_of_listing().is_ok(), first);
            }
            Op::Packet { kind, id } => self.packet(i32::from(kind), u32::from(id)),
            Op::NextFiles => {
                let files = self.machine.next_files();
                assert_eq!(files.is_empty(), self.waiting.is_empty());
                for file in files {
                    assert_eq!(self.waiting.remove(0), file.id, "not in the order of the requests");
                    assert_eq!(file.path, self.listed[file.id as usize].0);
                    self.reading.push(file.id);
                }
            }
            Op::EndOfFile => {
                if let Some(id) = self.reading.pop() {
                    assert_eq!(self.machine.end_of_file(id).id, id);
                }
            }
        }
        assert_eq!(self.machine.has_waiting(), !self.waiting.is_empty());
        assert_eq!(self.machine.report().entries, self.listed.len() as u64);
    }

    fn entry(&mut self, name: u8, dir: bool, mode: u32, size: i64) {
        let mode = mode & !Mode::DIR | if dir { Mode::DIR } else { 0 };
        let path = match self.listed.last() {
            None => vec![name],
            Some((last, true)) => [last, &b"/"[..], &[name]].concat(),
            Some((last, false)) => [&last[..last.len() - 1], &[name]].concat(),
        };
        let stat = Stat { path: path.clone(), mode, size, ..Stat::default() };
        if self.machine.entry(stat.clone()).is_ok() {
            assert!(!self.ended, "an entry after the end of the listing");
            self.open.push(Mode::from_bits(mode).is_regular());
            self.listed.push((path, dir));
        }
    }

    fn packet(&mut self, kind: i32, id: u32) {
        let may = match PacketType::try_from(kind) {
            Ok(PacketType::PacketReq) => self.open.get(id as usize) == Some(&true),
            Ok(PacketType::PacketFin) => self.ended && self.waiting.is_empty() && self.reading.is_empty(),
            Ok(PacketType::PacketErr) => true,
            _ => false,
        };
        let answer = self.machine.packet(&Packet { r#type: kind, id, ..Packet::default() });
        assert_eq!(answer.is_ok(), may && !self.over, "{answer:?}");
        match answer {
            Ok(Action::Continue) => {
                self.open[id as usize] = false;
                self.waiting.push(id);
            }
            Ok(Action::Finish(_) | Action::Abort(_)) => self.over = true,
            Err(_) => {}
        }
    }
}
