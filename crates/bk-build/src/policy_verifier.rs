//! Decisions of a program about each source that a build fetches.
//!
//! The rule: a policy protects. No answer is ever taken for a yes.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use crate::{BuildRequest, ProgramError};

/// Decides about each source of a build while it runs: images, repositories, downloads, and the local files.
///
/// It is asked after the rules of [`SourcePolicy`](crate::SourcePolicy). BuildKit 0.26; older daemons are refused. One
/// that does not say its version and never asks fails the build with [`BuildError::TooOld`](crate::BuildError::TooOld) at
/// its end. Implementations must not block the async threads.
#[async_trait]
pub trait PolicyVerifier: Send + Sync {
    /// Decides about `source`. May be called for several at once, and for one again after
    /// [`PolicyDecision::Inquire`] and [`PolicyDecision::Convert`]; a daemon gives up after ten rounds.
    ///
    /// # Errors
    /// A [`ProgramError`] fails the build.
    async fn check(&self, source: &PolicySource) -> Result<PolicyDecision, ProgramError>;
}

/// A source, and what the daemon knows of it. From the daemon and whoever it asked, untrusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicySource {
    /// What it is, for instance `docker-image://docker.io/library/alpine:latest`.
    pub identifier: String,
    /// Attributes of its look-up.
    pub attrs: BTreeMap<String, String>,
    /// The platform that it is for, `os/arch[/variant]`.
    pub platform: Option<String>,
    /// An image, as far as the daemon has looked it up.
    pub image: Option<PolicyImage>,
    /// A repository, as far as the daemon has looked it up.
    pub git: Option<PolicyGit>,
    /// A download, as far as the daemon has looked it up.
    pub http: Option<PolicyHttp>,
}

impl PolicySource {
    /// A source of which only its identifier is known.
    pub fn new(identifier: impl Into<String>) -> Self {
        Self {
            identifier: identifier.into(),
            ..Self::default()
        }
    }
}

/// An image that a build would use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyImage {
    /// Its digest.
    pub digest: String,
    /// Its configuration, JSON; empty when it was not asked for.
    pub config: Vec<u8>,
}

/// A repository that a build would use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyGit {
    /// The hash of the object that the name points to.
    pub checksum: String,
    /// The full name of the branch or tag.
    pub reference: String,
    /// The hash of the commit, when the name points to a tag.
    pub commit_checksum: String,
    /// The bytes of the commit; empty when they were not asked for.
    pub commit: Vec<u8>,
    /// The bytes of the tag; empty when there is none, or they were not asked for.
    pub tag: Vec<u8>,
}

/// A download that a build would use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyHttp {
    /// The digest of its content.
    pub checksum: String,
    /// The name of the file.
    pub filename: String,
}

/// What becomes of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyDecision {
    /// It is used.
    Allow,
    /// It is not used and the build fails, for these reasons.
    Deny(Vec<String>),
    /// Another one is used in its place, and checked in its turn.
    Convert {
        /// What it is.
        identifier: String,
        /// Attributes of its look-up.
        attrs: BTreeMap<String, String>,
    },
    /// The daemon shall look up what [`PolicySource`] has room for and ask again.
    Inquire,
}

impl PolicyDecision {
    /// It is not used, for this reason.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny(vec![reason.into()])
    }
}

impl BuildRequest {
    /// Sets who decides about each source while the build runs; the default is nobody.
    #[must_use]
    pub fn policy_verifier(mut self, verifier: Arc<dyn PolicyVerifier>) -> Self {
        self.policy_verifier = Some(verifier);
        self
    }
}
