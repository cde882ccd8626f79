//! Windows: no sockets in the file system, Ctrl-C instead of signals, and displays in lines.

use std::{convert::Infallible, fs::File, io, os::windows::fs::OpenOptionsExt as _, path::Path};

use bk_client::{BuildError, InputError};
use bk_progress::Size;
use tokio::{
    io::DuplexStream,
    signal::windows::{CtrlBreak, CtrlC, ctrl_break, ctrl_c},
};

/// A socket in the file system, which there is none of.
pub(crate) struct Socket(Infallible);

impl Socket {
    pub(crate) async fn bind(path: &Path) -> Result<Self, BuildError> {
        let why = format!(
            "`unix://{}`: there are no Unix sockets on Windows",
            path.display()
        );
        Err(InputError::new("--listen", why, "tcp://127.0.0.1:PORT").into())
    }

    pub(crate) fn path(&self) -> &Path {
        match self.0 {}
    }

    pub(crate) async fn accept(&self) -> io::Result<DuplexStream> {
        match self.0 {}
    }
}

/// Ctrl-C and Ctrl-Break.
pub(crate) struct Signals {
    c: CtrlC,
    stop: CtrlBreak,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            c: ctrl_c()?,
            stop: ctrl_break()?,
        })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.c.recv() => {}
            _ = self.stop.recv() => {}
        }
    }
}

/// How large the terminal is: what asks for it is not there yet, so it is taken to have the usual size.
pub(crate) fn terminal_size() -> Option<Size> {
    None
}

/// Opens a file of settings, through a link only if `links` allows it.
pub(crate) fn open_settings(path: &Path, links: bool) -> io::Result<File> {
    // Of the Windows API: what is opened is the link itself.
    const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;

    if links {
        return File::open(path);
    }
    let file = File::options()
        .read(true)
        .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT)
        .open(path)?;
    match file.metadata()?.is_symlink() {
        true => Err(io::ErrorKind::InvalidInput.into()),
        false => Ok(file),
    }
}
