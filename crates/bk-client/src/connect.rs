//! Which daemon: an explicit address, else `BUILDKIT_HOST`, else `DOCKER_HOST` or Docker's default socket, else the
//! default buildkitd sockets, else an error that lists what was tried.

use std::{path::Path, str::FromStr, sync::Arc};

use bk_build::{
    Attempt, BuildError, CallHeaders, ConnectError, CredentialProvider, ImageBuilder as _, ImageLoader,
    InputError, NoCredentials, TokenExchange, TraceContext,
};
use bk_session::DockerConfig;
use tracing::{Instrument as _, field::Empty};

use crate::{Client, Environment, tokens};

/// Docker's default socket.
const DOCKER_SOCKET: &str = "unix:///var/run/docker.sock";
/// The default socket of a system-wide buildkitd.
const BUILDKIT_SOCKET: &str = "unix:///run/buildkit/buildkitd.sock";
/// The socket of a rootless buildkitd, below `XDG_RUNTIME_DIR`.
const ROOTLESS_SOCKET: &str = "buildkit/buildkitd.sock";

/// Which kind of daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// Whatever answers.
    #[default]
    Auto,
    /// Docker Engine.
    Docker,
    /// A standalone buildkitd.
    Buildkitd,
}

impl FromStr for Backend {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        match text {
            "auto" => Ok(Self::Auto),
            "docker" => Ok(Self::Docker),
            "buildkitd" => Ok(Self::Buildkitd),
            _ => Err(InputError::new(
                "BK_BACKEND",
                format!("`{text}` is not a backend"),
                "auto, docker or buildkitd",
            )),
        }
    }
}

/// How to connect. Everything is optional.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectOptions {
    addr: Option<String>,
    backend: Option<Backend>,
    #[cfg(feature = "docker")]
    docker_route: backend_docker::DockerRoute,
    environment: Environment,
    credentials: Option<Arc<dyn CredentialProvider>>,
    tokens: Option<Arc<dyn TokenExchange>>,
    loader: Option<Arc<dyn ImageLoader>>,
    headers: CallHeaders,
    trace: Option<TraceContext>,
    #[cfg(feature = "buildkitd")]
    tls: Option<backend_buildkitd::TlsOptions>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl ConnectOptions {
    /// The process's environment decides.
    pub fn new() -> Self {
        Self {
            addr: None,
            backend: None,
            #[cfg(feature = "docker")]
            docker_route: backend_docker::DockerRoute::Auto,
            environment: Environment::from_process(),
            credentials: None,
            tokens: None,
            loader: None,
            headers: CallHeaders::new(),
            trace: None,
            #[cfg(feature = "buildkitd")]
            tls: None,
        }
    }

    /// Sets the endpoint, for instance `unix:///var/run/docker.sock`, `tcp://host:1234`, `docker-container://name` or
    /// `ssh://host`; the default is to look for one. An explicit address is the only one tried.
    #[must_use]
    pub fn addr(mut self, addr: impl Into<String>) -> Self {
        self.addr = Some(addr.into());
        self
    }

    /// Sets that a buildkitd at `tcp://` is spoken to in TLS, and whom to trust; the default is plain HTTP/2. Without
    /// authorities of its own, those of the system count.
    #[cfg(feature = "buildkitd")]
    #[must_use]
    pub fn tls(mut self, options: backend_buildkitd::TlsOptions) -> Self {
        self.tls = Some(match options.system_roots {
            Some(_) => options,
            None => options.system_roots(tokens::system_roots),
        });
        self
    }

    /// Sets the kind of daemon; the default is `BK_BACKEND`, else whatever answers.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Sets how the BuildKit inside Docker Engine is reached; the default is to probe for the best way.
    #[cfg(feature = "docker")]
    #[must_use]
    pub fn docker_route(mut self, route: backend_docker::DockerRoute) -> Self {
        self.docker_route = route;
        self
    }

    /// Sets the environment; the default is the process's.
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Sets who answers for registry credentials when a request does not say; the default is Docker's config file.
    #[must_use]
    pub fn credentials(mut self, provider: Arc<dyn CredentialProvider>) -> Self {
        self.credentials = Some(provider);
        self
    }

    /// Sets who exchanges credentials for registry tokens on this machine, for providers that have nobody of their own;
    /// the default is a [`TokenClient`](crate::TokenClient) with the environment's proxies and certificates, or nobody if
    /// `BUILDKIT_NO_CLIENT_TOKEN` says so.
    #[must_use]
    pub fn tokens(mut self, exchange: Arc<dyn TokenExchange>) -> Self {
        self.tokens = Some(exchange);
        self
    }

    /// Sets the Docker Engine that images of a standalone buildkitd are loaded into; the default is the one that
    /// `DOCKER_HOST` names, else the one on Docker's default socket.
    #[must_use]
    pub fn loader(mut self, loader: Arc<dyn ImageLoader>) -> Self {
        self.loader = Some(loader);
        self
    }

    /// Sets a header for every gRPC call of each build, and for the first question to a standalone buildkitd: for proxies
    /// and balancers in front of daemons. The default is none. Names are lower case; those that HTTP, gRPC or BuildKit use
    /// themselves are refused when connecting. Without a meaning on the Docker routes `build` and `tar`.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.set(name, value);
        self
    }

    /// Sets the trace that builds belong to when their request names none; the default is what `TRACEPARENT` and
    /// `TRACESTATE` of the environment say.
    #[must_use]
    pub fn trace(mut self, context: TraceContext) -> Self {
        self.trace = Some(context);
        self
    }
}

/// Connects to the daemon that the process's environment names or that listens on a default socket.
///
/// # Errors
/// [`BuildError::Connect`] lists what was tried and why each failed.
pub async fn connect() -> Result<Client, BuildError> {
    connect_with(ConnectOptions::new()).await
}

/// Connects as `options` say.
///
/// # Errors
/// [`BuildError::Connect`] lists what was tried and why each failed; [`BuildError::Input`] names an address or a
/// variable that makes no sense; [`BuildError::Timeout`] when the one endpoint that was named never answers.
pub async fn connect_with(options: ConnectOptions) -> Result<Client, BuildError> {
    let span = tracing::info_span!("bk.connect", address = Empty, route = Empty);
    let client = Box::pin(find(options)).instrument(span.clone()).await?;
    let info = client.info();
    span.record("address", &*info.address);
    span.record("route", info.route.as_deref());
    Ok(client)
}

async fn find(mut options: ConnectOptions) -> Result<Client, BuildError> {
    options.headers.check()?;
    options.trace = options.trace.or_else(|| trace(&options.environment));
    let backend = match (options.backend, &options.environment.bk_backend) {
        (Some(backend), _) => backend,
        (None, Some(text)) => text.parse()?,
        (None, None) => Backend::Auto,
    };
    let credentials =
        options
            .credentials
            .clone()
            .unwrap_or_else(|| match &options.environment.docker_config {
                Some(path) => Arc::new(DockerConfig::new(path)) as Arc<dyn CredentialProvider>,
                None => Arc::new(NoCredentials),
            });
    let exchange = options
        .tokens
        .clone()
        .or_else(|| tokens::exchange(&options.environment));
    let credentials = tokens::with(credentials, exchange.as_ref());
    let mut attempts = Vec::new();
    let candidates = candidates(&options, backend);
    let single = candidates.len() == 1;
    for candidate in candidates {
        match try_one(&candidate, &options, &credentials).await {
            Ok(client) => {
                let client = client.headers(&options.headers).trace(options.trace);
                return Ok(client.tokens(exchange));
            }
            // The one endpoint that was named: its own error says most.
            Err(BuildError::Connect(e)) => attempts.extend(e.attempts.into_iter().map(|a| candidate.name(a))),
            Err(e @ BuildError::Timeout { .. }) if !single => {
                attempts.push(candidate.name(Attempt::new(&candidate.address, e.to_string())));
            }
            Err(e) => return Err(e),
        }
    }
    Err(ConnectError::several(attempts).into())
}

/// The trace of the environment. One that makes no sense is none: it is for others to repair, and no reason not to build.
fn trace(environment: &Environment) -> Option<TraceContext> {
    environment.trace().unwrap_or_else(|error| {
        tracing::warn!(%error, "the trace of the environment is left aside");
        None
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    address: String,
    origin: &'static str,
    backend: Backend,
}

impl Candidate {
    fn name(&self, attempt: Attempt) -> Attempt {
        if attempt.origin.is_empty() && !self.origin.is_empty() {
            attempt.origin(self.origin)
        } else {
            attempt
        }
    }
}

/// What to try, in order. An address that somebody named is the only one.
fn candidates(options: &ConnectOptions, backend: Backend) -> Vec<Candidate> {
    let env = &options.environment;
    let named = |address: &str, origin, backend| {
        vec![Candidate {
            address: address.to_owned(),
            origin,
            backend,
        }]
    };
    if let Some(address) = &options.addr {
        return named(address, "", backend);
    }
    if let (Some(address), true) = (&env.buildkit_host, backend != Backend::Docker) {
        return named(address, "BUILDKIT_HOST", Backend::Buildkitd);
    }
    if let (Some(address), true) = (&env.docker_host, backend != Backend::Buildkitd) {
        return named(address, "DOCKER_HOST", Backend::Docker);
    }
    let mut list = Vec::new();
    if backend != Backend::Buildkitd && cfg!(feature = "docker") {
        list.extend(named(DOCKER_SOCKET, "default Docker socket", Backend::Docker));
    }
    if backend != Backend::Docker && cfg!(feature = "buildkitd") {
        list.extend(named(
            BUILDKIT_SOCKET,
            "default buildkitd socket",
            Backend::Buildkitd,
        ));
        if let Some(dir) = &env.runtime_dir {
            let socket = Path::new(dir).join(ROOTLESS_SOCKET);
            list.extend(named(
                &format!("unix://{}", socket.display()),
                "rootless buildkitd socket",
                Backend::Buildkitd,
            ));
        }
    }
    list
}

async fn try_one(
    candidate: &Candidate,
    options: &ConnectOptions,
    credentials: &Arc<dyn CredentialProvider>,
) -> Result<Client, BuildError> {
    match candidate.backend {
        Backend::Docker => docker(candidate, options, credentials).await,
        Backend::Buildkitd => buildkitd(candidate, options, credentials).await,
        // Only a buildkitd is reached like that.
        Backend::Auto if is_buildkits_own(candidate, options) => {
            buildkitd(candidate, options, credentials).await
        }
        Backend::Auto => {
            // Docker's API answers HTTP/1.1 and says who it is; a buildkitd breaks that off at once.
            if !cfg!(feature = "docker") {
                return buildkitd(candidate, options, credentials).await;
            }
            let refused = match docker(candidate, options, credentials).await {
                Err(e @ (BuildError::Connect(_) | BuildError::Timeout { .. }))
                    if cfg!(feature = "buildkitd") =>
                {
                    e
                }
                other => return other,
            };
            match buildkitd(candidate, options, credentials).await {
                Ok(client) => Ok(client),
                Err(BuildError::Connect(second)) => {
                    let BuildError::Connect(mut first) = refused else {
                        return Err(refused);
                    };
                    for attempt in second.attempts {
                        if first.attempts.iter().all(|a| a.reason != attempt.reason) {
                            first.attempts.push(attempt);
                        }
                    }
                    Err(neither(first).into())
                }
                Err(_) => Err(refused),
            }
        }
    }
}

/// Whether what was said of the endpoint leaves no other kind of daemon.
fn is_buildkits_own(candidate: &Candidate, options: &ConnectOptions) -> bool {
    #[cfg(feature = "buildkitd")]
    if options.tls.is_some() {
        return true;
    }
    let _ = options;
    let schemes = [
        "docker-container://",
        "podman-container://",
        "nerdctl-container://",
        "kube-pod://",
        "ssh://",
    ];
    schemes.iter().any(|scheme| candidate.address.starts_with(scheme))
}

/// One line for an address at which neither kind of daemon answers.
fn neither(error: ConnectError) -> ConnectError {
    match &error.attempts[..] {
        [docker, buildkitd] if docker.address == buildkitd.address => ConnectError::single(
            docker.address.clone(),
            format!(
                "neither Docker ({}) nor BuildKit ({}) answers there",
                docker.reason, buildkitd.reason
            ),
        ),
        _ => error,
    }
}

#[cfg(feature = "docker")]
async fn docker(
    candidate: &Candidate,
    options: &ConnectOptions,
    credentials: &Arc<dyn CredentialProvider>,
) -> Result<Client, BuildError> {
    let endpoint = candidate.address.parse::<backend_docker::Endpoint>()?;
    let backend =
        backend_docker::DockerBackend::connect_to(endpoint, options.docker_route, credentials.clone())
            .await?;
    Ok(Client::from_builder(backend))
}

#[cfg(not(feature = "docker"))]
async fn docker(
    candidate: &Candidate,
    _options: &ConnectOptions,
    _credentials: &Arc<dyn CredentialProvider>,
) -> Result<Client, BuildError> {
    Err(left_out(candidate, "docker"))
}

#[cfg(feature = "buildkitd")]
async fn buildkitd(
    candidate: &Candidate,
    options: &ConnectOptions,
    credentials: &Arc<dyn CredentialProvider>,
) -> Result<Client, BuildError> {
    let mut endpoint = candidate.address.parse::<backend_buildkitd::Endpoint>()?;
    if let Some(tls) = &options.tls {
        endpoint = endpoint.with_tls(tls.clone())?;
    }
    let headers = options.headers.clone();
    let connecting =
        backend_buildkitd::BuildkitdBackend::connect_with_headers(endpoint, credentials.clone(), headers);
    let backend = connecting.await?;
    Ok(Client::from_builder(match loader(options) {
        Some(loader) => backend.loader(loader),
        None => backend,
    }))
}

/// The engine that images are loaded into. It is reached only when there is one to load.
#[cfg(all(feature = "buildkitd", feature = "docker"))]
fn loader(options: &ConnectOptions) -> Option<Arc<dyn ImageLoader>> {
    if let Some(loader) = &options.loader {
        return Some(loader.clone());
    }
    let address = options
        .environment
        .docker_host
        .as_deref()
        .unwrap_or(DOCKER_SOCKET);
    // An address that makes no sense is told when Docker itself is wanted.
    let endpoint = address.parse::<backend_docker::Endpoint>().ok()?;
    Some(Arc::new(backend_docker::EngineLoader::new(endpoint)))
}

#[cfg(all(feature = "buildkitd", not(feature = "docker")))]
fn loader(options: &ConnectOptions) -> Option<Arc<dyn ImageLoader>> {
    options.loader.clone()
}

#[cfg(not(feature = "buildkitd"))]
async fn buildkitd(
    candidate: &Candidate,
    _options: &ConnectOptions,
    _credentials: &Arc<dyn CredentialProvider>,
) -> Result<Client, BuildError> {
    Err(left_out(candidate, "buildkitd"))
}

#[cfg(not(all(feature = "docker", feature = "buildkitd")))]
fn left_out(candidate: &Candidate, feature: &str) -> BuildError {
    ConnectError::single(
        &candidate.address,
        format!("this program was built without the feature `{feature}`"),
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(env: Environment, backend: Backend) -> Vec<(String, Backend)> {
        let options = ConnectOptions::new().environment(env);
        candidates(&options, backend)
            .into_iter()
            .map(|c| (c.address, c.backend))
            .collect()
    }

    #[cfg(all(feature = "docker", feature = "buildkitd"))]
    #[test]
    fn the_order_is_as_documented() {
        let mut env = Environment::empty();
        env.runtime_dir = Some("/run/user/7".into());
        assert_eq!(
            addresses(env.clone(), Backend::Auto),
            [
                (DOCKER_SOCKET.to_owned(), Backend::Docker),
                (BUILDKIT_SOCKET.to_owned(), Backend::Buildkitd),
                (
                    "unix:///run/user/7/buildkit/buildkitd.sock".to_owned(),
                    Backend::Buildkitd
                )
            ]
        );
        assert_eq!(
            addresses(env.clone(), Backend::Docker),
            [(DOCKER_SOCKET.to_owned(), Backend::Docker)]
        );
        env.docker_host = Some("tcp://d:1".to_owned());
        assert_eq!(
            addresses(env.clone(), Backend::Auto),
            [("tcp://d:1".to_owned(), Backend::Docker)]
        );
        assert_eq!(addresses(env.clone(), Backend::Buildkitd)[0].0, BUILDKIT_SOCKET);
        env.buildkit_host = Some("tcp://b:1".to_owned());
        assert_eq!(
            addresses(env.clone(), Backend::Auto),
            [("tcp://b:1".to_owned(), Backend::Buildkitd)]
        );
        assert_eq!(
            addresses(env, Backend::Docker),
            [("tcp://d:1".to_owned(), Backend::Docker)]
        );
    }

    #[tokio::test]
    async fn a_bad_variable_is_named() {
        let mut env = Environment::empty();
        env.bk_backend = Some("podman".to_owned());
        let e = connect_with(ConnectOptions::new().environment(env))
            .await
            .expect_err("must fail");
        assert_eq!(e.to_string(), "BK_BACKEND: `podman` is not a backend");
    }

    #[tokio::test]
    async fn an_unreachable_address_is_named_with_what_to_start() {
        let options = ConnectOptions::new()
            .environment(Environment::empty())
            .addr("unix:///nonexistent/x.sock");
        let e = connect_with(options).await.expect_err("must fail");
        assert!(e.to_string().contains("unix:///nonexistent/x.sock"), "{e}");
        assert!(
            e.hint()
                .is_some_and(|h| h.contains("dockerd") && h.contains("buildkitd")),
            "{e:?}"
        );
    }
}
