//! Whether a daemon answers: the smallest question that each kind answers only when it is up.
//!
//! The rule: an open socket is no answer. dockerd listens long before it serves.

use std::{io, path::Path};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::Kind;

/// How an HTTP/2 connection begins, with no settings of ours.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";

/// Asks once.
///
/// # Errors
/// Nobody listens, or what comes back is not what such a daemon says.
pub(crate) async fn ask(kind: Kind, socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    let question = match kind {
        Kind::Buildkitd => HTTP2,
        Kind::Dockerd => PING,
    };
    stream.write_all(question).await?;
    let mut answer = [0; 12];
    let ready = match kind {
        Kind::Dockerd => {
            stream.read_exact(&mut answer).await?;
            answer.ends_with(b" 200")
        }
        Kind::Buildkitd => {
            // The head of a frame; the first one tells settings.
            let head = &mut answer[..9];
            stream.read_exact(head).await?;
            head[3] == 4
        }
    };
    if ready {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "an odd answer"))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn answers(kind: Kind, with: &'static [u8]) -> bool {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).expect("bound");
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            // A connection that closes with bytes unread loses what was written.
            let mut question = vec![
                0;
                if kind == Kind::Dockerd {
                    PING.len()
                } else {
                    HTTP2.len()
                }
            ];
            stream.read_exact(&mut question).await.expect("a question");
            stream.write_all(with).await.expect("written");
        };
        tokio::join!(ask(kind, &socket), server).0.is_ok()
    }

    #[tokio::test]
    async fn only_the_right_answer_counts() {
        assert!(answers(Kind::Dockerd, b"HTTP/1.1 200 OK\r\n\r\nOK").await);
        assert!(!answers(Kind::Dockerd, b"HTTP/1.1 503 Busy\r\n\r\n").await);
        assert!(!answers(Kind::Dockerd, b"").await);
        assert!(answers(Kind::Buildkitd, b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\x40\0").await);
        assert!(!answers(Kind::Buildkitd, b"HTTP/1.1 400 Bad Request\r\n").await);
        assert!(ask(Kind::Dockerd, Path::new("/nonexistent/s")).await.is_err());
    }
}
