//! Endpoint text and the byte stream behind it.

use std::{fmt, io, path::PathBuf, str::FromStr, sync::Arc};

use bk_build::{BuildError, ConnectError, InputError, Obstacle};
use bk_dial::{Helper, Serves, TlsOptions, host_port, is_host};
use bk_solve::BoxedIo;
use tokio::net::TcpStream;

/// What addresses may be.
const ALLOWED: &str = "unix:///path/to/buildkitd.sock, tcp://host:port, docker-container://name, podman-container://name, \
                       nerdctl-container://name, kube-pod://name, ssh://[user@]host[:port][/socket] or npipe:////./pipe/name";
/// What is spoken inside TLS.
const HTTP2: &[u8] = b"h2";

/// Where a buildkitd listens. Parsed from `unix:///path/to.sock`, `tcp://host:port`, `npipe:////./pipe/name`, or the address
/// of a [`Helper`]; all speak HTTP/2 with prior knowledge.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Endpoint {
    /// A Unix socket: its path, or its name behind `@` in Linux' own space of names.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
    /// `host:port`, with TLS.
    Tls(String, Arc<TlsOptions>),
    /// A program that carries the bytes, one for each connection: into a container, a pod or another machine.
    Helper(Helper),
    /// A named pipe of Windows, for instance `//./pipe/buildkitd`.
    Pipe(String),
}

impl Endpoint {
    /// The same endpoint with TLS.
    ///
    /// # Errors
    /// An [`InputError`] when it is not `tcp://`.
    pub fn with_tls(self, options: TlsOptions) -> Result<Self, InputError> {
        match self {
            Self::Tcp(address) | Self::Tls(address, _) => Ok(Self::Tls(address, Arc::new(options))),
            other => Err(InputError::new(
                "--tls, --tlscacert, --tlscert, --tlskey, --tlsservername, --tlsdir",
                format!("there is no TLS at `{other}`"),
                "an address tcp://host:port or https://host",
            )),
        }
    }

    /// Opens a byte stream. The caller sets the deadline.
    ///
    /// # Errors
    /// [`BuildError::Connect`], naming the address; [`BuildError::Input`] names what is wrong with the files of
    /// [`TlsOptions`].
    pub async fn dial(&self) -> Result<BoxedIo, BuildError> {
        let failed = |e: io::Error| {
            let error = ConnectError::single(self.to_string(), self.why(&e));
            BuildError::from(error.obstacle(self.obstacle(&e)))
        };
        match self {
            Self::Unix(path) => Ok(Box::new(bk_dial::unix(path).await.map_err(failed)?)),
            Self::Tcp(address) => Ok(Box::new(tcp(address).await.map_err(failed)?)),
            Self::Tls(address, options) => {
                let stream = tcp(address).await.map_err(failed)?;
                match options.connect(place(address).0, &[HTTP2], stream).await {
                    Ok(stream) => Ok(Box::new(stream)),
                    Err(e) => match e.get_ref().and_then(|e| e.downcast_ref::<InputError>()) {
                        Some(input) => Err(input.clone().into()),
                        None => Err(failed(e)),
                    },
                }
            }
            Self::Helper(helper) => Ok(Box::new(helper.dial().map_err(failed)?)),
            Self::Pipe(name) => Ok(Box::new(bk_dial::named_pipe(name).await.map_err(failed)?)),
        }
    }
}

impl Endpoint {
    /// What a failure means there, and what to do.
    fn why(&self, error: &io::Error) -> String {
        match (self, error.kind()) {
            (Self::Unix(_), io::ErrorKind::NotFound) => {
                "there is no such socket; is buildkitd running there?".to_owned()
            }
            (Self::Pipe(_), io::ErrorKind::NotFound) => {
                "there is no such pipe; is buildkitd running there?".to_owned()
            }
            (Self::Unix(_), io::ErrorKind::PermissionDenied) => {
                "permission denied; the socket is open to root, or to the group that buildkitd was started with".to_owned()
            }
            (Self::Unix(_) | Self::Tcp(_) | Self::Tls(..), io::ErrorKind::ConnectionRefused) => {
                "nothing listens there; is buildkitd running there?".to_owned()
            }
            _ => error.to_string(),
        }
    }

    /// What stood in the way, if that is known.
    fn obstacle(&self, error: &io::Error) -> Option<Obstacle> {
        match (self, error.kind()) {
            (Self::Unix(_), io::ErrorKind::PermissionDenied) => Some(Obstacle::Permission),
            _ => Obstacle::of(error),
        }
    }
}

async fn tcp(address: &str) -> io::Result<TcpStream> {
    let (host, port) = place(address);
    bk_dial::tcp(host, port).await
}

/// The host of `host:port`, as certificates name it, and the port. Text without a port was never taken for an address.
fn place(address: &str) -> (&str, u16) {
    let (host, port) = host_port(address).unwrap_or((address, None));
    (host, port.unwrap_or_default())
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) | Self::Tls(address, _) => write!(f, "tcp://{address}"),
            Self::Helper(helper) => helper.fmt(f),
            Self::Pipe(name) => write!(f, "npipe://{name}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        let bad = |why: &str| {
            Err(InputError::new(
                "the address",
                format!("`{text}`: {why}"),
                ALLOWED,
            ))
        };
        if let Some(helper) = Helper::parse(text, Serves::Buildkit) {
            let allowed = |e: InputError| InputError::new(e.what, e.message, ALLOWED);
            return helper.map(Self::Helper).map_err(allowed);
        }
        if let Some(path) = text.strip_prefix("unix://") {
            if !bk_dial::is_unix(path) {
                return bad("the path of a socket must be absolute");
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Some(address) = text.strip_prefix("tcp://") {
            let address = address.strip_suffix('/').unwrap_or(address);
            return match host_port(address) {
                Err(why) => bad(why),
                Ok((host, port)) if host.is_empty() || port.is_none() => bad("a host and a port are needed"),
                Ok((host, _)) if !is_host(host) => bad("the host has a character that a host cannot have"),
                Ok(_) => Ok(Self::Tcp(address.to_owned())),
            };
        }
        if let Some(rest) = text.strip_prefix("npipe://") {
            return bk_dial::pipe_name(rest).map(Self::Pipe).or_else(bad);
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
            "unix://@buildkit",
            "tcp://127.0.0.1:1234",
            "tcp://[::1]:1234",
            "tcp://host:1",
            "docker-container://b0",
            "kube-pod://b0?namespace=n",
            "ssh://me@h:22/run/b.sock",
            "npipe:////./pipe/buildkitd",
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
            "tcp://h:0",
            "tcp://::1:1234",
            "tcp://h x:1",
            "tcp://h:1/x",
            "tcp://u@h:1",
            "ssh://-h",
            "npipe://buildkitd",
            "https://h",
            "/run/x",
        ] {
            let e = bad.parse::<Endpoint>().expect_err(bad);
            assert!(
                e.to_string().contains(bad) && e.allowed.contains("unix://"),
                "{e}"
            );
        }
    }

    #[test]
    fn tls_is_for_tcp_and_names_are_those_of_certificates() {
        let with = |text: &str| text.parse::<Endpoint>().expect(text).with_tls(TlsOptions::new());
        assert_eq!(with("tcp://h:1").expect("tcp").to_string(), "tcp://h:1");
        let error = with("unix:///b.sock").expect_err("no TLS there").to_string();
        assert!(error.contains("there is no TLS at `unix:///b.sock`"), "{error}");
        assert_eq!(
            (place("h:1"), place("[::1]:1"), place("10.0.0.1:1")),
            (("h", 1), ("::1", 1), ("10.0.0.1", 1))
        );
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let endpoint: Endpoint = "nerdctl-container://b0".parse().expect("an address");
        let Err(e) = endpoint.dial().await else {
            // Somebody has it; then nothing can be said here.
            return;
        };
        let text = e.to_string();
        assert!(
            text.contains("nerdctl-container://b0: there is no program `nerdctl` in PATH"),
            "{text}"
        );
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
