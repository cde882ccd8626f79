//! One thin adapter per service that the daemon calls.

pub(crate) mod auth;
mod authority;
#[cfg(unix)]
pub(crate) mod content;
#[cfg(windows)]
#[path = "no_content.rs"]
pub(crate) mod content;
pub(crate) mod dispatch;
pub(crate) mod exporter;
pub(crate) mod file_send;
pub(crate) mod file_sync;
pub(crate) mod health;
mod packet_body;
pub(crate) mod policy;
pub(crate) mod secrets;
pub(crate) mod ssh;
pub(crate) mod stream;
pub(crate) mod upload;
