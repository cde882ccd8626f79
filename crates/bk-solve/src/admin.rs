//! Administration over the control service: cache, workers, versions, history.
//!
//! The rule: a call opens one connection, has a deadline for every answer, and never asks for something that is known to
//! be missing or to harm the daemon.

mod able;
mod cache;
mod daemon;
mod export;
mod history;

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use bk_build::{
    Administration, BuildError, CacheQuery, CacheRecord, DaemonInfo, DaemonTooOld, Descriptor, DiskUsage,
    EventSink, HistoryExport, HistoryRecord, Pong, PruneOptions, Pruned, Refusal, Sink, Worker,
};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::{
    channel::Channel,
    classify,
    dial::Dialer,
    requires::{BuildkitVersion, buildkit_of},
    solve::open,
};

pub use able::capabilities;

/// Looks after the daemon that a dialer reaches, over BuildKit's own control service.
pub struct ControlAdmin {
    dialer: Arc<dyn Dialer>,
}

impl ControlAdmin {
    /// Uses `dialer` for every call. Nothing is opened before the first.
    pub fn new(dialer: impl Dialer + 'static) -> Self {
        Self {
            dialer: Arc::new(dialer),
        }
    }

    async fn open(&self) -> Result<Channel, BuildError> {
        open(&*self.dialer).await
    }

    /// Waits for an answer of the daemon, `limit` at most.
    async fn answer<T>(
        &self,
        what: &str,
        limit: Duration,
        call: impl Future<Output = Result<T, Status>> + Send,
    ) -> Result<T, Failed> {
        match timeout(limit, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(Failed::Status(status)),
            Err(_) => Err(Failed::Late(BuildError::Timeout {
                what: format!("{what} from {}", self.dialer.info().address),
                after: limit,
            })),
        }
    }

    /// What a failure of `what` means; `since` and `engine` say which daemons have it.
    fn failed(&self, failed: Failed, what: &str, since: BuildkitVersion, engine: &str) -> BuildError {
        match failed {
            Failed::Late(error) => error,
            Failed::Status(status) if status.code() == Code::Unimplemented => {
                self.too_old(what, None, since, engine)
            }
            Failed::Status(status) => self.refused(&status),
        }
    }

    fn refused(&self, status: &Status) -> BuildError {
        match classify::transport_failure(status, &self.dialer.info().address) {
            Some(lost) => lost,
            None => Refusal::new(status.code() as i32, status.message()).into(),
        }
    }

    fn too_old(
        &self,
        what: &str,
        has: Option<BuildkitVersion>,
        since: BuildkitVersion,
        engine: &str,
    ) -> BuildError {
        let info = self.dialer.info();
        let has = has.or_else(|| buildkit_of(&info).filter(|has| *has < since));
        let has = has.map_or_else(|| "an older one".to_owned(), |has| has.to_string());
        let needs = format!("{since} (Docker Engine {engine})");
        DaemonTooOld::new(what, info.to_string(), has, needs).into()
    }
}

/// A call that came to nothing.
enum Failed {
    Status(Status),
    Late(BuildError),
}

#[async_trait]
impl Administration for ControlAdmin {
    async fn disk_usage(&self, query: &CacheQuery) -> Result<DiskUsage, BuildError> {
        cache::disk_usage(self, query).await
    }

    async fn prune(
        &self,
        options: &PruneOptions,
        each: &mut (dyn FnMut(CacheRecord) + Send),
    ) -> Result<Pruned, BuildError> {
        cache::prune(self, options, each).await
    }

    async fn workers(&self, filters: &[String]) -> Result<Vec<Worker>, BuildError> {
        let channel = self.open().await?;
        daemon::workers(self, &channel, filters).await
    }

    async fn daemon(&self) -> Result<DaemonInfo, BuildError> {
        daemon::info(self).await
    }

    async fn ping(&self) -> Result<Pong, BuildError> {
        daemon::ping(self).await
    }

    async fn history(&self) -> Result<Vec<HistoryRecord>, BuildError> {
        history::list(self).await
    }

    async fn history_record(&self, build_ref: &str) -> Result<HistoryRecord, BuildError> {
        history::record(self, build_ref).await
    }

    async fn history_logs(&self, build_ref: &str, events: EventSink) -> Result<(), BuildError> {
        history::logs(self, build_ref, &events).await
    }

    async fn history_blob(&self, blob: &Descriptor) -> Result<Vec<u8>, BuildError> {
        history::blob(self, blob).await
    }

    async fn history_export(&self, builds: &[String], to: Sink) -> Result<HistoryExport, BuildError> {
        export::export(self, builds, to).await
    }

    async fn history_finalize(&self, build_ref: &str) -> Result<(), BuildError> {
        history::update(self, build_ref, history::Change::Finalize).await
    }

    async fn history_pin(&self, build_ref: &str, pinned: bool) -> Result<(), BuildError> {
        history::update(self, build_ref, history::Change::Pin(pinned)).await
    }

    async fn history_remove(&self, build_ref: &str) -> Result<(), BuildError> {
        history::update(self, build_ref, history::Change::Remove).await
    }
}
