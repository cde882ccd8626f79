//! What a successful build yields.

use std::collections::BTreeMap;

use crate::TransferDetails;

/// What a successful build yields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildOutcome {
    /// The reference under which the daemon knows this build.
    pub build_ref: String,
    /// The image id as `docker images` would show it, when an image was made: the config digest on a graph-driver
    /// engine, the manifest or index digest on a containerd store.
    pub image_id: Option<String>,
    /// The manifest or index digest (`containerimage.digest`), when the daemon says it.
    pub digest: Option<String>,
    /// The config digest (`containerimage.config.digest`), when the daemon says it.
    pub config_digest: Option<String>,
    /// Everything the exporters answered, as the daemon sent it.
    pub exporter_response: BTreeMap<String, String>,
    /// What went over the wire to the daemon, all transfers added up.
    pub transfer: TransferReport,
    /// Each transfer in detail, in the order in which they ended. A transfer that failed is not among them, nor the
    /// upload of a context that went as a tar; after a few dozen only [`transfer`](Self::transfer) goes on counting.
    pub transfers: Vec<TransferDetails>,
}

/// Counts of what a transfer offered and what the daemon took, in entries and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
