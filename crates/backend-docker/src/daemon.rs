//! Who answers at an endpoint: the first questions, each with a deadline.
//!
//! The rule: whatever listens there, the answer is an error that says what it is, never a hang.

use bk_build::{BuildError, ConnectError, Obstacle};
use bk_solve::{chain, deadline};
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use http::{HeaderMap, Method, StatusCode};

use crate::{
    http1::{self, Connection, SendError, empty, error_message},
    site::Site,
};

/// A version of Docker's API, such as 1.41.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion {
    pub(crate) major: usize,
    pub(crate) minor: usize,
}

impl ApiVersion {
    pub(crate) const fn new(major: usize, minor: usize) -> Self {
        Self { major, minor }
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What an engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Daemon {
    /// Its version, for instance `28.5.2`; empty when it does not say.
    pub(crate) version: String,
    /// The newest API that it speaks.
    pub(crate) api: ApiVersion,
    /// The API in use for its versioned paths: the newest that both sides know.
    pub(crate) used_api: ApiVersion,
    /// The system that its containers run on, for instance `linux`; empty when it does not say.
    pub(crate) os: String,
}

impl std::fmt::Display for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = if self.version.is_empty() {
            "of unknown version"
        } else {
            &self.version
        };
        write!(f, "Docker {version} (API {})", self.api)
    }
}

/// The answer to `/_ping`.
struct Pong {
    api: ApiVersion,
    os: String,
}

/// Makes a client for Docker's API whose requests go where `site` says, each on a connection of its own. Nothing is
/// sent.
///
/// # Errors
/// [`BuildError::Connect`] when the client refuses its settings.
pub(crate) fn client(site: &Site) -> Result<Docker, BuildError> {
    let (whole, address) = (site.clone(), format!("http://{}", site.endpoint.host_header()));
    let transport = move |request: BollardRequest| {
        let site = whole.clone();
        async move { Box::pin(http1::forward(&site, request)).await }
    };
    Docker::connect_with_custom_transport(transport, Some(address), bollard_timeout(), API_DEFAULT_VERSION)
        .map_err(|e| ConnectError::single(site.to_string(), chain(&e)).into())
}

/// Seconds that one request of that client may take; builds do not go through it. Its own default.
fn bollard_timeout() -> u64 {
    120
}

/// Asks who listens at `site`, and lets `docker` settle on an API version that both sides know.
///
/// # Errors
/// [`BuildError::Connect`] when nobody listens or something else does, [`BuildError::Timeout`] when nothing comes.
pub(crate) async fn ask(site: &Site, docker: Docker) -> Result<(Daemon, Docker), BuildError> {
    let (what, after) = (format!("an answer from {site}"), site.endpoint.connect_timeout());
    let pong = deadline(&what, after, ping(site)).await?;
    let asking = async {
        let docker = docker.negotiate_version().await?;
        let version = docker.version().await?;
        Ok((docker, version))
    };
    let asking = async {
        asking.await.map_err(|e: bollard::errors::Error| {
            let error = not_docker(site, &format!("GET /version: {}", chain(&e)));
            BuildError::from(error.obstacle(Obstacle::of(&e)))
        })
    };
    let (docker, version) = deadline(&what, after, asking).await?;
    let used = docker.client_version();
    let daemon = Daemon {
        version: version.version.unwrap_or_default(),
        api: version
            .api_version
            .as_deref()
            .and_then(ApiVersion::parse)
            .unwrap_or(pong.api),
        used_api: ApiVersion::new(used.major_version, used.minor_version),
        os: version.os.filter(|os| !os.is_empty()).unwrap_or(pong.os),
    };
    Ok((daemon, docker))
}

/// What a server says that got plain bytes where it wanted TLS.
const WANTS_TLS: &str = "what listens there speaks TLS; name its authority with --tlscacert or --tlsdir, or set \
                         DOCKER_TLS_VERIFY and DOCKER_CERT_PATH";

async fn ping(site: &Site) -> Result<Pong, BuildError> {
    let mut connection = Connection::open(site).await?;
    let response = match connection.send(Method::GET, "/_ping", &[], empty()).await {
        Ok(response) => response,
        Err(SendError::Invalid(e)) => {
            return Err(BuildError::Misuse(format!("the ping cannot be sent: {e}")));
        }
        Err(SendError::Transport(e)) if e.is_parse() => {
            return Err(not_docker(
                site,
                "what answers there does not speak HTTP/1.1 (buildkitd, for one, does not)",
            )
            .into());
        }
        Err(SendError::Transport(e)) if e.is_incomplete_message() => {
            return Err(not_docker(site, "the connection was closed without an answer").into());
        }
        Err(SendError::Transport(e)) => {
            return Err(not_docker(site, &chain(&e)).obstacle(Obstacle::of(&e)).into());
        }
    };
    let (status, headers) = (response.status(), response.headers().clone());
    if header(&headers, "libpod-api-version").is_some() {
        return Err(not_docker(site, "Podman answers there, whose build API is not BuildKit's").into());
    }
    match header(&headers, "api-version").as_deref().map(ApiVersion::parse) {
        Some(Some(api)) if status == StatusCode::OK => Ok(Pong {
            api,
            os: header(&headers, "ostype").unwrap_or_default(),
        }),
        Some(_) => {
            let said = error_message(response).await;
            Err(ConnectError::single(
                site.to_string(),
                format!("the daemon refuses to be asked: {said}"),
            )
            .into())
        }
        None if status == StatusCode::BAD_REQUEST => {
            let said = error_message(response).await;
            Err(match said.contains("HTTPS server") {
                true => ConnectError::single(site.to_string(), WANTS_TLS).obstacle(Obstacle::WantsTls),
                false => not_docker(site, &said),
            }
            .into())
        }
        None => Err(not_docker(
            site,
            &format!("an HTTP server answers there that does not know /_ping (HTTP {status})"),
        )
        .into()),
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
}

fn not_docker(site: &Site, why: &str) -> ConnectError {
    // Whether the request or the connection meets the end first is chance; the cause is the same.
    let why = why.strip_prefix("operation was canceled: ").unwrap_or(why);
    ConnectError::single(site.to_string(), format!("this is not a Docker Engine: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        endpoint::Endpoint,
        testing::{Engine, Reply},
    };

    async fn who(engine: &Engine) -> Result<Daemon, BuildError> {
        let endpoint: Endpoint = engine.address().parse()?;
        let site = endpoint.into();
        let docker = client(&site)?;
        ask(&site, docker).await.map(|(daemon, _)| daemon)
    }

    #[tokio::test]
    async fn an_engine_says_who_it_is() {
        let engine = Engine::of_version("20.10.24", "1.41", "linux", |_| {
            Reply::http("404 Not Found", "", "")
        });
        let daemon = who(&engine).await.expect("an engine");
        assert_eq!(daemon.to_string(), "Docker 20.10.24 (API 1.41)");
        assert_eq!(
            (daemon.used_api, daemon.os.as_str()),
            (ApiVersion::new(1, 41), "linux")
        );
        // A daemon newer than this client is used at the newest version that the client knows.
        let engine = Engine::of_version("40.0", "1.99", "linux", |_| Reply::http("404 Not Found", "", ""));
        let daemon = who(&engine).await.expect("an engine");
        assert_eq!(daemon.api, ApiVersion::new(1, 99));
        assert!(daemon.used_api < ApiVersion::new(1, 99));
    }

    #[tokio::test]
    async fn whatever_else_answers_is_said() {
        for (reply, part) in [
            (
                Reply::Pieces(vec![b"\0\0\x12\x04\0\0\0\0\0".to_vec()]),
                "does not speak HTTP/1.1",
            ),
            (Reply::Pieces(vec![]), "closed without an answer"),
            (
                Reply::http("404 Not Found", "", "<html>"),
                "an HTTP server answers there that does not know /_ping",
            ),
            (
                Reply::http("200 OK", "Api-Version: 1.41\r\nLibpod-API-Version: 5.0\r\n", "OK"),
                "Podman answers there",
            ),
            (
                Reply::http(
                    "500 Oh",
                    "Api-Version: 1.41\r\n",
                    r#"{"message":"plugin says no"}"#,
                ),
                "plugin says no",
            ),
            (
                Reply::http("200 OK", "Api-Version: x\r\n", ""),
                "refuses to be asked",
            ),
        ] {
            let engine = Engine::start(move |_| reply.clone());
            let e = who(&engine).await.expect_err(part);
            assert!(matches!(e, BuildError::Connect(_)), "{e:?}");
            let text = e.to_string();
            assert!(text.contains(part) && text.contains(&engine.address()), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_has_a_deadline() {
        let engine = Engine::start(|_| Reply::Hold(Vec::new()));
        let e = who(&engine).await.expect_err("nothing answers");
        assert!(
            matches!(&e, BuildError::Timeout { what, .. } if what.contains(&engine.address())),
            "{e:?}"
        );
    }
}
