//! Docker Engine as an [`ImageBuilder`].

use std::sync::Arc;

use async_trait::async_trait;
use bk_build::{
    AdminOptions, Administration, BuildError, BuildEvent, BuildOutcome, BuildRequest, BuilderInfo, Call,
    CallAnswer, CallHeaders, CredentialProvider, EventSink, ImageBuilder, InputError, Inspected, Warning,
    WarningKind,
};
use bk_proto::Id;
use bk_solve::{ControlAdmin, Dialer, ImageExporter, SolveOptions, with_retries, with_start_and_end};
use bollard::Docker;

use crate::{
    admin::EngineAdmin,
    build,
    daemon::{self, Daemon},
    dialer::{Grpc, H2c},
    endpoint::Endpoint,
    push,
    route::{self, DockerRoute},
    site::Site,
};

/// An engine that was asked who it is, and a route to the BuildKit inside it. Cheap to clone; clones share nothing that
/// a build could block.
#[derive(Clone)]
pub struct DockerBackend {
    pub(crate) site: Site,
    pub(crate) daemon: Daemon,
    pub(crate) credentials: Arc<dyn CredentialProvider>,
    docker: Docker,
    route: DockerRoute,
}

impl DockerBackend {
    /// Asks the engine at `endpoint` (for instance `unix:///var/run/docker.sock`) who it is and settles on a route.
    ///
    /// `credentials` answers for registries when a request does not say who does. On the route `tar` nobody is asked:
    /// without a session the daemon has no way to.
    ///
    /// # Errors
    /// [`BuildError::Input`] when the text is no endpoint, [`BuildError::Connect`] when nobody listens there or
    /// something that is not Docker does, [`BuildError::Timeout`] when nothing comes back, and
    /// [`BuildError::Refused`] when `route` does not work on this engine.
    pub async fn connect(
        endpoint: &str,
        route: DockerRoute,
        credentials: Arc<dyn CredentialProvider>,
    ) -> Result<Self, BuildError> {
        Self::connect_to(endpoint.parse()?, route, credentials).await
    }

    /// [`connect`](Self::connect) with an endpoint that was parsed before.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_to(
        endpoint: Endpoint,
        route: DockerRoute,
        credentials: Arc<dyn CredentialProvider>,
    ) -> Result<Self, BuildError> {
        Self::connect_with_headers(endpoint, route, credentials, CallHeaders::new()).await
    }

    /// [`connect_to`](Self::connect_to), with headers for every request: gRPC calls and those of Docker's own API, the
    /// first question and what is no build included.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and [`BuildError::Input`] when a header is not allowed.
    pub async fn connect_with_headers(
        endpoint: Endpoint,
        route: DockerRoute,
        credentials: Arc<dyn CredentialProvider>,
        headers: CallHeaders,
    ) -> Result<Self, BuildError> {
        headers.check()?;
        let site = Site { endpoint, headers };
        let docker = daemon::client(&site)?;
        Self::settle(docker, site, route, credentials).await
    }

    /// [`connect`](Self::connect) for a program that has a [`Docker`] client already. `endpoint` must be where that
    /// client goes: builds use connections of their own, because the client cannot upgrade any.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn from_docker(
        docker: Docker,
        endpoint: Endpoint,
        route: DockerRoute,
        credentials: Arc<dyn CredentialProvider>,
    ) -> Result<Self, BuildError> {
        Self::settle(docker, endpoint.into(), route, credentials).await
    }

    async fn settle(
        docker: Docker,
        site: Site,
        route: DockerRoute,
        credentials: Arc<dyn CredentialProvider>,
    ) -> Result<Self, BuildError> {
        let (daemon, docker) = daemon::ask(&site, docker).await?;
        let info = info(&site.endpoint, &daemon);
        let route = route::choose(route, &site, &info, &daemon).await?;
        Ok(Self {
            site,
            daemon,
            credentials,
            docker,
            route,
        })
    }

    /// The same with more headers for every request. What it is asked for by [`docker`](Self::docker) keeps those it had.
    fn with(&self, headers: &CallHeaders) -> Self {
        Self {
            site: self.site.and(headers),
            ..self.clone()
        }
    }

    /// A client for the rest of Docker's API on the same engine, at an API version that both sides know.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// The route in use; never [`DockerRoute::Auto`].
    pub fn route(&self) -> DockerRoute {
        self.route
    }

    /// Builds, and pushes by the engine's API what the builder inside it cannot push.
    async fn build_and_push(
        &self,
        mut request: BuildRequest,
        build_ref: &str,
        events: &EventSink,
    ) -> Result<BuildOutcome, BuildError> {
        request.headers.check()?;
        if let Some(text) = self.site.endpoint.warning() {
            let warning = Warning::new(WarningKind::Client, text);
            events.emit(BuildEvent::Warning(warning)).await;
        }
        let pushes = push::take(self, &mut request).await?;
        let credentials = request.credentials.clone();
        let inspect = request.inspect;
        let mut options = SolveOptions::new(ImageExporter::Moby, self.credentials.clone());
        if request.session_exporter.is_some() {
            // Nobody takes the pushes out of what is added later.
            options = options.pushes(push::keeps_manifests(self).await?);
        }
        let options = &options;
        let mut outcome = with_retries(request, build_ref, events, |request, build_ref, events| {
            Box::pin(async move { self.attempt(options, request, &build_ref, &events).await })
        })
        .await?;
        if matches!(self.route, DockerRoute::Build | DockerRoute::Tar) {
            let why = "the Docker routes build and tar cannot ask for it; the routes grpc and h2c can";
            outcome.inspected = Inspected::missing(inspect, why);
        }
        let credentials = credentials.unwrap_or_else(|| self.credentials.clone());
        pushes.run(self, &*credentials, events, &mut outcome).await?;
        Ok(outcome)
    }

    /// Opens byte streams to the BuildKit inside the engine, for programs that speak its API themselves; `None` on the routes
    /// `build` and `tar`, which have no such stream. Sessions attach through `Control/Session` then.
    pub fn dialer(&self) -> Option<Arc<dyn Dialer>> {
        let (site, info) = (self.site.clone(), self.info());
        match self.route {
            DockerRoute::H2c => Some(Arc::new(H2c { site, info })),
            DockerRoute::Build | DockerRoute::Tar => None,
            DockerRoute::Auto | DockerRoute::Grpc => Some(Arc::new(Grpc { site, info })),
        }
    }

    /// Builds once.
    async fn attempt(
        &self,
        options: &SolveOptions,
        request: BuildRequest,
        build_ref: &str,
        events: &EventSink,
    ) -> Result<BuildOutcome, BuildError> {
        match (self.dialer(), self.route) {
            (Some(dialer), _) => Box::pin(bk_solve::run(&*dialer, options, request, build_ref, events)).await,
            (None, DockerRoute::Tar) => build::by_upload(self, request, build_ref, events).await,
            (None, _) => build::by_session(self, request, build_ref, events).await,
        }
    }

    /// Where the engine listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.site.endpoint
    }
}

fn info(endpoint: &Endpoint, daemon: &Daemon) -> BuilderInfo {
    let info = BuilderInfo::new("docker", endpoint.to_string());
    if daemon.version.is_empty() {
        info
    } else {
        info.version(&daemon.version)
    }
}

#[async_trait]
impl ImageBuilder for DockerBackend {
    async fn build(&self, request: BuildRequest, events: EventSink) -> Result<BuildOutcome, BuildError> {
        let build_ref = Id::random().to_string();
        let own = self.with(&request.headers);
        let build = Box::pin(own.build_and_push(request, &build_ref, &events));
        with_start_and_end(self.info(), &build_ref, &events, build).await
    }

    async fn check(&self, request: &BuildRequest) -> Result<(), BuildError> {
        request.headers.check()?;
        let (own, mut request) = (self.with(&request.headers), request.clone());
        push::take(&own, &mut request).await?;
        let options = SolveOptions::new(ImageExporter::Moby, self.credentials.clone());
        match self.route {
            DockerRoute::Build | DockerRoute::Tar => build::check(self, &request).await,
            _ => bk_solve::check(&self.info(), &options, &request).await,
        }
    }

    async fn call(
        &self,
        request: BuildRequest,
        call: Call,
        events: EventSink,
    ) -> Result<CallAnswer, BuildError> {
        let options = SolveOptions::new(ImageExporter::Moby, self.credentials.clone());
        request.headers.check()?;
        match self.with(&request.headers).dialer() {
            Some(dialer) => bk_solve::call(&*dialer, &options, request, call, events).await,
            None => {
                let route = self.route.name();
                let why = format!(
                    "`{call}` cannot be asked on the Docker route {route}; the routes grpc and h2c can"
                );
                Err(InputError::new("--call", why, "").into())
            }
        }
    }

    fn administration(&self, options: AdminOptions) -> Option<Arc<dyn Administration>> {
        let own = self.with(&options.headers);
        Some(match own.dialer() {
            Some(dialer) => Arc::new(EngineAdmin::control(
                &own,
                ControlAdmin::over(dialer).options(options),
            )),
            None => Arc::new(EngineAdmin::alone(&own)),
        })
    }

    fn info(&self) -> BuilderInfo {
        info(&self.site.endpoint, &self.daemon).route(self.route.name())
    }
}

impl std::fmt::Debug for DockerBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerBackend")
            .field("endpoint", &self.site.endpoint)
            .field("daemon", &self.daemon)
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}
