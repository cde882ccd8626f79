//! Outputs that a program adds when the result of a build is known.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use crate::{BuildRequest, Output};

/// Adds outputs to a build when its result is known: the names of an image that depend on what was built, an archive that
/// is only wanted for some platforms.
///
/// BuildKit 0.22; older daemons are refused. One that does not say its version and never asks fails the build with
/// [`BuildError::TooOld`](crate::BuildError::TooOld) at its end. Implementations must not block the async threads.
#[async_trait]
pub trait SessionExporter: Send + Sync {
    /// The outputs to make of `result`, beside those of the request. Called once, when everything is built and before
    /// anything is exported.
    ///
    /// What they leave on this machine is reported like that of other outputs, with numbers that count on from those of the
    /// request ([`ExportReport::output`](crate::ExportReport::output)). A request without any output makes an image;
    /// one with [`Output::cache_only`] alone makes only what is added here.
    ///
    /// # Errors
    /// A [`ProgramError`] fails the build.
    async fn find(&self, result: &BuiltResult) -> Result<Vec<Output>, ProgramError>;

    /// Hears what all exporters answered, when pushes and caches to be written are done too. BuildKit 0.32; older daemons
    /// do not call it. The default does nothing.
    ///
    /// # Errors
    /// A [`ProgramError`] fails the build.
    async fn finalize(&self, answer: &BTreeMap<String, String>) -> Result<(), ProgramError> {
        let _ = answer;
        Ok(())
    }
}

/// The result of a build before it is exported. From the daemon, untrusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuiltResult {
    /// What the frontend says of it, for instance the configuration of the image under `containerimage.config`.
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// The daemon's names for the file systems, one a platform.
    pub refs: Vec<String>,
}

impl BuiltResult {
    /// A result of which that is known.
    pub fn new(metadata: BTreeMap<String, Vec<u8>>, refs: Vec<String>) -> Self {
        Self { metadata, refs }
    }
}

/// Why the program could not answer a question of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct ProgramError {
    /// What failed. It is told to the user, not to the daemon.
    pub reason: String,
}

impl ProgramError {
    /// That failed.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

impl BuildRequest {
    /// Sets who adds outputs when the result is known; the default is nobody.
    #[must_use]
    pub fn session_exporter(mut self, exporter: Arc<dyn SessionExporter>) -> Self {
        self.session_exporter = Some(exporter);
        self
    }
}
