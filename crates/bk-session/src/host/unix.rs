//! Unix: agents are sockets, secrets may come through pipes, helpers have process groups.

use std::{
    ffi::OsStr,
    fs::{DirBuilder, FileType, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use bk_build::{InputError, LocalFailure, SecretBytes};
use nix::sys::signal::{Signal, killpg};
use tokio::{net::UnixStream, process::Command};

use crate::secret_file::SecretBuffer;

/// A connection to an SSH agent, or to any socket that a step may reach.
pub(crate) type AgentStream = UnixStream;
pub(crate) type AgentRead = tokio::net::unix::OwnedReadHalf;
pub(crate) type AgentWrite = tokio::net::unix::OwnedWriteHalf;

/// Whether an agent listens at `path`, rather than there being a key in it.
pub(crate) fn is_agent(path: &Path) -> io::Result<bool> {
    Ok(std::fs::metadata(path)?.file_type().is_socket())
}

/// Whether any socket can be forwarded as it is: always.
pub(crate) fn raw_is_possible(_: &str) -> Result<(), InputError> {
    Ok(())
}

pub(crate) async fn connect_agent(path: &Path) -> io::Result<AgentStream> {
    UnixStream::connect(path).await
}

/// Both directions; dropping the second half ends what the agent reads.
pub(crate) fn split_agent(stream: AgentStream) -> (AgentRead, AgentWrite) {
    stream.into_split()
}

/// Whether a secret in such a file can be read only once.
pub(crate) fn is_pipe(kind: FileType) -> bool {
    kind.is_fifo()
}

/// Whether a secret can be read from such a file.
pub(crate) fn may_hold_secret(kind: FileType) -> bool {
    kind.is_file() || kind.is_fifo() || kind.is_char_device()
}

/// What comes through a pipe, up to its end.
pub(crate) async fn read_pipe(
    path: &Path,
    failed: impl Fn(io::Error) -> LocalFailure,
) -> Result<SecretBytes, LocalFailure> {
    use tokio::{io::AsyncReadExt as _, net::unix::pipe};
    let pipe = pipe::OpenOptions::new().open_receiver(path).map_err(&failed)?;
    let mut bytes = SecretBuffer::new();
    pipe.take(bytes.room())
        .read_to_end(&mut bytes.0)
        .await
        .map_err(&failed)?;
    if bytes.0.is_empty() {
        // A pipe that nobody has opened for writing looks exactly so.
        return Err(LocalFailure::new(path, "nothing came through the pipe"));
    }
    bytes.finish(path)
}

/// Sees to it that a new file gets the permissions of any other: the process's mask applies.
pub(crate) fn as_any_file<'a, 'b>(
    builder: &'b mut tempfile::Builder<'a, 'a>,
) -> &'b mut tempfile::Builder<'a, 'a> {
    builder.permissions(Permissions::from_mode(0o666))
}

/// Makes a directory, and those above it, for its owner alone.
pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A path that travelled, as one of this machine.
pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// This machine's name; nothing when it has none that can be read.
pub(crate) fn name() -> Vec<u8> {
    nix::unistd::gethostname()
        .map(|n| n.as_bytes().to_vec())
        .unwrap_or_default()
}

/// Gives a program a process group of its own.
pub(crate) fn in_own_group(command: &mut Command) {
    command.process_group(0);
}

/// Kills everything in the process group that `id` leads.
pub(crate) fn kill_group(id: u32) {
    if let Ok(id) = i32::try_from(id) {
        // It may have ended just now; then there is nothing to kill.
        let _ = killpg(nix::unistd::Pid::from_raw(id), Signal::SIGKILL);
    }
}
