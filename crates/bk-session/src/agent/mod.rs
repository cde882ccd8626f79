//! SSH agents and keys that a session forwards, looked at before the build.
//!
//! The rule: whoever is behind the daemon may list keys and have data signed, nothing else. Requests are read one by one
//! and bounded; what is not one of those two is refused here and never reaches the agent.

mod frame;
#[cfg(feature = "ssh-keys")]
mod keys;
#[cfg(not(feature = "ssh-keys"))]
#[path = "no_keys.rs"]
mod keys;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bk_build::{BuildError, BuildRequest, InputError, LocalFailure, SshForward};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    host::{self, AgentStream},
    limits::{AGENT_CONNECT, MAX_AGENT_MESSAGE},
};

pub(crate) use frame::{BadFrame, Frames};
use keys::KeyRing;

/// Requests that pass.
const LIST: u8 = 11;
const SIGN: u8 = 13;
/// What an agent answers to a request that it does not grant: one message, with its length before it.
const FAILURE: &[u8] = &[0, 0, 0, 1, 5];

/// What a session forwards, by id.
#[derive(Clone, Default)]
pub(crate) struct AgentSet(BTreeMap<String, Forward>);

/// What stands behind one id.
#[derive(Clone)]
pub(crate) enum Forward {
    /// An agent; only some requests pass.
    Agent(PathBuf),
    /// Keys that are held here.
    Keys(Arc<KeyRing>),
    /// Any socket; everything passes.
    Raw(PathBuf),
}

impl AgentSet {
    /// The agents and keys of a request; blocks while it looks at them.
    pub(crate) fn of(request: &BuildRequest) -> Result<Self, BuildError> {
        let look = |(id, forward): (&String, &SshForward)| Ok((id.clone(), Forward::of(id, forward)?));
        request
            .ssh
            .iter()
            .map(look)
            .collect::<Result<_, BuildError>>()
            .map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Forward> {
        self.0.get(id)
    }
}

impl Forward {
    fn of(id: &str, forward: &SshForward) -> Result<Self, BuildError> {
        let mut sockets = Vec::new();
        for path in &forward.paths {
            if forward.raw {
                host::raw_is_possible(id)?;
            }
            if host::is_agent(path).map_err(|e| missing(path, e))? {
                sockets.push(path);
            } else if forward.raw {
                let why = format!("`{id}`: raw needs a socket, `{}` is none", path.display());
                return Err(InputError::new("--ssh", why, "").into());
            }
        }
        match sockets[..] {
            [] => Ok(Self::Keys(Arc::new(KeyRing::load(&forward.paths)?))),
            [socket] if forward.paths.len() == 1 => Ok(if forward.raw {
                Self::Raw(socket.clone())
            } else {
                Self::Agent(socket.clone())
            }),
            _ => {
                let why =
                    format!("`{id}`: an agent's socket must stand alone, without other sockets or keys");
                Err(InputError::new("--ssh", why, "one socket, or keys").into())
            }
        }
    }
}

fn missing(path: &Path, error: io::Error) -> LocalFailure {
    let what = match error.kind() {
        io::ErrorKind::NotFound => "there is no such SSH agent socket or key",
        _ => "the SSH agent socket or key cannot be reached",
    };
    LocalFailure::new(path, what).caused_by(error)
}

/// Connects to a socket, with a deadline.
pub(crate) async fn connect(path: &Path) -> Result<AgentStream, LocalFailure> {
    let failed = |e: io::Error| LocalFailure::new(path, "cannot connect to the SSH agent").caused_by(e);
    match tokio::time::timeout(AGENT_CONNECT, host::connect_agent(path)).await {
        Ok(connected) => connected.map_err(failed),
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

/// An agent that answers one connection's requests, one after the other.
pub(crate) enum Agent {
    Socket(AgentStream),
    Keys(Arc<KeyRing>),
}

impl Agent {
    /// The answer to one request, both without and with its length before it.
    pub(crate) async fn answer(&mut self, request: Bytes) -> io::Result<Bytes> {
        match (request.first(), self) {
            (Some(&(LIST | SIGN)), Self::Socket(socket)) => relay(socket, &request).await,
            (Some(&LIST), Self::Keys(keys)) => Ok(keys.list()),
            (Some(&SIGN), Self::Keys(keys)) => {
                let keys = Arc::clone(keys);
                // A signature takes milliseconds, too long for a thread that serves others.
                tokio::task::spawn_blocking(move || keys.sign(&request))
                    .await
                    .map_err(io::Error::other)
                    .map(|answer| answer.unwrap_or(Bytes::from_static(FAILURE)))
            }
            _ => Ok(Bytes::from_static(FAILURE)),
        }
    }
}

async fn relay(socket: &mut AgentStream, request: &[u8]) -> io::Result<Bytes> {
    let length = u32::try_from(request.len()).map_err(io::Error::other)?;
    socket.write_all(&length.to_be_bytes()).await?;
    socket.write_all(request).await?;
    let length = socket.read_u32().await?;
    let size = usize::try_from(length).map_err(io::Error::other)?;
    if size == 0 || size > MAX_AGENT_MESSAGE {
        return Err(io::Error::other(format!(
            "the agent announced a message of {size} bytes"
        )));
    }
    let mut answer = vec![0; 4 + size];
    answer[..4].copy_from_slice(&length.to_be_bytes());
    socket.read_exact(&mut answer[4..]).await?;
    Ok(answer.into())
}

/// Prefixes a message with its length, as it travels.
#[cfg(feature = "ssh-keys")]
fn framed(message: &[u8]) -> Option<Bytes> {
    let length = u32::try_from(message.len()).ok()?;
    Some([&length.to_be_bytes(), message].concat().into())
}
