//! Cleaning up a cache on disk: what no manifest of the index needs goes, and the oldest manifests go when it is too large.
//!
//! The rule: only what is a blob by its name is removed, only from a directory that says of itself that it is a layout,
//! only while no other client of this kind uses it, and never what the newest manifest needs. What appeared since the
//! build began may be another client's and stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, SystemTime},
};

use serde::Deserialize;

use super::{
    digest::Digest,
    index::{Index, Lock},
    ingest,
    layout::Layout,
};
use crate::limits::{INGEST_AGE, MAX_LAYOUT_BLOBS, MAX_LAYOUT_JSON};

/// Times of files may lag behind the clock, and are coarse on some file systems.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// What a clean-up did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cleaned {
    /// Blobs that were removed.
    pub(crate) blobs: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Manifests that were taken out of the index.
    pub(crate) manifests: u64,
    /// Bytes of blobs and unfinished uploads that are left.
    pub(crate) left: u64,
}

/// A blob that another one names.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    digest: String,
    #[serde(default)]
    media_type: String,
}

/// A manifest or an index, as far as it names blobs.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Manifest {
    config: Option<Named>,
    layers: Option<Vec<Named>>,
    blobs: Option<Vec<Named>>,
    manifests: Option<Vec<Named>>,
}

/// Media types that name further blobs.
const WITH_CHILDREN: [&str; 5] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.artifact.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Everything that a manifest needs, itself included.
fn reach(layout: &Layout, top: &Digest) -> io::Result<BTreeSet<Digest>> {
    let mut found = BTreeSet::from([top.clone()]);
    let mut open = vec![top.clone()];
    while let Some(digest) = open.pop() {
        let text = match layout.blob_bytes(&digest, MAX_LAYOUT_JSON) {
            // It is of no use any more, and needs nothing.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{digest}: {e}")))?;
        let leaves = [manifest.layers, manifest.blobs, manifest.config.map(|c| vec![c])];
        let children = manifest.manifests.into_iter().chain(leaves.into_iter().flatten());
        for named in children.flatten() {
            let Some(child) = Digest::parse(&named.digest) else {
                continue;
            };
            if found.insert(child.clone()) && WITH_CHILDREN.contains(&&*named.media_type) {
                open.push(child);
            }
        }
        if found.len() > MAX_LAYOUT_BLOBS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{top} needs too many blobs"),
            ));
        }
    }
    Ok(found)
}

/// Cleans up a layout into which `fresh` was just written by a build that began at `begun`. With `max` it has at most that
/// many bytes afterwards, as far as manifests other than `fresh` can make it so. `None` when others use the layout.
pub(crate) fn clean(
    layout: &Layout,
    fresh: &Digest,
    max: Option<u64>,
    begun: SystemTime,
) -> io::Result<Option<Cleaned>> {
    if !layout.is_marked()? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "this is no OCI layout",
        ));
    }
    if !layout.lock_alone() {
        return Ok(None);
    }
    let done = clean_alone(layout, fresh, max, begun);
    layout.unlock();
    done.map(Some)
}

fn clean_alone(layout: &Layout, fresh: &Digest, max: Option<u64>, begun: SystemTime) -> io::Result<Cleaned> {
    let lock = Lock::take(layout)?;
    let mut index = Index::load_or_new(layout, &lock)?;
    let blobs: BTreeMap<Digest, _> = layout.list()?.into_iter().collect();
    let size = |digest: &Digest| blobs.get(digest).map_or(0, |b| b.size);

    // Newest first, and the fresh one before all.
    let mut entries: Vec<Digest> = index.entries().into_iter().map(|e| e.digest).collect();
    entries.sort_unstable();
    entries.dedup();
    let age = |digest: &Digest| blobs.get(digest).map(|b| b.modified);
    entries.sort_by_key(|digest| (digest == fresh, age(digest)));
    entries.reverse();

    let mut sets = Vec::with_capacity(entries.len());
    for entry in entries {
        let needs = reach(layout, &entry)?;
        sets.push((entry, needs));
    }
    let old = |digest: &Digest| {
        blobs.get(digest).is_some_and(|b| {
            begun
                .checked_sub(CLOCK_SLACK)
                .is_some_and(|since| b.modified < since)
        })
    };
    let named: BTreeSet<&Digest> = sets.iter().flat_map(|(_, needs)| needs).collect();
    let uploads = ingest::expire(
        layout,
        begun.checked_sub(INGEST_AGE).unwrap_or(SystemTime::UNIX_EPOCH),
    )?;
    // What nobody names and what is too young to be judged counts, but cannot be removed.
    let strangers: BTreeSet<&Digest> = blobs.keys().filter(|d| !named.contains(d) && !old(d)).collect();
    let mut bytes = uploads + strangers.iter().map(|d| size(d)).sum::<u64>();

    let mut kept: BTreeSet<&Digest> = BTreeSet::new();
    let mut manifests: BTreeSet<&Digest> = BTreeSet::new();
    let mut dropped = 0;
    for (entry, needs) in &sets {
        let more: u64 = needs.iter().filter(|d| !kept.contains(d)).map(size).sum();
        let fits = dropped == 0 && max.is_none_or(|max| bytes + more <= max);
        if entry == fresh || fits {
            bytes += more;
            kept.extend(needs);
            manifests.insert(entry);
        } else {
            dropped += 1;
        }
    }
    if dropped != 0 {
        index.retain(|digest| manifests.contains(digest));
        index.store(layout, &lock)?;
    }
    let mut cleaned = Cleaned {
        manifests: dropped,
        left: bytes,
        ..Cleaned::default()
    };
    for digest in blobs
        .keys()
        .filter(|d| !kept.contains(d) && !strangers.contains(d))
    {
        layout.remove_blob(digest)?;
        cleaned.blobs += 1;
        cleaned.bytes += size(digest);
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests;
