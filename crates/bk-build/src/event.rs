//! What happens while a build runs, as plain data. Renderers consume events and nothing else.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{BuilderInfo, SourceSnippet, serial};

/// The key of a vertex: opaque text that the daemon chose (usually a digest). Cheap to clone.
pub type VertexId = Arc<str>;

/// One thing that happened.
///
/// Times are the daemon's clock for vertices, statuses and logs, our own clock for [`BuildEvent::Started`] and
/// [`BuildEvent::Completed`].
///
/// Serialised, it is an object whose member `event` tells the kind in snake case, beside the members of that kind. Times are
/// RFC 3339 in UTC, bytes base64, `stream` the wire's number; members that are empty, zero or unknown are left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BuildEvent {
    /// The build begins; nothing was sent to the daemon yet. Always the first event.
    Started {
        /// The reference under which the daemon knows this build.
        build_ref: String,
        /// Who builds.
        builder: BuilderInfo,
        /// When, by our clock.
        #[serde(with = "serial::time")]
        at: SystemTime,
    },
    /// A vertex was announced, or announced again, and has not started.
    VertexQueued(Vertex),
    /// A vertex began to run. Running again after a completion is another start.
    VertexStarted(Vertex),
    /// A vertex was answered from the cache. It counts as completed; no `VertexCompleted` follows.
    VertexCached(Vertex),
    /// A vertex ran to its end.
    VertexCompleted(Vertex),
    /// A vertex ended with an error; the text is in [`Vertex::error`].
    VertexFailed(Vertex),
    /// Progress inside a vertex: a layer pulled, a context transferred.
    Status(StatusUpdate),
    /// Output of a step: raw bytes, aligned neither to lines nor to characters.
    Log(LogChunk),
    /// Something worth telling that does not stop the build.
    Warning(Warning),
    /// Progress of a file transfer, counted on our own side.
    Transfer(Transfer),
    /// The daemon asked for the credentials of a registry.
    Credentials(CredentialUse),
    /// The daemon was lost, or its image store lost a layer ([`Advice::LayerRemoved`](crate::Advice::LayerRemoved)), and
    /// the whole build begins again. Steps that ran have ended before, as cancelled.
    Retrying {
        /// How many times it was begun again, this time included; from 1.
        retry: u32,
        /// How many times it may be.
        of: u32,
        /// Why: the error's text.
        error: String,
        /// The reference under which the daemon knows the build from now on.
        build_ref: String,
    },
    /// The build ended. Always the last event of a build that was not dropped.
    Completed {
        /// When, by our clock.
        #[serde(with = "serial::time")]
        at: SystemTime,
        /// `None` after success, else the error's text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

impl BuildEvent {
    /// The version of the serialised form. It changes when something that was there is gone or means something else;
    /// kinds and members may be added without a change.
    pub const SCHEMA: u32 = 1;

    /// What [`Retrying`](Self::Retrying) tells, as the warning that displays show; `None` for other events.
    pub fn retry_warning(&self) -> Option<Warning> {
        let Self::Retrying { retry, of, error, .. } = self else {
            return None;
        };
        let text = format!("{error}; the build begins again ({retry} of {of})");
        Some(Warning::new(WarningKind::Client, text))
    }
}

/// A vertex of the build graph (a step, a source, an export) in its latest state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Vertex {
    /// Its key.
    #[serde(with = "serial::id")]
    pub id: VertexId,
    /// The keys of the vertices that it needs.
    #[serde(with = "serial::ids", skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<VertexId>,
    /// Its name as the daemon says it, for instance `[2/3] RUN make`. Untrusted text: neutralise control bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The group that displays fold it into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<ProgressGroup>,
    /// Start of the current run.
    #[serde(with = "serial::maybe_time", skip_serializing_if = "Option::is_none")]
    pub started: Option<SystemTime>,
    /// End of the current run.
    #[serde(with = "serial::maybe_time", skip_serializing_if = "Option::is_none")]
    pub completed: Option<SystemTime>,
    /// Whether it was answered from the cache.
    #[serde(skip_serializing_if = "serial::is_false")]
    pub cached: bool,
    /// The error text, when it failed or was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Vertex {
    /// A vertex that was only announced.
    pub fn new(id: impl Into<VertexId>, name: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            ..Self::default()
        }
    }

    /// Whether the vertex ended because the build was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.error
            .as_deref()
            .is_some_and(|e| e.ends_with("context canceled"))
    }
}

/// Vertices that a display shows as one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ProgressGroup {
    /// The group's key.
    pub id: String,
    /// The group's name.
    pub name: String,
    /// A weak member does not make the group visible by itself.
    #[serde(skip_serializing_if = "serial::is_false")]
    pub weak: bool,
}

impl ProgressGroup {
    /// A group of that key and name.
    pub fn new(id: impl Into<String>, name: impl Into<String>, weak: bool) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            weak,
        }
    }
}

/// Progress inside a vertex, cumulative, keyed by (`vertex`, `id`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct StatusUpdate {
    /// The vertex it belongs to.
    #[serde(with = "serial::id")]
    pub vertex: VertexId,
    /// What progresses, for instance `transferring context:` or a layer digest.
    pub id: String,
    /// A longer name, often empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Units done so far, usually bytes.
    pub current: i64,
    /// Units in all; 0 when unknown.
    #[serde(skip_serializing_if = "serial::is_zero")]
    pub total: i64,
    /// When the daemon took this reading.
    #[serde(default, with = "serial::maybe_time", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<SystemTime>,
    /// When it began.
    #[serde(with = "serial::maybe_time", skip_serializing_if = "Option::is_none")]
    pub started: Option<SystemTime>,
    /// When it ended.
    #[serde(with = "serial::maybe_time", skip_serializing_if = "Option::is_none")]
    pub completed: Option<SystemTime>,
}

impl StatusUpdate {
    /// A reading of 0 for `id` inside `vertex`.
    pub fn new(vertex: VertexId, id: impl Into<String>) -> Self {
        Self {
            vertex,
            id: id.into(),
            ..Self::default()
        }
    }
}

/// Output of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogChunk {
    /// The vertex that wrote it.
    #[serde(with = "serial::id")]
    pub vertex: VertexId,
    /// Which of its outputs.
    #[serde(with = "serial::stream")]
    pub stream: LogStream,
    /// The bytes as written. Untrusted: neutralise control bytes before a terminal sees them.
    #[serde(with = "serial::bytes")]
    pub data: Bytes,
    /// When the daemon read them.
    #[serde(default, with = "serial::maybe_time", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<SystemTime>,
}

impl LogChunk {
    /// Bytes that `vertex` wrote to `stream`.
    pub fn new(vertex: VertexId, stream: LogStream, data: impl Into<Bytes>) -> Self {
        Self {
            vertex,
            stream,
            data: data.into(),
            timestamp: None,
        }
    }

    /// Sets when the daemon read the bytes; the default is unknown.
    #[must_use]
    pub fn at(mut self, timestamp: Option<SystemTime>) -> Self {
        self.timestamp = timestamp;
        self
    }
}

/// Which output of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogStream {
    /// Standard output (1 on the wire).
    Stdout,
    /// Standard error (2 on the wire).
    Stderr,
    /// Any other number that a daemon sends.
    Other(i64),
}

impl LogStream {
    /// From the wire's number.
    pub fn from_wire(number: i64) -> Self {
        match number {
            1 => Self::Stdout,
            2 => Self::Stderr,
            n => Self::Other(n),
        }
    }

    /// The wire's number.
    pub fn to_wire(self) -> i64 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Other(n) => n,
        }
    }
}

/// Something worth telling that does not stop the build.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Warning {
    /// Who warns, and of what.
    pub kind: WarningKind,
    /// The vertex it belongs to, for the daemon's warnings.
    #[serde(default, with = "serial::maybe_id", skip_serializing_if = "Option::is_none")]
    pub vertex: Option<VertexId>,
    /// The daemon's level; 0 when it gave none, and for our own warnings.
    #[serde(default, skip_serializing_if = "serial::is_zero")]
    pub level: i64,
    /// One line.
    pub short: String,
    /// Further lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub detail: Vec<String>,
    /// Where to read more; empty when nowhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// The place in the Dockerfile, from the daemon's copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceSnippet>,
}

impl Warning {
    /// A warning of one line.
    pub fn new(kind: WarningKind, short: impl Into<String>) -> Self {
        Self {
            kind,
            vertex: None,
            level: 0,
            short: short.into(),
            detail: Vec::new(),
            url: String::new(),
            source: None,
        }
    }
}

/// Who warns, and of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WarningKind {
    /// The daemon or its frontend (for instance a lint rule).
    Daemon,
    /// A file was left out of a context because its kind cannot be sent, for instance a socket. Holds its path relative
    /// to the context, with bytes that are not UTF-8 replaced.
    SkippedFile(String),
    /// Much of what was sent of a context is in one directory that tools fill, for instance `node_modules`.
    FilledDirectory {
        /// The directory relative to the context, with bytes that are not UTF-8 replaced.
        path: String,
        /// Bytes that were sent of what is in it.
        bytes: u64,
        /// Bytes that were sent in all.
        of: u64,
    },
    /// A pattern of an ignore file cannot be what was meant. It only informs: the daemon reads the file as it is.
    IgnoreFile {
        /// The ignore file, with bytes that are not UTF-8 replaced.
        file: String,
        /// The line, from 1.
        line: u64,
    },
    /// Something else that our own side noticed.
    Client,
}

/// Progress of one file transfer to the daemon, counted on our own side. Cumulative for the transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Transfer {
    /// The name of the source as the daemon asked for it: `context`, `dockerfile`, or a named context.
    pub source: String,
    /// Tells apart several transfers of one build; counts from 0.
    pub transfer: u64,
    /// Counts so far.
    pub report: crate::TransferReport,
    /// Whether this is the last reading of this transfer.
    #[serde(skip_serializing_if = "serial::is_false")]
    pub done: bool,
}

impl Transfer {
    /// A first reading of a transfer.
    pub fn new(source: impl Into<String>, transfer: u64) -> Self {
        Self {
            source: source.into(),
            transfer,
            ..Self::default()
        }
    }
}

/// The daemon's question for the credentials of a registry, and what it got. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CredentialUse {
    /// The registry's `host[:port]`, as the daemon says it.
    pub host: String,
    /// What they are for, each for instance `repository:team/app:pull`, as the daemon says it. Empty when it did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Which entry of which configuration answered.
    pub source: String,
    /// What the daemon got.
    pub given: CredentialGiven,
}

/// What a daemon got that asked for credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CredentialGiven {
    /// Nothing is known for that host: the daemon goes on anonymously.
    Nothing,
    /// The credential itself.
    Credential,
    /// A token that was fetched here; the credential stayed on this machine.
    Token,
    /// An error: the look-up failed, the credential was refused by the token server, or the daemon may not have it.
    Refused,
}

impl CredentialUse {
    /// The daemon asked for `host` and got `given` from `source`.
    pub fn new(host: impl Into<String>, source: impl Into<String>, given: CredentialGiven) -> Self {
        Self {
            host: host.into(),
            scopes: Vec::new(),
            source: source.into(),
            given,
        }
    }

    /// Sets what the credentials are for; the default is unknown.
    #[must_use]
    pub fn scopes(mut self, scopes: Vec<String>) -> Self {
        self.scopes = scopes;
        self
    }
}
