//! SSH agents and keys that steps may use.

use std::path::PathBuf;

use crate::InputError;

/// The id that `RUN --mount=type=ssh` and git sources ask for when they name none.
pub const DEFAULT_SSH_ID: &str = "default";

/// What stands behind the id of an SSH mount: the socket of an agent, or private keys.
///
/// Steps can list keys and have data signed; everything else that an agent can do (adding and removing keys, locking,
/// extensions) is refused on this machine, unless the forward is [`raw`](Self::raw).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SshForward {
    /// Either one socket of an agent, or any number of private key files in OpenSSH's format without a passphrase.
    pub paths: Vec<PathBuf>,
    /// Whether the bytes pass unchanged between the step and the socket, which then need not be an agent's.
    pub raw: bool,
}

impl SshForward {
    /// Forwards the agent at this socket, or this private key.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            paths: vec![path.into()],
            raw: false,
        }
    }

    /// Adds a private key file; a socket must stand alone.
    #[must_use]
    pub fn key(mut self, path: impl Into<PathBuf>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// Sets whether the bytes pass unchanged; the default is that only listing and signing do.
    #[must_use]
    pub fn raw(mut self, yes: bool) -> Self {
        self.raw = yes;
        self
    }

    pub(crate) fn check(&self, id: &str) -> Result<(), InputError> {
        let bad = |why: String| {
            Err(InputError::new(
                "--ssh",
                why,
                "default|ID[=SOCKET|KEY[,KEY…]][,raw=true]",
            ))
        };
        if id.is_empty() {
            return bad("an id must not be empty".to_owned());
        }
        if self.paths.is_empty() || self.paths.iter().any(|p| p.as_os_str().is_empty()) {
            return bad(format!("`{id}` needs the socket of an agent or a key"));
        }
        if self.raw && self.paths.len() != 1 {
            return bad(format!("`{id}`: raw takes exactly one socket"));
        }
        Ok(())
    }
}
