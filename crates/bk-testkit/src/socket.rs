//! A socket in a directory of its own, each of whose connections is served by a task.

use std::{
    future::poll_fn,
    io,
    path::{Path, PathBuf},
    task::{Context, Poll},
};

use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// The socket. It, its connections and their tasks end with the value.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Socket {
    /// Listens at a socket of that name, in a directory whose name begins with `prefix`.
    ///
    /// # Errors
    /// When no socket can be made.
    pub(crate) fn listen<F>(
        prefix: &str,
        name: &str,
        serve: impl Fn(UnixStream) -> F + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let dir = tempfile::Builder::new().prefix(prefix).tempdir()?;
        let path = dir.path().join(name);
        let _apart = crate::apart::enter();
        let listener = UnixListener::bind(&path)?;
        let stop = CancellationToken::new();
        let accept = move |cx: &mut Context<'_>| listener.poll_accept(cx).map_ok(|(client, _)| client);
        crate::apart::spawn(serve_each(accept, serve, stop.clone()));
        Ok(Self {
            path,
            stop,
            _dir: dir,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Serves each connection that `accept` yields in a task of its own, until it fails or `stop` is cancelled, which ends the
/// tasks as well.
pub(crate) async fn serve_each<S, F>(
    mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<S>>,
    serve: impl Fn(S) -> F,
    stop: CancellationToken,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    loop {
        let client = tokio::select! {
            accepted = poll_fn(&mut accept) => match accepted {
                Ok(client) => client,
                Err(_) => return,
            },
            () = stop.cancelled() => return,
        };
        let (served, stopped) = (serve(client), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                // Both ends see how it ended; nobody else needs to know.
                _ = served => {}
                () = stopped.cancelled() => {}
            }
        });
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn connections_are_served_side_by_side_and_end_with_the_socket() {
        let echo = |mut client: UnixStream| async move {
            let (mut read, mut write) = client.split();
            tokio::io::copy(&mut read, &mut write).await.map(drop)
        };
        let socket = Socket::listen("bk-socket-", "s.sock", echo).expect("a socket");
        let path = socket.path().to_owned();
        let mut first = UnixStream::connect(&path).await.expect("connected");
        let mut second = UnixStream::connect(&path).await.expect("connected");
        let mut back = [0; 3];
        for client in [&mut second, &mut first] {
            client.write_all(b"one").await.expect("written");
            client.read_exact(&mut back).await.expect("echoed");
            assert_eq!(&back, b"one");
        }
        drop(socket);
        for client in [&mut first, &mut second] {
            assert_eq!(client.read(&mut back).await.expect("an end"), 0);
        }
        assert!(!path.exists());
    }
}
