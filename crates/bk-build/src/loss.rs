//! A daemon that is lost or has fallen silent in the middle of a build: what was seen, and what may have happened.

use std::time::Duration;

use crate::Advice;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a daemon was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LossKind {
    /// The daemon, or somebody between, ended the connection in the ordinary way.
    #[default]
    Closed,
    /// The daemon said that it ends the connection (HTTP/2 `GOAWAY`), with this error code; 0 when it shuts down.
    GoAway(u32),
    /// The connection or the call was broken off: a TCP reset, a broken pipe, an HTTP/2 `RST_STREAM`.
    Reset,
    /// Nothing answered any more: the system or HTTP/2 asked and got no answer in time.
    Unanswered,
    /// What arrived is not what the protocol allows; often bytes that were damaged on the way.
    Garbled,
    /// The connection on which the daemon calls back has ended, the other stands.
    Session,
    /// The daemon itself says that it does not know the session of the build any more.
    Forgotten,
}

/// What was known of a daemon when it was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastSeen {
    /// How long before the daemon had last asked for the health of the session; `None` when it never did.
    pub health: Option<Duration>,
    /// How long before the last byte had come from the daemon; `None` when that was not watched.
    pub heard: Option<Duration>,
    /// Bytes that were sent since then, and of which it is not known whether they arrived.
    pub unanswered: u64,
    /// Whether the daemon had begun to export, as far as it told. Then an image, a push or a cache may be complete.
    pub exporting: bool,
}

impl LastSeen {
    /// Nothing was seen.
    pub fn new() -> Self {
        Self::default()
    }
}

impl std::fmt::Display for LastSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ago = |f: &mut std::fmt::Formatter<'_>, what, time: Option<Duration>| match time {
            Some(time) => write!(f, "{what} {:.1} s before", time.as_secs_f64()),
            None => write!(f, "{what} never"),
        };
        ago(f, "last heard", self.heard)?;
        ago(f, ", last health check", self.health)?;
        write!(f, ", {} bytes unanswered", self.unanswered)
    }
}

/// The session or the connection ended in the middle of the build.
#[derive(Debug, thiserror::Error)]
#[error("lost the daemon at {address}: {reason}")]
#[non_exhaustive]
pub struct SessionLost {
    /// The endpoint.
    pub address: String,
    /// What was seen.
    pub reason: String,
    /// The same as a class.
    pub kind: LossKind,
    /// What was known of the daemon then.
    pub seen: Box<LastSeen>,
    /// What is known beyond that.
    pub advice: Option<Advice>,
    /// The transport's own error.
    #[source]
    pub source: Option<BoxError>,
}

impl SessionLost {
    /// The connection to `address` ended as `reason` says.
    pub fn new(address: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            reason: reason.into(),
            kind: LossKind::default(),
            seen: Box::default(),
            advice: None,
            source: None,
        }
    }

    /// Sets the class; the default is [`LossKind::Closed`].
    #[must_use]
    pub fn kind(mut self, kind: LossKind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets what is known beyond the message; the default is nothing.
    #[must_use]
    pub fn advise(mut self, advice: Option<Advice>) -> Self {
        self.advice = advice;
        self
    }

    /// Sets the cause; the default is none.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// Nothing at all came from the daemon for too long, although it was asked for a sign of life.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon at {address} has stalled: nothing came from it for {} s", after.as_secs_f64())]
#[non_exhaustive]
pub struct Stalled {
    /// The endpoint.
    pub address: String,
    /// How long nothing came: what was allowed.
    pub after: Duration,
    /// What was known of the daemon then.
    pub seen: Box<LastSeen>,
}

impl Stalled {
    /// Nothing came from `address` for `after`.
    pub fn new(address: impl Into<String>, after: Duration) -> Self {
        Self {
            address: address.into(),
            after,
            seen: Box::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_reads_as_one_line() {
        let mut seen = LastSeen::new();
        assert_eq!(
            seen.to_string(),
            "last heard never, last health check never, 0 bytes unanswered"
        );
        seen.heard = Some(Duration::from_millis(1250));
        seen.health = Some(Duration::from_secs(3));
        seen.unanswered = 70_000;
        assert_eq!(
            seen.to_string(),
            "last heard 1.2 s before, last health check 3.0 s before, 70000 bytes unanswered"
        );
    }
}
