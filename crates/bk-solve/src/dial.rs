//! How bytes reach a daemon: the only thing in which backends differ.

use std::time::Duration;

use async_trait::async_trait;
use bk_build::{BuildError, BuilderInfo, CallHeaders};
use bk_session::SessionHeaders;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::limits;

/// A byte stream to a daemon.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> ByteStream for T {}

/// A byte stream to a daemon, of any kind.
pub type BoxedIo = Box<dyn ByteStream>;

/// Opens byte streams to one daemon. Used once or twice a build; each call makes a new connection.
#[async_trait]
pub trait Dialer: Send + Sync {
    /// The control connection: a stream on which HTTP/2 is spoken with prior knowledge.
    ///
    /// # Errors
    /// [`BuildError::Connect`] or [`BuildError::Timeout`], naming the address.
    async fn control(&self) -> Result<BoxedIo, BuildError>;

    /// A connection on which the daemon calls back, when the daemon wants one of its own for that; `None` (the default)
    /// attaches the session through `Control/Session` on the control connection.
    ///
    /// # Errors
    /// As [`control`](Self::control).
    async fn session(&self, headers: &SessionHeaders) -> Result<Option<BoxedIo>, BuildError> {
        let _ = headers;
        Ok(None)
    }

    /// Headers for every call on the control connection, also for the question who is there; the default is none. Those of
    /// a request are added and win.
    fn headers(&self) -> CallHeaders {
        CallHeaders::new()
    }

    /// How long opening a connection may take, and then again the first answer. The default is
    /// [`limits::CONNECT_TIMEOUT`].
    fn connect_timeout(&self) -> Duration {
        limits::CONNECT_TIMEOUT
    }

    /// What is reached, for messages.
    fn info(&self) -> BuilderInfo;
}
