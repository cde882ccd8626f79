//! The temporary file that holds what an archive brought: contents, attributes and link targets.
//!
//! The rule: it has no name, so nothing of it stays however the program ends. What was zeros in the archive is a hole in
//! it, and bytes are only ever added at its end.

use std::fs::File;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::limits::{HOLE_BLOCK, SPARSE_FROM, SPOOL_CHUNK};
use crate::offset::write_all_at;

/// The file while it is filled.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    end: u64,
    chunk: Vec<u8>,
}

/// What went wrong while content was stored.
pub(super) enum StoreError<E> {
    /// Where it comes from.
    From(E),
    /// The temporary file.
    To(io::Error),
    /// More than any file can hold.
    TooLarge,
}

impl Spool {
    /// Makes the file in `dir`.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        Ok(Spool {
            file: tempfile::tempfile_in(dir)?,
            end: 0,
            chunk: vec![0; SPOOL_CHUNK],
        })
    }

    /// Stores a few bytes; returns where they are.
    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.end;
        write_all_at(&self.file, bytes, at)?;
        self.end += bytes.len() as u64;
        Ok(at)
    }

    /// Stores a file of `size` bytes that has data in `runs`, which `read` fills buffers with in turn, and adds it to
    /// `hash`; returns where it is. The hash does not depend on which zeros were stored, as long as the runs are the same.
    pub(super) fn store<E>(
        &mut self,
        size: u64,
        runs: &[(u64, u64)],
        hash: &mut Sha256,
        mut read: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<u64, StoreError<E>> {
        let keeps_holes = size >= SPARSE_FROM;
        let start = if keeps_holes {
            self.end
                .checked_next_multiple_of(HOLE_BLOCK as u64)
                .ok_or(StoreError::TooLarge)?
        } else {
            self.end
        };
        let end = start
            .checked_add(size)
            .filter(|end| i64::try_from(*end).is_ok())
            .ok_or(StoreError::TooLarge)?;
        for (offset, len) in runs {
            let (mut at, run_end) = (*offset, offset + len);
            while at < run_end {
                // Pieces end at multiples of their size, whatever the runs are.
                let until_edge = SPOOL_CHUNK as u64 - at % SPOOL_CHUNK as u64;
                let len = usize::try_from(until_edge.min(run_end - at)).unwrap_or(SPOOL_CHUNK);
                let piece = &mut self.chunk[..len];
                read(piece).map_err(StoreError::From)?;
                if !(keeps_holes && piece.iter().all(|b| *b == 0)) {
                    hash.update(at.to_le_bytes());
                    hash.update(&*piece);
                    write_all_at(&self.file, piece, start + at).map_err(StoreError::To)?;
                }
                at += len as u64;
            }
        }
        if keeps_holes || runs != [(0, size)] {
            // It may end in a hole. Nothing was ever written behind the end, so what was skipped is zeros.
            self.file.set_len(end).map_err(StoreError::To)?;
        }
        self.end = end;
        Ok(start)
    }

    /// The file, complete.
    pub(super) fn finish(self) -> File {
        self.file
    }
}
