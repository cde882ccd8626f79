//! What can be asked of the daemon about a build that has succeeded, beside what the exporters answered.
//!
//! The rule: a build that has succeeded stays a success. What cannot be had is listed with its reason, never left out
//! silently.

use std::collections::BTreeMap;

use crate::{BuildRequest, Descriptor};

/// What is asked of the daemon when a build has succeeded. Each costs a few calls on the connection of the build, so the
/// default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspect {
    /// The provenance that the daemon keeps in its history. Default: no.
    pub provenance: bool,
    /// The image of each platform: the digests of its manifest and configuration. Default: no.
    pub images: bool,
}

impl Inspect {
    /// Asks for nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether provenance is asked for; the default is no. BuildKit 0.11.
    #[must_use]
    pub fn provenance(mut self, yes: bool) -> Self {
        self.provenance = yes;
        self
    }

    /// Sets whether the image of each platform is asked for; the default is no. BuildKit 0.11, for what the exporters do
    /// not say.
    #[must_use]
    pub fn images(mut self, yes: bool) -> Self {
        self.images = yes;
        self
    }
}

impl BuildRequest {
    /// Sets what is asked of the daemon when the build has succeeded; the default is nothing. The answers are in
    /// [`BuildOutcome::inspected`](crate::BuildOutcome::inspected).
    #[must_use]
    pub fn inspect(mut self, inspect: Inspect) -> Self {
        self.inspect = inspect;
        self
    }
}

/// What the daemon said when it was asked about a build that has succeeded. From the daemon, untrusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspected {
    /// Provenance by platform, `os/arch[/variant]`; under an empty name for a build that names no platforms.
    pub provenance: BTreeMap<String, Provenance>,
    /// The image of each platform, in the order of the index.
    pub images: Vec<PlatformImage>,
    /// What was asked for and could not be had.
    pub missing: Vec<Missing>,
}

impl Inspected {
    /// Everything that `inspect` asks for is missing, for the reason `why`.
    pub fn missing(inspect: Inspect, why: &str) -> Self {
        let asked = [
            (inspect.provenance, Missing::PROVENANCE),
            (inspect.images, Missing::IMAGES),
        ];
        Self {
            missing: asked
                .into_iter()
                .filter(|(asked, _)| *asked)
                .map(|(_, what)| Missing::new(what, why))
                .collect(),
            ..Self::default()
        }
    }
}

/// Something that was asked for and could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// What: [`Missing::PROVENANCE`] or [`Missing::IMAGES`].
    pub what: &'static str,
    /// Why: one sentence. Parts of it may come from the daemon.
    pub why: String,
}

impl Missing {
    /// Provenance.
    pub const PROVENANCE: &'static str = "provenance";
    /// The image of a platform.
    pub const IMAGES: &'static str = "images";

    /// `what` is missing because of `why`.
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self {
            what,
            why: why.into(),
        }
    }
}

/// How something was built, as the daemon wrote it down: the predicate of a provenance statement.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provenance {
    /// What kind of document it is, for instance `https://slsa.dev/provenance/v0.2`.
    pub predicate_type: String,
    /// The document: a JSON object.
    pub json: String,
}

impl Provenance {
    /// A document of a kind.
    pub fn new(predicate_type: impl Into<String>, json: impl Into<String>) -> Self {
        Self {
            predicate_type: predicate_type.into(),
            json: json.into(),
        }
    }

    /// The document as a JSON object; `None` when it is none.
    pub fn object(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        serde_json::from_str(&self.json).ok()
    }

    /// The document without the steps of the build and without its times, usage and layers: what `docker buildx` calls
    /// the mode `min`. `None` when it is no JSON object.
    pub fn minimal(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        let mut object = self.object()?;
        object.remove("buildConfig");
        object.remove("metadata");
        // From version 1 on the same things have other places.
        for (outer, inner) in [("buildDefinition", "internalParameters"), ("runDetails", "")] {
            let Some(outer) = object.get_mut(outer).and_then(|v| v.as_object_mut()) else {
                continue;
            };
            if inner.is_empty() {
                outer.remove("metadata");
            } else if let Some(inner) = outer.get_mut(inner).and_then(|v| v.as_object_mut()) {
                inner.remove("buildConfig");
            }
        }
        Some(object)
    }
}

/// The image of one platform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlatformImage {
    /// Its platform, `os/arch[/variant]`, when it is said.
    pub platform: Option<String>,
    /// Its manifest. Image stores of graph drivers keep none.
    pub manifest: Option<Descriptor>,
    /// The digest of its configuration.
    pub config: Option<String>,
    /// The manifests of attestations about it.
    pub attestations: Vec<Descriptor>,
}

impl PlatformImage {
    /// An image of which only that is known.
    pub fn new(platform: Option<String>, manifest: Option<Descriptor>, config: Option<String>) -> Self {
        Self {
            platform,
            manifest,
            config,
            attestations: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_or_changes_is_left_out_of_the_minimum() {
        for (json, expected) in [
            (
                r#"{"builder":{"id":""},"buildConfig":{"a":1},"metadata":{"b":2},"invocation":{"metadata":3}}"#,
                r#"{"builder":{"id":""},"invocation":{"metadata":3}}"#,
            ),
            (
                r#"{"buildDefinition":{"internalParameters":{"buildConfig":{},"k":1}},"runDetails":{"metadata":{},"builder":2}}"#,
                r#"{"buildDefinition":{"internalParameters":{"k":1}},"runDetails":{"builder":2}}"#,
            ),
            ("{}", "{}"),
        ] {
            let minimal = Provenance::new("t", json).minimal().expect("an object");
            let expected: serde_json::Map<_, _> = serde_json::from_str(expected).expect("JSON");
            assert_eq!(minimal, expected);
        }
        assert!(Provenance::new("t", "[1]").minimal().is_none());
        assert!(Provenance::new("t", "{").object().is_none());
    }

    #[test]
    fn what_was_not_asked_for_is_not_missing() {
        assert!(Inspected::missing(Inspect::new(), "x").missing.is_empty());
        let both = Inspected::missing(Inspect::new().images(true).provenance(true), "x");
        let what: Vec<_> = both.missing.iter().map(|m| m.what).collect();
        assert_eq!(what, [Missing::PROVENANCE, Missing::IMAGES]);
    }
}
