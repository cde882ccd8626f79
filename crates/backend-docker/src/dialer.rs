//! How bytes reach BuildKit inside an engine, for the two routes that speak its own gRPC.

use std::time::Duration;

use async_trait::async_trait;
use bk_build::{BuildError, BuilderInfo, CallHeaders};
use bk_session::SessionHeaders;
use bk_solve::{BoxedIo, Dialer};

use crate::{endpoint::Speaks, http1::upgrade, site::Site};

/// HTTP/2 with prior knowledge on the API socket; the session goes through `Control/Session`.
pub(crate) struct H2c {
    pub(crate) site: Site,
    pub(crate) info: BuilderInfo,
}

#[async_trait]
impl Dialer for H2c {
    async fn control(&self) -> Result<BoxedIo, BuildError> {
        self.site.endpoint.dial_for(Speaks::Http2).await
    }

    fn headers(&self) -> CallHeaders {
        self.site.headers.clone()
    }

    fn connect_timeout(&self) -> Duration {
        self.site.endpoint.connect_timeout()
    }

    fn info(&self) -> BuilderInfo {
        self.info.clone()
    }
}

/// `POST /grpc`, upgraded, and beside it `POST /session`, upgraded.
pub(crate) struct Grpc {
    pub(crate) site: Site,
    pub(crate) info: BuilderInfo,
}

#[async_trait]
impl Dialer for Grpc {
    async fn control(&self) -> Result<BoxedIo, BuildError> {
        upgrade(&self.site, "/grpc", &[]).await
    }

    async fn session(&self, headers: &SessionHeaders) -> Result<Option<BoxedIo>, BuildError> {
        session(&self.site, headers).await.map(Some)
    }

    fn headers(&self) -> CallHeaders {
        self.site.headers.clone()
    }

    fn connect_timeout(&self) -> Duration {
        self.site.endpoint.connect_timeout()
    }

    fn info(&self) -> BuilderInfo {
        self.info.clone()
    }
}

/// Attaches a session by `POST /session`: the stream on which the daemon calls back.
pub(crate) async fn session(site: &Site, headers: &SessionHeaders) -> Result<BoxedIo, BuildError> {
    let headers: Vec<_> = headers.iter().collect();
    upgrade(site, "/session", &headers).await
}
