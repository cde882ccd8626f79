//! Private daemons: a buildkitd or dockerd that belongs to one user's builds, started when it is needed and kept warm
//! between them.
//!
//! A process of its own, the keeper ([`keep`]), owns the daemon. It holds a lock on the directory of the daemon's state, so
//! that there are never two on one state, and it listens on a socket in there. A program that wants to build takes a
//! [`Lease`] ([`PrivateDaemon::lease`]), which starts a keeper when there is none. While anybody holds a lease the daemon
//! stays; some time after the last one is gone it is stopped.
//!
//! The rule: whoever dies, however suddenly, blocks nobody. A lease is an open connection and a lock an open file: both
//! end with their process. What a keeper leaves that was killed, the next one ends before it starts anything.
//!
//! Nothing here reads the environment or speaks BuildKit's protocol.

mod error;
mod host;
#[cfg(unix)]
mod keeper;
#[cfg_attr(windows, expect(dead_code, reason = "no daemon is started there"))]
mod layout;
mod lease;
pub mod limits;
#[cfg_attr(windows, expect(dead_code, reason = "no daemon is started there"))]
mod message;
mod options;
#[cfg(unix)]
mod process;
#[cfg_attr(windows, expect(dead_code, reason = "no daemon is started there"))]
mod program;
#[cfg(unix)]
mod ready;

pub use error::DaemonError;
#[cfg(unix)]
pub use host::is_root;
#[cfg(windows)]
pub use host::{is_root, keep};
#[cfg(unix)]
pub use keeper::keep;
pub use layout::Layout;
pub use lease::{Keeper, Lease, PrivateDaemon, StopAnswer, left_behind, status, stop};
pub use message::{DaemonFacts, Status};
pub use options::{Announcement, KeepOptions};
pub use program::{Kind, Program};
