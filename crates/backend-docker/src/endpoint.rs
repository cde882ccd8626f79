//! Where an engine listens: endpoint text and the byte stream behind it.
//!
//! The rule: what cannot be reached is said before anything is dialled, and every failure names the address and what to
//! start.

use std::{fmt, io, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use bk_build::{BuildError, ConnectError, InputError, Obstacle};
use bk_dial::{Helper, Serves, TlsOptions, TlsStream, host_port, is_host, limits::HELPER_TIMEOUT};
use bk_solve::{BoxedIo, deadline};

use crate::limits::CONNECT_TIMEOUT;

/// The port of an engine on TCP without TLS, when none is given.
const DEFAULT_PORT: u16 = 2375;
/// The same with TLS.
const DEFAULT_TLS_PORT: u16 = 2376;
/// The port of `http://` when none is given.
const HTTP_PORT: u16 = 80;
/// The port of `https://` when none is given.
const HTTPS_PORT: u16 = 443;
/// What an endpoint may be.
const ALLOWED: &str = "unix:///PATH, tcp://HOST[:PORT], http://HOST[:PORT], https://HOST[:PORT], \
                       ssh://[USER@]HOST[:PORT][/SOCKET] or npipe:////./pipe/NAME";
/// What an engine speaks inside TLS.
const HTTP1: &[u8] = b"http/1.1";
/// What BuildKit speaks.
const HTTP2: &[u8] = b"h2";

/// Where a Docker Engine listens. Made from text such as `unix:///var/run/docker.sock`, written back the same way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Endpoint {
    /// A Unix socket: its path, or its name behind `@` in Linux' own space of names.
    Unix(PathBuf),
    /// A TCP port, without TLS.
    Tcp {
        /// Name or address; an IPv6 address without its brackets.
        host: String,
        /// Port.
        port: u16,
        /// The scheme it was written with, `tcp` or `http`; they mean the same.
        scheme: &'static str,
    },
    /// A TCP port, with TLS.
    Tls {
        /// Name or address; an IPv6 address without its brackets.
        host: String,
        /// Port.
        port: u16,
        /// The scheme it was written with, `tcp` or `https`.
        scheme: &'static str,
        /// Whom to trust, and what to show.
        options: Arc<TlsOptions>,
    },
    /// `ssh`, which runs `docker system dial-stdio` on another machine, once for each connection.
    Helper(Helper),
    /// A named pipe of Windows, for instance `//./pipe/docker_engine`.
    Pipe(String),
}

/// What is wanted inside of a byte stream; it matters where TLS asks for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Docker's API.
    Http1,
    /// HTTP/2 without an upgrade.
    Http2,
}

impl Endpoint {
    /// Reads an endpoint that speaks TLS as `tls` says.
    ///
    /// # Errors
    /// An [`InputError`] when the text is no endpoint, or none that TLS goes with.
    pub fn with_tls(text: &str, tls: TlsOptions) -> Result<Self, InputError> {
        match parse(text, true)? {
            Self::Tls {
                host, port, scheme, ..
            } => Ok(Self::Tls {
                host,
                port,
                scheme,
                options: Arc::new(tls),
            }),
            other => Err(InputError::new(
                "--tls, --tlscacert, --tlscert, --tlskey, --tlsservername, --tlsdir",
                format!("there is no TLS at `{other}`"),
                "an address tcp://host:port or https://host",
            )),
        }
    }

    /// The value of the `Host` header, never empty: servers refuse requests without one.
    pub(crate) fn host_header(&self) -> String {
        match self {
            Self::Unix(_) | Self::Helper(_) | Self::Pipe(_) => "localhost".to_owned(),
            Self::Tcp { host, port, .. } | Self::Tls { host, port, .. } => authority(host, *port),
        }
    }

    /// What has to be said of it before it is used; `None` when there is nothing.
    pub(crate) fn warning(&self) -> Option<String> {
        match self {
            Self::Tls { options, .. } if options.unchecked => {
                let whose = options.origin.as_ref().map(|o| format!(" ({o} says so)"));
                let whose = whose.unwrap_or_default();
                Some(format!(
                    "the certificate of {self} is not checked{whose}: whoever is between can read and change the build"
                ))
            }
            _ => None,
        }
    }

    /// How long connecting may take, and then again the first answer.
    pub(crate) fn connect_timeout(&self) -> Duration {
        match self {
            Self::Helper(_) => HELPER_TIMEOUT,
            _ => CONNECT_TIMEOUT,
        }
    }

    /// Opens a byte stream for Docker's API, with a deadline.
    ///
    /// # Errors
    /// [`BuildError::Connect`] or [`BuildError::Timeout`], naming the address; [`BuildError::Input`] names what is wrong
    /// with the files of [`TlsOptions`].
    pub(crate) async fn dial(&self) -> Result<BoxedIo, BuildError> {
        self.dial_for(Speaks::Http1).await
    }

    /// The same for what is spoken there.
    ///
    /// # Errors
    /// As [`dial`](Self::dial).
    pub(crate) async fn dial_for(&self, speaks: Speaks) -> Result<BoxedIo, BuildError> {
        self.opened(self.open(speaks)).await
    }

    /// What `opening` yields, with the deadline, and with what its failure means.
    async fn opened<T>(&self, opening: impl Future<Output = io::Result<T>>) -> Result<T, BuildError> {
        let opening = async {
            opening.await.map_err(
                |e| match e.get_ref().and_then(|e| e.downcast_ref::<InputError>()) {
                    Some(input) => BuildError::from(input.clone()),
                    None => self.refused(&e).into(),
                },
            )
        };
        deadline(
            &format!("a connection to {self}"),
            self.connect_timeout(),
            opening,
        )
        .await
    }

    async fn open(&self, speaks: Speaks) -> io::Result<BoxedIo> {
        match self {
            Self::Unix(path) => Ok(Box::new(bk_dial::unix(path).await?)),
            Self::Tcp { host, port, .. } => Ok(Box::new(bk_dial::tcp(host, *port).await?)),
            Self::Tls {
                host, port, options, ..
            } => {
                let wanted = match speaks {
                    Speaks::Http1 => HTTP1,
                    Speaks::Http2 => HTTP2,
                };
                Ok(Box::new(tls(host, *port, options, &[wanted]).await?))
            }
            Self::Helper(helper) => Ok(Box::new(helper.dial()?)),
            Self::Pipe(name) => Ok(Box::new(bk_dial::named_pipe(name).await?)),
        }
    }

    /// Asks what is spoken there, where it can be told before anything is sent: inside TLS. Whether it is HTTP/2, thus a
    /// BuildKit's own; `None` when it cannot be told.
    ///
    /// # Errors
    /// As [`DockerBackend::connect`](crate::DockerBackend::connect).
    pub async fn speaks_http2(&self) -> Result<Option<bool>, BuildError> {
        let Self::Tls {
            host, port, options, ..
        } = self
        else {
            return Ok(None);
        };
        let asking = tls(host, *port, options, &[HTTP2, HTTP1]);
        let stream = self.opened(asking).await?;
        Ok(Some(stream.protocol() == Some(HTTP2)))
    }

    fn refused(&self, error: &io::Error) -> ConnectError {
        let advice = match (self, error.kind()) {
            (Self::Unix(_), io::ErrorKind::NotFound) => "there is no such socket; is dockerd running?",
            (Self::Unix(_) | Self::Tcp { .. } | Self::Tls { .. }, io::ErrorKind::ConnectionRefused) => {
                "nothing listens there; is dockerd running?"
            }
            (Self::Unix(_), io::ErrorKind::PermissionDenied) => {
                let why = "permission denied; the socket is open to root and its group (usually `docker`)";
                return ConnectError::single(self.to_string(), why).obstacle(Obstacle::Permission);
            }
            (Self::Pipe(_), io::ErrorKind::NotFound) => "there is no such pipe; is Docker running?",
            _ => {
                return ConnectError::single(self.to_string(), error.to_string())
                    .obstacle(Obstacle::of(error));
            }
        };
        ConnectError::single(self.to_string(), advice)
    }
}

async fn tls(host: &str, port: u16, options: &TlsOptions, protocols: &[&[u8]]) -> io::Result<TlsStream> {
    options
        .connect(host, protocols, bk_dial::tcp(host, port).await?)
        .await
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port, scheme }
            | Self::Tls {
                host, port, scheme, ..
            } => write!(f, "{scheme}://{}", authority(host, *port)),
            Self::Helper(helper) => helper.fmt(f),
            Self::Pipe(name) => write!(f, "npipe://{name}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = InputError;

    /// `https://` trusts nobody before [`Endpoint::with_tls`] says whom.
    fn from_str(text: &str) -> Result<Self, InputError> {
        parse(text, false)
    }
}

/// Reads an endpoint, with TLS at `tcp://` or not.
fn parse(text: &str, tls: bool) -> Result<Endpoint, InputError> {
    let bad = |why: &str| InputError::new("the Docker endpoint", format!("`{text}`: {why}"), ALLOWED);
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(bad("it names no scheme"));
    };
    let with_tls = |(host, port), scheme| Endpoint::Tls {
        host,
        port,
        scheme,
        options: Arc::new(TlsOptions::new()),
    };
    match scheme {
        "unix" if bk_dial::is_unix(rest) => Ok(Endpoint::Unix(rest.into())),
        "unix" => Err(bad(
            "the path of the socket must be absolute, so three slashes follow `unix:`",
        )),
        "tcp" if tls => Ok(with_tls(place(rest, DEFAULT_TLS_PORT).map_err(bad)?, "tcp")),
        "https" => Ok(with_tls(place(rest, HTTPS_PORT).map_err(bad)?, "https")),
        "tcp" | "http" => {
            let (scheme, default) = match scheme {
                "tcp" => ("tcp", DEFAULT_PORT),
                _ => ("http", HTTP_PORT),
            };
            let (host, port) = place(rest, default).map_err(bad)?;
            Ok(Endpoint::Tcp { host, port, scheme })
        }
        "ssh" => match Helper::parse(text, Serves::Docker) {
            Some(helper) => helper
                .map(Endpoint::Helper)
                .map_err(|e| InputError::new("the Docker endpoint", e.message, ALLOWED)),
            None => Err(bad("this scheme is not known")),
        },
        "npipe" => bk_dial::pipe_name(rest).map(Endpoint::Pipe).map_err(bad),
        _ => Err(bad("this scheme is not known")),
    }
}

/// `host[:port]`, with an IPv6 address in brackets.
fn place(rest: &str, default: u16) -> Result<(String, u16), &'static str> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err("a path behind the port is not supported");
    }
    if rest.contains('@') {
        return Err("a user name is not supported");
    }
    let (host, port) = host_port(rest)?;
    if host.is_empty() {
        return Err("it names no host");
    }
    if !is_host(host) {
        return Err("the host has a character that a host cannot have");
    }
    Ok((host.to_owned(), port.unwrap_or(default)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str) -> String {
        let error = text.parse::<Endpoint>().expect_err(text);
        assert_eq!(error.allowed, ALLOWED);
        error.to_string()
    }

    #[test]
    fn a_program_that_may_have_to_log_in_has_more_time() {
        for (text, seconds) in [
            ("unix:///d.sock", 10),
            ("tcp://host:2375", 10),
            ("ssh://me@host", 40),
        ] {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.connect_timeout().as_secs(), seconds, "{text}");
        }
    }

    #[test]
    fn texts_and_their_endpoints() {
        for (text, back, host) in [
            (
                "unix:///var/run/docker.sock",
                "unix:///var/run/docker.sock",
                "localhost",
            ),
            ("unix://@docker", "unix://@docker", "localhost"),
            ("tcp://127.0.0.1:4243", "tcp://127.0.0.1:4243", "127.0.0.1:4243"),
            (
                "tcp://build.example.com",
                "tcp://build.example.com:2375",
                "build.example.com:2375",
            ),
            ("tcp://[::1]:2376/", "tcp://[::1]:2376", "[::1]:2376"),
            ("tcp://[fe80::1]", "tcp://[fe80::1]:2375", "[fe80::1]:2375"),
            ("http://proxy:8080", "http://proxy:8080", "proxy:8080"),
            ("http://proxy", "http://proxy:80", "proxy:80"),
            ("https://proxy", "https://proxy:443", "proxy:443"),
            (
                "ssh://me@host:22/run/d.sock",
                "ssh://me@host:22/run/d.sock",
                "localhost",
            ),
            (
                "npipe:////./pipe/docker_engine",
                "npipe:////./pipe/docker_engine",
                "localhost",
            ),
            (
                r"npipe://\\.\pipe\docker_engine",
                "npipe:////./pipe/docker_engine",
                "localhost",
            ),
        ] {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(
                (endpoint.to_string().as_str(), endpoint.host_header().as_str()),
                (back, host)
            );
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for bad in [
            "npipe://docker_engine",
            "npipe://",
            "npipe:////./pipe/",
            "npipe:////far/pipe/docker_engine",
            "npipe:////./pipe/docker_engine/_ping",
        ] {
            assert!(fails(bad).ends_with(": a named pipe is written npipe:////./pipe/NAME"));
        }
        assert!(fails("ssh://-oProxyCommand=x").contains("the host cannot be"));
        assert!(fails("/var/run/docker.sock").ends_with("it names no scheme"));
        assert!(fails("unix://var/run/docker.sock").contains("must be absolute"));
        for bad in [
            "",
            "tcp://",
            "tcp://:1",
            "tcp://h:0",
            "tcp://h:65536",
            "tcp://h:",
            "tcp://h:x",
            "tcp://::1",
            "tcp://[::1",
            "tcp://[::1]x",
            "tcp://[h]:1",
            "tcp://a@h",
            "tcp://h/p",
            "tcp://h?x",
            "tcp://h\r\nX: y",
            "fd://",
            "unix://",
        ] {
            fails(bad);
        }
    }

    #[test]
    fn tls_has_a_port_of_its_own_and_is_for_tcp() {
        for (text, back) in [
            ("tcp://h", "tcp://h:2376"),
            ("tcp://h:2375", "tcp://h:2375"),
            ("https://h", "https://h:443"),
        ] {
            let endpoint = Endpoint::with_tls(text, TlsOptions::new()).expect(text);
            assert!(matches!(endpoint, Endpoint::Tls { .. }), "{endpoint:?}");
            assert_eq!((endpoint.to_string().as_str(), endpoint.warning()), (back, None));
        }
        for text in ["unix:///d.sock", "http://h:1", "ssh://h"] {
            let error = Endpoint::with_tls(text, TlsOptions::new())
                .expect_err(text)
                .to_string();
            assert!(
                error.ends_with(&format!("there is no TLS at `{text}`")),
                "{error}"
            );
        }
        let unchecked = TlsOptions::new()
            .unchecked(true)
            .origin("the Docker context `far`");
        let endpoint = Endpoint::with_tls("tcp://h", unchecked).expect("an endpoint");
        assert_eq!(
            endpoint.warning().as_deref(),
            Some(
                "the certificate of tcp://h:2376 is not checked (the Docker context `far` says so): whoever is between can \
                 read and change the build"
            )
        );
    }

    #[tokio::test]
    async fn failures_to_dial_name_the_address_and_the_cure() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("d.sock");
        let endpoint: Endpoint = format!("unix://{}", path.display()).parse().expect("endpoint");
        let text = endpoint.dial().await.err().expect("must fail").to_string();
        assert!(
            text.contains(&endpoint.to_string()) && text.contains("dockerd"),
            "{text}"
        );
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
        let text = endpoint.dial().await.err().expect("must fail").to_string();
        assert!(text.contains("nothing listens there"), "{text}");
    }

    #[tokio::test]
    async fn tcp_is_dialled_and_a_closed_port_is_named() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let endpoint: Endpoint = format!("tcp://{address}").parse().expect("endpoint");
        let (dialled, accepted) = tokio::join!(endpoint.dial(), listener.accept());
        assert!(dialled.is_ok() && accepted.is_ok());
        drop((dialled, accepted, listener));
        let text = endpoint.dial().await.err().expect("must fail").to_string();
        assert!(
            text.contains(&format!("tcp://{address}: nothing listens there")),
            "{text}"
        );
    }
}
