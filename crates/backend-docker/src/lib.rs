//! Reach the BuildKit inside Docker Engine and build on it.
//!
//! [`DockerBackend::connect`] asks an engine who it is and picks a [`DockerRoute`]; then it is an
//! [`ImageBuilder`](bk_build::ImageBuilder). The crate adds no build logic: it finds a way for bytes to reach the
//! daemon, and speaks the two dialects that are Docker's own, the connection upgrade and `POST /build`.
//!
//! | route | control | session | what it cannot do |
//! |---|---|---|---|
//! | `h2c` | HTTP/2 on the API socket (API ≥ 1.53) | through `Control/Session` | — |
//! | `grpc` | `POST /grpc`, upgraded | `POST /session`, upgraded | — |
//! | `build` | `POST /build`, records | `POST /session`, upgraded | several platforms, frontend attributes, typed error details; from API 1.45 on a build without an image |
//! | `tar` | `POST /build`, records | none: the context is uploaded whole, each time | what `build` cannot do, and registry credentials |
//!
//! On the route `tar` our side applies the ignore rules, and the upload is all that the daemon sees: a Dockerfile from
//! outside the context lies in its root as `.dockerfile.bk`, where `COPY .` finds it, and so do a Dockerfile and a
//! `.dockerignore` that the ignore rules leave out.
//!
//! Dropping a build closes its connections, which is enough: on every route engines then end the running step at once.
//!
//! No Dockerfile is parsed here and nothing is pulled beforehand, whatever the route.

mod admin;
mod backend;
mod build;
mod daemon;
mod dialer;
mod endpoint;
mod engine;
mod http1;
pub mod limits;
mod load;
mod push;
mod route;
mod site;
#[cfg(test)]
mod testing;

pub use backend::DockerBackend;
pub use bk_dial::{Helper, Pem, TlsOptions};
pub use bollard;
pub use endpoint::Endpoint;
pub use load::EngineLoader;
pub use route::{DockerRoute, UnknownRoute};
