//! The trait that every way of building implements.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    AdminOptions, Administration, BuildError, BuildOutcome, BuildRequest, Call, CallAnswer, EventSink,
    InputError,
};

/// Something that builds images: a daemon reached by some route, a test double, a third party's service.
///
/// # Cancellation
/// Dropping the future returned by [`build`](ImageBuilder::build) cancels the build: the daemon is told, the session
/// is closed, and no task, file descriptor or temporary file of the build stays behind. Implementations must keep this
/// promise; the conformance suite checks it.
#[async_trait]
pub trait ImageBuilder: Send + Sync {
    /// Runs one build to its end. Several builds may run at once through one builder.
    ///
    /// Events go to `events` while the build runs, in the order in which they happened for each vertex. The last event
    /// of a build that ends by itself is [`BuildEvent::Completed`](crate::BuildEvent::Completed); a dropped build sends
    /// none.
    ///
    /// # Errors
    /// A [`BuildError`] says who is at fault; see there.
    async fn build(&self, request: BuildRequest, events: EventSink) -> Result<BuildOutcome, BuildError>;

    /// Refuses what this builder is known not to do, before anything is built; [`build`](ImageBuilder::build) checks the same by
    /// itself. This is for those who start several builds that are of use only together. The default refuses what no builder
    /// does.
    ///
    /// # Errors
    /// [`BuildError::Input`] or [`BuildError::TooOld`] names what is not possible, and what is. That there is none is no
    /// promise: much is known by the daemon only.
    async fn check(&self, request: &BuildRequest) -> Result<(), BuildError> {
        Ok(request.validate()?)
    }

    /// Asks the frontend of a request something instead of building. Nothing comes out but the answer: outputs and caches
    /// to be written are left aside. Events and cancellation are those of [`build`](Self::build).
    ///
    /// # Errors
    /// [`BuildError::TooOld`] when the daemon's frontend does not know the question, [`BuildError::Input`] when this
    /// builder cannot ask (which is the default), else as [`build`](Self::build).
    async fn call(
        &self,
        request: BuildRequest,
        call: Call,
        events: EventSink,
    ) -> Result<CallAnswer, BuildError> {
        let _ = (request, events);
        let why = format!("`{call}`: {} cannot ask the frontend", self.info());
        Err(InputError::new("--call", why, "build for this builder").into())
    }

    /// What can be asked of the daemon behind this builder beside builds, with `options` for its calls; `None` (the default)
    /// when nothing can.
    fn administration(&self, options: AdminOptions) -> Option<Arc<dyn Administration>> {
        let _ = options;
        None
    }

    /// What this builder is, for messages and tables. Never fails and never asks the daemon.
    fn info(&self) -> BuilderInfo;
}

/// What a builder is, as far as it is known without asking again.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct BuilderInfo {
    /// `docker`, `buildkitd`, or a third party's own word.
    pub backend: String,
    /// The endpoint as the user would write it, for instance `unix:///var/run/docker.sock`. Never holds a secret.
    pub address: String,
    /// How the daemon is reached, where there is a choice: `h2c`, `grpc`, `build` or `tar` for Docker Engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The daemon's own version, for instance `28.5.2`, when it has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl BuilderInfo {
    /// Describes a builder by its kind and endpoint; no route, no version.
    pub fn new(backend: impl Into<String>, address: impl Into<String>) -> Self {
        Self {
            backend: backend.into(),
            address: address.into(),
            route: None,
            version: None,
        }
    }

    /// Sets the route; the default is none.
    #[must_use]
    pub fn route(mut self, route: impl Into<String>) -> Self {
        self.route = Some(route.into());
        self
    }

    /// Sets the daemon's version; the default is unknown.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }
}

impl std::fmt::Display for BuilderInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.backend)?;
        if let Some(version) = &self.version {
            write!(f, " {version}")?;
        }
        if let Some(route) = &self.route {
            write!(f, " ({route})")?;
        }
        write!(f, " at {}", self.address)
    }
}
