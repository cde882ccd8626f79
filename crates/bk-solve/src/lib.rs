//! One build over any gRPC channel to BuildKit: Solve and Status side by side.
//!
//! Both backends run the same build and differ only in how bytes reach the daemon: they implement [`Dialer`]. What a
//! daemon says is untrusted: it is decoded with limits and sorted into [`bk_build::BuildError`] by fault.

mod advise;
mod call;
mod channel;
mod classify;
mod described;
mod details;
mod dial;
mod fold;
mod inspect;
pub mod limits;
mod lower;
mod outputs;
mod places;
mod requires;
mod solve;

pub use advise::of_message as advise;
pub use call::call;
pub use channel::{Channel, chain};
pub use classify::message_failure;
pub use details::ErrorDetails;
pub use dial::{BoxedIo, ByteStream, Dialer};
pub use fold::StatusFold;
pub use lower::{ImageExporter, lower};
pub use outputs::{Lowered, exporters, outcome};
pub use requires::{BuildkitVersion, buildkit_of, check as check_version};
pub use solve::{DaemonFacts, SolveOptions, build, open, probe, run, with_start_and_end};
