//! A file that is being received.
//!
//! The rule: it has a temporary name until it is complete, and blocks of zeros are not written but left out.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::place::Temp;
use crate::limits::HOLE_BLOCK;

static ZEROS: [u8; HOLE_BLOCK] = [0; HOLE_BLOCK];

#[derive(Debug)]
pub(super) struct Part {
    file: File,
    at: u64,
    /// Whether the end of what arrived was left out.
    hole_at_end: bool,
    /// After `file`: closed before it is removed, which some file systems want.
    pub(super) temp: Temp,
}

impl Part {
    pub(super) fn create(dir: &Arc<OwnedFd>) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (temp, fd) = Temp::make(dir, |dir, name| {
            rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        Ok(Part {
            file: File::from(fd),
            at: 0,
            hole_at_end: false,
            temp,
        })
    }

    /// Adds the next bytes.
    pub(super) fn write(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let zeros = self.leading(data, true);
            self.at += zeros as u64;
            data = &data[zeros..];
            self.hole_at_end = zeros > 0;
            let solid = self.leading(data, false);
            if solid > 0 {
                self.file.write_all_at(&data[..solid], self.at)?;
                self.at += solid as u64;
                data = &data[solid..];
                self.hole_at_end = false;
            }
        }
        Ok(())
    }

    /// How many of the first bytes are in blocks that are all zeros (or, else, in blocks that are not), with blocks
    /// counted from the start of the file.
    fn leading(&self, data: &[u8], zeros: bool) -> usize {
        let mut taken = 0;
        while taken < data.len() {
            let in_block = ((self.at + taken as u64) % HOLE_BLOCK as u64) as usize;
            let len = (HOLE_BLOCK - in_block).min(data.len() - taken);
            let piece = &data[taken..taken + len];
            if (piece == &ZEROS[..len]) != zeros {
                break;
            }
            taken += len;
        }
        taken
    }

    /// Gives the file its size and hands it over with its temporary name.
    pub(super) fn complete(self) -> io::Result<(File, Temp)> {
        if self.hole_at_end {
            self.file.set_len(self.at)?;
        }
        Ok((self.file, self.temp))
    }
}
