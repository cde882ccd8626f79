//! BuildKit's wire types: generated gRPC messages, file-mode bits, session headers and ids.
//!
//! This crate says how things look on the wire and decides nothing. Each of the generated modules is one file
//! of `proto/`, with the messages, a client and a server for each service. None of them needs a transport:
//! whoever calls or serves brings the channel or the server, and enables what it needs of `tonic`.
//!
//! | module | what | package on the wire |
//! |---|---|---|
//! | [`control`] | builds, progress, cache, history | `moby.buildkit.v1` |
//! | [`worker`] | workers and versions | `moby.buildkit.v1.types` |
//! | [`ops`] | the build graph | `pb` |
//! | [`gateway`], [`caps`] | what frontends and gateway clients call | `moby.buildkit.v1.frontend`, `…apicaps` |
//! | [`source_policy`], [`policy_session`] | rules about sources | `moby.buildkit.v1.sourcepolicy`, `….policysession` |
//! | [`fsutil`] | packets of the diff-copy protocol | `fsutil.types` |
//! | [`filesync`], [`auth`] | files and credentials, on the session | both `moby.filesync.v1` |
//! | [`secrets`], [`ssh`], [`upload`], [`exporter`] | the other services of a session | `moby.buildkit.secrets.v1`, `moby.sshforward.v1`, `moby.upload.v1`, `moby.exporter.v1` |
//! | [`content`] | content stores, on either side | `containerd.services.content.v1` |
//! | [`health`] | the health check | `grpc.health.v1` |
//! | [`rpc_status`] | errors with details | `google.rpc` |
//!
//! Written by hand are [`mode`] (Go's file-mode bits), [`headers`] and [`metadata`] (names and values that travel
//! beside messages), [`methods`] (method paths) and [`id`] (session and build ids).
//!
//! Maps are `BTreeMap`s, so equal messages have equal bytes. Fields for bulk data are [`bytes::Bytes`].

#![forbid(unsafe_code)]

// The generator has its own way to break lines, and its check compares bytes.
#[rustfmt::skip]
mod generated;
pub mod headers;
pub mod id;
pub mod metadata;
pub mod methods;
pub mod mode;
mod redact;

pub use generated::{
    auth, caps, content, control, exporter, filesync, fsutil, gateway, health, ops, policy_session,
    rpc_status, secrets, source_policy, ssh, upload, worker,
};
pub use id::Id;
pub use mode::Mode;

#[cfg(test)]
mod wire_tests;
