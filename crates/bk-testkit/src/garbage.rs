//! Endpoints that are no daemon: each accepts connections on a unix socket and does something useless.

use std::{io, path::PathBuf};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// What a garbage endpoint does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// Reads everything and never answers.
    Silent,
    /// Never even reads.
    Deaf,
    /// Answers every HTTP/1 request with a 404 and a page of HTML, as a web server would.
    WebServer,
    /// Closes at once.
    Closes,
    /// Sends bytes of no protocol without being asked.
    Babbles,
}

/// An endpoint that is no daemon. Dropping it ends it.
#[derive(Debug)]
pub struct Garbage {
    socket: PathBuf,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Garbage {
    /// Starts one.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn start(manners: Manners) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("bk-garbage-").tempdir()?;
        let socket = dir.path().join("garbage.sock");
        let _apart = crate::apart::enter();
        let listener = UnixListener::bind(&socket)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        crate::apart::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => drop(open.spawn(serve(stream, manners))),
                        Err(_) => return,
                    },
                    () = stopped.cancelled() => return,
                }
            }
        });
        Ok(Self {
            socket,
            stop,
            _dir: dir,
        })
    }

    /// Its address as a client takes it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

impl Drop for Garbage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

const PAGE: &str = "<html><body><h1>404 Not Found</h1></body></html>\n";

/// Whatever goes wrong here is the other end's business.
async fn serve(mut stream: UnixStream, manners: Manners) {
    let mut buffer = [0u8; 4096];
    match manners {
        Manners::Closes => {}
        Manners::Deaf => std::future::pending().await,
        Manners::Silent => while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {},
        Manners::Babbles => {
            let noise = b"\x00\x01SSH-2.0-nothing you know\r\n\xff\xff\xff".repeat(64);
            while stream.write_all(&noise).await.is_ok() {
                if stream.read(&mut buffer).await.is_ok_and(|n| n == 0) {
                    return;
                }
            }
        }
        Manners::WebServer => {
            let head =
                "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nServer: nginx\r\nContent-Length: ";
            let answer = format!("{head}{}\r\n\r\n{PAGE}", PAGE.len());
            let mut seen = Vec::new();
            while let Ok(n) = stream.read(&mut buffer).await {
                seen.extend_from_slice(buffer.get(..n).unwrap_or_default());
                if n == 0 {
                    return;
                }
                if seen.windows(4).any(|w| w == b"\r\n\r\n") {
                    seen.clear();
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
