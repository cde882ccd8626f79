//! Looking after a daemon: its cache, its workers, what it is, and its history of builds.
//!
//! The rule: everything here is one question or one order, each with a deadline; dropping a future ends it, and what the
//! daemon has removed by then stays removed. What a daemon is too old for is refused by name before it is asked, or as
//! soon as it says so.

mod cache;
mod daemon;
mod history;
mod prune;
mod query;

use async_trait::async_trait;

use crate::{BuildError, CallHeaders, Descriptor, EventSink, Sink, TraceContext};

pub use cache::{CacheRecord, DiskUsage};
pub use daemon::{Able, BuildkitInfo, Capability, DaemonInfo, GcRule, Pong, Worker};
pub use history::{
    HistoryError, HistoryExport, HistoryExporter, HistoryFilter, HistoryRecord, HistoryResult, HistoryState,
    find_record,
};
pub use prune::{PruneOptions, PrunePlan, Pruned};
pub use query::{CacheCondition, CacheQuery, Comparison, parse_duration};

/// What goes with every call of an [`Administration`]. The default is nothing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AdminOptions {
    /// Headers, for instance for a proxy in front of the daemon. Default: none.
    pub headers: CallHeaders,
    /// The trace that the daemon's spans belong to. Default: none.
    pub trace: Option<TraceContext>,
}

impl AdminOptions {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds headers, which win over earlier ones of their names. The default is none.
    #[must_use]
    pub fn headers(mut self, headers: &CallHeaders) -> Self {
        self.headers = self.headers.and(headers);
        self
    }

    /// Sets the trace that the daemon's spans belong to; the default is none.
    #[must_use]
    pub fn trace(mut self, context: Option<TraceContext>) -> Self {
        self.trace = context;
        self
    }
}

/// What can be asked of a daemon beside builds. A builder gives it with
/// [`ImageBuilder::administration`](crate::ImageBuilder::administration).
///
/// Each call opens a connection of its own and closes it. What comes back is from the daemon, untrusted: text may hold
/// anything.
///
/// # Errors
/// All calls: [`BuildError::TooOld`] when the daemon does not have it, [`BuildError::Refused`] when it (or the way to it)
/// says no, [`BuildError::Timeout`] when no answer comes, [`BuildError::Connect`] and [`BuildError::SessionLost`] when
/// the daemon is gone, [`BuildError::Protocol`] when the answer makes no sense.
#[async_trait]
pub trait Administration: Send + Sync {
    /// The records of the cache that `query` selects, largest first.
    async fn disk_usage(&self, query: &CacheQuery) -> Result<DiskUsage, BuildError>;

    /// Removes records of the cache and calls `each` with every one, as it is removed. Dropping the future stops it; what
    /// was removed is gone.
    ///
    /// # Errors
    /// [`BuildError::TooOld`] also for limits that the daemon would ignore and remove more.
    async fn prune(
        &self,
        options: &PruneOptions,
        each: &mut (dyn FnMut(CacheRecord) + Send),
    ) -> Result<Pruned, BuildError>;

    /// What [`prune`](Self::prune) would remove, without removing it; [`PrunePlan::exact`] says how sure that is. It is
    /// computed here from two listings, so it holds for the moment in between.
    async fn prune_plan(&self, options: &PruneOptions) -> Result<PrunePlan, BuildError> {
        let all = self.disk_usage(&CacheQuery::new()).await?;
        let selected = match options.query.is_empty() {
            true => all.clone(),
            false => self.disk_usage(&options.query).await?,
        };
        Ok(options.plan(&all, selected))
    }

    /// The workers, the default one first. `filters` are conditions on `id` and `labels.NAME` in the daemon's own
    /// language, of which one must hold; none means all.
    async fn workers(&self, filters: &[String]) -> Result<Vec<Worker>, BuildError>;

    /// What the daemon is, and what it can do as far as that is known.
    async fn daemon(&self) -> Result<DaemonInfo, BuildError>;

    /// Connects and waits for one answer, each measured.
    async fn ping(&self) -> Result<Pong, BuildError>;

    /// Every build that the daemon remembers, running ones too, newest first.
    async fn history(&self) -> Result<Vec<HistoryRecord>, BuildError>;

    /// One build that the daemon remembers, by its whole id.
    async fn history_record(&self, build_ref: &str) -> Result<HistoryRecord, BuildError>;

    /// Plays the progress of a build again: everything so far of one that runs, and then on to its end. Ends when the
    /// build has ended; how it ended is in the record.
    async fn history_logs(&self, build_ref: &str, events: EventSink) -> Result<(), BuildError>;

    /// A blob that a record names, whole, at most [`MAX_HISTORY_BLOB`](crate::limits::MAX_HISTORY_BLOB) bytes; its digest
    /// is checked.
    async fn history_blob(&self, blob: &Descriptor) -> Result<Vec<u8>, BuildError>;

    /// Writes the records of builds that have ended, with every blob that they name (progress, trace, results, statements),
    /// as one compressed OCI image layout: what `docker buildx history export` writes and Docker Desktop reads. `builds` are
    /// whole ids. In traces the values that look like tokens and keys are replaced, and of caches how to log in to them;
    /// everything else is as the daemon has it, so arguments of builds can be read in it.
    ///
    /// `to` is a [`Sink::File`], which appears whole or not at all, or a [`Sink::Writer`]. No blob is held in memory, and
    /// digests and sizes are checked. Dropping the future stops it: a file does not appear.
    ///
    /// # Errors
    /// [`BuildError::Input`] for a build that is not known or still runs, before anything is written;
    /// [`BuildError::Local`] when it cannot be written, [`BuildError::Misuse`] for another sink or no build.
    async fn history_export(&self, builds: &[String], to: Sink) -> Result<HistoryExport, BuildError>;

    /// Lets the daemon write down what it still holds back of a build that has ended, its trace above all. BuildKit 0.15.
    async fn history_finalize(&self, build_ref: &str) -> Result<(), BuildError>;

    /// Sets whether the record of a build is kept when the daemon cleans its history.
    async fn history_pin(&self, build_ref: &str, pinned: bool) -> Result<(), BuildError>;

    /// Removes the record of a build. Its image and its cache stay.
    async fn history_remove(&self, build_ref: &str) -> Result<(), BuildError>;
}
