//! The health service: always serving, never waiting for anything.
//!
//! The daemon gives up on a session whose health answer is late (BuildKit 0.8 after the first failure), so nothing here
//! may touch a file, a lock or a channel.

use std::pin::Pin;

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
pub(crate) fn serve(services: &mut Services) {
    let server = HealthServer::new(HealthService);
    services.add(SERVICE_NAME, &["Check", "List", "Watch"], server);
}

struct HealthService;

fn serving() -> HealthCheckResponse {
    HealthCheckResponse {
        status: ServingStatus::Serving.into(),
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
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
