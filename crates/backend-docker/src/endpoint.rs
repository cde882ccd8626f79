//! Where an engine listens: endpoint text and the byte stream behind it.
//!
//! The rule: what cannot be reached is said before anything is dialled, and every failure names the address and what to
//! start.

use std::{fmt, io, path::PathBuf, str::FromStr};

use bk_build::{BuildError, ConnectError, InputError};
use bk_solve::BoxedIo;
use tokio::net::{TcpStream, UnixStream};

use crate::limits::{CONNECT_TIMEOUT, TCP_KEEPALIVE};

/// The port of an engine on TCP without TLS, when none is given.
const DEFAULT_PORT: u16 = 2375;
/// The port of `http://` when none is given.
const HTTP_PORT: u16 = 80;
/// What an endpoint may be.
const ALLOWED: &str = "unix:///PATH, tcp://HOST[:PORT] or http://HOST[:PORT]";

/// Where a Docker Engine listens. Made from text such as `unix:///var/run/docker.sock`, written back the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// A Unix socket.
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
}

impl Endpoint {
    /// The value of the `Host` header, never empty: servers refuse requests without one.
    pub(crate) fn host_header(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Tcp { host, port, .. } => authority(host, *port),
        }
    }

    /// Opens a byte stream, with a deadline.
    ///
    /// # Errors
    /// [`BuildError::Connect`] or [`BuildError::Timeout`], naming the address.
    pub(crate) async fn dial(&self) -> Result<BoxedIo, BuildError> {
        let dialling = async {
            match self {
                Self::Unix(path) => UnixStream::connect(path).await.map(|s| Box::new(s) as BoxedIo),
                Self::Tcp { host, port, .. } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    tune(&stream)?;
                    Ok(Box::new(stream) as BoxedIo)
                }
            }
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, dialling).await {
            Ok(Ok(io)) => Ok(io),
            Ok(Err(e)) => Err(self.refused(&e).into()),
            Err(_) => Err(BuildError::Timeout {
                what: format!("a connection to {self}"),
                after: CONNECT_TIMEOUT,
            }),
        }
    }

    fn refused(&self, error: &io::Error) -> ConnectError {
        let advice = match (self, error.kind()) {
            (Self::Unix(_), io::ErrorKind::NotFound) => "there is no such socket; is dockerd running?",
            (_, io::ErrorKind::ConnectionRefused) => "nothing listens there; is dockerd running?",
            (Self::Unix(_), io::ErrorKind::PermissionDenied) => {
                "permission denied; the socket is open to root and its group (usually `docker`)"
            }
            _ => return ConnectError::single(self.to_string(), error.to_string()),
        };
        ConnectError::single(self.to_string(), advice)
    }
}

/// Small frames go out at once, and a peer that has vanished is noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
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
            Self::Tcp { host, port, scheme } => write!(f, "{scheme}://{}", authority(host, *port)),
        }
    }
}

impl FromStr for Endpoint {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        let bad = |why: &str| InputError::new("the Docker endpoint", format!("`{text}`: {why}"), ALLOWED);
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(bad("it names no scheme"));
        };
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "unix" => Err(bad(
                "the path of the socket must be absolute, so three slashes follow `unix:`",
            )),
            "tcp" => tcp(rest, "tcp", DEFAULT_PORT).map_err(bad),
            "http" => tcp(rest, "http", HTTP_PORT).map_err(bad),
            "ssh" | "npipe" => Err(bad(&format!("{scheme} is not supported yet"))),
            "https" => Err(bad("TLS is not supported yet")),
            _ => Err(bad("this scheme is not known")),
        }
    }
}

/// `host[:port]`, with an IPv6 address in brackets.
fn tcp(rest: &str, scheme: &'static str, default: u16) -> Result<Endpoint, &'static str> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err("a path behind the port is not supported");
    }
    if rest.contains('@') {
        return Err("a user name is not supported");
    }
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest
                .split_once(']')
                .ok_or("the bracket of the address is not closed")?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| "what is in the brackets is no IPv6 address")?;
            match behind.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if behind.is_empty() => (host, None),
                None => return Err("only a port may follow the bracket"),
            }
        }
        None => match rest.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("an IPv6 address needs brackets"),
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    if host.is_empty() {
        return Err("it names no host");
    }
    if !host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._:%".contains(&b))
    {
        return Err("the host has a character that a host cannot have");
    }
    let port = match port {
        None => default,
        Some(port) => port
            .parse::<u16>()
            .ok()
            .filter(|p| *p != 0)
            .ok_or("the port must be a number from 1 to 65535")?,
    };
    Ok(Endpoint::Tcp {
        host: host.to_owned(),
        port,
        scheme,
    })
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
    fn texts_and_their_endpoints() {
        for (text, back, host) in [
            (
                "unix:///var/run/docker.sock",
                "unix:///var/run/docker.sock",
                "localhost",
            ),
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
        assert!(fails("ssh://me@host").ends_with("ssh is not supported yet"));
        assert!(fails("npipe:////./pipe/docker_engine").ends_with("npipe is not supported yet"));
        assert!(fails("https://host:2376").ends_with("TLS is not supported yet"));
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
