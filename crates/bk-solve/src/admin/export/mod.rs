//! Records of the history as one archive, as `docker buildx history export` writes it: for each build a manifest whose
//! configuration is the record and whose layers are the blobs that the record names.
//!
//! The rule: nothing is written before every build is known to have ended; blobs pass through piece by piece, each of its
//! announced size and checked against its digest; a file appears when all of it is there.

mod archive;
mod record;
mod trace;

use std::{
    collections::{BTreeMap, HashSet},
    io,
};

use bk_build::{BuildError, HistoryExport, InputError, LocalFailure, ProtocolFailure, ResultInfo, Sink};
use bk_proto::control::{BuildHistoryRecord, Descriptor};
use bk_session::ResultFile;
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{
    ControlAdmin, daemon,
    history::{self, unknown},
};
use crate::{
    channel::Channel,
    content::{BlobReader, digest_of},
    limits::EXPORT_STEP,
};
use archive::Archive;
use trace::Cleaner;

/// The media type of a record.
const RECORD: &str = "application/vnd.buildkit.historyrecord.v0";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What results have in place of their media type, so that readers do not look for their layers; and where that is told.
const PLAIN: &str = "application/json";
const OWN_TYPE: &str = "vnd.export-build.descriptor.mediatype";
/// Whose a manifest is, in an index of several.
const REFERENCE: &str = "vnd.buildkit.history.reference";

/// Writes the records of `builds` to `to`.
pub(super) async fn export(
    admin: &ControlAdmin,
    builds: &[String],
    to: Sink,
) -> Result<HistoryExport, BuildError> {
    if builds.is_empty() {
        return Err(BuildError::Misuse(
            "an export of the history names no build".to_owned(),
        ));
    }
    let channel = admin.open().await?;
    let records = chosen(admin, &channel, builds).await?;
    let workers = daemon::workers(admin, &channel, &[]).await?;
    let platform = workers.first().and_then(|w| w.platforms.first());
    let mut writing = Writing {
        admin,
        channel,
        platform: platform.cloned().unwrap_or_default(),
        archive: Archive::new(),
        out: Out::open(&to)?,
        bytes: 0,
    };
    let mut exported = HistoryExport::default();
    exported.records = records.len() as u64;
    let mut manifests = Vec::new();
    for record in records {
        let build_ref = record.r#ref.clone();
        let mut manifest = Box::pin(writing.record(record)).await?;
        if exported.records > 1 {
            manifest.annotations.insert(REFERENCE.to_owned(), build_ref);
        }
        manifests.push(manifest);
    }
    if exported.records > 1 {
        let index = Index::of(manifests);
        manifests = vec![writing.document(INDEX, &record::pretty(&index)).await?];
    }
    let index = serde_json::to_vec(&Index::of(manifests))
        .map_err(|e| BuildError::Misuse(format!("an index cannot be written as JSON: {e}")))?;
    exported.blobs = writing.archive.blobs();
    exported.bytes = writing.finish(&index).await?;
    Ok(exported)
}

/// The records of these builds, each once, all of which have ended.
async fn chosen(
    admin: &ControlAdmin,
    channel: &Channel,
    builds: &[String],
) -> Result<Vec<BuildHistoryRecord>, BuildError> {
    let only = match builds {
        [only] => only,
        _ => "",
    };
    let all = history::read(admin, channel, only).await?;
    let mut all: BTreeMap<String, BuildHistoryRecord> = all
        .into_iter()
        .map(|record| (record.r#ref.clone(), record))
        .collect();
    let mut asked = HashSet::new();
    let mut records = Vec::new();
    for build_ref in builds.iter().filter(|b| asked.insert(*b)) {
        let record = all.remove(build_ref).ok_or_else(|| unknown(build_ref))?;
        if record.completed_at.is_none() {
            let why = format!("the build `{build_ref}` still runs");
            return Err(InputError::new("REF", why, "a build that has ended").into());
        }
        records.push(record);
    }
    Ok(records)
}

/// A descriptor in a manifest or an index.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Layer {
    fn of(wire: &Descriptor) -> Result<Self, ProtocolFailure> {
        let size = u64::try_from(wire.size)
            .map_err(|_| ProtocolFailure::new(format!("{} has a size below zero", wire.digest)))?;
        Ok(Self {
            media_type: wire.media_type.clone(),
            digest: wire.digest.clone(),
            size,
            annotations: wire.annotations.clone(),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Layer,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Layer>,
}

impl Index {
    fn of(manifests: Vec<Layer>) -> Self {
        Self {
            schema_version: 2,
            media_type: INDEX,
            manifests,
        }
    }
}

/// An archive on its way.
struct Writing<'a> {
    admin: &'a ControlAdmin,
    channel: Channel,
    platform: String,
    archive: Archive,
    out: Out,
    bytes: u64,
}

impl Writing<'_> {
    /// Writes what belongs to one record; gives its manifest.
    async fn record(&mut self, mut record: BuildHistoryRecord) -> Result<Layer, BuildError> {
        let mut layers = Vec::new();
        let mut seen = HashSet::new();
        if let Some(wire) = &mut record.trace {
            let layer = Layer::of(wire)?;
            seen.insert(layer.digest.clone());
            let layer = self.trace(&layer).await?;
            wire.digest.clone_from(&layer.digest);
            wire.size = i64::try_from(layer.size).unwrap_or(i64::MAX);
            layers.push(layer);
        }
        let config = self
            .document(RECORD, &record::json(&record, &self.platform))
            .await?;
        for mut layer in named(&record)? {
            if !seen.insert(layer.digest.clone()) {
                continue;
            }
            self.blob(&layer).await?;
            if layer.annotations.contains_key(OWN_TYPE) {
                layer.media_type = PLAIN.to_owned();
            }
            layers.push(layer);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST,
            config,
            layers,
        };
        self.document(MANIFEST, &record::pretty(&manifest)).await
    }

    /// A blob that was made here.
    async fn document(&mut self, media_type: &str, text: &[u8]) -> Result<Layer, BuildError> {
        let layer = Layer {
            media_type: media_type.to_owned(),
            digest: digest_of(Sha256::new_with_prefix(text)),
            size: text.len() as u64,
            annotations: BTreeMap::new(),
        };
        if self.archive.begin_blob(&layer.digest, layer.size)? {
            self.put(text).await?;
            self.archive.end_blob(layer.size);
        }
        Ok(layer)
    }

    /// A blob of the daemon, as it is.
    async fn blob(&mut self, layer: &Layer) -> Result<(), BuildError> {
        if !self.archive.begin_blob(&layer.digest, layer.size)? {
            return Ok(());
        }
        let mut blob = Blob::open(self.admin, &self.channel, layer).await?;
        while let Some(piece) = blob.next(self.admin).await? {
            self.put(&piece).await?;
        }
        self.archive.end_blob(layer.size);
        Ok(())
    }

    /// A trace, cleaned. It is read twice, because its size and digest stand in front of it.
    async fn trace(&mut self, layer: &Layer) -> Result<Layer, BuildError> {
        let failed = |why: String| {
            let text = format!("{} is no trace: {why}", layer.digest);
            BuildError::from(ProtocolFailure::new(text))
        };
        let (mut cleaner, mut clean) = (Cleaner::default(), Vec::new());
        let (mut own, mut size) = (Sha256::new(), 0);
        let mut blob = Blob::open(self.admin, &self.channel, layer).await?;
        while let Some(piece) = blob.next(self.admin).await? {
            cleaner.feed(&piece, &mut clean).map_err(failed)?;
            own.update(&clean);
            size += clean.len() as u64;
            clean.clear();
        }
        cleaner.end().map_err(failed)?;
        let cleaned = Layer {
            digest: digest_of(own),
            size,
            annotations: BTreeMap::new(),
            media_type: layer.media_type.clone(),
        };
        if !self.archive.begin_blob(&cleaned.digest, size)? {
            return Ok(cleaned);
        }
        // The daemon's blob has its digest again, so this is the same.
        let mut cleaner = Cleaner::default();
        let mut blob = Blob::open(self.admin, &self.channel, layer).await?;
        while let Some(piece) = blob.next(self.admin).await? {
            cleaner.feed(&piece, &mut clean).map_err(failed)?;
            self.put(&clean).await?;
            clean.clear();
        }
        self.archive.end_blob(size);
        Ok(cleaned)
    }

    /// Puts bytes into the archive, and what comes out of it where it goes.
    async fn put(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        for step in bytes.chunks(EXPORT_STEP) {
            self.archive.put(step);
            if let Some(done) = self.archive.take() {
                self.bytes += done.len() as u64;
                self.out.write(done).await?;
            }
            // Compressing is work; others have theirs.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn finish(mut self, index: &[u8]) -> Result<u64, BuildError> {
        let last = self.archive.finish(index).map_err(not_written)?;
        self.bytes += last.len() as u64;
        self.out.write(last).await?;
        self.out.finish().await?;
        Ok(self.bytes)
    }
}

/// A blob of which no more is taken than was announced.
struct Blob {
    reader: BlobReader,
    digest: String,
    left: u64,
}

impl Blob {
    async fn open(admin: &ControlAdmin, channel: &Channel, layer: &Layer) -> Result<Self, BuildError> {
        let opening = BlobReader::open(channel, &layer.digest);
        Ok(Self {
            reader: history::piece(admin, &layer.digest, opening).await?,
            digest: layer.digest.clone(),
            left: layer.size,
        })
    }

    async fn next(&mut self, admin: &ControlAdmin) -> Result<Option<Bytes>, BuildError> {
        let piece = history::piece(admin, &self.digest, self.reader.next()).await?;
        let left = match &piece {
            Some(piece) => self.left.checked_sub(piece.len() as u64),
            None => (self.left == 0).then_some(0),
        };
        match left {
            Some(left) => {
                self.left = left;
                Ok(piece)
            }
            None => {
                let text = format!("{} has another size than the daemon says", self.digest);
                Err(ProtocolFailure::new(text).into())
            }
        }
    }
}

/// The blobs that a record names beside its trace, in the order of the archive.
fn named(record: &BuildHistoryRecord) -> Result<Vec<Layer>, ProtocolFailure> {
    let mut layers = Vec::new();
    layers.extend(record.logs.as_ref().map(Layer::of).transpose()?);
    let mut external = record.external_error.as_ref();
    let alone = record.result.iter().map(|result| (result, true));
    let all = record.results.values().map(|result| (result, false));
    for (result, is_alone) in alone.chain(all) {
        if !is_alone {
            layers.extend(external.take().map(Layer::of).transpose()?);
        }
        for wire in &result.attestations {
            layers.push(Layer::of(wire)?);
        }
        // Before BuildKit 0.13 there is one, and no number.
        let old = result
            .result_deprecated
            .iter()
            .filter(|_| result.results.is_empty());
        for wire in result.results.values().chain(old) {
            let mut layer = Layer::of(wire)?;
            layer
                .annotations
                .insert(OWN_TYPE.to_owned(), layer.media_type.clone());
            layers.push(layer);
        }
    }
    layers.extend(external.map(Layer::of).transpose()?);
    Ok(layers)
}

/// Where an archive goes.
enum Out {
    File(ResultFile),
    Writer(Box<dyn AsyncWrite + Send + Unpin>),
}

impl Out {
    fn open(to: &Sink) -> Result<Self, BuildError> {
        match to {
            Sink::File(path) => Ok(Self::File(ResultFile::open(path))),
            Sink::Writer(make) => {
                let writer = make(&ResultInfo::new(0));
                Ok(Self::Writer(writer.map_err(not_written)?))
            }
            _ => Err(BuildError::Misuse(
                "an export of the history goes to a file or a writer".to_owned(),
            )),
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), BuildError> {
        match self {
            Self::File(file) => file.write(bytes).await,
            Self::Writer(writer) => Ok(writer.write_all(&bytes).await.map_err(not_written)?),
        }
    }

    async fn finish(self) -> Result<(), BuildError> {
        match self {
            Self::File(file) => file.publish().await,
            Self::Writer(mut writer) => Ok(writer.shutdown().await.map_err(not_written)?),
        }
    }
}

fn not_written(error: io::Error) -> LocalFailure {
    LocalFailure::new("-", "cannot write the archive").caused_by(error)
}
