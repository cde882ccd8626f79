//! What is said on the keeper's socket: one line of JSON there, and one or two back.
//!
//! The rule: a keeper and a client may be of different versions. Fields are added, never changed, and what is not known
//! is ignored.

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use crate::{Kind, limits};

/// What a client wants.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase")]
pub(crate) enum Ask {
    /// To use the daemon as long as the connection lasts.
    Lease {
        /// How long the daemon is to stay unused from now on, in seconds.
        idle_seconds: u64,
        /// Which program it has to be, if that matters.
        program: Option<PathBuf>,
    },
    /// To know how it is.
    Status,
    /// That it ends.
    Stop {
        /// Even while it is used.
        force: bool,
    },
}

/// What a keeper says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub(crate) enum Answer {
    /// To a lease: the daemon answers.
    Ready(DaemonFacts),
    /// To a lease: the daemon did not come up, or has ended.
    Failed {
        program: String,
        reason: String,
        log: Vec<String>,
    },
    /// To a lease: another program runs.
    Other { running: PathBuf },
    /// To a status.
    Status(Box<Status>),
    /// To a stop: it is used by so many. Or by none, then it is ending; the connection closes when it has ended.
    Stopping { leases: usize },
}

/// A private daemon that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DaemonFacts {
    /// What it is.
    pub kind: Kind,
    /// The program.
    pub program: PathBuf,
    /// Where it listens, for instance `unix:///home/me/.cache/bk/daemon/run/buildkitd.sock`.
    pub address: String,
    /// Its process.
    pub pid: u32,
}

impl DaemonFacts {
    pub(crate) fn new(kind: Kind, program: PathBuf, address: String, pid: u32) -> Self {
        Self {
            kind,
            program,
            address,
            pid,
        }
    }
}

/// How a private daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The daemon; its process only, before it answers.
    pub daemon: DaemonFacts,
    /// Whether it answers already.
    pub ready: bool,
    /// The process that looks after it.
    pub keeper_pid: u32,
    /// How many builds and other commands use it.
    pub leases: usize,
    /// How long it has been there, in seconds.
    pub up_seconds: u64,
    /// How long it stays when nobody uses it, in seconds.
    pub idle_seconds: u64,
    /// In how many seconds it will be stopped; nothing while somebody uses it.
    pub stops_in_seconds: Option<u64>,
}

/// Reads one line; `None` when the other side has closed without one.
///
/// # Errors
/// The connection's own, or that the line is too long or not understood.
pub(crate) async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(limits::MESSAGE).read_until(b'\n', &mut line).await?;
    match line.strip_suffix(b"\n") {
        Some(line) => serde_json::from_slice(line)
            .map(Some)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
        None if line.is_empty() => Ok(None),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a line without an end",
        )),
    }
}

/// Writes one line, under a deadline: the other side may be stopped.
pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    timeout(limits::ANSWER_DEADLINE, to.write_all(&line))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_read_whole_or_not_at_all() {
        let mut text = &b"{\"ask\":\"stop\",\"force\":true,\"later\":1}\n{\"ask\""[..];
        let ask: Option<Ask> = read(&mut text).await.expect("a line");
        assert!(matches!(ask, Some(Ask::Stop { force: true })), "{ask:?}");
        assert!(read::<Ask>(&mut text).await.is_err());
        assert!(read::<Ask>(&mut &b""[..]).await.expect("an end").is_none());
        let long = vec![b' '; 1 << 20];
        assert!(read::<Ask>(&mut &long[..]).await.is_err());
    }
}
