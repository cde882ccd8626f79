//! Writes what is visible of a tree as a tar stream, for daemons that are reached without a session.
//!
//! The rule: the stream says of each entry what a session transfer would say, and a file leaves whole or not at all.
//! Nothing is held but the entry at hand. An archive that was not [finished](TarWriter::finish) has no end mark, and
//! whoever carries it must not let it look complete.

mod header;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

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
use header::{BLOCK, Header, ZEROS};

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

/// Writes one archive. All methods block.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
    policies: FilePolicies,
    entries: u64,
    bytes: u64,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive that goes to `out`. Writes are of every size: `out` should gather small ones.
    ///
    /// The first entry is the root, with mode 0755 and the time of the epoch. BuildKit looks at the first 1024 bytes of
    /// an upload only, and takes it for the text of a Dockerfile if they do not hold a whole entry: an archive must not
    /// begin with a PAX header.
    ///
    /// # Errors
    /// [`TarError::Write`].
    pub fn new(out: W) -> Result<Self, TarError> {
        let mut this = TarWriter {
            out,
            policies: FilePolicies::new(),
            entries: 0,
            bytes: 0,
        };
        let root = Header {
            path: b".",
            kind: Kind::Dir,
            hard_link: None,
            target: b"",
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            mtime_ns: 0,
            device: (0, 0),
            xattrs: &[],
        };
        this.write(&root.blocks())?;
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
        for _ in 0..2 {
            self.write(&ZEROS)?;
        }
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
        };
        self.write(&header.blocks())?;
        if !has_content {
            return Ok(());
        }
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
        read_files(tree, vec![request], change, observer, stop, &mut |piece| {
            let result = piece.map_err(TarError::from).and_then(|piece| {
                whole = piece.last;
                self.write(&piece.data)
            });
            failed = result.err();
            failed.is_none()
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if !whole {
            return Err(TarError::Stopped);
        }
        let padding = usize::try_from(size % BLOCK as u64).map_or(0, |used| (BLOCK - used) % BLOCK);
        self.write(&ZEROS[..padding])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        self.out.write_all(bytes).map_err(TarError::Write)
    }
}
