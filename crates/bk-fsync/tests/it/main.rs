//! The integration tests of the crate, in one binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[cfg(unix)]
mod archive;
#[cfg(unix)]
mod combined;
#[cfg(unix)]
mod faults;
mod flow;
mod golden;
mod helped;
#[cfg(unix)]
mod host;
mod peer;
#[cfg(unix)]
mod policies;
mod random;

#[path = "../support/vectors.rs"]
mod vectors;
