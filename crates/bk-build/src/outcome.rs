//! What a successful build yields.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{Inspected, TransferDetails};

/// What a successful build yields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildOutcome {
    /// The reference under which the daemon knows this build.
    pub build_ref: String,
    /// The image id as `docker images` would show it, when an image was made: the config digest on a graph-driver
    /// engine, the manifest or index digest on a containerd store. Of several images in one build the daemon names one: an
    /// image in its own store goes before archives, and what a program adds goes before both.
    pub image_id: Option<String>,
    /// The manifest or index digest (`containerimage.digest`), when the daemon says it.
    pub digest: Option<String>,
    /// The config digest (`containerimage.config.digest`), when the daemon says it.
    pub config_digest: Option<String>,
    /// Everything the exporters answered, as the daemon sent it.
    pub exporter_response: BTreeMap<String, String>,
    /// The image's names as the daemon gave them (`image.name`); empty when it names none.
    pub names: Vec<String>,
    /// What `digest` is the digest of, when the daemon says it (`containerimage.descriptor`).
    pub descriptor: Option<Descriptor>,
    /// What a cache export wrote, when the daemon says it (`cache.manifest`).
    pub cache_manifest: Option<Descriptor>,
    /// What the daemon said when it was asked about the build; empty unless [`BuildRequest::inspect`] asks.
    ///
    /// [`BuildRequest::inspect`]: crate::BuildRequest::inspect
    pub inspected: Inspected,
    /// What arrived on this machine, one entry for each output with a place here, in the order of the request.
    pub exports: Vec<ExportReport>,
    /// What went over the wire to the daemon, all transfers added up.
    pub transfer: TransferReport,
    /// Each transfer in detail, in the order in which they ended. A transfer that failed is not among them, nor the
    /// upload of a context that went as a tar; after a few dozen only [`transfer`](Self::transfer) goes on counting.
    pub transfers: Vec<TransferDetails>,
}

/// What a blob is: its type, digest and size. From the daemon, untrusted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Descriptor {
    /// Its media type, for instance `application/vnd.oci.image.index.v1+json`.
    pub media_type: String,
    /// Its digest, for instance `sha256:…`.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its platform, `os/arch[/variant]`, when it is that of one.
    pub platform: Option<String>,
}

impl Descriptor {
    /// A blob of that type, digest and size.
    pub fn new(media_type: impl Into<String>, digest: impl Into<String>, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest: digest.into(),
            size,
            ..Self::default()
        }
    }

    /// Whether it is an index, which names the manifests of several platforms or of attestations.
    pub fn is_index(&self) -> bool {
        matches!(
            self.media_type.as_str(),
            "application/vnd.oci.image.index.v1+json"
                | "application/vnd.docker.distribution.manifest.list.v2+json"
        )
    }
}

/// What arrived on this machine for one output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportReport {
    /// Which of the request's outputs, counted from 0.
    pub output: usize,
    /// The directory or file; none for a writer or an engine.
    pub path: Option<PathBuf>,
    /// Bytes of content that arrived.
    pub bytes: u64,
    /// Directory: entries that the result has.
    pub entries: u64,
    /// Directory: paths at which there was nothing.
    pub created: u64,
    /// Directory: paths at which there was something else, or another content.
    pub replaced: u64,
    /// Directory: paths at which it was already there.
    pub unchanged: u64,
    /// Directory: paths that the result does not have and that are gone.
    pub deleted: u64,
    /// Directory: devices left out.
    pub skipped: u64,
    /// Engine: it had the image already, and nothing was sent.
    pub already_there: bool,
}

impl ExportReport {
    /// Nothing has arrived for that output.
    pub fn new(output: usize) -> Self {
        Self {
            output,
            ..Self::default()
        }
    }
}

/// Counts of what a transfer offered and what the daemon took, in entries and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TransferReport {
    /// Entries (files, directories, links) offered as metadata.
    pub entries: u64,
    /// Bytes of all regular files that were offered.
    pub offered_bytes: u64,
    /// Files the daemon asked for.
    pub requested_files: u64,
    /// Files sent whole.
    pub sent_files: u64,
    /// File bytes sent.
    pub sent_bytes: u64,
    /// Entries left out because their kind cannot be sent (sockets).
    pub skipped: u64,
    /// Files that changed while they were sent, and were sent all the same because the policy has it so.
    pub changed: u64,
}

impl TransferReport {
    /// Adds the counts of another transfer.
    pub fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.offered_bytes += other.offered_bytes;
        self.requested_files += other.requested_files;
        self.sent_files += other.sent_files;
        self.sent_bytes += other.sent_bytes;
        self.skipped += other.skipped;
        self.changed += other.changed;
    }
}
