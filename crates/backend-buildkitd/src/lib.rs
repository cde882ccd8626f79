//! Reach a native buildkitd and build on it.
//!
//! This crate turns endpoint text into a byte stream and adds no build logic: [`bk_solve`] does the rest. Sessions
//! attach through `Control/Session` on the same connection.

mod backend;
mod endpoint;

pub use backend::BuildkitdBackend;
pub use bk_dial::{Pem, TlsOptions};
pub use endpoint::Endpoint;
