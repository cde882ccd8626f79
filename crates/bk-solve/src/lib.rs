//! One build over any gRPC channel to BuildKit: Solve and Status side by side.
//!
//! Both backends run the same build and differ only in how bytes reach the daemon: they implement [`Dialer`]. What a
//! daemon says is untrusted: it is decoded with limits and sorted into [`bk_build::BuildError`] by fault.

mod admin;
mod advise;
mod begin;
mod call;
mod channel;
mod classify;
mod content;
mod described;
mod details;
mod dial;
mod fold;
mod inspect;
pub mod limits;
mod loss;
mod lower;
mod outputs;
mod places;
mod pulse;
mod requires;
mod retry;
mod solve;

pub use admin::{ControlAdmin, capabilities};
pub use advise::of_message as advise;
pub use call::call;
pub use channel::{Channel, chain};
pub use classify::message_failure;
pub use details::ErrorDetails;
pub use dial::{BoxedIo, ByteStream, Dialer};
pub use fold::StatusFold;
pub use loss::loss_kind;
pub use lower::{ImageExporter, lower};
pub use outputs::{Lowered, exporters, outcome};
pub use places::not_on_graph_drivers;
pub use pulse::{Pulse, Watch, watched};
pub use requires::{BuildkitVersion, buildkit_of, check as check_version};
pub use retry::{Attempt, with_retries};
pub use solve::{
    DaemonFacts, SolveOptions, build, check, deadline, lost_session, open, probe, run, with_seen,
    with_start_and_end,
};
