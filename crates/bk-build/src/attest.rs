//! What is said about an image beside its layers: attestations, and annotations of its manifests.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{BuildRequest, InputError};

/// A statement about the image that the daemon makes and keeps beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attestation {
    /// A list of what is in it. Default: made by the daemon's own scanner.
    Sbom {
        /// The image of another scanner.
        generator: Option<String>,
        /// Further parameters, passed to the scanner.
        attrs: BTreeMap<String, String>,
    },
    /// How it was built.
    Provenance {
        /// How much is told. Default: that of the daemon.
        mode: Option<ProvenanceMode>,
        /// Further parameters, for instance `version` or `builder-id`.
        attrs: BTreeMap<String, String>,
    },
}

/// How much a provenance tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvenanceMode {
    /// What was built from what.
    Min,
    /// Every step, its arguments and its environment: build arguments are public then.
    Max,
}

impl Attestation {
    /// A list of what is in the image, by the daemon's own scanner.
    pub fn sbom() -> Self {
        Self::Sbom {
            generator: None,
            attrs: BTreeMap::new(),
        }
    }

    /// A list of what is in the image, by the scanner that is the image `generator`.
    pub fn sbom_by(generator: impl Into<String>) -> Self {
        Self::Sbom {
            generator: Some(generator.into()),
            attrs: BTreeMap::new(),
        }
    }

    /// How the image was built.
    pub fn provenance(mode: ProvenanceMode) -> Self {
        Self::Provenance {
            mode: Some(mode),
            attrs: BTreeMap::new(),
        }
    }

    /// Its name on the wire: `sbom` or `provenance`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sbom { .. } => "sbom",
            Self::Provenance { .. } => "provenance",
        }
    }

    /// Its parameters, those with a field of their own first.
    pub fn parameters(&self) -> Vec<(String, String)> {
        let (first, attrs) = match self {
            Self::Sbom { generator, attrs } => (generator.clone().map(|g| ("generator", g)), attrs),
            Self::Provenance { mode, attrs } => {
                let mode = mode.map(|m| match m {
                    ProvenanceMode::Min => "min",
                    ProvenanceMode::Max => "max",
                });
                (mode.map(|m| ("mode", m.to_owned())), attrs)
            }
        };
        let first = first.into_iter().map(|(k, v)| (k.to_owned(), v));
        first
            .chain(attrs.iter().map(|(k, v)| (k.clone(), v.clone())))
            .collect()
    }
}

/// An annotation of an image's manifest or index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// What is annotated. Default: the manifest.
    pub scope: AnnotationScope,
    /// For which platform, as `os/arch[/variant]`. Default: for each.
    pub platform: Option<String>,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// What an annotation belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnnotationScope {
    /// What the daemon takes for right: the manifests.
    #[default]
    Unsaid,
    /// Each image's manifest.
    Manifest,
    /// The entry of the index that names the manifest.
    ManifestDescriptor,
    /// The index of the platforms.
    Index,
    /// The entry that names the index, in an OCI layout.
    IndexDescriptor,
}

impl AnnotationScope {
    fn suffix(self) -> &'static str {
        match self {
            Self::Unsaid => "",
            Self::Manifest => "-manifest",
            Self::ManifestDescriptor => "-manifest-descriptor",
            Self::Index => "-index",
            Self::IndexDescriptor => "-index-descriptor",
        }
    }
}

impl FromStr for AnnotationScope {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "" => Self::Unsaid,
            "manifest" => Self::Manifest,
            "manifest-descriptor" => Self::ManifestDescriptor,
            "index" => Self::Index,
            "index-descriptor" => Self::IndexDescriptor,
            _ => return Err(()),
        })
    }
}

impl Annotation {
    /// An annotation of the manifest of each platform.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            scope: AnnotationScope::Unsaid,
            platform: None,
            key: key.into(),
            value: value.into(),
        }
    }

    /// The attribute of an exporter that sets it.
    pub fn attribute(&self) -> String {
        let platform = self
            .platform
            .as_ref()
            .map(|p| format!("[{p}]"))
            .unwrap_or_default();
        format!("annotation{}{platform}.{}", self.scope.suffix(), self.key)
    }

    /// Reads `[SCOPE[[PLATFORM]][,…]:]KEY=VALUE`; every scope makes an annotation of its own.
    ///
    /// # Errors
    /// An [`InputError`] when there is no key or value, or no such scope.
    pub fn parse(text: &str) -> Result<Vec<Self>, InputError> {
        let bad = |why: &str| {
            InputError::new(
                "--annotation",
                format!("`{text}`: {why}"),
                "[SCOPE[,SCOPE…]:]KEY=VALUE; a scope is index, manifest, index-descriptor or manifest-descriptor, \
                 with [OS/ARCH] behind it or not",
            )
        };
        let (key, value) = text.split_once('=').ok_or_else(|| bad("there is no value"))?;
        let (scopes, key) = key.split_once(':').unwrap_or(("", key));
        if key.is_empty() {
            return Err(bad("there is no key"));
        }
        scopes
            .split(',')
            .map(|scope| {
                let (scope, platform) = match scope.split_once('[') {
                    Some((scope, rest)) => {
                        let platform = rest.strip_suffix(']').filter(|p| !p.is_empty());
                        (
                            scope,
                            Some(platform.ok_or_else(|| bad("the platform has no end"))?),
                        )
                    }
                    None => (scope, None),
                };
                Ok(Self {
                    scope: scope.parse().map_err(|()| bad("there is no such scope"))?,
                    platform: platform.map(str::to_owned),
                    key: key.to_owned(),
                    value: value.to_owned(),
                })
            })
            .collect()
    }
}

impl fmt::Display for Annotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.attribute(), self.value)
    }
}

impl BuildRequest {
    /// Adds a statement about the image; the default is none. One of a kind: the last one holds.
    #[must_use]
    pub fn attest(mut self, attestation: Attestation) -> Self {
        self.attestations.retain(|a| a.kind() != attestation.kind());
        self.attestations.push(attestation);
        self
    }

    /// Adds an annotation of the image's manifest or index; the default is none.
    #[must_use]
    pub fn annotation(mut self, annotation: Annotation) -> Self {
        self.annotations.push(annotation);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_have_scopes() {
        for (text, attributes) in [
            ("a=b", vec!["annotation.a=b"]),
            ("a.b/c=d=e", vec!["annotation.a.b/c=d=e"]),
            ("index:a=", vec!["annotation-index.a="]),
            (
                "manifest[linux/arm/v7],index-descriptor:a=b",
                vec![
                    "annotation-manifest[linux/arm/v7].a=b",
                    "annotation-index-descriptor.a=b",
                ],
            ),
        ] {
            let found: Vec<_> = Annotation::parse(text)
                .expect(text)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found, attributes, "{text}");
        }
        for bad in [
            "",
            "a",
            "=b",
            "index:=b",
            "image:a=b",
            "manifest[linux:a=b",
            "manifest[]:a=b",
        ] {
            assert_eq!(Annotation::parse(bad).expect_err(bad).what, "--annotation");
        }
    }

    #[test]
    fn the_last_attestation_of_a_kind_holds() {
        let request = BuildRequest::new(".")
            .attest(Attestation::provenance(ProvenanceMode::Min))
            .attest(Attestation::sbom())
            .attest(Attestation::provenance(ProvenanceMode::Max));
        assert_eq!(
            request.attestations,
            [Attestation::sbom(), Attestation::provenance(ProvenanceMode::Max)]
        );
    }
}
