//! Unix: sockets, signals, and terminals that say how large they are.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use bk_client::{BuildError, LocalFailure};
use bk_progress::Size;
use rustix::fs::OFlags;
use tokio::{
    net::{UnixListener, UnixStream},
    signal::unix::{Signal, SignalKind, signal},
};

/// A socket in the file system that is listened at. It is removed with the value unless another one has taken its place.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// The device and the number of its file.
    file: (u64, u64),
}

impl Drop for Socket {
    fn drop(&mut self) {
        if file(&self.path).is_ok_and(|file| file == self.file) {
            // Somebody may just have removed it; there is nothing else to do about it either.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn file(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Socket {
    /// Listens beside the place first, where nobody else can come, and moves the socket there when it is as it should be.
    pub(crate) async fn bind(path: &Path) -> Result<Self, BuildError> {
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
        Ok(Self { listener, path, file })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for a connection. Safe to drop and to call again.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

/// Ctrl-C and SIGTERM.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// How large the terminal is, if standard error is one that says so.
pub(crate) fn terminal_size() -> Option<Size> {
    let told = rustix::termios::tcgetwinsize(io::stderr()).ok()?;
    (told.ws_col > 0 && told.ws_row > 0).then_some(Size {
        columns: told.ws_col,
        rows: told.ws_row,
    })
}

/// Opens a file of settings, through a link only if `links` allows it. Opening a pipe or a device must not block or do
/// anything; both are turned away afterwards.
pub(crate) fn open_settings(path: &Path, links: bool) -> io::Result<File> {
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if !links {
        flags |= OFlags::NOFOLLOW;
    }
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    File::options().read(true).custom_flags(flags).open(path)
}
