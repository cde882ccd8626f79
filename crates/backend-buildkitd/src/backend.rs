//! The builder on one buildkitd endpoint.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bk_build::{
    AdminOptions, Administration, BuildError, BuildOutcome, BuildRequest, BuilderInfo, Call, CallAnswer,
    CallHeaders, CredentialProvider, EventSink, ImageBuilder, ImageLoader,
};
use bk_dial::limits::HELPER_TIMEOUT;
use bk_solve::{
    BoxedIo, ControlAdmin, DaemonFacts, Dialer, ImageExporter, SolveOptions, limits::CONNECT_TIMEOUT,
};

use crate::Endpoint;

/// Builds on a buildkitd. Every build opens one connection of its own; nothing stays open between builds.
#[derive(Clone)]
pub struct BuildkitdBackend {
    dialer: EndpointDialer,
    options: SolveOptions,
    facts: DaemonFacts,
}

#[derive(Clone)]
struct EndpointDialer {
    endpoint: Endpoint,
    version: Option<String>,
    headers: CallHeaders,
}

impl BuildkitdBackend {
    /// Connects once to see that a BuildKit answers at `endpoint`. `credentials` answers for registries when a request
    /// does not bring its own.
    ///
    /// # Errors
    /// [`BuildError::Connect`] when nothing or something else answers, [`BuildError::Timeout`] when the endpoint
    /// accepts and stays silent.
    pub async fn connect(
        endpoint: Endpoint,
        credentials: Arc<dyn CredentialProvider>,
    ) -> Result<Self, BuildError> {
        Self::connect_with_headers(endpoint, credentials, CallHeaders::new()).await
    }

    /// [`connect`](Self::connect), with headers for every call, the first one included.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and [`BuildError::Input`] when a header is not allowed.
    pub async fn connect_with_headers(
        endpoint: Endpoint,
        credentials: Arc<dyn CredentialProvider>,
        headers: CallHeaders,
    ) -> Result<Self, BuildError> {
        let mut dialer = EndpointDialer {
            endpoint,
            version: None,
            headers,
        };
        let facts = bk_solve::probe(&dialer).await?;
        dialer.version.clone_from(&facts.buildkit_version);
        // A Docker Engine can stand behind a BuildKit endpoint (`docker buildx dial-stdio`), and has its own exporter.
        let exporter = if facts.is_docker {
            ImageExporter::Moby
        } else {
            ImageExporter::Image
        };
        Ok(Self {
            dialer,
            options: SolveOptions::new(exporter, credentials).pushes(facts.keeps_manifests),
            facts,
        })
    }

    /// Sets the Docker Engine that images are loaded into when a request names none; the default is none.
    #[must_use]
    pub fn loader(mut self, loader: Arc<dyn ImageLoader>) -> Self {
        self.options = self.options.loader(loader);
        self
    }

    /// Opens byte streams to the daemon, for programs that speak its API themselves.
    pub fn dialer(&self) -> Arc<dyn Dialer> {
        Arc::new(self.dialer.clone())
    }

    /// What the daemon said about itself when it was connected to.
    pub fn facts(&self) -> &DaemonFacts {
        &self.facts
    }
}

#[async_trait]
impl ImageBuilder for BuildkitdBackend {
    async fn build(&self, request: BuildRequest, events: EventSink) -> Result<BuildOutcome, BuildError> {
        bk_solve::build(&self.dialer, &self.options, request, events).await
    }

    async fn check(&self, request: &BuildRequest) -> Result<(), BuildError> {
        bk_solve::check(&self.info(), &self.options, request).await
    }

    async fn call(
        &self,
        request: BuildRequest,
        call: Call,
        events: EventSink,
    ) -> Result<CallAnswer, BuildError> {
        bk_solve::call(&self.dialer, &self.options, request, call, events).await
    }

    fn administration(&self, options: AdminOptions) -> Option<Arc<dyn Administration>> {
        Some(Arc::new(ControlAdmin::new(self.dialer.clone()).options(options)))
    }

    fn info(&self) -> BuilderInfo {
        self.dialer.info()
    }
}

#[async_trait]
impl Dialer for EndpointDialer {
    async fn control(&self) -> Result<BoxedIo, BuildError> {
        self.endpoint.dial().await
    }

    fn headers(&self) -> CallHeaders {
        self.headers.clone()
    }

    fn connect_timeout(&self) -> Duration {
        match self.endpoint {
            Endpoint::Helper(_) => HELPER_TIMEOUT,
            _ => CONNECT_TIMEOUT,
        }
    }

    fn info(&self) -> BuilderInfo {
        let info = BuilderInfo::new("buildkitd", self.endpoint.to_string());
        match &self.version {
            Some(version) => info.version(version.clone()),
            None => info,
        }
    }
}
