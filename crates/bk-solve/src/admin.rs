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
    AdminOptions, Administration, BuildError, CacheQuery, CacheRecord, DaemonInfo, DaemonTooOld, Descriptor,
    DiskUsage, EventSink, HistoryExport, HistoryRecord, Pong, PruneOptions, Pruned, Refusal, Sink, Worker,
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
    options: AdminOptions,
}

impl ControlAdmin {
    /// Uses `dialer` for every call. Nothing is opened before the first.
    pub fn new(dialer: impl Dialer + 'static) -> Self {
        Self::over(Arc::new(dialer))
    }

    /// [`new`](Self::new) with a dialer that others use as well.
    pub fn over(dialer: Arc<dyn Dialer>) -> Self {
        Self {
            dialer,
            options: AdminOptions::new(),
        }
    }

    /// Sets what goes with every call; the default is nothing.
    #[must_use]
    pub fn options(mut self, options: AdminOptions) -> Self {
        self.options = options;
        self
    }

    async fn open(&self) -> Result<Channel, BuildError> {
        let channel = open(&*self.dialer).await?;
        Ok(channel.with_headers(&self.options.headers, self.options.trace.as_ref())?)
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
            Err(_) => Err(Failed::Late(self.late(what, limit))),
        }
    }

    fn late(&self, what: &str, after: Duration) -> BuildError {
        BuildError::Timeout {
            what: format!("{what} from {}", self.dialer.info().address),
            after,
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bk_build::{BuilderInfo, Sink};
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::dial::BoxedIo;

    /// A daemon that takes connections and never says a word.
    #[derive(Default)]
    struct Silent(Mutex<Vec<DuplexStream>>);

    #[async_trait]
    impl Dialer for Silent {
        async fn control(&self) -> Result<BoxedIo, BuildError> {
            let (ours, theirs) = duplex(1 << 20);
            self.0.lock().expect("no panic").push(theirs);
            Ok(Box::new(ours))
        }

        fn info(&self) -> BuilderInfo {
            BuilderInfo::new("buildkitd", "unix:///silent")
        }
    }

    /// The same, of which it is known that it takes long.
    #[derive(Default)]
    struct Far(Silent);

    #[async_trait]
    impl Dialer for Far {
        async fn control(&self) -> Result<BoxedIo, BuildError> {
            self.0.control().await
        }

        fn connect_timeout(&self) -> Duration {
            Duration::from_secs(77)
        }

        fn info(&self) -> BuilderInfo {
            self.0.info()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_way_to_a_daemon_says_how_long_its_first_answer_may_take() {
        for (dialer, seconds) in [(&Silent::default() as &dyn Dialer, 10), (&Far::default(), 77)] {
            let begun = tokio::time::Instant::now();
            let error = crate::probe(dialer).await.expect_err("silence");
            assert_eq!(
                error.to_string(),
                format!("gave up after {seconds} s of waiting for an answer from unix:///silent")
            );
            assert_eq!(begun.elapsed().as_secs(), seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_daemon_is_waited_for_only_so_long() {
        let admin = ControlAdmin::new(Silent::default());
        let blob = Descriptor::new("m", format!("sha256:{}", "0".repeat(64)), 1);
        let mut each = |_| {};
        let (query, options) = (CacheQuery::new(), PruneOptions::new());
        let builds = ["b".to_owned()];
        let calls: [(&str, futures_util::future::BoxFuture<'_, Result<(), BuildError>>); 12] = [
            ("du", Box::pin(async { admin.disk_usage(&query).await.map(drop) })),
            (
                "prune",
                Box::pin(async { admin.prune(&options, &mut each).await.map(drop) }),
            ),
            ("workers", Box::pin(async { admin.workers(&[]).await.map(drop) })),
            ("daemon", Box::pin(async { admin.daemon().await.map(drop) })),
            ("ping", Box::pin(async { admin.ping().await.map(drop) })),
            ("history", Box::pin(async { admin.history().await.map(drop) })),
            (
                "record",
                Box::pin(async { admin.history_record("b").await.map(drop) }),
            ),
            ("logs", admin.history_logs("b", EventSink::discard())),
            (
                "blob",
                Box::pin(async { admin.history_blob(&blob).await.map(drop) }),
            ),
            (
                "export",
                Box::pin(async { admin.history_export(&builds, Sink::Daemon).await.map(drop) }),
            ),
            ("finalize", admin.history_finalize("b")),
            ("remove", admin.history_remove("b")),
        ];
        for (name, call) in calls {
            let begun = tokio::time::Instant::now();
            let error = call.await.expect_err(name);
            let lost = match &error {
                BuildError::Timeout { what, after } => {
                    assert!(what.ends_with(" from unix:///silent"), "{name}: {what}");
                    assert_eq!(begun.elapsed().as_secs(), after.as_secs(), "{name}");
                    false
                }
                // Calls that may cost work are given up with the connection, which nobody answers on.
                BuildError::SessionLost(_) => true,
                other => panic!("{name}: {other}"),
            };
            assert_eq!(lost, matches!(name, "du" | "prune"), "{name}: {error}");
            assert!(begun.elapsed() <= Duration::from_secs(180), "{name}");
        }
    }
}
