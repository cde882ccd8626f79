//! Reads requested files, on blocking threads, piece by piece.
//!
//! The rule: a file leaves whole or not at all. Its end is announced only after as many bytes as were announced
//! have been read, nothing follows them, and the file did not change meanwhile; anything else is an error that
//! names the file, never a silently empty or torn one.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::entry::{Kind, Meta};
use crate::limits::DATA_CHUNK;
use crate::path::{RelPath, show};
use crate::report::SendObserver;
use crate::send::FileRequest;
use crate::tree::{OpenFile, Tree};

/// A requested file cannot be sent whole.
#[derive(Debug, thiserror::Error)]
#[error("cannot send {path:?}")]
#[non_exhaustive]
pub struct FileError {
    /// The file, with bytes that are no UTF-8 escaped.
    pub path: String,
    /// Why.
    #[source]
    pub fault: FileFault,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileFault {
    /// It cannot be opened: it has vanished, or may not be read.
    #[error("cannot open it")]
    Open(#[source] io::Error),
    /// Reading failed.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// Something else took its place.
    #[error("it is no longer a regular file")]
    NotRegular,
    /// It is not as long as it was when it was listed.
    #[error("its size changed from {listed} to {found} bytes since it was listed")]
    SizeChanged {
        /// Bytes when it was listed.
        listed: u64,
        /// Bytes now.
        found: u64,
    },
    /// It was written to while it was read.
    #[error("it changed while it was read")]
    ChangedWhileRead,
}

/// A piece of a file on its way to the wire.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) id: u32,
    /// May be empty only if this is the last piece.
    pub(crate) data: Bytes,
    pub(crate) last: bool,
}

/// Reads `files` in turn and hands their pieces to `out`, which answers whether to go on. Ends at the first file
/// that fails, after handing over the error, or once `stop` is set.
pub(crate) fn read_files(
    tree: &dyn Tree,
    files: Vec<FileRequest>,
    observer: &dyn SendObserver,
    stop: &AtomicBool,
    out: &mut dyn FnMut(Result<Piece, FileError>) -> bool,
) {
    for file in files {
        let go_on = match read_file(tree, &file, observer, stop, out) {
            Ok(go_on) => go_on,
            Err(fault) => {
                out(Err(FileError {
                    path: show(&file.path).into_owned(),
                    fault,
                }));
                false
            }
        };
        if !go_on {
            return;
        }
        observer.file_sent(&file.path, file.size);
    }
}

/// Whether to go on with the next file.
fn read_file(
    tree: &dyn Tree,
    request: &FileRequest,
    observer: &dyn SendObserver,
    stop: &AtomicBool,
    out: &mut dyn FnMut(Result<Piece, FileError>) -> bool,
) -> Result<bool, FileFault> {
    if stop.load(Ordering::Relaxed) {
        return Ok(false);
    }
    let mut file = tree
        .open(RelPath::trusted(&request.path))
        .map_err(FileFault::Open)?;
    let before = file.stat().map_err(FileFault::Open)?;
    if before.kind != Kind::File {
        return Err(FileFault::NotRegular);
    }
    if before.size != request.size {
        return Err(FileFault::SizeChanged {
            listed: request.size,
            found: before.size,
        });
    }
    let mut left = request.size;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(DATA_CHUNK);
        let mut data = vec![0; len];
        let got = fill(&mut *file, &mut data).map_err(FileFault::Read)?;
        if got < len {
            let found = request.size - left + got as u64;
            return Err(FileFault::SizeChanged {
                listed: request.size,
                found,
            });
        }
        left -= len as u64;
        let last = left == 0;
        if last {
            check_unchanged(&mut *file, &before)?;
        }
        observer.sent_bytes(len as u64);
        if !out(Ok(Piece {
            id: request.id,
            data: data.into(),
            last,
        })) {
            return Ok(false);
        }
        if last {
            return Ok(true);
        }
    }
}

/// Says whether the file is at its end and still what it was when it was opened.
fn check_unchanged(file: &mut dyn OpenFile, before: &Meta) -> Result<(), FileFault> {
    let more = fill(file, &mut [0]).map_err(FileFault::Read)?;
    let after = file.stat().map_err(FileFault::Read)?;
    if more > 0 || after.size != before.size {
        let found = after.size.max(before.size + more as u64);
        return Err(FileFault::SizeChanged {
            listed: before.size,
            found,
        });
    }
    if after.mtime_ns != before.mtime_ns {
        return Err(FileFault::ChangedWhileRead);
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut dyn OpenFile, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(filled)
}
