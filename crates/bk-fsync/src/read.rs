//! Reads requested files, on blocking threads, piece by piece.
//!
//! The rule: a file leaves whole or not at all. Its end is announced only after as many bytes as were announced
//! have been read, nothing follows them, and the file is still the one that was announced; anything else is an error
//! that names the file, never a silently empty or torn one. A policy may have it read again, as long as nothing of it
//! has left, or have it sent with a warning.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::buffer::{Buffer, Buffers};
use crate::entry::{Kind, Meta};
use crate::limits::{DATA_CHUNK, RETRY_PAUSE};
use crate::path::{RelPath, show};
use crate::policy::{ChangePolicy, identity};
use crate::report::{SendObserver, Warning};
use crate::send::FileRequest;
use crate::tree::{OpenFile, Run, Tree, vanished};

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
    /// It was written to, or had its metadata changed, after it was listed and before it was opened; or something else
    /// took its place.
    #[error("it changed after it was listed")]
    ChangedSinceListed,
    /// It was written to while it was read.
    #[error("it changed while it was read")]
    ChangedWhileRead,
}

impl FileFault {
    /// Whether reading again can help.
    fn is_change(&self) -> bool {
        match self {
            FileFault::Open(err) => vanished(err),
            FileFault::Read(_) => false,
            FileFault::NotRegular
            | FileFault::SizeChanged { .. }
            | FileFault::ChangedSinceListed
            | FileFault::ChangedWhileRead => true,
        }
    }
}

/// A piece of a file on its way to the wire.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) id: u32,
    /// May be empty only if this is the last piece.
    pub(crate) data: Bytes,
    pub(crate) last: bool,
}

/// Reads `files` in turn and hands their pieces to `out`, those of small files together; it answers whether to go on.
/// Ends at the first file that fails, after handing over the error, or once `stop` is set.
pub(crate) fn read_files(
    tree: &dyn Tree,
    files: &[FileRequest],
    change: ChangePolicy,
    buffers: &Arc<Buffers>,
    observer: &dyn SendObserver,
    stop: &AtomicBool,
    out: &mut dyn FnMut(Result<Vec<Piece>, FileError>) -> bool,
) {
    let mut batch = Batch {
        files,
        buffers,
        observer,
        buffer: None,
        filled: 0,
        parts: Vec::new(),
        bytes: 0,
        out,
    };
    for (at, request) in files.iter().enumerate() {
        let mut reader = Reader {
            tree,
            at,
            request,
            change,
            observer,
            stop,
            start: batch.mark(),
            left_us: false,
            batch: &mut batch,
        };
        match reader.send() {
            Ok(true) => {}
            Ok(false) => return,
            Err(fault) => {
                let start = reader.start;
                batch.back_to(start);
                if batch.hand_over() {
                    (batch.out)(Err(FileError {
                        path: show(&request.path).into_owned(),
                        fault,
                    }));
                }
                return;
            }
        }
    }
    batch.hand_over();
}

/// Pieces that were read and not handed over yet; together they have at most [`DATA_CHUNK`] bytes.
struct Batch<'a> {
    files: &'a [FileRequest],
    buffers: &'a Arc<Buffers>,
    observer: &'a dyn SendObserver,
    /// Their bytes, those of holes excepted.
    buffer: Option<Buffer>,
    /// How much of the buffer they take.
    filled: usize,
    parts: Vec<Part>,
    bytes: usize,
    out: &'a mut dyn FnMut(Result<Vec<Piece>, FileError>) -> bool,
}

/// A piece in a batch.
struct Part {
    /// Which of the files it belongs to.
    file: usize,
    /// Where its bytes begin in the buffer; `None` in a hole.
    at: Option<usize>,
    len: usize,
    last: bool,
}

/// A point to which a batch can go back.
#[derive(Clone, Copy, Default)]
struct Mark {
    parts: usize,
    filled: usize,
    bytes: usize,
}

impl Batch<'_> {
    fn mark(&self) -> Mark {
        Mark {
            parts: self.parts.len(),
            filled: self.filled,
            bytes: self.bytes,
        }
    }

    /// Forgets what came after `mark`.
    fn back_to(&mut self, mark: Mark) {
        self.parts.truncate(mark.parts);
        (self.filled, self.bytes) = (mark.filled, mark.bytes);
    }

    /// Where the next `len` bytes go.
    fn room(&mut self, len: usize) -> &mut [u8] {
        let buffer = self.buffer.get_or_insert_with(|| self.buffers.take());
        &mut buffer.bytes[self.filled..self.filled + len]
    }

    fn push(&mut self, file: usize, filled: Filled, last: bool) {
        let (at, len) = match filled {
            Filled::Data(len) => {
                self.filled += len;
                (Some(self.filled - len), len)
            }
            Filled::Hole(len) => (None, len),
        };
        self.bytes += len;
        self.parts.push(Part { file, at, len, last });
    }

    /// Hands everything over. Whether to go on.
    fn hand_over(&mut self) -> bool {
        if self.parts.is_empty() {
            return true;
        }
        let data = self.buffer.take().map_or_else(Bytes::new, Buffer::freeze);
        let mut pieces = Vec::with_capacity(self.parts.len());
        for Part { file, at, len, last } in self.parts.drain(..) {
            let request = &self.files[file];
            // Before it leaves: the transfer may end right after.
            self.observer.sent_bytes(len as u64);
            if last {
                self.observer.file_sent(&request.path, request.size);
            }
            pieces.push(Piece {
                id: request.id,
                data: match at {
                    Some(at) => data.slice(at..at + len),
                    None => zeros().slice(..len),
                },
                last,
            });
        }
        self.back_to(Mark::default());
        (self.out)(Ok(pieces))
    }
}

/// Sends one file.
struct Reader<'a, 'b> {
    tree: &'a dyn Tree,
    /// Its place among the files.
    at: usize,
    request: &'a FileRequest,
    change: ChangePolicy,
    observer: &'a dyn SendObserver,
    stop: &'a AtomicBool,
    batch: &'a mut Batch<'b>,
    /// Where it begins in the batch.
    start: Mark,
    /// Whether a piece of it has left.
    left_us: bool,
}

impl Reader<'_, '_> {
    /// Whether to go on with the next file.
    fn send(&mut self) -> Result<bool, FileFault> {
        let mut retries = match self.change {
            ChangePolicy::Retry(times) => times,
            _ => 0,
        };
        let mut listed = self.request.identity;
        loop {
            match self.read(listed) {
                Err(fault) if fault.is_change() && !self.left_us && retries > 0 => {
                    retries -= 1;
                    // From here on the file counts as it is found, if it has the announced size.
                    listed = 0;
                    self.batch.back_to(self.start);
                    if self.stop.load(Ordering::Relaxed) {
                        return Ok(false);
                    }
                    std::thread::sleep(RETRY_PAUSE); // sleep: gives the writer time; nothing tells when it is done
                }
                other => return other,
            }
        }
    }

    fn read(&mut self, listed: u64) -> Result<bool, FileFault> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let mut warned = false;
        let size = self.request.size;
        let mut file = self
            .tree
            .open(RelPath::trusted(&self.request.path))
            .map_err(FileFault::Open)?;
        let before = file.stat().map_err(FileFault::Open)?;
        if before.kind != Kind::File {
            return Err(FileFault::NotRegular);
        }
        if before.size != size {
            let found = before.size;
            self.tolerate(FileFault::SizeChanged { listed: size, found }, &mut warned)?;
        }
        let opened = identity(&before);
        if listed != 0 && opened != 0 && opened != listed {
            self.tolerate(FileFault::ChangedSinceListed, &mut warned)?;
        }
        let mut content = Content::new(&mut *file);
        let mut left = size;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(DATA_CHUNK);
            if self.batch.bytes + len > DATA_CHUNK && !self.hand_over() {
                return Ok(false);
            }
            let mut got = content.fill(self.batch.room(len)).map_err(FileFault::Read)?;
            if got.len() == 0 && len > 0 {
                let found = size - left;
                self.tolerate(FileFault::SizeChanged { listed: size, found }, &mut warned)?;
                got = Filled::Hole(len);
            }
            left -= got.len() as u64;
            let last = left == 0;
            if last && let Err(fault) = check_unchanged(&mut content, &before) {
                self.tolerate(fault, &mut warned)?;
            }
            self.batch.push(self.at, got, last);
            if last {
                return Ok(true);
            }
        }
    }

    /// Makes room in the batch. Whether to go on.
    fn hand_over(&mut self) -> bool {
        self.left_us |= self.batch.parts.len() > self.start.parts;
        self.start = Mark::default();
        self.batch.hand_over()
    }

    /// Goes on in spite of a change, after one warning, if the policy has it so.
    fn tolerate(&self, fault: FileFault, warned: &mut bool) -> Result<(), FileFault> {
        if self.change != ChangePolicy::Warn {
            return Err(fault);
        }
        if !std::mem::replace(warned, true) {
            self.observer.warning(&Warning::Changed {
                path: &self.request.path,
                reason: &fault.to_string(),
            });
        }
        Ok(())
    }
}

/// Says whether the file is at its end and still what it was when it was opened.
fn check_unchanged(content: &mut Content<'_>, before: &Meta) -> Result<(), FileFault> {
    let more = content.fill(&mut [0]).map_err(FileFault::Read)?.len();
    let after = content.file.stat().map_err(FileFault::Read)?;
    if more > 0 || after.size != before.size {
        let found = after.size.max(before.size + more as u64);
        return Err(FileFault::SizeChanged {
            listed: before.size,
            found,
        });
    }
    if after.mtime_ns != before.mtime_ns || identity(&after) != identity(before) {
        return Err(FileFault::ChangedWhileRead);
    }
    Ok(())
}

/// The bytes of a file from where it stands, without reading its holes.
pub(crate) struct Content<'a> {
    file: &'a mut dyn OpenFile,
    /// What is left of the run that the file stands in.
    run: Run,
}

impl<'a> Content<'a> {
    pub(crate) fn new(file: &'a mut dyn OpenFile) -> Self {
        Content {
            file,
            run: Run::Data(0),
        }
    }

    /// Puts the next bytes at the start of `into`: as many as fit, fewer before the end of a run, none only at the end of
    /// the file (or if none fit). Those of a hole are only counted.
    pub(crate) fn fill(&mut self, into: &mut [u8]) -> io::Result<Filled> {
        if let Run::Data(0) | Run::Hole(0) = self.run {
            self.run = match self.file.next_run()? {
                Run::Data(0) | Run::Hole(0) => Run::Data(u64::MAX),
                run => run,
            };
        }
        let within = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        match &mut self.run {
            Run::Hole(left) => {
                let len = within(*left).min(DATA_CHUNK);
                *left -= len as u64;
                Ok(Filled::Hole(len))
            }
            Run::Data(left) => {
                let len = within(*left);
                let got = fill(&mut *self.file, &mut into[..len])?;
                *left -= got as u64;
                if got == 0 {
                    // A hole may begin where the data was cut off.
                    *left = 0;
                }
                Ok(Filled::Data(got))
            }
        }
    }

    /// As [`fill`](Self::fill), with up to `len` bytes in memory of their own, those of holes included.
    pub(crate) fn next(&mut self, len: usize) -> io::Result<Bytes> {
        let mut data = vec![0; len];
        Ok(match self.fill(&mut data)? {
            Filled::Hole(len) => zeros().slice(..len),
            Filled::Data(got) => {
                data.truncate(got);
                data.into()
            }
        })
    }
}

/// What came of asking for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// So many were read.
    Data(usize),
    /// So many are zeros, and nothing was read; at most [`DATA_CHUNK`].
    Hole(usize),
}

impl Filled {
    fn len(self) -> usize {
        match self {
            Filled::Data(len) | Filled::Hole(len) => len,
        }
    }
}

/// Zero bytes that every hole shares.
fn zeros() -> Bytes {
    static ZEROS: OnceLock<Bytes> = OnceLock::new();
    ZEROS.get_or_init(|| vec![0; DATA_CHUNK].into()).clone()
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

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::DirTree;
    use crate::report::Unobserved;

    /// Reads `f` with a policy; `after` is called with the number of each piece.
    fn read(
        dir: &std::path::Path,
        identity: u64,
        size: u64,
        change: ChangePolicy,
        after: impl Fn(usize),
    ) -> (u64, bool, Option<FileFault>) {
        let tree = DirTree::open(dir).expect("the file is there");
        let request = FileRequest {
            id: 1,
            path: b"f".to_vec(),
            size,
            identity,
        };
        let (mut bytes, mut whole, mut fault, mut count) = (0, false, None, 0);
        let stop = AtomicBool::new(false);
        let mut out = |pieces: Result<Vec<Piece>, FileError>| {
            match pieces {
                Ok(pieces) => {
                    for piece in pieces {
                        bytes += piece.data.len() as u64;
                        whole = piece.last;
                        after(count);
                        count += 1;
                    }
                }
                Err(err) => fault = Some(err.fault),
            }
            true
        };
        let buffers = Buffers::new();
        read_files(&tree, &[request], change, &buffers, &Unobserved, &stop, &mut out);
        (bytes, whole, fault)
    }

    fn listed(dir: &std::path::Path) -> u64 {
        let tree = DirTree::open(dir).expect("the file is there");
        identity(
            &tree
                .open(RelPath::trusted(b"f"))
                .expect("the file is there")
                .stat()
                .expect("the file is there"),
        )
    }

    #[test]
    fn another_file_of_the_same_size_and_time_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("f"), dir.path().join("g"));
        std::fs::write(&file, "old").unwrap();
        std::fs::write(&other, "new").unwrap();
        let time = std::fs::metadata(&file).unwrap().modified().unwrap();
        std::fs::File::open(&other).unwrap().set_modified(time).unwrap();
        let before = listed(dir.path());
        assert!(
            read(dir.path(), before, 3, ChangePolicy::Error, |_| {})
                .2
                .is_none()
        );
        std::fs::rename(&other, &file).unwrap();
        let (bytes, _, fault) = read(dir.path(), before, 3, ChangePolicy::Error, |_| {});
        assert!(matches!((bytes, fault), (0, Some(FileFault::ChangedSinceListed))));
        for policy in [ChangePolicy::Retry(1), ChangePolicy::Warn] {
            let (bytes, whole, fault) = read(dir.path(), before, 3, policy, |_| {});
            assert!(fault.is_none() && whole && bytes == 3, "{policy:?} {fault:?}");
        }
    }

    #[test]
    fn a_change_after_the_first_piece_cannot_be_mended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, vec![1; 3 * DATA_CHUNK]).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let size = 3 * DATA_CHUNK as u64;
        let grow = |count| {
            if count == 0 {
                file.write_all_at(b"more", size).unwrap();
            }
        };
        let (bytes, whole, fault) = read(dir.path(), 0, size, ChangePolicy::Retry(5), grow);
        assert!(
            matches!(fault, Some(FileFault::SizeChanged { .. })) && !whole,
            "{bytes}"
        );
        file.set_len(size).unwrap();
        let shrink = |count| {
            if count == 0 {
                file.set_len(5).unwrap();
            }
        };
        let (bytes, whole, fault) = read(dir.path(), 0, size, ChangePolicy::Warn, shrink);
        assert!(fault.is_none() && whole && bytes == size, "{bytes} {fault:?}");
    }

    #[test]
    fn a_file_that_returns_to_its_size_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "12345").unwrap();
        // Never again as long as announced: the retries end.
        let (_, _, fault) = read(dir.path(), 0, 4, ChangePolicy::Retry(2), |_| {});
        assert!(matches!(
            fault,
            Some(FileFault::SizeChanged { listed: 4, found: 5 })
        ));
        let (bytes, whole, fault) = read(dir.path(), 0, 4, ChangePolicy::Warn, |_| {});
        assert!(fault.is_none() && whole && bytes == 4);
        std::fs::remove_file(&path).unwrap();
        let (_, _, fault) = read(dir.path(), 0, 4, ChangePolicy::Warn, |_| {});
        assert!(matches!(fault, Some(FileFault::Open(_))));
    }

    #[test]
    fn holes_are_sent_but_not_read() {
        /// Counts the bytes that are really read.
        struct Counting<'a>(Box<dyn OpenFile>, &'a AtomicUsize);
        impl io::Read for Counting<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let got = self.0.read(buffer)?;
                self.1.fetch_add(got, Ordering::Relaxed);
                Ok(got)
            }
        }
        impl OpenFile for Counting<'_> {
            fn stat(&self) -> io::Result<Meta> {
                self.0.stat()
            }
            fn next_run(&mut self) -> io::Result<Run> {
                self.0.next_run()
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("f")).unwrap();
        let size = 64 << 20;
        file.set_len(size).unwrap();
        file.write_all_at(b"begin", 8 << 20).unwrap();
        file.write_all_at(b"end", size - 3).unwrap();
        file.sync_all().unwrap();
        let read = AtomicUsize::new(0);
        let tree = DirTree::open(dir.path()).unwrap();
        let mut open = Counting(tree.open(RelPath::trusted(b"f")).unwrap(), &read);
        let mut content = Content::new(&mut open);
        let mut all = Vec::new();
        loop {
            let piece = content.next(DATA_CHUNK).unwrap();
            if piece.is_empty() {
                break;
            }
            all.extend_from_slice(&piece);
        }
        let mut want = vec![0; usize::try_from(size).unwrap()];
        want[8 << 20..(8 << 20) + 5].copy_from_slice(b"begin");
        let end = want.len() - 3;
        want[end..].copy_from_slice(b"end");
        assert!(all == want);
        let read = read.load(Ordering::Relaxed);
        // File systems without holes have to be read whole.
        let blocks = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
        if blocks * 512 < size / 2 {
            assert!(read < 4 << 20, "{read} bytes were read");
        }
    }
}
