//! How to connect, and the first daemon of the [places](crate::places) that answers, else an error that lists what was tried.

use std::{str::FromStr, sync::Arc, time::Duration};

use bk_build::{
    Attempt, BuildError, CallHeaders, ConnectError, CredentialProvider, ImageBuilder as _, ImageLoader,
    InputError, NoCredentials, Obstacle, TokenExchange, TraceContext,
};
use bk_dial::TlsOptions;
use bk_session::DockerConfig;
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use tracing::{Instrument as _, field::Empty};

use crate::{
    Client, Environment, contexts,
    places::{self, Place, Wanted},
    rendezvous, tokens,
};

/// What addresses may be when nothing is said of the kind of daemon.
const ADDRESSES: &str = "unix:///PATH, tcp://HOST:PORT, https://HOST[:PORT], ssh://[USER@]HOST[:PORT][/SOCKET], \
                         docker-container://NAME, podman-container://NAME, nerdctl-container://NAME, kube-pod://NAME, \
                         npipe:////./pipe/NAME, docker:// or docker://CONTEXT";

/// How long an endpoint may be silent before the next of several is asked as well. Those that answer do so in
/// milliseconds, and over a slow line to a busy machine in less than this.
const NEXT_ENDPOINT: Duration = Duration::from_secs(1);

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

/// Who is told of each endpoint that was passed over.
type Skipped = Arc<dyn Fn(&Attempt) + Send + Sync>;

/// How to connect. Everything is optional.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectOptions {
    addrs: Vec<String>,
    affinity: Option<String>,
    skipped: Option<Skipped>,
    builder: Option<String>,
    backend: Option<Backend>,
    #[cfg(feature = "docker")]
    docker_route: backend_docker::DockerRoute,
    environment: Environment,
    credentials: Option<Arc<dyn CredentialProvider>>,
    tokens: Option<Arc<dyn TokenExchange>>,
    loader: Option<Arc<dyn ImageLoader>>,
    headers: CallHeaders,
    trace: Option<TraceContext>,
    tls: Option<TlsOptions>,
    #[cfg(feature = "daemon")]
    daemonless: Option<crate::Daemonless>,
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
            addrs: Vec::new(),
            affinity: None,
            skipped: None,
            builder: None,
            backend: None,
            #[cfg(feature = "docker")]
            docker_route: backend_docker::DockerRoute::Auto,
            environment: Environment::from_process(),
            credentials: None,
            tokens: None,
            loader: None,
            headers: CallHeaders::new(),
            trace: None,
            tls: None,
            #[cfg(feature = "daemon")]
            daemonless: None,
        }
    }

    /// Sets the endpoint, for instance `unix:///var/run/docker.sock`, `tcp://host:1234`, `docker-container://name`,
    /// `ssh://host`, or `docker://` for the Docker Engine that the environment means and `docker://NAME` for that of a Docker
    /// context; the default is to look for one. An explicit address is the only one tried.
    #[must_use]
    pub fn addr(mut self, addr: impl Into<String>) -> Self {
        self.addrs = vec![addr.into()];
        self
    }

    /// Sets several endpoints that are as good as each other; none is as if nothing was set. They are tried in the order of
    /// [`rendezvous`](crate::rendezvous()) for the [affinity](Self::affinity): the same builds find the same daemon, and its
    /// warm cache, as long as it answers. One that does not answer is passed over, before anything was sent to it. While one is
    /// silent, the next is asked too, and is taken when that one fails.
    #[must_use]
    pub fn addrs(mut self, addrs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.addrs = addrs.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the key by which one of several endpoints is chosen, for instance [`affinity_of`](crate::affinity_of) the
    /// context; the default is empty.
    #[must_use]
    pub fn affinity(mut self, key: impl Into<String>) -> Self {
        self.affinity = Some(key.into());
        self
    }

    /// Sets who is told of each of several endpoints that was passed over, and why, be it one of several addresses or a node
    /// of a builder; the default is nobody.
    #[must_use]
    pub fn skipped(mut self, tell: impl Fn(&Attempt) + Send + Sync + 'static) -> Self {
        self.skipped = Some(Arc::new(tell));
        self
    }

    /// Sets a builder that `docker buildx` keeps, by its name; the default is `BUILDX_BUILDER`, else the one chosen with
    /// `docker buildx use` when the environment names no daemon. Its nodes are tried in their order, or chosen by platform
    /// with [`connect_for`](crate::connect_for); its files are only read. An [`addr`](Self::addr) wins over it.
    #[must_use]
    pub fn builder(mut self, name: impl Into<String>) -> Self {
        self.builder = Some(name.into());
        self
    }

    /// Sets that a daemon at `tcp://` is spoken to in TLS, and whom to trust; the default is what the Docker context or the
    /// builder says, else plain bytes. Without authorities of its own, those of the system count.
    #[must_use]
    pub fn tls(mut self, options: TlsOptions) -> Self {
        self.tls = Some(with_roots(options));
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

    /// Sets that a private daemon is started, always or when nobody named a daemon and none answers; the default is never.
    #[cfg(feature = "daemon")]
    #[must_use]
    pub fn daemonless(mut self, how: crate::Daemonless) -> Self {
        self.daemonless = Some(how);
        self
    }

    /// These, with what the environment says of what they leave open.
    ///
    /// # Errors
    /// A header that is not allowed.
    pub(crate) fn complete(mut self) -> Result<Self, InputError> {
        self.headers.check()?;
        self.trace = self.trace.or_else(|| trace(&self.environment));
        Ok(self)
    }

    /// Whether a private daemon is wanted whatever else there is.
    pub(crate) fn is_private(&self) -> bool {
        #[cfg(feature = "daemon")]
        return self.daemonless.as_ref().is_some_and(crate::Daemonless::is_always);
        #[cfg(not(feature = "daemon"))]
        false
    }

    /// The environment that holds.
    pub(crate) fn the_environment(&self) -> &Environment {
        &self.environment
    }

    /// Sets the Docker Engine that images of a standalone buildkitd are loaded into; the default is the one that the
    /// environment means: `DOCKER_HOST`, the current Docker context, Docker's default socket.
    #[must_use]
    pub fn loader(mut self, loader: Arc<dyn ImageLoader>) -> Self {
        self.loader = Some(loader);
        self
    }

    /// Sets a header for every gRPC call and every request of Docker's API, those of builds, of administration and the first
    /// question alike: for proxies and balancers in front of daemons. The default is none. Names are lower case; those that
    /// HTTP, gRPC or BuildKit use themselves are refused when connecting.
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

async fn find(options: ConnectOptions) -> Result<Client, BuildError> {
    let options = options.complete()?;
    #[cfg(feature = "daemon")]
    if let Some(how) = options.daemonless.clone() {
        let lease = match how.is_always() {
            true => how.lease(&options).await?,
            false => match reach(&options).await {
                Err(BuildError::Connect(e)) if nobody_is_named(&options).await? => {
                    match how.lease_instead(&options).await? {
                        Some(lease) => lease,
                        None => return Err(e.into()),
                    }
                }
                reached => return reached,
            },
        };
        let mut options = options.addr(&lease.daemon().address);
        options.tls = None;
        options.backend = Some(match lease.daemon().kind {
            bk_daemon::Kind::Dockerd => Backend::Docker,
            _ => Backend::Buildkitd,
        });
        return Ok(reach(&options).await?.keeping(lease));
    }
    reach(&options).await
}

/// Connects to a daemon that is there.
async fn reach(options: &ConnectOptions) -> Result<Client, BuildError> {
    let ready = Ready::of(options).await?;
    let mut attempts = Vec::new();
    let mut waiting = ready.places.iter();
    // Their ends come in this order, whichever is first.
    let mut asked = FuturesOrdered::new();
    loop {
        if asked.is_empty() {
            let Some(place) = waiting.next() else {
                return Err(ConnectError::several(attempts).into());
            };
            asked.push_back(ready.try_one(place, options));
        }
        tokio::select! {
            biased;
            Some(tried) = asked.next() => match tried? {
                Ok(client) => return Ok(client),
                Err(failed) => {
                    ready.passed_over(&failed, options);
                    attempts.extend(failed);
                }
            },
            // sleep: silence tells nothing; several that are silent shall not take their deadlines one after the other.
            () = tokio::time::sleep(NEXT_ENDPOINT), if waiting.len() > 0 => {
                asked.extend(waiting.next().map(|place| ready.try_one(place, options)));
            }
        }
    }
}

/// Everything that is known before anybody is asked.
pub(crate) struct Ready {
    pub(crate) places: Vec<Place>,
    /// The engine that images are loaded into, when it can be told.
    engine: Option<Place>,
    credentials: Arc<dyn CredentialProvider>,
    exchange: Option<Arc<dyn TokenExchange>>,
}

impl Ready {
    pub(crate) async fn of(options: &ConnectOptions) -> Result<Self, BuildError> {
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
        let finding = look(options)?;
        let finding = tokio::task::spawn_blocking(move || {
            let places = finding.places()?;
            // One that makes no sense is told when Docker itself is wanted.
            let engine = contexts::current(&finding.env).ok().map(Place::of_engine);
            Ok::<_, BuildError>((places, engine))
        });
        let (mut places, engine) = finding
            .await
            .map_err(|e| BuildError::Misuse(format!("the search for a daemon ended: {e}")))??;
        for place in &mut places {
            place.tls = options.tls.clone().or(place.tls.take());
        }
        Ok(Self {
            places,
            engine,
            credentials: tokens::with(credentials, exchange.as_ref()),
            exchange,
        })
    }

    /// Connects to one endpoint: a client, or why there is none when others may do; else an error.
    pub(crate) async fn try_one(
        &self,
        place: &Place,
        options: &ConnectOptions,
    ) -> Result<Result<Client, Vec<Attempt>>, BuildError> {
        let with = With {
            options,
            credentials: &self.credentials,
            engine: self.engine.as_ref(),
        };
        match with.try_one(place).await {
            Ok(client) => {
                let client = client.headers(&options.headers).trace(options.trace.clone());
                Ok(Ok(client.tokens(self.exchange.clone())))
            }
            Err(BuildError::Connect(e)) => Ok(Err(e.attempts.into_iter().map(|a| name(place, a)).collect())),
            // The one endpoint that was named: its own error says most.
            Err(e @ BuildError::Timeout { .. }) if self.places.len() > 1 => Ok(Err(vec![name(
                place,
                Attempt::new(&place.address, e.to_string()),
            )])),
            Err(e) => Err(e),
        }
    }

    /// Tells of an endpoint that does not answer, when several were named.
    pub(crate) fn passed_over(&self, failed: &[Attempt], options: &ConnectOptions) {
        let named = self.places.len() > 1 && self.places.iter().all(|place| !place.usual);
        if let (Some(tell), true) = (&options.skipped, named) {
            failed.iter().for_each(|attempt| tell(attempt));
        }
    }
}

/// What the places where a daemon may be depend on.
struct Look {
    wanted: Wanted,
    env: Environment,
}

impl Look {
    /// Reads files.
    fn places(&self) -> Result<Vec<Place>, BuildError> {
        places::find(&self.wanted, &self.env)
    }
}

fn look(options: &ConnectOptions) -> Result<Look, BuildError> {
    let backend = match (options.backend, &options.environment.bk_backend) {
        (Some(backend), _) => backend,
        (None, Some(text)) => text.parse()?,
        (None, None) => Backend::Auto,
    };
    Ok(Look {
        wanted: Wanted {
            addrs: rendezvous(options.affinity.as_deref().unwrap_or_default(), &options.addrs),
            builder: options.builder.clone(),
            backend,
        },
        env: options.environment.clone(),
    })
}

/// Whether no option, variable or file names a daemon.
#[cfg(feature = "daemon")]
async fn nobody_is_named(options: &ConnectOptions) -> Result<bool, BuildError> {
    let look = look(options)?;
    let finding = tokio::task::spawn_blocking(move || look.places());
    let places = finding
        .await
        .map_err(|e| BuildError::Misuse(format!("the search for a daemon ended: {e}")))??;
    Ok(places.iter().all(|place| place.usual))
}

/// The trace of the environment. One that makes no sense is none: it is for others to repair, and no reason not to build.
fn trace(environment: &Environment) -> Option<TraceContext> {
    environment.trace().unwrap_or_else(|error| {
        tracing::warn!(%error, "the trace of the environment is left aside");
        None
    })
}

/// The authorities of the system count for who names none.
fn with_roots(options: TlsOptions) -> TlsOptions {
    match options.system_roots {
        Some(_) => options,
        None => options.system_roots(tokens::system_roots),
    }
}

/// Says of a failed attempt where its address came from, and what may help.
fn name(place: &Place, mut attempt: Attempt) -> Attempt {
    if attempt.origin.is_empty() {
        attempt.origin.clone_from(&place.origin);
    }
    if !place.advice.is_empty() {
        attempt.reason.push_str("; ");
        attempt.reason.push_str(&place.advice);
    }
    attempt
}

/// What every attempt needs.
#[cfg_attr(
    not(any(feature = "docker", feature = "buildkitd")),
    expect(dead_code, reason = "without a backend nothing is attempted")
)]
struct With<'a> {
    options: &'a ConnectOptions,
    credentials: &'a Arc<dyn CredentialProvider>,
    /// The engine that images are loaded into, when it can be told.
    #[cfg_attr(
        not(all(feature = "docker", feature = "buildkitd")),
        expect(dead_code, reason = "both are needed to load")
    )]
    engine: Option<&'a Place>,
}

impl With<'_> {
    async fn try_one(&self, place: &Place) -> Result<Client, BuildError> {
        match place.backend {
            Backend::Docker => self.docker(place).await,
            Backend::Buildkitd => self.buildkitd(place).await,
            Backend::Auto if !cfg!(feature = "docker") || is_buildkits_own(&place.address) => {
                self.buildkitd(place).await
            }
            Backend::Auto if !cfg!(feature = "buildkitd") => self.docker(place).await,
            Backend::Auto => self.whatever(place).await,
        }
        .map_err(|e| any_address(place, e))
    }

    /// Whatever answers: TLS can tell, else it is tried.
    async fn whatever(&self, place: &Place) -> Result<Client, BuildError> {
        match self.speaks_http2(place).await? {
            Some(true) => self.buildkitd(place).await,
            Some(false) => self.docker(place).await,
            None => self.either(place).await,
        }
    }

    /// Whatever answers, where nothing but trying tells.
    async fn either(&self, place: &Place) -> Result<Client, BuildError> {
        // Docker's API answers HTTP/1.1 and says who it is; a buildkitd breaks that off at once. Another machine is asked for
        // `buildctl` first: where there is one, it is meant.
        let buildkitd_first = place.address.starts_with("ssh://");
        let first = match buildkitd_first {
            true => self.buildkitd(place).await,
            false => self.docker(place).await,
        };
        let refused = match first {
            // The way there fails, whoever is asked for.
            Err(BuildError::Connect(e)) if buildkitd_first && is_of_ssh(&e) => return Err(e.into()),
            Err(e @ (BuildError::Connect(_) | BuildError::Timeout { .. })) => e,
            other => return other,
        };
        let second = match buildkitd_first {
            true => self.docker(place).await,
            false => self.buildkitd(place).await,
        };
        match (refused, second) {
            (_, Ok(client)) => Ok(client),
            (BuildError::Connect(first), Err(BuildError::Connect(second))) => Err(match buildkitd_first {
                true => neither(second, first),
                false => neither(first, second),
            }
            .into()),
            (refused, Err(_)) => Err(refused),
        }
    }

    #[cfg(feature = "docker")]
    async fn speaks_http2(&self, place: &Place) -> Result<Option<bool>, BuildError> {
        match place.tls.is_some() || place.address.starts_with("https://") {
            true => engine_endpoint(place)?.speaks_http2().await,
            false => Ok(None),
        }
    }

    #[cfg(not(feature = "docker"))]
    async fn speaks_http2(&self, _place: &Place) -> Result<Option<bool>, BuildError> {
        Ok(None)
    }

    #[cfg(feature = "docker")]
    async fn docker(&self, place: &Place) -> Result<Client, BuildError> {
        let endpoint = engine_endpoint(place)?;
        let (route, credentials) = (self.options.docker_route, self.credentials.clone());
        let headers = self.options.headers.clone();
        let backend =
            backend_docker::DockerBackend::connect_with_headers(endpoint, route, credentials, headers)
                .await?;
        let dialer = backend.dialer();
        Ok(Client::from_builder(backend).dialer(dialer))
    }

    #[cfg(not(feature = "docker"))]
    async fn docker(&self, place: &Place) -> Result<Client, BuildError> {
        Err(left_out(place, "docker"))
    }

    #[cfg(feature = "buildkitd")]
    async fn buildkitd(&self, place: &Place) -> Result<Client, BuildError> {
        let mut endpoint = place.address.parse::<backend_buildkitd::Endpoint>()?;
        if let Some(tls) = &place.tls {
            endpoint = endpoint.with_tls(with_roots(tls.clone()))?;
        }
        let (credentials, headers) = (self.credentials.clone(), self.options.headers.clone());
        let backend =
            backend_buildkitd::BuildkitdBackend::connect_with_headers(endpoint, credentials, headers).await?;
        let dialer = backend.dialer();
        let backend = match self.loader() {
            Some(loader) => backend.loader(loader),
            None => backend,
        };
        Ok(Client::from_builder(backend).dialer(Some(dialer)))
    }

    #[cfg(not(feature = "buildkitd"))]
    async fn buildkitd(&self, place: &Place) -> Result<Client, BuildError> {
        Err(left_out(place, "buildkitd"))
    }

    /// The engine that images are loaded into. It is reached only when there is one to load.
    #[cfg(feature = "buildkitd")]
    fn loader(&self) -> Option<Arc<dyn ImageLoader>> {
        if let Some(loader) = &self.options.loader {
            return Some(loader.clone());
        }
        #[cfg(feature = "docker")]
        if let Some(endpoint) = self.engine.and_then(|p| engine_endpoint(p).ok()) {
            return Some(Arc::new(backend_docker::EngineLoader::new(endpoint)));
        }
        None
    }
}

#[cfg(feature = "docker")]
fn engine_endpoint(place: &Place) -> Result<backend_docker::Endpoint, InputError> {
    use backend_docker::Endpoint;
    match &place.tls {
        Some(tls) => Endpoint::with_tls(&place.address, with_roots(tls.clone())),
        None if place.address.starts_with("https://") => {
            Endpoint::with_tls(&place.address, with_roots(TlsOptions::new()))
        }
        None => place.address.parse(),
    }
}

/// An address that is of neither kind of daemon: says what there is in all.
fn any_address(place: &Place, error: BuildError) -> BuildError {
    match error {
        BuildError::Input(e)
            if place.backend == Backend::Auto
                && matches!(&*e.what, "the address" | "the Docker endpoint") =>
        {
            InputError::new("the address", e.message, ADDRESSES).into()
        }
        other => other,
    }
}

/// Whether `ssh` itself failed.
fn is_of_ssh(error: &ConnectError) -> bool {
    let of_ssh = |attempt: &Attempt| attempt.obstacle.is_some_and(Obstacle::is_of_ssh);
    error.attempts.iter().all(of_ssh)
}

/// Whether only a buildkitd is reached like that.
fn is_buildkits_own(address: &str) -> bool {
    let schemes = [
        "docker-container://",
        "podman-container://",
        "nerdctl-container://",
        "kube-pod://",
    ];
    schemes.iter().any(|scheme| address.starts_with(scheme))
}

/// The error for an address at which neither kind of daemon answers: one line, if it is one address.
fn neither(mut docker: ConnectError, buildkitd: ConnectError) -> ConnectError {
    for attempt in buildkitd.attempts {
        if docker.attempts.iter().all(|a| a.reason != attempt.reason) {
            docker.attempts.push(attempt);
        }
    }
    match &docker.attempts[..] {
        [first, second] if first.address == second.address => ConnectError::single(
            first.address.clone(),
            format!(
                "neither Docker ({}) nor BuildKit ({}) answers there",
                first.reason, second.reason
            ),
        )
        .obstacle(first.obstacle.or(second.obstacle)),
        _ => docker,
    }
}

#[cfg(not(all(feature = "docker", feature = "buildkitd")))]
fn left_out(place: &Place, feature: &str) -> BuildError {
    ConnectError::single(
        &place.address,
        format!("this program was built without the feature `{feature}`"),
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

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
