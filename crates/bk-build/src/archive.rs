//! A tar archive as a context: a stream that is handed to the daemon as it is.
//!
//! The rule: it is read once, by one build, and never held as a whole.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::io::AsyncRead;

/// The bytes of an archive.
pub type ArchiveReader = Pin<Box<dyn AsyncRead + Send>>;

/// A tar archive, plain or in a compression that the daemon knows (gzip, bzip2, xz), as a stream.
///
/// The daemon unpacks it and looks for the Dockerfile in it; no ignore file is applied to it, as with every context that
/// is no directory. It is sent whole to each build; to send only what the daemon lacks, and to have its ignore file
/// applied, read it as a tree (`TarTree`) instead.
///
/// Clones share the stream: the first build that needs it takes it, another one fails and says so. Dropping the build
/// drops the reader.
#[derive(Clone)]
pub struct Archive {
    reader: Arc<Mutex<Option<ArchiveReader>>>,
    name: Arc<str>,
}

impl Archive {
    /// The archive that `reader` yields. `name` is what messages call it, for instance a path, or `-` for standard input.
    pub fn new(name: impl Into<Arc<str>>, reader: impl AsyncRead + Send + 'static) -> Self {
        Self {
            reader: Arc::new(Mutex::new(Some(Box::pin(reader)))),
            name: name.into(),
        }
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes the stream; `None` if it was taken before.
    pub fn take(&self) -> Option<ArchiveReader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
