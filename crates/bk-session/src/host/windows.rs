//! Windows: agents are named pipes; there are no other sockets, no pipes with a place among files, and no process groups.

use std::{
    fs::{DirBuilder, FileType},
    io,
    path::{Path, PathBuf},
};

use bk_build::{InputError, LocalFailure, SecretBytes};
use tokio::{
    io::{ReadHalf, WriteHalf},
    net::windows::named_pipe::{ClientOptions, NamedPipeClient},
    process::Command,
};
use winapi_util::sysinfo::{ComputerNameKind, get_computer_name};

/// A connection to an SSH agent.
pub(crate) type AgentStream = NamedPipeClient;
pub(crate) type AgentRead = ReadHalf<NamedPipeClient>;
pub(crate) type AgentWrite = WriteHalf<NamedPipeClient>;

/// Where all named pipes are.
const PIPES: &str = r"\\.\pipe\";

/// Whether an agent listens at `path`, rather than there being a key in it. Nothing is opened: a pipe counts who does.
pub(crate) fn is_agent(path: &Path) -> io::Result<bool> {
    let text = path.to_string_lossy().replace('/', "\\");
    let head = text.get(..PIPES.len()).unwrap_or_default();
    if head.eq_ignore_ascii_case(PIPES) {
        return Ok(true);
    }
    std::fs::metadata(path).map(|_| false)
}

/// Whether any socket can be forwarded as it is: what ends one direction of a pipe ends the other.
pub(crate) fn raw_is_possible(id: &str) -> Result<(), InputError> {
    let why = format!("`{id}`: raw sockets cannot be forwarded on Windows");
    Err(InputError::new("--ssh", why, "an agent's pipe, or keys"))
}

pub(crate) async fn connect_agent(path: &Path) -> io::Result<AgentStream> {
    ClientOptions::new().open(path)
}

/// Both directions.
pub(crate) fn split_agent(stream: AgentStream) -> (AgentRead, AgentWrite) {
    tokio::io::split(stream)
}

/// Whether a secret in such a file can be read only once.
pub(crate) fn is_pipe(_: FileType) -> bool {
    false
}

/// Whether a secret can be read from such a file.
pub(crate) fn may_hold_secret(kind: FileType) -> bool {
    kind.is_file()
}

/// What comes through a pipe: there is none among files.
pub(crate) async fn read_pipe(
    _: &Path,
    failed: impl Fn(io::Error) -> LocalFailure,
) -> Result<SecretBytes, LocalFailure> {
    Err(failed(io::ErrorKind::Unsupported.into()))
}

/// Sees to it that a new file gets the permissions of any other: they come from its directory.
pub(crate) fn as_any_file<'a, 'b>(
    builder: &'b mut tempfile::Builder<'a, 'a>,
) -> &'b mut tempfile::Builder<'a, 'a> {
    builder
}

/// Makes a directory, and those above it. Who may see it is inherited: below a user's profile that user alone.
pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).create(path)
}

/// A path that travelled, as one of this machine, to be shown: what is no Unicode is replaced.
pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

/// This machine's name; nothing when it has none that can be read.
pub(crate) fn name() -> Vec<u8> {
    get_computer_name(ComputerNameKind::PhysicalDnsHostname)
        .map(|name| name.into_encoded_bytes())
        .unwrap_or_default()
}

/// There are no process groups: what a program starts outlives it.
pub(crate) fn in_own_group(_: &mut Command) {}

/// The program itself is ended by whoever holds it.
pub(crate) fn kill_group(_: u32) {}
