//! What a daemon says of itself.

use std::{collections::BTreeMap, time::Duration};

use crate::BuilderInfo;

/// One worker: something in the daemon that runs steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Worker {
    /// Its id.
    pub id: String,
    /// What it runs on, by names such as `org.mobyproject.buildkit.worker.executor`.
    pub labels: BTreeMap<String, String>,
    /// Platforms that it builds for, as `os/arch[/variant]`, its own first.
    pub platforms: Vec<String>,
    /// Rules by which its cache is cleaned, in the order in which they are applied.
    pub gc_rules: Vec<GcRule>,
    /// Its BuildKit; `None` before BuildKit 0.11.
    pub buildkit: Option<BuildkitInfo>,
    /// Devices that steps may ask for, by their qualified names. BuildKit 0.20.
    pub devices: Vec<String>,
}

/// One rule by which a cache is cleaned.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct GcRule {
    /// It holds for records of the daemon itself and of frontends too.
    pub all: bool,
    /// Which records it is about, in the daemon's own language; one must hold, none means all.
    pub filters: Vec<String>,
    /// Seconds since its last use after which a record may go; 0 is at once.
    pub keep_seconds: u64,
    /// Bytes that always stay; 0 is none.
    pub reserved_space: u64,
    /// Bytes that the records may take; 0 is no limit.
    pub max_used_space: u64,
    /// Bytes that must be free on the disk; 0 is no limit.
    pub min_free_space: u64,
}

/// The BuildKit of a daemon, in its own words. Builds inside of Docker Engine say odd versions, such as
/// `v0.0.0+unknown-moby`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct BuildkitInfo {
    /// Go package that it was built from.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Commit that it was built from.
    pub revision: String,
    /// Version of its own Dockerfile frontend; empty before BuildKit 0.30.
    pub dockerfile: String,
}

/// What a daemon is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct DaemonInfo {
    /// How it is reached, and the version of the engine or of BuildKit.
    pub builder: BuilderInfo,
    /// Its BuildKit, if it says so.
    pub buildkit: Option<BuildkitInfo>,
    /// Its BuildKit as major and minor (`0.25`), as far as that can be told: from what it says, or as what an engine of its
    /// version holds.
    pub buildkit_line: Option<String>,
    /// Its workers, the default one first; `None` when they cannot be asked for on this route.
    pub workers: Option<Vec<Worker>>,
    /// What else an engine says of itself, by name: `operating system`, `storage driver` and so on. Empty for others.
    pub engine: BTreeMap<String, String>,
    /// What it can do and what it cannot.
    pub capabilities: Vec<Capability>,
}

impl DaemonInfo {
    /// A daemon of which nothing is known but how it is reached.
    pub fn new(builder: BuilderInfo) -> Self {
        Self {
            builder,
            buildkit: None,
            buildkit_line: None,
            workers: None,
            engine: BTreeMap::new(),
            capabilities: Vec::new(),
        }
    }
}

/// Something that not every daemon can do.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Capability {
    /// What, as a flag or in a few words.
    pub name: String,
    /// Whether it can.
    #[serde(flatten)]
    pub able: Able,
}

impl Capability {
    /// Something, and whether it can be done.
    pub fn new(name: impl Into<String>, able: Able) -> Self {
        Self {
            name: name.into(),
            able,
        }
    }
}

/// Whether a daemon can do something.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "able", content = "why", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Able {
    /// It can.
    Yes,
    /// It cannot, for this reason.
    No(String),
    /// That is not known, for this reason; it is tried when it is asked for.
    Unknown(String),
}

/// How long a daemon took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pong {
    /// Until the connection was open: a socket, a tunnel, TLS.
    pub connected: Duration,
    /// From then until the daemon had answered a question that costs it nothing.
    pub answered: Duration,
}

impl Pong {
    /// Took so long to connect, and so long to answer.
    pub fn new(connected: Duration, answered: Duration) -> Self {
        Self { connected, answered }
    }
}
