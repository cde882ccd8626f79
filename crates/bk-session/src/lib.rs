//! The gRPC server that BuildKit calls back into: attachment, method list and one thin adapter per service.
//!
//! Make a [`Session`], announce its [`headers`](Session::headers), attach it in one of two ways and
//! [`serve`](Session::serve) it: through the call `Control/Session` (a [`Tunnel`]) or on the connection of Docker's
//! `POST /session` upgrade. The session serves local files, takes [results](Exports), and answers for registry
//! credentials, its own health and the [`Extras`] and [`Contents`] that a request names; every other method answers `Unimplemented`,
//! which daemons expect.
//!
//! This crate never calls the daemon. Invariants: the health answer never waits for a file; everything a session
//! spawns ends with its [`RunningSession`].

mod agent;
mod archive;
mod coalesce;
#[cfg(unix)]
mod content;
#[cfg(windows)]
#[path = "content/refused.rs"]
mod content;
mod context;
mod context_tar;
mod docker_config;
pub mod exec;
mod exports;
mod extras;
mod history;
mod host;
pub mod limits;
mod named;
mod pings;
mod secret_file;
mod service;
mod session;
mod shared_key;
mod sources;
mod text;
mod token;
mod tunnel;
mod unsent;

pub use archive::ArchiveStream;
pub use content::Contents;
pub use context::{
    Absence, ContextDifference, ContextSize, ContextView, Deciding, Differs, LintFinding, LintKind, Need,
    Needs, Why, WhyNot, explain_failure,
};
pub use context_tar::{ContextTar, explain_tar_error};
pub use docker_config::DockerConfig;
pub use exports::{Exports, ResultFile};
pub use extras::Extras;
pub use history::{ContextChanges, ContextHistory, ContextRecord};
pub use pings::Pings;
pub use service::exporter::{LaterOutput, LaterOutputs, Lower};
pub use session::{Failures, RunningSession, Session, SessionConfig, SessionHeaders, SessionReport};
pub use shared_key::{host_name, shared_key};
pub use sources::{CONTEXT, DOCKERFILE, Source, Sources};
pub use token::{LoadRoots, Manifest, Proxies, Repository, TokenClient};
pub use tunnel::{Tunnel, TunnelSender};
