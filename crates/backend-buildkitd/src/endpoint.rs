//! Endpoint text and the byte stream behind it.

use std::{fmt, path::PathBuf, str::FromStr};

use bk_build::{BuildError, ConnectError, InputError};
use bk_solve::BoxedIo;
use tokio::net::{TcpStream, UnixStream};

/// What to do when nothing listens.
const START: &str = "is buildkitd running there?";

/// Where a buildkitd listens. Parsed from `unix:///path/to.sock` or `tcp://host:port`; both speak HTTP/2 with prior
/// knowledge and without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl Endpoint {
    /// Opens a byte stream. The caller sets the deadline.
    ///
    /// # Errors
    /// [`BuildError::Connect`], naming the address.
    pub async fn dial(&self) -> Result<BoxedIo, BuildError> {
        let failed = |e: std::io::Error| {
            BuildError::from(ConnectError::single(self.to_string(), format!("{e}; {START}")))
        };
        match self {
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(failed)?;
                // Requests and health answers are small and must not wait for each other.
                stream.set_nodelay(true).map_err(failed)?;
                Ok(Box::new(stream))
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        const ALLOWED: &str = "unix:///path/to/buildkitd.sock or tcp://host:port";
        let bad = |why: &str| {
            Err(InputError::new(
                "the address",
                format!("`{text}`: {why}"),
                ALLOWED,
            ))
        };
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return bad("the path of a socket must be absolute");
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Some(address) = text.strip_prefix("tcp://") {
            let address = address.strip_suffix('/').unwrap_or(address);
            let port = address
                .rsplit_once(':')
                .filter(|(host, _)| !host.is_empty())
                .and_then(|(_, p)| p.parse::<u16>().ok());
            if port.is_none() || address.contains('/') || address.contains('@') {
                return bad("a host and a port are needed");
            }
            return Ok(Self::Tcp(address.to_owned()));
        }
        match text.split_once("://") {
            Some((scheme, _)) => bad(&format!("`{scheme}://` is not supported")),
            None => bad("there is no scheme"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_shows() {
        for good in [
            "unix:///run/buildkit/buildkitd.sock",
            "tcp://127.0.0.1:1234",
            "tcp://[::1]:1234",
            "tcp://host:1",
        ] {
            assert_eq!(good.parse::<Endpoint>().expect(good).to_string(), good);
        }
        for bad in [
            "",
            "unix://",
            "unix://run/x",
            "tcp://",
            "tcp://host",
            "tcp://:1",
            "tcp://h:99999",
            "tcp://u@h:1",
            "ssh://h",
            "/run/x",
        ] {
            let e = bad.parse::<Endpoint>().expect_err(bad);
            assert!(
                e.to_string().contains(bad) && e.allowed.contains("unix://"),
                "{e}"
            );
        }
    }

    #[tokio::test]
    async fn a_missing_socket_is_named() {
        let Err(e) = Endpoint::Unix("/nonexistent/b.sock".into()).dial().await else {
            panic!("must fail")
        };
        let text = e.to_string();
        assert!(
            text.contains("unix:///nonexistent/b.sock") && text.contains("is buildkitd running"),
            "{text}"
        );
        assert!(e.is_retryable());
    }
}
