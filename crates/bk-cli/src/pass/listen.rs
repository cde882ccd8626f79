//! Where `bk proxy` listens.
//!
//! The rule: BuildKit's API has no password, and who reaches it can do anything. So a socket is open to its owner alone from
//! the first moment on, and ports are on the loopback device only.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use bk_client::{BoxedIo, BuildError, InputError, LocalFailure};
use tokio::net::TcpListener;

use crate::host::Socket;

/// What may be given.
const ALLOWED: &str = "unix:///PATH, or tcp://127.0.0.1:PORT";

/// Something that accepts connections. A socket is removed with the value.
pub(crate) enum Listener {
    Unix(Socket),
    Tcp(TcpListener, SocketAddr),
}

impl Listener {
    /// Listens at `unix://PATH` or `tcp://HOST:PORT`.
    ///
    /// # Errors
    /// [`BuildError::Input`] when that is no such address, or one that others can reach; [`BuildError::Local`] when it cannot be
    /// had, for instance because something listens there.
    pub(crate) async fn bind(text: &str) -> Result<Self, BuildError> {
        let bad = |why: &str| InputError::new("--listen", format!("`{text}`: {why}"), ALLOWED);
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(bad("the path of a socket must be absolute").into());
            }
            return Socket::bind(Path::new(path)).await.map(Self::Unix);
        }
        let Some(place) = text.strip_prefix("tcp://") else {
            return Err(bad("it is neither unix:// nor tcp://").into());
        };
        let (host, port) = place
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
            .ok_or_else(|| bad("a host and a port are needed"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = match host {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            host => host.parse().map_err(|_| bad("the host must be an address"))?,
        };
        if !address.is_loopback() {
            return Err(bad(
                "whoever reaches it can do anything, so it must be an address of the loopback device",
            )
            .into());
        }
        let failed = |e: io::Error| LocalFailure::new(text, "cannot listen there").caused_by(e);
        let listener = TcpListener::bind((address, port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self::Tcp(listener, address))
    }

    /// Where it listens, as clients write it.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Unix(socket) => format!("unix://{}", socket.path().display()),
            Self::Tcp(_, address) => format!("tcp://{address}"),
        }
    }

    /// Waits for a connection. Safe to drop and to call again.
    ///
    /// # Errors
    /// When the system cannot accept one now.
    pub(crate) async fn accept(&self) -> io::Result<BoxedIo> {
        match self {
            Self::Unix(socket) => Ok(Box::new(socket.accept().await?)),
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::net::UnixStream;

    use super::*;

    async fn refused(text: &str) -> String {
        match Listener::bind(text).await {
            Ok(_) => panic!("{text} was taken"),
            Err(e) => e.to_string(),
        }
    }

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_goes_with_the_listener() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("b.sock");
        let text = format!("unix://{}", path.display());
        let listener = Listener::bind(&text).await.expect("listening");
        assert_eq!(listener.address(), text);
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (near, far) = tokio::join!(UnixStream::connect(&path), listener.accept());
        assert!(near.is_ok() && far.is_ok());
        assert_eq!(
            refused(&text).await,
            format!("{}: something listens there already", path.display())
        );
        drop(listener);
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
        // What came in its place stays.
        let listener = Listener::bind(&text).await.expect("listening");
        std::fs::remove_file(&path).expect("there");
        let other = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        drop(listener);
        assert!(path.exists());
        drop(other);
        // One that somebody left behind is replaced, a file is not.
        drop(Listener::bind(&text).await.expect("listening"));
        std::fs::write(&path, "kept").expect("writable");
        assert!(
            refused(&text)
                .await
                .ends_with("there is a file that is no socket")
        );
        assert_eq!(std::fs::read(&path).expect("readable"), b"kept");
        let long = dir
            .path()
            .join("x".repeat(108 - dir.path().as_os_str().len() - 1));
        let error = refused(&format!("unix://{}", long.display())).await;
        assert!(error.ends_with("the path is too long for a socket"), "{error}");
        assert!(!long.exists());
    }

    #[tokio::test]
    async fn ports_are_on_the_loopback_device() {
        let listener = Listener::bind("tcp://localhost:0").await.expect("listening");
        assert!(
            listener.address().starts_with("tcp://127.0.0.1:"),
            "{}",
            listener.address()
        );
        for (text, why) in [
            ("tcp://0.0.0.0:1", "an address of the loopback device"),
            ("tcp://[::]:1", "an address of the loopback device"),
            ("tcp://10.0.0.1:1", "an address of the loopback device"),
            ("tcp://host:1", "the host must be an address"),
            ("tcp://127.0.0.1", "a host and a port are needed"),
            ("unix://b.sock", "must be absolute"),
            ("/b.sock", "neither unix:// nor tcp://"),
        ] {
            let error = refused(text).await;
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
    }
}
