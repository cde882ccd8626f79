//! Sockets of this machine.
//!
//! The rule: a name that begins with `@` is one in Linux' own space of names, as Go's programs write it; others are paths.

use std::{io, path::Path};

#[cfg(windows)]
use bk_build::Obstacle;
#[cfg(unix)]
use tokio::net::UnixStream;

#[cfg(unix)]
use crate::limits::SOCKET_PATH;

/// Whether that can stand behind `unix://`: an absolute path, or, on Linux, a name behind `@`.
pub fn is_unix(text: &str) -> bool {
    let abstracted = cfg!(target_os = "linux") && text.len() > 1 && text.starts_with('@');
    text.starts_with('/') || abstracted
}

/// Connects to the socket of that path, or of that name behind `@`.
///
/// # Errors
/// When it is longer than sockets may be called, in words of our own; else the system's.
#[cfg(unix)]
pub async fn unix(path: &Path) -> io::Result<UnixStream> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.len() > SOCKET_PATH {
        let text = format!(
            "the path of a socket has at most {SOCKET_PATH} bytes, this one has {}",
            bytes.len()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    match path.to_str().and_then(|text| text.strip_prefix('@')) {
        Some(name) => UnixStream::connect(format!("\0{name}")).await,
        None => UnixStream::connect(path).await,
    }
}

/// Refuses: there are none.
///
/// # Errors
/// Always [`Unsupported`](io::ErrorKind::Unsupported).
#[cfg(windows)]
pub async fn unix(_: &Path) -> io::Result<tokio::io::Empty> {
    let why = "Unix sockets are not supported on Windows";
    Err(Obstacle::Unsupported.error(io::ErrorKind::Unsupported, why))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    };

    use super::*;

    #[tokio::test]
    async fn names_that_no_directory_has_are_found() {
        let name = format!("bk-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("free");
        let text = format!("@{name}");
        assert!(is_unix(&text) && is_unix("/a") && !is_unix("@") && !is_unix("a") && !is_unix(""));
        drop(unix(Path::new(&text)).await.expect("connected"));
        drop(listener);
        let error = unix(Path::new(&text)).await.expect_err("nobody");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_told_as_such() {
        let path = format!("/{}", "x".repeat(107));
        let error = unix(Path::new(&path)).await.expect_err("too long").to_string();
        assert_eq!(
            error,
            "the path of a socket has at most 107 bytes, this one has 108"
        );
        let error = unix(Path::new(&path[..107])).await.expect_err("nobody");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
