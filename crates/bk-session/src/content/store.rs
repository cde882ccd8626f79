//! A store of a session: a layout that the daemon knows by an id, and what it may do there.
//!
//! The rule: nothing is made on disk before the daemon writes. What a build that fails has put into a result's layout is
//! taken out again; unfinished uploads of a cache stay, to be taken up by the next build.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use bk_build::LocalFailure;

use super::{
    digest::Digest,
    ingest::{Fault, Ingest},
    layout::Layout,
};

/// What a store is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A base image: read only, and what cannot be read fails the build.
    Image,
    /// A cache that is read.
    Import,
    /// A cache that is written, and perhaps read.
    Cache,
    /// A result.
    Result,
}

/// A layout behind an id.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    purpose: Purpose,
    layout: Mutex<Option<Arc<Layout>>>,
    /// Held while something is done here; what is behind is whether nothing may be begun any more.
    closed: RwLock<bool>,
    /// Blobs that were not there before.
    fresh: Mutex<Vec<Digest>>,
    received: AtomicU64,
    trouble: Mutex<Option<LocalFailure>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    pub(crate) fn new(path: impl Into<PathBuf>, purpose: Purpose, layout: Option<Layout>) -> Self {
        Self {
            path: path.into(),
            purpose,
            layout: Mutex::new(layout.map(Arc::new)),
            closed: RwLock::new(false),
            fresh: Mutex::default(),
            received: AtomicU64::new(0),
            trouble: Mutex::default(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the daemon may write.
    pub(crate) fn is_writable(&self) -> bool {
        matches!(self.purpose, Purpose::Cache | Purpose::Result)
    }

    /// Whether the build cannot be right when this store fails.
    pub(crate) fn is_vital(&self) -> bool {
        matches!(self.purpose, Purpose::Image | Purpose::Result)
    }

    /// What it means when a daemon needs a blob that is not here.
    pub(crate) fn lack(&self, digest: &Digest) -> LocalFailure {
        let text = format!("the layout has no blob {digest}");
        let hint = match self.purpose {
            Purpose::Image => "the image has to be copied into the layout with all of its layers",
            _ => "the cache is damaged: leave it out once, and write it again",
        };
        LocalFailure::new(&self.path, text).hint(hint)
    }

    /// Bytes that arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Keeps the first thing that went wrong here.
    pub(crate) fn note(&self, failure: LocalFailure) {
        lock(&self.trouble).get_or_insert(failure);
    }

    pub(crate) fn trouble(&self) -> Option<LocalFailure> {
        lock(&self.trouble).take()
    }

    /// Keeps the store open; fails when it was closed. Blocks while it is being closed.
    fn enter(&self) -> io::Result<RwLockReadGuard<'_, bool>> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        match *closed {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the build has ended")),
            false => Ok(closed),
        }
    }

    /// The layout, if there is one.
    pub(crate) fn layout(&self) -> io::Result<Arc<Layout>> {
        let mut layout = lock(&self.layout);
        if let Some(layout) = &*layout {
            return Ok(layout.clone());
        }
        Ok(layout.insert(Arc::new(Layout::open(&self.path)?)).clone())
    }

    /// The layout, which is made if there is none.
    fn made(&self) -> io::Result<Arc<Layout>> {
        let mut layout = lock(&self.layout);
        if let Some(layout) = &*layout {
            return Ok(layout.clone());
        }
        Ok(layout.insert(Arc::new(Layout::create(&self.path)?)).clone())
    }

    /// Does something that reads.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Layout) -> io::Result<T>) -> io::Result<T> {
        let _open = self.enter()?;
        work(&*self.layout()?)
    }

    /// Begins an upload. A blob that is there already is a [`Fault::Exists`].
    pub(crate) fn begin(
        &self,
        reference: &str,
        total: u64,
        expected: Option<&Digest>,
    ) -> Result<Ingest, Fault> {
        let _open = self.enter()?;
        let layout = self.made()?;
        if let Some(digest) = expected
            && layout.has(digest, total)?
        {
            return Err(Fault::Exists(digest.clone()));
        }
        let keep = self.purpose == Purpose::Cache;
        Ingest::open(layout, reference, total, expected, keep)
    }

    /// Adds bytes to an upload.
    pub(crate) fn write(&self, ingest: &mut Ingest, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let _open = self.enter()?;
        ingest.write(offset, bytes)?;
        self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Ends an upload.
    pub(crate) fn commit(
        &self,
        ingest: &mut Ingest,
        size: u64,
        expected: Option<&Digest>,
    ) -> Result<Digest, Fault> {
        let _open = self.enter()?;
        let digest = ingest.commit(size, expected)?;
        if self.purpose == Purpose::Result {
            lock(&self.fresh).push(digest.clone());
        }
        Ok(digest)
    }

    /// Ends what is done here, and lets nothing begin.
    fn close(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Lets go of the layout, so that it can be cleaned up.
    pub(crate) fn release(&self) {
        self.close();
        lock(&self.layout).take();
    }

    /// The layout as it was left, for the last things that are done to it; made if the daemon wrote nothing.
    pub(crate) fn conclude(&self) -> io::Result<Arc<Layout>> {
        self.close();
        self.made()
    }

    /// The result counts: what was written stays.
    pub(crate) fn keep(&self) {
        lock(&self.fresh).clear();
    }

    /// Takes out what was written, unless somebody else uses the layout and may count on it.
    pub(crate) fn abandon(&self) {
        self.close();
        let fresh = std::mem::take(&mut *lock(&self.fresh));
        let Some(layout) = lock(&self.layout).take() else {
            return;
        };
        if self.purpose != Purpose::Result || !layout.lock_alone() {
            return;
        }
        for digest in fresh {
            // What cannot be removed does no harm: nothing names it.
            drop(layout.remove_blob(&digest));
        }
        layout.tidy(true);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.abandon();
    }
}
