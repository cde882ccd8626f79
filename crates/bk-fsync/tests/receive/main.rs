//! The integration tests of the receiving half, in one binary.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod cancel;
mod fuzzed;
mod hostile;
mod modes;
mod random;
mod support;
mod whole;
