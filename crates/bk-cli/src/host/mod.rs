//! What differs between the systems that `bk` runs on.
//!
//! The rule: what a system does not have is refused by an error that says so.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;
