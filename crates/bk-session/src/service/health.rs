//! The health service: always serving, never waiting for anything.
//!
//! The daemon gives up on a session whose health answer is late (BuildKit 0.8 after the first failure), so nothing here
//! may touch a file, a lock or a channel.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bk_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer, SERVICE_NAME},
};
use futures_core::Stream;
use futures_util::{StreamExt, stream};
use tonic::{Request, Response, Status};

use super::dispatch::Services;

/// Adds the service that says that this session is alive.
pub(crate) fn serve(services: &mut Services, asked: Arc<LastAsked>) {
    let server = HealthServer::new(HealthService(asked));
    services.add(SERVICE_NAME, &["Check", "List", "Watch"], server);
}

struct HealthService(Arc<LastAsked>);

/// When the daemon last asked for the health of a session.
pub(crate) struct LastAsked {
    epoch: Instant,
    /// Milliseconds since then, counted from 1; 0 when it never did.
    at: AtomicU64,
}

impl Default for LastAsked {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            at: AtomicU64::new(0),
        }
    }
}

impl LastAsked {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).map_or(u64::MAX, |ms| ms.saturating_add(1))
    }

    fn note(&self) {
        self.at.store(self.now(), Ordering::Relaxed);
    }

    /// How long ago that was.
    pub(crate) fn age(&self) -> Option<Duration> {
        let at = self.at.load(Ordering::Relaxed);
        (at > 0).then(|| Duration::from_millis(self.now().saturating_sub(at)))
    }
}

fn serving() -> HealthCheckResponse {
    HealthCheckResponse {
        status: ServingStatus::Serving.into(),
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.note();
        Ok(Response::new(serving()))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        Ok(Response::new(HealthListResponse {
            statuses: [(String::new(), serving())].into(),
        }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // The state never changes while the session lives: one answer, then silence until the stream ends.
        Ok(Response::new(
            stream::once(async { Ok(serving()) })
                .chain(stream::pending())
                .boxed(),
        ))
    }
}
