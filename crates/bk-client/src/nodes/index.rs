//! The index of an image for several platforms, out of what the nodes pushed.
//!
//! The rule: what a node says of its image goes in as it is, entry by entry, statements (attestations) included; only what
//! it cannot say, the platform of a lone manifest, is added.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bk_build::{BuildError, BuildOutcome, Descriptor, ProtocolFailure};
use bk_session::Manifest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What is known of it so far.
pub(super) struct Index {
    entries: Vec<Entry>,
    annotations: BTreeMap<String, String>,
}

/// One manifest. What is not named here stays as it is, behind what is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<Map<String, Value>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: &'a [Entry],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Read {
    manifests: Option<Vec<Entry>>,
}

impl Index {
    pub(super) fn new(annotations: BTreeMap<String, String>) -> Self {
        Self {
            entries: Vec::new(),
            annotations,
        }
    }

    /// Adds what a node pushed: the entries of an index, or one manifest for `platform`.
    pub(super) fn add(&mut self, manifest: &Manifest, platform: &str) -> Result<(), BuildError> {
        let read: Read = serde_json::from_slice(&manifest.bytes).map_err(|e| {
            let text = format!(
                "the registry has something under {} that is no manifest: {e}",
                manifest.digest()
            );
            BuildError::from(ProtocolFailure::new(text))
        })?;
        let entries = read.manifests.unwrap_or_else(|| {
            vec![Entry {
                media_type: manifest.media_type.clone(),
                digest: manifest.digest(),
                size: manifest.bytes.len() as u64,
                annotations: BTreeMap::new(),
                platform: Some(platform_of(platform)),
                rest: Map::new(),
            }]
        });
        for entry in entries {
            // Two nodes can have pushed the same.
            if self.entries.iter().all(|known| known.digest != entry.digest) {
                self.entries.push(entry);
            }
        }
        Ok(())
    }

    /// The index as it is written.
    pub(super) fn manifest(&self) -> Result<Manifest, BuildError> {
        let is_docker = |entry: &Entry| entry.media_type.starts_with("application/vnd.docker.");
        // Docker's lists have no annotations.
        let docker = self.annotations.is_empty() && self.entries.iter().all(is_docker);
        let media_type = if docker { DOCKER_LIST } else { OCI_INDEX };
        let written = Written {
            schema_version: 2,
            media_type,
            manifests: &self.entries,
            annotations: &self.annotations,
        };
        let bytes = serde_json::to_vec_pretty(&written)
            .map_err(|e| BuildError::Misuse(format!("the index cannot be written: {e}")))?;
        Ok(Manifest::new(media_type, bytes))
    }
}

fn platform_of(text: &str) -> Map<String, Value> {
    let keys = ["os", "architecture", "variant"];
    let parts = keys.into_iter().zip(text.split('/'));
    parts.map(|(key, part)| (key.to_owned(), part.into())).collect()
}

/// The index as the outcome of a build.
pub(super) fn outcome(manifest: &Manifest, names: &[String]) -> BuildOutcome {
    let digest = manifest.digest();
    let size = manifest.bytes.len() as u64;
    let mut outcome = BuildOutcome::default();
    outcome.image_id = Some(digest.clone());
    outcome.digest = Some(digest.clone());
    outcome.descriptor = Some(Descriptor::new(&manifest.media_type, &digest, size));
    outcome.names = names.to_vec();
    let descriptor = serde_json::json!({"mediaType": manifest.media_type, "digest": digest, "size": size});
    let mut said = |key: &str, value: String| drop(outcome.exporter_response.insert(key.to_owned(), value));
    said("containerimage.digest", digest);
    // As a daemon answers it.
    said(
        "containerimage.descriptor",
        STANDARD.encode(descriptor.to_string()),
    );
    said("image.name", names.join(","));
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_go_in_as_they_are() {
        let amd = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
            {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:a","size":1,
             "platform":{"architecture":"amd64","os":"linux"}},
            {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:b","size":2,"artifactType":"x",
             "annotations":{"vnd.docker.reference.digest":"sha256:a","vnd.docker.reference.type":"attestation-manifest"},
             "platform":{"architecture":"unknown","os":"unknown"}}]}"#;
        let arm = Manifest::new(
            "application/vnd.oci.image.manifest.v1+json",
            *b"{\"schemaVersion\":2}",
        );
        let mut index = Index::new(BTreeMap::from([("k".to_owned(), "v".to_owned())]));
        index
            .add(&Manifest::new(OCI_INDEX, *amd), "linux/amd64")
            .expect("an index");
        index.add(&arm, "linux/arm/v7").expect("a manifest");
        index.add(&arm, "linux/arm/v7").expect("the same again");
        let written = index.manifest().expect("written");
        assert_eq!(written.media_type, OCI_INDEX);
        let expected = format!(
            r#"{{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.index.v1+json",
  "manifests": [
    {{
      "mediaType": "application/vnd.oci.image.manifest.v1+json",
      "digest": "sha256:a",
      "size": 1,
      "platform": {{
        "architecture": "amd64",
        "os": "linux"
      }}
    }},
    {{
      "mediaType": "application/vnd.oci.image.manifest.v1+json",
      "digest": "sha256:b",
      "size": 2,
      "annotations": {{
        "vnd.docker.reference.digest": "sha256:a",
        "vnd.docker.reference.type": "attestation-manifest"
      }},
      "platform": {{
        "architecture": "unknown",
        "os": "unknown"
      }},
      "artifactType": "x"
    }},
    {{
      "mediaType": "application/vnd.oci.image.manifest.v1+json",
      "digest": "{}",
      "size": 19,
      "platform": {{
        "architecture": "arm",
        "os": "linux",
        "variant": "v7"
      }}
    }}
  ],
  "annotations": {{
    "k": "v"
  }}
}}"#,
            arm.digest()
        );
        assert_eq!(String::from_utf8_lossy(&written.bytes), expected);
        assert!(index.add(&Manifest::new(OCI_INDEX, *b"<html>"), "x").is_err());
    }

    #[test]
    fn dockers_own_types_make_dockers_list() {
        let mut index = Index::new(BTreeMap::new());
        let one = Manifest::new("application/vnd.docker.distribution.manifest.v2+json", *b"{}");
        index.add(&one, "linux/amd64").expect("a manifest");
        assert_eq!(index.manifest().expect("written").media_type, DOCKER_LIST);
    }
}
