//! Descriptors, indexes and manifests of images, as they stand in JSON.

use std::collections::BTreeMap;

use bk_build::Descriptor;
use serde::Deserialize;

/// A descriptor as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Described {
    media_type: String,
    pub(crate) digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// An index, or a manifest: which of the two shows in what it has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) config: Option<Described>,
    pub(crate) manifests: Option<Vec<Described>>,
}

impl From<Described> for Descriptor {
    fn from(said: Described) -> Self {
        let mut descriptor = Self::new(said.media_type, said.digest, said.size);
        descriptor.annotations = said.annotations.unwrap_or_default();
        descriptor.platform = said.platform.map(|p| {
            let mut text = format!("{}/{}", p.os, p.architecture);
            if !p.variant.is_empty() {
                text.push('/');
                text.push_str(&p.variant);
            }
            text
        });
        descriptor
    }
}

/// A descriptor, when it is one.
pub(crate) fn descriptor(json: &[u8]) -> Option<Descriptor> {
    serde_json::from_slice::<Described>(json).ok().map(Into::into)
}
