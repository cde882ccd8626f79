//! Layouts on disk that a build reads and writes: base images, local caches, and results that are no archive.
//!
//! The rule: what a request names is looked at before anything is sent, and the indexes are written when the build has
//! succeeded. A cache that cannot be used is a warning; a base image or a result is an error.

mod clean;
mod concerns;
mod digest;
mod index;
mod ingest;
mod layout;
mod plan;
mod store;

use std::{collections::BTreeMap, io, path::Path, sync::Arc, time::SystemTime};

use bk_build::{
    BuildError, BuildEvent, BuildOutcome, BuildRequest, Descriptor, EventSink, ExportReport, LocalFailure,
    ProtocolFailure, Warning, WarningKind,
};

pub(crate) use digest::Digest;
pub(crate) use ingest::{Fault, Ingest, IngestStatus, abort, status, statuses};
pub(crate) use layout::BlobInfo;
pub(crate) use store::Store;

use crate::limits::MAX_LAYOUT_JSON;
use index::{Index, Lock, Name};
use layout::Layout;
use plan::{CacheUpdate, ExportUpdate, Plan};

/// The layouts of a build, by the ids under which the daemon asks for them. Cheap to clone; the default has none.
///
/// When the last clone is dropped before [`finish`](Self::finish), what the daemon wrote into the layout of a result is
/// removed. Unfinished parts of a cache stay.
#[derive(Clone)]
pub struct Contents(Arc<Inner>);

struct Inner {
    stores: BTreeMap<String, Arc<Store>>,
    attrs: BTreeMap<String, String>,
    caches: Vec<CacheUpdate>,
    export: Option<ExportUpdate>,
    begun: SystemTime,
}

impl Default for Contents {
    fn default() -> Self {
        Plan::default().into()
    }
}

impl From<Plan> for Contents {
    fn from(plan: Plan) -> Self {
        Self(Arc::new(Inner {
            stores: plan.stores.into_iter().map(|(id, s)| (id, Arc::new(s))).collect(),
            attrs: plan.attrs,
            caches: plan.caches,
            export: plan.export,
            begun: SystemTime::now(),
        }))
    }
}

impl Contents {
    /// What `request` names: contexts in OCI layouts, local caches, and a result with `tar=false`. Local caches become what
    /// the daemon has to be told of them; those that cannot be read are taken out, with a warning. Looks at files, off the
    /// async threads.
    ///
    /// # Errors
    /// [`BuildError::Input`] or [`BuildError::Local`] names the layout or directory that cannot be used.
    pub async fn of(request: &mut BuildRequest, events: &EventSink) -> Result<Self, BuildError> {
        if !concerns::concerns(request) {
            return Ok(Self::default());
        }
        let asked = request.clone();
        let plan = off(move || Plan::of(&asked)).await??;
        request.cache_from.clone_from(&plan.cache_from);
        request.cache_to.clone_from(&plan.cache_to);
        for text in &plan.warnings {
            warn(events, text).await;
        }
        Ok(plan.into())
    }

    /// Attributes for the frontend that say which layouts stand behind the names of contexts.
    pub fn frontend_attrs(&self) -> BTreeMap<String, String> {
        self.0.attrs.clone()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.stores.is_empty()
    }

    pub(crate) fn get(&self, id: &[u8]) -> Option<&Arc<Store>> {
        self.0.stores.get(std::str::from_utf8(id).ok()?)
    }

    /// Writes the indexes of what the daemon has written, and cleans caches up. To be called when the build has succeeded
    /// and the session is closed. Returns what arrived for the output that is a layout.
    ///
    /// # Errors
    /// [`BuildError::Local`] when a result cannot be written, or a cache with `ignore-error=false`;
    /// [`BuildError::Protocol`] when the daemon has not sent it.
    pub async fn finish(
        &self,
        outcome: &BuildOutcome,
        events: &EventSink,
    ) -> Result<Vec<ExportReport>, BuildError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let inner = self.0.clone();
        let said = Said {
            image: outcome.descriptor.clone(),
            digest: outcome.exporter_response.get("containerimage.digest").cloned(),
            names: outcome.names.clone(),
            cache: outcome.cache_manifest.clone(),
        };
        let (warnings, result) = off(move || {
            let mut warnings = Vec::new();
            let result = inner.finish(&said, &mut warnings);
            (warnings, result)
        })
        .await?;
        for text in &warnings {
            warn(events, text).await;
        }
        result
    }

    /// Takes out of the layout of a result what the daemon has written. To be called when the build has failed.
    pub async fn abandon(&self) {
        let inner = self.0.clone();
        // A runtime that is shut down leaves it to the drop.
        drop(off(move || inner.stores.values().for_each(|s| s.abandon())).await);
    }
}

async fn warn(events: &EventSink, text: &str) {
    let warning = Warning::new(WarningKind::Client, text);
    events.emit(BuildEvent::Warning(warning)).await;
}

async fn off<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BuildError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| BuildError::Misuse(format!("the runtime was shut down: {e}")))
}

/// What the daemon answered, as far as it concerns layouts.
struct Said {
    image: Option<Descriptor>,
    digest: Option<String>,
    names: Vec<String>,
    cache: Option<Descriptor>,
}

impl Inner {
    fn finish(&self, said: &Said, warnings: &mut Vec<String>) -> Result<Vec<ExportReport>, BuildError> {
        for store in self.stores.values().filter(|s| !s.is_writable()) {
            store.release();
        }
        let mut reports = Vec::new();
        if let Some(update) = &self.export
            && let Some(store) = self.stores.get(plan::EXPORT)
        {
            self.finish_export(store, said)?;
            let mut report = ExportReport::new(update.output);
            report.path = Some(store.path().to_owned());
            report.bytes = store.received();
            reports.push(report);
        }
        for update in &self.caches {
            let Some(store) = self.stores.get(&update.store) else {
                continue;
            };
            if let Err(failure) = self.finish_cache(store, update, said, warnings) {
                if update.vital {
                    return Err(failure.into());
                }
                let cause = bk_cause(&failure);
                warnings.push(format!(
                    "the cache in {} was not kept: {}{cause}",
                    failure.path.display(),
                    failure.message
                ));
            }
        }
        Ok(reports)
    }

    fn finish_export(&self, store: &Store, said: &Said) -> Result<(), BuildError> {
        let failed =
            |e: io::Error| LocalFailure::new(store.path(), "cannot write the result's index").caused_by(e);
        let layout = store.conclude().map_err(failed)?;
        let missing = |what: &str| {
            let text = format!("it says that the build is complete, and {what} of the image in the layout");
            BuildError::from(ProtocolFailure::new(text))
        };
        let descriptor = match (&said.image, &said.digest) {
            (Some(descriptor), _) => descriptor.clone(),
            (None, Some(digest)) => described(&layout, digest)
                .map_err(failed)?
                .ok_or_else(|| missing("has not sent the manifest"))?,
            (None, None) => return Err(missing("does not name the manifest")),
        };
        if !is_there(&layout, &descriptor).map_err(failed)? {
            return Err(store
                .trouble()
                .map_or_else(|| missing("has not sent the manifest"), BuildError::from));
        }
        let names: Vec<_> = match &said.names[..] {
            [] => vec![Name::Tag("latest".to_owned())],
            names => names.iter().cloned().map(Name::Image).collect(),
        };
        record(&layout, &descriptor, &names).map_err(failed)?;
        layout.tidy(false);
        store.keep();
        Ok(())
    }

    fn finish_cache(
        &self,
        store: &Store,
        update: &CacheUpdate,
        said: &Said,
        warnings: &mut Vec<String>,
    ) -> Result<(), LocalFailure> {
        let failed = |what: &str, e: io::Error| LocalFailure::new(store.path(), what.to_owned()).caused_by(e);
        let unsent = || {
            let text = "the daemon had nothing to keep, or could not";
            store
                .trouble()
                .unwrap_or_else(|| LocalFailure::new(store.path(), text))
        };
        let Some(descriptor) = &said.cache else {
            return Err(unsent());
        };
        let cannot = |e| failed("cannot write the cache's index", e);
        let layout = store.conclude().map_err(cannot)?;
        let Some(digest) = Digest::parse(&descriptor.digest) else {
            return Err(unsent());
        };
        if !is_there(&layout, descriptor).map_err(cannot)? {
            return Err(unsent());
        }
        record(&layout, descriptor, &[Name::Tag(update.tag.clone())]).map_err(cannot)?;
        // The time of a manifest tells how old it is to a clean-up.
        layout.touch(&digest).map_err(cannot)?;
        layout.tidy(false);
        if update.sweep {
            let cleaned = clean::clean(&layout, &digest, update.max_size, self.begun)
                .map_err(|e| failed("cannot clean the cache up", e))?;
            let place = store.path().display();
            match (cleaned, update.max_size) {
                (None, _) => warnings.push(format!(
                    "the cache in {place} was not cleaned up, because another build uses it"
                )),
                (Some(cleaned), Some(max)) if cleaned.left > max => warnings.push(format!(
                    "the cache in {place} has {} bytes, more than the {max} that it may have: what was kept last needs them",
                    cleaned.left
                )),
                _ => {}
            }
        }
        Ok(())
    }
}

fn bk_cause(failure: &LocalFailure) -> String {
    failure
        .source
        .as_ref()
        .map_or_else(String::new, |e| format!(": {e}"))
}

fn is_there(layout: &Layout, descriptor: &Descriptor) -> io::Result<bool> {
    match Digest::parse(&descriptor.digest) {
        Some(digest) => layout.has(&digest, descriptor.size),
        None => Ok(false),
    }
}

/// What a manifest is of which the daemon says the digest only. `None` when it is not there.
fn described(layout: &Layout, digest: &str) -> io::Result<Option<Descriptor>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let Some(parsed) = Digest::parse(digest) else {
        return Ok(None);
    };
    let text = match layout.blob_bytes(&parsed, MAX_LAYOUT_JSON) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{digest}: {e}")))?;
    let media_type = manifest.media_type.unwrap_or_else(|| {
        let kind = if manifest.manifests.is_some() {
            "index"
        } else {
            "manifest"
        };
        format!("application/vnd.oci.image.{kind}.v1+json")
    });
    Ok(Some(Descriptor::new(media_type, digest, text.len() as u64)))
}

/// Puts a manifest into the index, and makes a layout of the directory if it is none.
fn record(layout: &Layout, descriptor: &Descriptor, names: &[Name]) -> io::Result<()> {
    layout.mark()?;
    let lock = Lock::take(layout)?;
    let mut index = Index::load_or_new(layout, &lock)?;
    index.put(descriptor, names);
    index.store(layout, &lock)
}

/// Opens the layout at `path` and its index, both of which must be there.
pub(crate) fn open_index(path: &Path) -> Result<(Layout, Index), LocalFailure> {
    let layout = Layout::open(path).map_err(|e| {
        let what = match e.kind() {
            io::ErrorKind::NotFound => "there is no such directory",
            io::ErrorKind::NotADirectory => "is no directory",
            _ => "cannot be opened",
        };
        LocalFailure::new(path, what).caused_by(e)
    })?;
    match Index::load(&layout) {
        Ok(Some(index)) => Ok((layout, index)),
        Ok(None) => Err(LocalFailure::new(
            path,
            "is no OCI layout: it has no `index.json`",
        )),
        Err(e) => Err(LocalFailure::new(path, "its `index.json` cannot be used").caused_by(e)),
    }
}

#[cfg(test)]
mod tests;
