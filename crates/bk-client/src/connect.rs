//! The first daemon of the [places](crate::places) that answers, else an error that lists what was tried.

use std::{sync::Arc, time::Duration};

use bk_build::{
    Attempt, BuildError, ConnectError, CredentialProvider, ImageBuilder as _, InputError, NoCredentials,
    Obstacle, TokenExchange,
};
use bk_session::DockerConfig;
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use tracing::{Instrument as _, field::Empty};

#[cfg(any(feature = "docker", feature = "buildkitd"))]
use crate::options::with_roots;
use crate::{
    Backend, Client, ConnectOptions, Environment, contexts,
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
    told(async { find(options.complete()?, None).await }).await
}

/// The same with [complete](ConnectOptions::complete) options, of which `ready` has read what they depend on.
pub(crate) async fn connect_ready(options: ConnectOptions, ready: Ready) -> Result<Client, BuildError> {
    told(find(options, Some(ready))).await
}

async fn told(finding: impl Future<Output = Result<Client, BuildError>>) -> Result<Client, BuildError> {
    let span = tracing::info_span!("bk.connect", address = Empty, route = Empty);
    let client = Box::pin(finding).instrument(span.clone()).await?;
    let info = client.info();
    span.record("address", &*info.address);
    span.record("route", info.route.as_deref());
    Ok(client)
}

async fn find(options: ConnectOptions, ready: Option<Ready>) -> Result<Client, BuildError> {
    #[cfg(feature = "daemon")]
    if let Some(how) = options.daemonless.as_ref().filter(|how| how.is_always()) {
        let lease = how.lease(&options).await?;
        return on_private(lease, options).await;
    }
    let ready = match ready {
        Some(ready) => ready,
        None => Ready::of(&options).await?,
    };
    let reached = reach(&ready, &options).await;
    #[cfg(feature = "daemon")]
    if let (Err(BuildError::Connect(_)), Some(how)) = (&reached, &options.daemonless)
        && ready.nobody_is_named()
        && let Some(lease) = how.lease_instead(&options).await?
    {
        return on_private(lease, options).await;
    }
    reached
}

/// Connects to a private daemon, and keeps it.
#[cfg(feature = "daemon")]
async fn on_private(lease: bk_daemon::Lease, options: ConnectOptions) -> Result<Client, BuildError> {
    let mut options = options.addr(&lease.daemon().address);
    options.tls = None;
    options.backend = Some(match lease.daemon().kind {
        bk_daemon::Kind::Dockerd => Backend::Docker,
        _ => Backend::Buildkitd,
    });
    let ready = Ready::of(&options).await?;
    Ok(reach(&ready, &options).await?.keeping(lease))
}

/// Connects to a daemon that is there.
async fn reach(ready: &Ready, options: &ConnectOptions) -> Result<Client, BuildError> {
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

    /// Whether no option, variable or file names a daemon.
    #[cfg(feature = "daemon")]
    fn nobody_is_named(&self) -> bool {
        self.places.iter().all(|place| place.usual)
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
    fn loader(&self) -> Option<Arc<dyn bk_build::ImageLoader>> {
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
    use bk_dial::TlsOptions;
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
