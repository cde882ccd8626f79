//! Windows: no buildkitd or dockerd of Linux runs there, so there are no private daemons.
//!
//! The rule: whoever wants one is told so, and nothing is made.

use std::{
    convert::Infallible,
    fs::{File, Metadata},
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Announcement, DaemonError, DaemonFacts, KeepOptions, Layout};

/// A connection that there is none of.
#[derive(Debug)]
pub(crate) struct Stream(Infallible);

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

pub(crate) async fn connect(_: &Path) -> io::Result<Stream> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether there can be private daemons: never.
pub(crate) fn supported() -> Result<(), DaemonError> {
    Err(DaemonError::Unsupported)
}

/// Keeps nothing.
///
/// # Errors
/// Always [`DaemonError::Unsupported`].
pub async fn keep(_: KeepOptions, _: impl FnOnce(Announcement)) -> Result<(), DaemonError> {
    Err(DaemonError::Unsupported)
}

/// Whether this process is root: there is none.
pub fn is_root() -> bool {
    false
}

pub(crate) fn is_executable(_: &Metadata) -> bool {
    true
}

pub(crate) fn try_lock(_: &Layout) -> Result<Option<File>, DaemonError> {
    Err(DaemonError::Unsupported)
}

pub(crate) fn private_dir(_: &Path) -> Result<(), DaemonError> {
    Err(DaemonError::Unsupported)
}

pub(crate) fn orphan(_: &Layout) -> Option<DaemonFacts> {
    None
}

pub(crate) fn sweep(_: &Layout) -> Result<bool, DaemonError> {
    Err(DaemonError::Unsupported)
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, time::Duration};

    use super::*;
    use crate::{Keeper, Kind, PrivateDaemon, Program};

    #[tokio::test]
    async fn private_daemons_are_refused_and_nothing_is_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path().join("daemon"), None);
        let text = "there are no private daemons on Windows";
        let search = Some(OsStr::new("C:\\"));
        let e = Program::find(search, false).expect_err("refused").to_string();
        assert_eq!(e, text);
        let e = Program::named(Path::new("dockerd"), search, true).expect_err("refused");
        assert_eq!(e.to_string(), text);
        let program = Program::new(Kind::Dockerd, "C:\\dockerd.exe", None);
        let daemon = PrivateDaemon::new(layout.clone(), program.clone(), Keeper::new("bk", &[]));
        let e = daemon.idle(Duration::ZERO).lease().await.expect_err("refused");
        assert_eq!(e.to_string(), text);
        assert_eq!(
            crate::status(&layout).await.expect_err("refused").to_string(),
            text
        );
        assert_eq!(
            crate::stop(&layout, true).await.expect_err("refused").to_string(),
            text
        );
        let e = keep(KeepOptions::new(layout.clone(), program), |_| ()).await;
        assert_eq!(e.expect_err("refused").to_string(), text);
        assert!(!layout.state().exists());
    }
}
