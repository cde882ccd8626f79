//! What went wrong and who is at fault. `Display` prints one level; the chain is in `source()`.

use std::{path::PathBuf, time::Duration};

use crate::{Advice, CredentialError, LastSeen, Obstacle, SessionLost, SourceSnippet, Stalled, obstacle};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a build failed, by fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The request itself is wrong. Nothing was sent.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A file or directory on this machine could not be read as needed.
    #[error(transparent)]
    Local(#[from] LocalFailure),
    /// No daemon could be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The Dockerfile is wrong: syntax, unknown stage, a source that is not in the context.
    #[error(transparent)]
    Dockerfile(#[from] DockerfileFailure),
    /// A step of the build ran and failed.
    #[error(transparent)]
    Step(#[from] Box<StepFailure>),
    /// A registry refused, or credentials could not be looked up.
    #[error("registry authentication failed: {message}")]
    Auth {
        /// What the registry or the daemon said.
        message: String,
        /// The look-up that failed on our side, if that was it.
        source: Option<CredentialError>,
    },
    /// The daemon is too old for something that the request asks for. Nothing was sent, or, by a daemon that does not
    /// say its version, nothing was put in its place here.
    #[error(transparent)]
    TooOld(#[from] DaemonTooOld),
    /// The daemon refused the build or could not do it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The session or the connection ended in the middle of the build.
    #[error(transparent)]
    SessionLost(#[from] SessionLost),
    /// Nothing at all came from the daemon for too long, although it was asked for a sign of life.
    #[error(transparent)]
    Stalled(#[from] Stalled),
    /// The daemon sent something that its protocol does not allow.
    #[error(transparent)]
    Protocol(#[from] ProtocolFailure),
    /// Something did not happen in time.
    #[error("gave up after {} s of waiting for {what}", after.as_secs_f64())]
    Timeout {
        /// What was waited for, with the address where there is one.
        what: String,
        /// How long.
        after: Duration,
    },
    /// The build was cancelled, here or on the daemon.
    #[error("the build was cancelled")]
    Cancelled,
    /// The library was used in a way that cannot work.
    #[error("misuse: {0}")]
    Misuse(String),
}

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The request or the Dockerfile.
    User,
    /// Files or the system on this machine.
    Local,
    /// The way to the daemon.
    Network,
    /// The daemon, its limits or its configuration.
    Daemon,
    /// A registry or its credentials.
    Registry,
    /// The step's own command.
    Step,
    /// Nobody: it was cancelled.
    Cancelled,
    /// The program that uses the library.
    Program,
}

impl BuildError {
    /// Who is at fault.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Input(_) | Self::Dockerfile(_) => Fault::User,
            Self::Local(_) => Fault::Local,
            Self::Connect(_) | Self::SessionLost(_) | Self::Stalled(_) | Self::Timeout { .. } => {
                Fault::Network
            }
            Self::TooOld(_) | Self::Refused(_) | Self::Protocol(_) => Fault::Daemon,
            Self::Auth { .. } => Fault::Registry,
            Self::Step(_) => Fault::Step,
            Self::Cancelled => Fault::Cancelled,
            Self::Misuse(_) => Fault::Program,
        }
    }

    /// What the user can do about it, when that is known. One sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Input(e) if !e.allowed.is_empty() => Some(format!("{} takes {}", e.what, e.allowed)),
            Self::Local(e) => e.hint.clone(),
            Self::Connect(e) => obstacle::hint(&e.attempts),
            Self::Auth { .. } => {
                Some("check the entry of that registry in the Docker config file, or run `docker login`".to_owned())
            }
            Self::TooOld(e) => Some(format!("leave {} out, or use a daemon with {} or later", e.option, e.needs)),
            Self::SessionLost(SessionLost { seen, .. }) | Self::Stalled(Stalled { seen, .. }) if seen.exporting => {
                Some("it had begun to export: see whether the result is there before the build is tried again".to_owned())
            }
            Self::Stalled(_) => Some(
                "its machine or the link may be overloaded, or its process stopped; --stall-timeout sets how long to wait"
                    .to_owned(),
            ),
            Self::Dockerfile(DockerfileFailure { hint: Some(hint), .. }) | Self::Refused(Refusal { hint: Some(hint), .. }) => {
                Some(hint.clone())
            }
            Self::Dockerfile(_) | Self::Refused(_) | Self::Step(_) => self.advice().map(ToString::to_string),
            Self::SessionLost(e) => Some(e.advice.as_ref().map_or_else(
                || "the daemon may have been restarted or the link cut; the build can be tried again".to_owned(),
                ToString::to_string,
            )),
            Self::Timeout { .. } => Some("check that the address belongs to a BuildKit or Docker daemon".to_owned()),
            _ => None,
        }
    }

    /// What was known of the daemon when it was lost or had stalled; `None` for other errors.
    pub fn last_seen(&self) -> Option<&LastSeen> {
        match self {
            Self::SessionLost(e) => Some(&e.seen),
            Self::Stalled(e) => Some(&e.seen),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn last_seen_mut(&mut self) -> Option<&mut LastSeen> {
        match self {
            Self::SessionLost(e) => Some(&mut e.seen),
            Self::Stalled(e) => Some(&mut e.seen),
            _ => None,
        }
    }

    /// What is known about the failure beyond what the daemon said; [`hint`](Self::hint) has its words.
    pub fn advice(&self) -> Option<&Advice> {
        match self {
            Self::Dockerfile(e) => e.advice.as_ref(),
            Self::Step(e) => e.advice.as_ref(),
            Self::Refused(e) => e.advice.as_ref(),
            Self::SessionLost(e) => e.advice.as_ref(),
            _ => None,
        }
    }

    /// Whether the same build may succeed when it is tried again without any change.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_) | Self::SessionLost(_) | Self::Stalled(_) | Self::Timeout { .. } => true,
            Self::Refused(e) => {
                e.code == Refusal::UNAVAILABLE
                    || e.code == Refusal::RESOURCE_EXHAUSTED
                    || e.advice == Some(Advice::LayerRemoved)
            }
            _ => false,
        }
    }
}

/// The request itself is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {message}")]
#[non_exhaustive]
pub struct InputError {
    /// The flag, field or file that is wrong.
    pub what: String,
    /// What is wrong with it.
    pub message: String,
    /// What is allowed; empty when the message says it.
    pub allowed: String,
}

impl InputError {
    /// `what` is wrong for the reason `message`; `allowed` says what would be right.
    pub fn new(what: impl Into<String>, message: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            message: message.into(),
            allowed: allowed.into(),
        }
    }
}

/// The daemon is too old for an option of the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} needs {needs}; {daemon} has {has}")]
#[non_exhaustive]
pub struct DaemonTooOld {
    /// The flag or field.
    pub option: String,
    /// The daemon as a user would name it, for instance `docker 20.10.24 (grpc) at unix:///var/run/docker.sock`.
    pub daemon: String,
    /// What it has, for instance `BuildKit 0.8`.
    pub has: String,
    /// The oldest that has the option, for instance `BuildKit 0.11 (Docker Engine 24)`.
    pub needs: String,
}

impl DaemonTooOld {
    /// `daemon` with `has` lacks `option`, which came with `needs`.
    pub fn new(
        option: impl Into<String>,
        daemon: impl Into<String>,
        has: impl Into<String>,
        needs: impl Into<String>,
    ) -> Self {
        Self {
            option: option.into(),
            daemon: daemon.into(),
            has: has.into(),
            needs: needs.into(),
        }
    }
}

/// A file or directory on this machine could not be read as needed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", path.display())]
#[non_exhaustive]
pub struct LocalFailure {
    /// The file or directory.
    pub path: PathBuf,
    /// What was tried, and what happened.
    pub message: String,
    /// What to do, when that is known.
    pub hint: Option<String>,
    /// The system's own error.
    #[source]
    pub source: Option<BoxError>,
}

impl LocalFailure {
    /// `path` failed as `message` says.
    pub fn new(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// Sets what to do about it; the default is nothing.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the cause; the default is none.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// No daemon could be reached: every endpoint that was tried, with its reason.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectError {
    /// What was tried, in order.
    pub attempts: Vec<Attempt>,
}

/// One endpoint that could not be used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// The endpoint as the user would write it.
    pub address: String,
    /// Where the address came from, for instance `--addr` or `DOCKER_HOST`; empty when it was given in code.
    pub origin: String,
    /// Why it failed.
    pub reason: String,
    /// What stood in the way, when that is known: [`BuildError::hint`] says what helps against it.
    pub obstacle: Option<Obstacle>,
}

impl Attempt {
    /// `address` failed for `reason`.
    pub fn new(address: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            origin: String::new(),
            reason: reason.into(),
            obstacle: None,
        }
    }

    /// Sets where the address came from; the default is nowhere.
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = origin.into();
        self
    }

    /// Sets what stood in the way; the default is that nobody knows.
    #[must_use]
    pub fn obstacle(mut self, obstacle: impl Into<Option<Obstacle>>) -> Self {
        self.obstacle = obstacle.into();
        self
    }
}

impl ConnectError {
    /// One endpoint that was tried.
    pub fn single(address: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            attempts: vec![Attempt::new(address, reason)],
        }
    }

    /// Several endpoints that were tried, in order.
    pub fn several(attempts: Vec<Attempt>) -> Self {
        Self { attempts }
    }

    /// Sets what stood in the way of each attempt of which that is not known; the default is that nobody knows.
    #[must_use]
    pub fn obstacle(mut self, obstacle: impl Into<Option<Obstacle>>) -> Self {
        let obstacle = obstacle.into();
        for attempt in &mut self.attempts {
            attempt.obstacle = attempt.obstacle.or(obstacle);
        }
        self
    }
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let one = |f: &mut std::fmt::Formatter<'_>, a: &Attempt| {
            write!(f, "{}", a.address)?;
            if !a.origin.is_empty() {
                write!(f, " ({})", a.origin)?;
            }
            write!(f, ": {}", a.reason)
        };
        match &self.attempts[..] {
            [] => f.write_str("cannot reach a daemon: nothing to try"),
            [a] => {
                f.write_str("cannot reach a daemon at ")?;
                one(f, a)
            }
            several => {
                f.write_str("cannot reach a daemon; tried")?;
                for a in several {
                    f.write_str("\n  ")?;
                    one(f, a)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConnectError {}

/// The Dockerfile is wrong, as the daemon's frontend says.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct DockerfileFailure {
    /// What the frontend said.
    pub message: String,
    /// Where, innermost first.
    pub snippets: Vec<SourceSnippet>,
    /// What to do, when that is known; else what [`advice`](Self::advice) says.
    pub hint: Option<String>,
    /// What is known beyond that.
    pub advice: Option<Advice>,
}

impl DockerfileFailure {
    /// What the frontend said, and where.
    pub fn new(message: impl Into<String>, snippets: Vec<SourceSnippet>) -> Self {
        Self {
            message: message.into(),
            snippets,
            hint: None,
            advice: None,
        }
    }

    /// Sets what to do about it; the default is nothing.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Sets what is known beyond the message; the default is nothing.
    #[must_use]
    pub fn advise(mut self, advice: Option<Advice>) -> Self {
        self.advice = advice;
        self
    }
}

/// A step of the build ran and failed.
#[derive(Debug, Default, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct StepFailure {
    /// What the daemon said, for instance `process "/bin/sh -c false" did not complete successfully: exit code: 1`.
    pub message: String,
    /// The step's key, when known.
    pub vertex: Option<crate::VertexId>,
    /// The step's name, for instance `[2/3] RUN make`; empty when unknown.
    pub name: String,
    /// The exit code of its process, when the daemon said it.
    pub exit_code: Option<i32>,
    /// The place in the Dockerfile, innermost first.
    pub snippets: Vec<SourceSnippet>,
    /// Its last lines of output, at most [`limits::LOG_TAIL_LINES`](crate::limits::LOG_TAIL_LINES).
    pub log_tail: Vec<String>,
    /// What is known beyond that.
    pub advice: Option<Advice>,
}

impl StepFailure {
    /// A failure that says `message`; the other fields are empty.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..Self::default()
        }
    }
}

/// The daemon refused the build or could not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Refusal {
    /// The gRPC status code that carried it (2 = unknown); for HTTP answers the nearest one.
    pub code: i32,
    /// What the daemon said.
    pub message: String,
    /// What to do, when that is known; else what [`advice`](Self::advice) says.
    pub hint: Option<String>,
    /// What is known beyond that.
    pub advice: Option<Advice>,
}

impl Refusal {
    /// gRPC `INTERNAL`.
    pub const INTERNAL: i32 = 13;
    /// gRPC `RESOURCE_EXHAUSTED`.
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    /// gRPC `UNAVAILABLE`.
    pub const UNAVAILABLE: i32 = 14;

    /// The daemon said `message` with that gRPC code.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            advice: None,
        }
    }

    /// Sets what to do about it; the default is nothing.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Sets what is known beyond the message; the default is nothing.
    #[must_use]
    pub fn advise(mut self, advice: Option<Advice>) -> Self {
        self.advice = advice;
        self
    }
}

/// The daemon sent something that its protocol does not allow.
#[derive(Debug, thiserror::Error)]
#[error("the daemon broke the protocol: {message}")]
#[non_exhaustive]
pub struct ProtocolFailure {
    /// What it sent.
    pub message: String,
    /// The decoder's own error.
    #[source]
    pub source: Option<BoxError>,
}

impl ProtocolFailure {
    /// The daemon sent what `message` says.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
        }
    }

    /// Sets the cause; the default is none.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_attempts_reads_as_one() {
        let e = ConnectError::several(vec![
            Attempt::new("unix:///run/a.sock", "no such file").origin("DOCKER_HOST"),
            Attempt::new("tcp://127.0.0.1:1", "connection refused"),
        ]);
        assert_eq!(
            e.to_string(),
            "cannot reach a daemon; tried\n  unix:///run/a.sock (DOCKER_HOST): no such file\n  tcp://127.0.0.1:1: \
             connection refused"
        );
        assert_eq!(
            ConnectError::single("unix:///x", "gone").to_string(),
            "cannot reach a daemon at unix:///x: gone"
        );
    }

    #[test]
    fn faults_hints_and_retries() {
        let e = BuildError::from(InputError::new(
            "--platform",
            "`x y` is not a platform",
            "OS/ARCH",
        ));
        assert_eq!((e.fault(), e.is_retryable()), (Fault::User, false));
        assert_eq!(e.to_string(), "--platform: `x y` is not a platform");
        assert_eq!(e.hint().as_deref(), Some("--platform takes OS/ARCH"));
        let e = BuildError::from(SessionLost::new("unix:///x", "end of stream"));
        assert_eq!((e.fault(), e.is_retryable()), (Fault::Network, true));
        assert!(BuildError::from(Refusal::new(Refusal::UNAVAILABLE, "busy")).is_retryable());
        assert!(!BuildError::from(Refusal::new(2, "no")).is_retryable());
    }
}
