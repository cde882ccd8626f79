//! From a request's path to its service. Whatever is not served answers `Unimplemented`, which daemons rely on: it
//! means "no such credentials, secret or key" to them, not a failure.

use std::{convert::Infallible, pin::Pin, sync::Arc};

use bk_proto::{
    auth::auth_server::{AuthServer, SERVICE_NAME as AUTH},
    filesync::file_sync_server::{FileSyncServer, SERVICE_NAME as FILE_SYNC},
    health::health_server::{HealthServer, SERVICE_NAME as HEALTH},
};
use hyper::body::Incoming;
use tonic::{Status, body::Body};
use tower_service::Service;

use super::{auth::AuthService, file_sync::FileSyncService, health::HealthService};
use crate::limits::MAX_MESSAGE;

/// Every method that this server answers, as the daemon wants them announced: one value each.
pub(crate) const METHODS: &[&str] = &[
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
    "/grpc.health.v1.Health/Watch",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.filesync.v1.FileSync/DiffCopy",
];

/// All services of one session. Cheap to clone: hyper asks for one a stream.
#[derive(Clone)]
pub(crate) struct Dispatch {
    health: HealthServer<HealthService>,
    auth: AuthServer<AuthService>,
    file_sync: FileSyncServer<FileSyncService>,
}

type BoxFuture = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl Dispatch {
    pub(crate) fn new(auth: AuthService, file_sync: FileSyncService) -> Self {
        Self {
            health: HealthServer::new(HealthService),
            auth: AuthServer::from_arc(Arc::new(auth)).max_decoding_message_size(MAX_MESSAGE),
            file_sync: FileSyncServer::from_arc(Arc::new(file_sync))
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(usize::MAX),
        }
    }

    fn route(&mut self, request: http::Request<Incoming>) -> BoxFuture {
        let path = request.uri().path();
        let service = path
            .strip_prefix('/')
            .and_then(|p| p.split_once('/'))
            .map_or("", |(s, _)| s);
        match service {
            HEALTH => self.health.call(request),
            AUTH => self.auth.call(request),
            FILE_SYNC => self.file_sync.call(request),
            _ => {
                let status = Status::unimplemented(format!("{path} is not served by this session"));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}

impl hyper::service::Service<http::Request<Incoming>> for Dispatch {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        self.clone().route(request)
    }
}
