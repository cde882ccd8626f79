//! Unix: sockets, locks on open files, directories that belong to a user.

use std::{
    fs::{self, File, Metadata},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixStream;

pub(crate) use crate::process::{orphan, sweep};
use crate::{DaemonError, Layout};

/// A connection between a keeper and who wants to build.
pub(crate) type Stream = UnixStream;

pub(crate) async fn connect(socket: &Path) -> io::Result<Stream> {
    UnixStream::connect(socket).await
}

/// Whether there can be private daemons: always.
pub(crate) fn supported() -> Result<(), DaemonError> {
    Ok(())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub(crate) fn is_executable(found: &Metadata) -> bool {
    found.permissions().mode() & 0o111 != 0
}

/// Takes the lock on the state if nobody has it.
pub(crate) fn try_lock(layout: &Layout) -> Result<Option<File>, DaemonError> {
    let path = layout.lock();
    let failed = |e: io::Error| DaemonError::state(&path, "cannot lock the state of the private daemon", e);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(failed(e.into())),
    }
}

/// Makes a directory that is ours alone, or sees to it that it is.
pub(crate) fn private_dir(dir: &Path) -> Result<(), DaemonError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |e: io::Error| DaemonError::state(dir, what, e)
    };
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(failed("cannot make the directory above"))?;
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(failed("cannot make this directory")(e));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(dir).map_err(failed("cannot look at this directory"))?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
        let what = "a private daemon needs a directory here that belongs to this user".to_owned();
        return Err(DaemonError::State {
            path: dir.to_owned(),
            what,
            source: None,
        });
    }
    if found.mode() & 0o777 != 0o700 {
        let only_us = fs::Permissions::from_mode(0o700);
        fs::set_permissions(dir, only_us).map_err(failed("cannot close this directory to others"))?;
    }
    Ok(())
}
