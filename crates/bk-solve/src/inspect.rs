//! What the daemon knows of a build that has succeeded: its history, and the blobs that the history and the exporters
//! name.
//!
//! The rule: nothing here fails a build. Everything is bounded: calls by a deadline, blobs by a size and their digest.

use std::{collections::BTreeMap, future::Future};

use bk_build::{BuildOutcome, Descriptor, Inspect, Inspected, Missing, PlatformImage, Provenance};
use bk_proto::control::{BuildHistoryRecord, BuildHistoryRequest, BuildResultInfo};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::{
    channel::Channel,
    content::{BlobError, BlobReader},
    described::Document,
    limits::{INSPECT_TIMEOUT, MAX_DOCUMENT, MAX_HISTORY_EVENTS, MAX_PLATFORM_IMAGES, MAX_PROVENANCE},
    solve::client,
};

/// What a statement's descriptor has for its kind.
const STATEMENT: &str = "application/vnd.in-toto+json";
const PREDICATE: &str = "in-toto.io/predicate-type";
const PROVENANCE: &str = "https://slsa.dev/provenance/";

/// What the manifest of an attestation has in an index, and whose it is.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ATTESTATION: &str = "attestation-manifest";

/// Asks what `inspect` says, on the connection of the build.
pub(crate) async fn inspect(
    channel: &Channel,
    inspect: Inspect,
    build_ref: &str,
    outcome: &BuildOutcome,
) -> Inspected {
    let mut found = Inspected::default();
    if inspect.provenance {
        match deadline(provenance(channel, build_ref)).await {
            Ok(provenance) => found.provenance = provenance,
            Err(why) => found.missing.push(Missing::new(Missing::PROVENANCE, why)),
        }
    }
    if inspect.images {
        match deadline(images(channel, outcome)).await {
            Ok((images, missing)) => {
                found.images = images;
                let missing = missing.into_iter().map(|why| Missing::new(Missing::IMAGES, why));
                found.missing.extend(missing);
            }
            Err(why) => found.missing.push(Missing::new(Missing::IMAGES, why)),
        }
    }
    found
}

async fn deadline<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(INSPECT_TIMEOUT, work)
        .await
        .unwrap_or_else(|_| Err(format!("the daemon did not answer within {INSPECT_TIMEOUT:?}")))
}

fn said(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => {
            "the daemon does not tell what it knows of builds; BuildKit 0.11 and later do".to_owned()
        }
        code => format!("{} ({code})", status.message()),
    }
}

/// The provenance of a build, by platform.
async fn provenance(channel: &Channel, build_ref: &str) -> Result<BTreeMap<String, Provenance>, String> {
    let record = record(channel, build_ref).await?;
    let mut all = BTreeMap::new();
    // Builds for one platform are told under no name; those for several may be told under both.
    let alone = record.result.map(|result| (String::new(), result));
    for (platform, result) in alone.into_iter().chain(record.results) {
        if all.len() >= MAX_PLATFORM_IMAGES {
            return Err(format!(
                "the daemon names more than {MAX_PLATFORM_IMAGES} platforms"
            ));
        }
        if let Some((kind, digest)) = statement(&result) {
            let bytes = blob(channel, digest, MAX_PROVENANCE).await?;
            let json = String::from_utf8(bytes).map_err(|_| format!("{digest} is no text"))?;
            let provenance = Provenance::new(kind, json);
            if provenance.object().is_none() {
                return Err(format!("{digest} is no JSON object"));
            }
            all.insert(platform, provenance);
        }
    }
    if all.len() > 1 {
        all.remove("");
    }
    match all.is_empty() {
        true => Err("the daemon wrote none down for this build".to_owned()),
        false => Ok(all),
    }
}

/// The kind and digest of the provenance among the statements about a result.
fn statement(result: &BuildResultInfo) -> Option<(&str, &str)> {
    result.attestations.iter().find_map(|a| {
        let kind = a.annotations.get(PREDICATE)?;
        (a.media_type == STATEMENT && kind.starts_with(PROVENANCE))
            .then_some((kind.as_str(), a.digest.as_str()))
    })
}

/// What the daemon wrote down about a build.
async fn record(channel: &Channel, build_ref: &str) -> Result<BuildHistoryRecord, String> {
    let request = BuildHistoryRequest {
        r#ref: build_ref.to_owned(),
        early_exit: true,
        ..BuildHistoryRequest::default()
    };
    let answer = client(channel).listen_build_history(request).await;
    let mut events = answer.map_err(|s| said(&s))?.into_inner();
    let mut latest: Option<BuildHistoryRecord> = None;
    for _ in 0..MAX_HISTORY_EVENTS {
        let Some(event) = events.message().await.map_err(|s| said(&s))? else {
            break;
        };
        if let Some(record) = event.record.filter(|r| r.r#ref == build_ref)
            && latest.as_ref().is_none_or(|l| l.generation <= record.generation)
        {
            latest = Some(record);
        }
    }
    latest.ok_or_else(|| "the daemon's history does not have this build".to_owned())
}

/// The image of each platform, and what could not be had of them.
async fn images(
    channel: &Channel,
    outcome: &BuildOutcome,
) -> Result<(Vec<PlatformImage>, Vec<String>), String> {
    let descriptor = outcome.descriptor.as_ref();
    let Some(root) = descriptor.map(|d| &d.digest).or(outcome.digest.as_ref()) else {
        // Graph drivers keep no manifests: an image is its configuration.
        return match outcome.config_digest.clone().or_else(|| outcome.image_id.clone()) {
            Some(config) => Ok((vec![PlatformImage::new(None, None, Some(config))], Vec::new())),
            None => Err("the build made no image that the daemon names".to_owned()),
        };
    };
    if let (Some(manifest), Some(config)) = (descriptor, &outcome.config_digest)
        && !manifest.is_index()
    {
        let image = PlatformImage::new(
            manifest.platform.clone(),
            Some(manifest.clone()),
            Some(config.clone()),
        );
        return Ok((vec![image], Vec::new()));
    }
    let (document, size) = document(channel, root).await?;
    let Some(manifests) = document.manifests else {
        let manifest = descriptor
            .cloned()
            .unwrap_or_else(|| Descriptor::new(document.media_type.as_str(), root.as_str(), size));
        let config = document.config.map(|c| c.digest);
        return Ok((
            vec![PlatformImage::new(
                manifest.platform.clone(),
                Some(manifest),
                config,
            )],
            Vec::new(),
        ));
    };
    let (mut images, mut attestations, mut missing) = (Vec::<PlatformImage>::new(), Vec::new(), Vec::new());
    for manifest in manifests.into_iter().map(Descriptor::from) {
        if manifest
            .annotations
            .get(REFERENCE_TYPE)
            .is_some_and(|t| t == ATTESTATION)
        {
            attestations.push(manifest);
        } else if images.len() < MAX_PLATFORM_IMAGES {
            images.push(PlatformImage::new(
                manifest.platform.clone(),
                Some(manifest),
                None,
            ));
        } else {
            missing.push(format!("{} is one image too many", manifest.digest));
            break;
        }
    }
    for attestation in attestations {
        let of = attestation.annotations.get(REFERENCE_DIGEST);
        let image = images
            .iter_mut()
            .find(|i| i.manifest.as_ref().map(|m| &m.digest) == of);
        match image {
            Some(image) => image.attestations.push(attestation),
            None => missing.push(format!("{} attests to no image here", attestation.digest)),
        }
    }
    for image in &mut images {
        let Some(manifest) = &image.manifest else { continue };
        match self::document(channel, &manifest.digest).await {
            Ok((document, _)) => image.config = document.config.map(|c| c.digest),
            Err(why) => missing.push(why),
        }
    }
    Ok((images, missing))
}

/// An index or a manifest, and its size.
async fn document(channel: &Channel, digest: &str) -> Result<(Document, u64), String> {
    let bytes = blob(channel, digest, MAX_DOCUMENT).await?;
    let document = serde_json::from_slice(&bytes)
        .map_err(|e| format!("{digest} is neither an index nor a manifest: {e}"))?;
    Ok((document, bytes.len() as u64))
}

/// A blob of the daemon's store, whole, if it is not larger than `limit` bytes.
async fn blob(channel: &Channel, digest: &str, limit: usize) -> Result<Vec<u8>, String> {
    let failed = |e| match e {
        BlobError::Status(status) => said(&status),
        BlobError::Wrong(why) => why,
    };
    let mut reader = BlobReader::open(channel, digest).await.map_err(failed)?;
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next().await.map_err(failed)? {
        if bytes.len() + piece.len() > limit {
            return Err(format!("{digest} is larger than {} MiB", limit >> 20));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
