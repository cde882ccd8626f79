//! Where the bytes of a result go on this machine.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use bk_fsync::ReceiveOptions;
use bytes::Bytes;
use futures_core::Stream;
use tokio::io::AsyncWrite;

use crate::BuildError;

/// Makes the writer of one result when its first byte is about to arrive.
///
/// The writer is shut down when the result has arrived whole. It is dropped without that when the build fails or is
/// dropped first; a result counts only when the build succeeds.
pub type WriterFactory = dyn Fn(&ResultInfo) -> io::Result<Box<dyn AsyncWrite + Send + Unpin>> + Send + Sync;

/// Where the bytes of a result go.
#[derive(Clone)]
#[non_exhaustive]
pub enum Sink {
    /// Nowhere on this machine: the daemon keeps or pushes it.
    Daemon,
    /// A directory.
    Dir {
        /// The directory; made (mode 0700) when it is missing.
        path: PathBuf,
        /// How the files are received: what becomes of others, owners, devices. With
        /// [`ReceiveMode::Delete`](bk_fsync::receive::ReceiveMode::Delete) the daemon must be new enough to send all
        /// platforms in one stream (BuildKit 0.31); older ones are refused.
        options: ReceiveOptions,
    },
    /// A file. It appears whole when the build has succeeded, in place of one that was there; a link is followed; a device
    /// or pipe is written to as it is. Its directory must exist.
    File(PathBuf),
    /// A writer.
    Writer(Arc<WriterFactory>),
    /// A Docker Engine: the one of the loader; without one that of the builder or of the client.
    Engine(Option<Arc<dyn ImageLoader>>),
}

impl Sink {
    /// A writer that `make` makes.
    pub fn writer<F>(make: F) -> Self
    where
        F: Fn(&ResultInfo) -> io::Result<Box<dyn AsyncWrite + Send + Unpin>> + Send + Sync + 'static,
    {
        Self::Writer(Arc::new(make))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Daemon => "the daemon",
            Self::Dir { .. } => "a directory",
            Self::File(_) => "a file",
            Self::Writer(_) => "a stream",
            Self::Engine(_) => "a Docker Engine",
        }
    }
}

impl From<PathBuf> for Sink {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&Path> for Sink {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<&str> for Sink {
    fn from(path: &str) -> Self {
        Self::File(path.into())
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon => f.write_str("Daemon"),
            Self::Dir { path, options } => f
                .debug_struct("Dir")
                .field("path", path)
                .field("options", options)
                .finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Writer(_) => f.write_str("Writer(..)"),
            Self::Engine(_) => f.write_str("Engine(..)"),
        }
    }
}

/// What the daemon says of a result before its bytes. Untrusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResultInfo {
    /// Which of the request's outputs it is, counted from 0.
    pub output: usize,
    /// What the exporter answered so far, for instance `containerimage.digest`. Empty before BuildKit 0.13.
    pub metadata: BTreeMap<String, String>,
}

impl ResultInfo {
    /// The result of that output, of which nothing more is known.
    pub fn new(output: usize) -> Self {
        Self {
            output,
            metadata: BTreeMap::new(),
        }
    }

    /// The digest of the image's manifest or index, when the daemon says it.
    pub fn digest(&self) -> Option<&str> {
        self.metadata.get("containerimage.digest").map(String::as_str)
    }

    /// The digest of the image's config, when the daemon says it.
    pub fn config_digest(&self) -> Option<&str> {
        self.metadata
            .get("containerimage.config.digest")
            .map(String::as_str)
    }

    /// The image's names, when the daemon says them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.metadata
            .get("image.name")
            .map_or("", String::as_str)
            .split(',')
            .filter(|n| !n.is_empty())
    }
}

/// The bytes of a result as they arrive. Ends when they are complete; an error means that they are not.
pub struct ResultStream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>);

impl ResultStream {
    /// Wraps a stream.
    pub fn new(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

impl Stream for ResultStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for ResultStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResultStream(..)")
    }
}

/// Puts images into a Docker Engine.
#[async_trait]
pub trait ImageLoader: Send + Sync {
    /// Loads the image whose archive is `archive`. When the engine has the image of that digest already, nothing of
    /// `archive` needs to be read; the image must then have the names that `info` tells.
    ///
    /// Dropping the future stops the loading.
    ///
    /// # Errors
    /// A [`BuildError`] that names the engine; it becomes the error of the build.
    async fn load(&self, info: &ResultInfo, archive: ResultStream) -> Result<Loaded, BuildError>;
}

/// What became of an image that was to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loaded {
    /// It was sent to the engine.
    Sent,
    /// The engine had it already.
    AlreadyThere,
}
