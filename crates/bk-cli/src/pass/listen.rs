//! Where `bk proxy` listens.
//!
//! The rule: BuildKit's API has no password, and who reaches it can do anything. So a socket is open to its owner alone from
//! the first moment on, and ports are on the loopback device only.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use bk_client::{BoxedIo, BuildError, InputError, LocalFailure};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

/// What may be given.
const ALLOWED: &str = "unix:///PATH, or tcp://127.0.0.1:PORT";

/// Something that accepts connections. A socket is removed with the value.
pub(crate) enum Listener {
    #[cfg(unix)]
    Unix(UnixListener, Socket),
    Tcp(TcpListener, SocketAddr),
}

/// A socket in the file system, removed with the value unless another one has taken its place.
#[cfg(unix)]
pub(crate) struct Socket {
    path: PathBuf,
    /// The device and the number of its file.
    file: (u64, u64),
}

#[cfg(unix)]
impl Drop for Socket {
    fn drop(&mut self) {
        if file(&self.path).is_ok_and(|file| file == self.file) {
            // Somebody may just have removed it; there is nothing else to do about it either.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
fn file(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;

    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
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
            return unix(Path::new(path)).await;
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
            #[cfg(unix)]
            Self::Unix(_, socket) => format!("unix://{}", socket.path.display()),
            Self::Tcp(_, address) => format!("tcp://{address}"),
        }
    }

    /// Waits for a connection. Safe to drop and to call again.
    ///
    /// # Errors
    /// When the system cannot accept one now.
    pub(crate) async fn accept(&self) -> io::Result<BoxedIo> {
        match self {
            #[cfg(unix)]
            Self::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

#[cfg(not(unix))]
async fn unix(path: &Path) -> Result<Listener, BuildError> {
    let why = format!("`unix://{}`: this system has no Unix sockets", path.display());
    Err(InputError::new("--listen", why, ALLOWED).into())
}

/// Listens beside the place first, where nobody else can come, and moves the socket there when it is as it should be.
#[cfg(unix)]
async fn unix(path: &Path) -> Result<Listener, BuildError> {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

    let name = || path.display().to_string();
    let failed =
        |e: io::Error| BuildError::from(LocalFailure::new(name(), "cannot listen there").caused_by(e));
    let taken = |why: &str, hint: &str| BuildError::from(LocalFailure::new(name(), why).hint(hint));
    // It could be made by its first name, and nobody could connect to it.
    if std::os::unix::net::SocketAddr::from_pathname(path).is_err() {
        return Err(taken(
            "the path is too long for a socket",
            "listen at a shorter one",
        ));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(taken(
                "there is a file that is no socket",
                "remove it, or listen elsewhere",
            ));
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            return Err(taken(
                "something listens there already",
                "end it, or listen elsewhere",
            ));
        }
        // One that nobody listens at any more is replaced.
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let private = tempfile::Builder::new()
        .prefix(".bk-")
        .tempdir_in(parent)
        .map_err(failed)?;
    let inner = private.path().join("s");
    let listener = UnixListener::bind(&inner).map_err(failed)?;
    std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let file = file(&inner).map_err(failed)?;
    std::fs::rename(&inner, path).map_err(failed)?;
    let path = path.to_owned();
    Ok(Listener::Unix(listener, Socket { path, file }))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
