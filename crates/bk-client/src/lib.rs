//! Build container images with BuildKit, inside Docker Engine or standalone.
//!
//! A directory, a Dockerfile and a daemon in; progress as events and an image out:
//!
//! ```no_run
//! # async fn example() -> Result<(), bk_client::BuildError> {
//! use bk_client::{BuildRequest, EventSink, ImageBuilder};
//!
//! let client = bk_client::connect().await?;
//! let request = BuildRequest::new("./app").tag("app:1.0");
//! let events = EventSink::from_fn(|event| println!("{event:?}"));
//! let outcome = client.build(request, events).await?;
//! println!("{}", outcome.image_id.unwrap_or_default());
//! # Ok(())
//! # }
//! ```
//!
//! [`connect`] picks the daemon: `BUILDKIT_HOST`, a builder of `docker buildx`, `DOCKER_HOST` or the current Docker context,
//! then the default sockets; [`connect_with`] takes an
//! address. Dropping a build future cancels the build and leaves nothing behind.
//!
//! This is the only library crate that reads the environment or the home directory, and it does so only in
//! [`Environment::from_process`] and [`secret_from_environment`]. It implements nothing: everything is in the crates
//! below it.
//!
//! # Features
//! `docker` and `buildkitd`, both on by default; each alone compiles and works. `daemon`, off by default, starts a private
//! daemon where there is no other. `ssh-keys`, off by default, forwards SSH
//! keys from files; agents need no feature.

mod builders;
mod client;
mod connect;
mod contexts;
mod docker_host;
mod environment;
mod host;
mod nodes;
mod options;
mod places;
mod platforms;
#[cfg(feature = "daemon")]
mod private;
mod proxies;
mod rendezvous;
mod share;
mod tokens;

pub use bk_build::*;
pub use bk_dial::{Pem, TlsOptions};
pub use bk_fsync::tar::ArchiveFormat;
pub use bk_fsync::{
    ReceiveOptions, entry, path,
    receive::{Change, DevicePolicy, ReceiveMode, ReceiveObserver, ReceiveWarning, ReceivedOwner, Unchanged},
    tree::{self, DirTree, MemoryTree, Tree},
};
pub use bk_session::{
    Absence, ContextChanges, ContextDifference, ContextHistory, ContextRecord, ContextSize, ContextTar,
    ContextView, Deciding, Differs, DockerConfig, LintFinding, LintKind, Need, Needs, Proxies, TokenClient,
    Why, WhyNot,
};
pub use bk_solve::{BoxedIo, ByteStream};

#[cfg(feature = "buildkitd")]
pub use backend_buildkitd::{BuildkitdBackend, Endpoint as BuildkitdEndpoint};
#[cfg(feature = "docker")]
pub use backend_docker::{DockerBackend, DockerRoute, Endpoint as DockerEndpoint, EngineLoader};

#[cfg(feature = "daemon")]
pub use bk_daemon as daemon;

pub use client::Client;
pub use connect::{connect, connect_with};
pub use environment::{Environment, secret_from_environment};
pub use host::{HOME, user_cache_dir};
pub use nodes::{GroupError, GroupOutcome, INDEX, NodeGroup};
pub use options::{Backend, ConnectOptions};
#[cfg(feature = "daemon")]
pub use private::{Daemonless, private_layout};
pub use proxies::BuildProxies;
pub use rendezvous::{affinity_of, rendezvous};
pub use share::{Connected, connect_for};
