//! How to connect: what a program says of it, before the environment and files are asked.

use std::{str::FromStr, sync::Arc};

use bk_build::{
    Attempt, CallHeaders, CredentialProvider, ImageLoader, InputError, TokenExchange, TraceContext,
};
use bk_dial::TlsOptions;

use crate::{Environment, tokens};

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
pub(crate) type Skipped = Arc<dyn Fn(&Attempt) + Send + Sync>;

/// How to connect. Everything is optional.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectOptions {
    pub(crate) addrs: Vec<String>,
    pub(crate) affinity: Option<String>,
    pub(crate) skipped: Option<Skipped>,
    pub(crate) builder: Option<String>,
    pub(crate) backend: Option<Backend>,
    #[cfg(feature = "docker")]
    pub(crate) docker_route: backend_docker::DockerRoute,
    pub(crate) environment: Environment,
    pub(crate) credentials: Option<Arc<dyn CredentialProvider>>,
    pub(crate) tokens: Option<Arc<dyn TokenExchange>>,
    pub(crate) loader: Option<Arc<dyn ImageLoader>>,
    pub(crate) headers: CallHeaders,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) tls: Option<TlsOptions>,
    #[cfg(feature = "daemon")]
    pub(crate) daemonless: Option<crate::Daemonless>,
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

/// The trace of the environment. One that makes no sense is none: it is for others to repair, and no reason not to build.
fn trace(environment: &Environment) -> Option<TraceContext> {
    environment.trace().unwrap_or_else(|error| {
        tracing::warn!(%error, "the trace of the environment is left aside");
        None
    })
}

/// The authorities of the system count for who names none.
pub(crate) fn with_roots(options: TlsOptions) -> TlsOptions {
    match options.system_roots {
        Some(_) => options,
        None => options.system_roots(tokens::system_roots),
    }
}
