//! Writes what is visible of a tree as a tar stream, for daemons that are reached without a session.
//!
//! The rule: the stream says of each entry what a session transfer would say, and a file leaves whole or not at all.
//! Nothing is held but the entry at hand. Large holes are left out, in the form PAX 1.0 of GNU tar, which Go's reader, and
//! so every engine, expands to the same bytes. An archive that was not [finished](TarWriter::finish) has no end mark, and
//! whoever carries it must not let it look complete.

mod fault;
mod field;
mod format;
mod gaps;
mod header;
pub(crate) mod read;
mod records;
mod sparse;

pub use fault::{TarFault, TarReadError};
pub use format::ArchiveFormat;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::buffer::Buffers;
use crate::entry::{Entry, Kind, Meta};
use crate::filter::Filter;
use crate::hardlink::HardLinks;
use crate::path::{RelPath, show};
use crate::policy::{FilePolicies, Utf8Policy, identity, seconds_only};
use crate::read::{FileError, FileFault, read_files};
use crate::report::SendObserver;
use crate::send::FileRequest;
use crate::tree::Tree;
use crate::walk::{Walk, WalkError};
use crate::wire::device;
use gaps::Gaps;
use header::{BLOCK, Header};

/// An archive could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The tree could not be listed, or a pattern is at fault.
    #[error("cannot list the files")]
    List(#[from] WalkError),
    /// A file could not be read whole.
    #[error(transparent)]
    File(#[from] FileError),
    /// Whoever takes the archive does not want more of it.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// Writing was stopped.
    #[error("writing the archive was stopped")]
    Stopped,
}

/// An entry for the root, with mode 0755 and the time of the epoch: one block.
///
/// BuildKit looks at the first 1024 bytes of an archive only, and takes it for the text of a Dockerfile if they do not hold
/// a whole entry. In front of an archive that begins otherwise, this entry helps.
#[must_use]
pub fn root_entry() -> Vec<u8> {
    plain_entry(b".", Kind::Dir, 0o755, 0)
}

/// The blocks that announce a directory, or a file of `size` bytes, of root and with the time of the epoch, for archives that
/// are not made of a tree. The content follows, then [`padding`]; behind the last entry stands [`END`].
#[must_use]
pub fn plain_entry(path: &[u8], kind: Kind, mode: u32, size: u64) -> Vec<u8> {
    Header {
        path,
        kind,
        hard_link: None,
        target: b"",
        mode,
        uid: 0,
        gid: 0,
        size,
        mtime_ns: 0,
        device: (0, 0),
        xattrs: &[],
        real_size: None,
    }
    .blocks()
}

/// What follows content of that size, up to the next block.
#[must_use]
pub fn padding(size: u64) -> &'static [u8] {
    // It is less than a block.
    usize::try_from(header::padding(size))
        .ok()
        .and_then(|missing| END.get(..missing))
        .unwrap_or_default()
}

/// The end mark of an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Writes one archive. All methods block.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
    policies: FilePolicies,
    buffers: Arc<Buffers>,
    entries: u64,
    bytes: u64,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive that goes to `out`. Writes are of every size: `out` should gather small ones.
    ///
    /// The first entry is that of the [root](root_entry).
    ///
    /// # Errors
    /// [`TarError::Write`].
    pub fn new(out: W) -> Result<Self, TarError> {
        let mut this = TarWriter {
            out,
            policies: FilePolicies::new(),
            buffers: Buffers::new(),
            entries: 0,
            bytes: 0,
        };
        this.write(&root_entry())?;
        Ok(this)
    }

    /// Sets what is done about modes, owners and changes; the defaults are those of [`FilePolicies`]. Of the sync policy
    /// only the fixed time of [`Content`](crate::SyncPolicy::Content) has a meaning, since an archive holds everything.
    #[must_use]
    pub fn policies(mut self, policies: FilePolicies) -> Self {
        self.policies = policies;
        self
    }

    /// Adds everything of `tree` that `filter` lets through, in the order of a session transfer.
    ///
    /// `observer` is told what a session transfer tells it, with each file requested just before it is sent. Ends with
    /// [`TarError::Stopped`] soon after `stop` was set.
    ///
    /// # Errors
    /// [`TarError`]; the archive is broken then.
    pub fn append_tree(
        &mut self,
        tree: &dyn Tree,
        filter: &Filter,
        observer: &dyn SendObserver,
        stop: &AtomicBool,
    ) -> Result<(), TarError> {
        let mut links = HardLinks::new();
        for entry in Walk::new(tree, filter, Utf8Policy::Any, observer, stop) {
            let entry = entry?;
            let link = links.link_target(&entry);
            self.append(tree, &entry.path, &entry, link.as_deref(), observer, stop)?;
        }
        if stop.load(Ordering::Relaxed) {
            Err(TarError::Stopped)
        } else {
            Ok(())
        }
    }

    /// Adds the regular file at `path` of `tree` under `name`, with mode 0644 and the time of the epoch.
    ///
    /// # Errors
    /// As [`append_tree`](Self::append_tree).
    pub fn append_file(
        &mut self,
        tree: &dyn Tree,
        path: RelPath<'_>,
        name: RelPath<'_>,
        observer: &dyn SendObserver,
        stop: &AtomicBool,
    ) -> Result<(), TarError> {
        let fail = |fault| FileError {
            path: show(path.as_bytes()).into_owned(),
            fault,
        };
        let found = tree
            .open(path)
            .and_then(|file| file.stat())
            .map_err(|e| fail(FileFault::Open(e)))?;
        let mut meta = Meta::new(Kind::File);
        meta.size = found.size;
        let entry = Entry {
            path: path.as_bytes().to_vec(),
            meta,
            target: Vec::new(),
            xattrs: Vec::new(),
        };
        self.append(tree, name.as_bytes(), &entry, None, observer, stop)
    }

    /// Writes the end mark and gives `out` back, flushed.
    ///
    /// # Errors
    /// [`TarError::Write`].
    pub fn finish(mut self) -> Result<W, TarError> {
        self.write(&END)?;
        self.out.flush().map_err(TarError::Write)?;
        Ok(self.out)
    }

    fn append(
        &mut self,
        tree: &dyn Tree,
        name: &[u8],
        entry: &Entry,
        link: Option<&[u8]>,
        observer: &dyn SendObserver,
        stop: &AtomicBool,
    ) -> Result<(), TarError> {
        let meta = &entry.meta;
        let has_content = meta.kind == Kind::File && link.is_none();
        let size = if has_content { meta.size } else { 0 };
        self.entries += 1;
        self.bytes += size;
        observer.listed(self.entries, self.bytes);
        let (uid, gid) = self.policies.owner.apply(meta.uid, meta.gid);
        let header = Header {
            path: name,
            kind: meta.kind,
            hard_link: link,
            target: &entry.target,
            mode: self.policies.mode.apply(meta.kind, meta.mode),
            uid,
            gid,
            size,
            mtime_ns: seconds_only(&self.policies.sync, meta.mtime_ns),
            device: match meta.kind {
                Kind::CharDevice | Kind::BlockDevice => device(meta.rdev),
                _ => (0, 0),
            },
            xattrs: &entry.xattrs,
            real_size: None,
        };
        if !has_content {
            return self.write(&header.blocks());
        }
        let mut gaps = match Gaps::find(tree, entry) {
            Some((gaps, map, stored)) => {
                let header = Header {
                    size: map.len() as u64 + stored,
                    real_size: Some(size),
                    ..header
                };
                self.write(&header.blocks())?;
                self.write(&map)?;
                Some((gaps, header.size))
            }
            None => {
                self.write(&header.blocks())?;
                None
            }
        };
        observer.requested(&entry.path, size);
        let request = FileRequest {
            id: 0,
            path: entry.path.clone(),
            size,
            identity: identity(meta),
        };
        let mut failed = None;
        let mut whole = false;
        // An archive carries no tags, so every policy about changes is safe.
        let change = self.policies.change;
        let buffers = Arc::clone(&self.buffers);
        read_files(
            tree,
            &[request],
            change,
            &buffers,
            observer,
            stop,
            &mut |pieces| {
                let result = pieces.map_err(TarError::from).and_then(|pieces| {
                    pieces.iter().try_for_each(|piece| {
                        whole = piece.last;
                        match &mut gaps {
                            None => self.write(&piece.data),
                            Some((gaps, _)) => {
                                gaps.leave_out(&piece.data, &entry.path, |data| self.write(data))
                            }
                        }
                    })
                });
                failed = result.err();
                failed.is_none()
            },
        );
        if let Some(error) = failed {
            return Err(error);
        }
        if !whole {
            return Err(TarError::Stopped);
        }
        let size = gaps.map_or(size, |(_, stored)| stored);
        self.write(padding(size))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        self.out.write_all(bytes).map_err(TarError::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::FilterOptions;
    use crate::limits::DATA_CHUNK;
    use crate::report::Unobserved;
    use crate::tree::MemoryTree;

    fn tree() -> MemoryTree {
        let mut tree = MemoryTree::new();
        tree.add_file("b", 0o600, "hello").unwrap();
        tree.add_file("d/x", 0o644, vec![b'x'; BLOCK]).unwrap();
        tree.add_symlink("a", "/nowhere").unwrap();
        tree.add_file("first", 0o644, "linked").unwrap();
        tree.add_file("second", 0o644, "linked").unwrap();
        for name in ["first", "second"] {
            tree.edit(name, |meta, _| (meta.nlink, meta.ino) = (2, 7))
                .unwrap();
        }
        tree
    }

    fn filter(exclude: &[&str]) -> Filter {
        let options = FilterOptions {
            exclude: exclude.iter().map(|p| p.as_bytes().to_vec()).collect(),
            ..FilterOptions::default()
        };
        Filter::new(&MemoryTree::new(), &options).unwrap()
    }

    fn pack(tree: &dyn Tree, filter: &Filter) -> Result<Vec<u8>, TarError> {
        let mut tar = TarWriter::new(Vec::new())?;
        tar.append_tree(tree, filter, &Unobserved, &AtomicBool::new(false))?;
        tar.finish()
    }

    /// Name, type, link and content of every entry, and how many bytes follow the last one.
    fn read(bytes: &[u8]) -> (Vec<(String, char, String, String)>, usize) {
        let text = |b: &[u8]| String::from_utf8_lossy(b).trim_end_matches('\0').to_owned();
        let (mut at, mut found) = (0, Vec::new());
        while bytes[at] != 0 {
            let block = &bytes[at..at + BLOCK];
            let size = usize::from_str_radix(&text(&block[124..136]), 8).unwrap();
            let content = text(&bytes[at + BLOCK..at + BLOCK + size]);
            found.push((
                text(&block[..100]),
                char::from(block[156]),
                text(&block[157..257]),
                content,
            ));
            at += BLOCK + size.next_multiple_of(BLOCK);
        }
        assert!(bytes[at..].iter().all(|b| *b == 0));
        (found, bytes.len() - at)
    }

    #[test]
    fn entries_stand_in_order_and_links_after_their_file() {
        let bytes = pack(&tree(), &filter(&[])).unwrap();
        let (found, rest) = read(&bytes);
        let x = "x".repeat(BLOCK);
        let want = [
            ("./", '5', "", ""),
            ("a", '2', "/nowhere", ""),
            ("b", '0', "", "hello"),
            ("d/", '5', "", ""),
            ("d/x", '0', "", &x),
            ("first", '0', "", "linked"),
            ("second", '1', "first", ""),
        ];
        assert_eq!(
            found,
            want.map(|(n, t, l, c)| (n.to_owned(), t, l.to_owned(), c.to_owned()))
        );
        assert_eq!(rest, 2 * BLOCK);
        // Nothing in it depends on when or by whom it was written.
        assert_eq!(bytes, pack(&tree(), &filter(&[])).unwrap());
    }

    #[test]
    fn the_first_name_that_survives_is_the_file() {
        let (found, _) = read(&pack(&tree(), &filter(&["first", "d", "b"])).unwrap());
        let names: Vec<_> = found.iter().map(|(n, t, ..)| (n.as_str(), *t)).collect();
        assert_eq!(names, [("./", '5'), ("a", '2'), ("second", '0')]);
    }

    #[test]
    fn a_file_from_elsewhere_has_the_name_it_is_given() {
        let mut tar = TarWriter::new(Vec::new()).unwrap();
        let rel = |p: &'static str| RelPath::new(p.as_bytes()).unwrap();
        let never = AtomicBool::new(false);
        tar.append_file(&tree(), rel("b"), rel("other/name"), &Unobserved, &never)
            .unwrap();
        let err = tar
            .append_file(&tree(), rel("none"), rel("n"), &Unobserved, &never)
            .unwrap_err();
        assert_eq!(err.to_string(), "cannot send \"none\"");
        let (found, _) = read(&tar.finish().unwrap());
        assert_eq!(
            found[1],
            ("other/name".to_owned(), '0', String::new(), "hello".to_owned())
        );
    }

    #[test]
    fn a_file_of_another_size_is_an_error_that_names_it() {
        let mut tree = tree();
        tree.edit("d/x", |meta, _| meta.size = 3).unwrap();
        let err = pack(&tree, &filter(&[])).unwrap_err();
        assert!(matches!(&err, TarError::File(e) if e.path == "d/x"), "{err:?}");
    }

    /// Counts the largest write and fails after some bytes.
    struct Narrow {
        left: usize,
        largest: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.largest = self.largest.max(bytes.len());
            self.left = self
                .left
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn writing_is_piecewise_and_ends_when_nobody_reads_or_it_is_stopped() {
        let mut tree = MemoryTree::new();
        tree.add_file("big", 0o644, vec![1; 5 * DATA_CHUNK]).unwrap();
        let run = |left, stop| {
            let mut out = Narrow { left, largest: 0 };
            let result = TarWriter::new(&mut out).and_then(|mut tar| {
                tar.append_tree(&tree, &filter(&[]), &Unobserved, &AtomicBool::new(stop))?;
                tar.finish().map(drop)
            });
            (result, out.largest)
        };
        let (result, largest) = run(usize::MAX, false);
        assert!(result.is_ok() && largest == DATA_CHUNK);
        assert!(matches!(run(3 * DATA_CHUNK, false).0, Err(TarError::Write(_))));
        assert!(matches!(run(usize::MAX, true).0, Err(TarError::Stopped)));
    }
}
