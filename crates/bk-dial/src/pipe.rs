//! Named pipes of Windows.
//!
//! The rule: their addresses are understood everywhere, and refused by name where there are none.

use std::io;

#[cfg(unix)]
use bk_build::Obstacle;
use tokio::io::{AsyncRead, AsyncWrite};

/// How every named pipe's address begins.
const PIPE: &str = "//./pipe/";

/// What stands behind `npipe://`, with `/` for every `\\`: for instance `//./pipe/docker_engine`.
///
/// # Errors
/// How such an address is written, when it is none.
pub fn pipe_name(text: &str) -> Result<String, &'static str> {
    let name = text.replace('\\', "/");
    match name.strip_prefix(PIPE) {
        Some(last) if !last.is_empty() && !last.contains('/') => Ok(name),
        _ => Err("a named pipe is written npipe:////./pipe/NAME"),
    }
}

/// Connects to the pipe of that [name](pipe_name). One all of whose instances are taken is waited for; the caller sets the
/// deadline.
///
/// # Errors
/// The system's; [`Unsupported`](io::ErrorKind::Unsupported) where it is not Windows.
#[cfg(unix)]
pub async fn named_pipe(_: &str) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
    let why = "named pipes are found on Windows only";
    Err::<tokio::io::Empty, _>(Obstacle::Unsupported.error(io::ErrorKind::Unsupported, why))
}

/// Connects to the pipe of that [name](pipe_name). One all of whose instances are taken is waited for; the caller sets the
/// deadline.
///
/// # Errors
/// The system's.
#[cfg(windows)]
pub async fn named_pipe(name: &str) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
    use crate::limits::PIPE_AGAIN;
    use tokio::net::windows::named_pipe::ClientOptions;

    /// `ERROR_PIPE_BUSY`.
    const BUSY: i32 = 231;

    let name = name.replace('/', "\\");
    loop {
        match ClientOptions::new().open(&name) {
            Err(e) if e.raw_os_error() == Some(BUSY) => tokio::time::sleep(PIPE_AGAIN).await, // sleep: Windows wakes nobody who waits for a pipe without blocking
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_named_with_either_slash() {
        for (text, name) in [
            ("//./pipe/docker_engine", "//./pipe/docker_engine"),
            (r"\\.\pipe\docker_engine", "//./pipe/docker_engine"),
            (
                r"//./pipe\dockerDesktopLinuxEngine",
                "//./pipe/dockerDesktopLinuxEngine",
            ),
            ("//./pipe/a b.c-1", "//./pipe/a b.c-1"),
        ] {
            assert_eq!(pipe_name(text), Ok(name.to_owned()));
        }
        for bad in [
            "",
            "x",
            "/./pipe/x",
            "//./pipe/",
            "//./pipe",
            "//./pipe/a/b",
            r"//./pipe/a\b",
            "//host/pipe/x",
        ] {
            assert_eq!(
                pipe_name(bad),
                Err("a named pipe is written npipe:////./pipe/NAME"),
                "{bad}"
            );
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn other_systems_have_none() {
        let error = named_pipe("//./pipe/x").await.err().expect("refused");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert_eq!(error.to_string(), "named pipes are found on Windows only");
    }

    #[cfg(windows)]
    #[tokio::test]
    async fn a_pipe_carries_bytes_and_a_missing_one_is_not_found() {
        use tokio::{
            io::{AsyncReadExt as _, AsyncWriteExt as _},
            net::windows::named_pipe::ServerOptions,
        };
        let name = format!("//./pipe/bk-dial-test-{}", std::process::id());
        let error = named_pipe(&name).await.err().expect("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let mut server = ServerOptions::new()
            .create(name.replace('/', "\\"))
            .expect("a pipe");
        let mut client = named_pipe(&name).await.expect("a connection");
        server.connect().await.expect("the client");
        client.write_all(b"hello").await.expect("sent");
        let mut heard = [0; 5];
        server.read_exact(&mut heard).await.expect("heard");
        server.write_all(&heard).await.expect("sent back");
        client.read_exact(&mut heard).await.expect("heard");
        assert_eq!(&heard, b"hello");
    }
}
