//! The ways to a daemon: Docker's routes, and BuildKit endpoints before it, plain and with TLS.

use std::{io, path::Path, sync::Arc};

use bk_client::{
    Backend, BuildError, Client, ConnectOptions, DockerRoute, Environment, Pem, TlsOptions, connect_with,
};
use bk_testkit::{
    endpoint::{DockerCli, Endpoint},
    front::Front,
    proxy::Proxy,
    tls::{Authority, TlsFront},
};

/// A way to a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Docker(DockerRoute),
    /// `unix://` of an endpoint: `docker buildx dial-stdio`.
    Unix,
    /// `tcp://` of one.
    Tcp,
    /// The same with TLS.
    Tls,
}

impl Way {
    /// Each as often as it is to be chosen.
    pub(crate) const WEIGHTED: [Self; 14] = [
        Self::Docker(DockerRoute::Grpc),
        Self::Docker(DockerRoute::Grpc),
        Self::Docker(DockerRoute::Grpc),
        Self::Docker(DockerRoute::Build),
        Self::Docker(DockerRoute::Build),
        Self::Docker(DockerRoute::Build),
        Self::Docker(DockerRoute::H2c),
        Self::Docker(DockerRoute::H2c),
        Self::Docker(DockerRoute::Tar),
        Self::Docker(DockerRoute::Tar),
        Self::Unix,
        Self::Tcp,
        Self::Tls,
        Self::Tls,
    ];

    /// Whether contexts are uploaded by it and only images come out, with nothing that could be asked for a sign of life.
    pub(crate) fn is_tar(self) -> bool {
        self == Self::Docker(DockerRoute::Tar)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Docker(route) => route.name(),
            Self::Unix => "unix://",
            Self::Tcp => "tcp://",
            Self::Tls => "tcp:// with TLS",
        }
    }
}

/// A way that is open, with a proxy in it. Dropping it cuts everything.
pub(crate) struct Open {
    pub(crate) proxy: Proxy,
    way: Way,
    authority: Option<Arc<[u8]>>,
    _front: Option<Front>,
    _tls: Option<TlsFront>,
    _endpoint: Option<Endpoint>,
}

impl Open {
    /// Opens the way to the engine at `socket`.
    pub(crate) fn to(socket: &Path, way: Way) -> io::Result<Self> {
        let plain = |socket: &Path| format!("unix://{}", socket.display());
        let endpoint = || {
            let cli = DockerCli::find()
                .ok_or_else(|| io::Error::other("BK_LIVE_DOCKER_CLI names no Docker CLI"))?;
            Endpoint::start(socket, &cli)
        };
        let mut open = Self {
            proxy: Proxy::start(&plain(socket))?,
            way,
            authority: None,
            _front: None,
            _tls: None,
            _endpoint: None,
        };
        match way {
            Way::Docker(DockerRoute::H2c) => {
                let front = Front::start(socket)?;
                open.proxy = Proxy::start(&front.address())?;
                open._front = Some(front);
            }
            Way::Docker(_) => {}
            Way::Unix => {
                let endpoint = endpoint()?;
                open.proxy = Proxy::start(&plain(endpoint.socket()))?;
                open._endpoint = Some(endpoint);
            }
            Way::Tcp => {
                let endpoint = endpoint()?;
                open.proxy = Proxy::on_port(&plain(endpoint.socket()))?;
                open._endpoint = Some(endpoint);
            }
            Way::Tls => {
                let endpoint = endpoint()?;
                let authority = Authority::new()?;
                let keys = tempfile::tempdir()?;
                let identity = authority.sign(keys.path(), "127.0.0.1", false)?;
                let front = TlsFront::start(endpoint.socket(), &identity, None)?;
                open.proxy = Proxy::on_port(&format!("tcp://{}", front.address()))?;
                open.authority = Some(authority.pem().into_bytes().into());
                (open._tls, open._endpoint) = (Some(front), Some(endpoint));
            }
        }
        Ok(open)
    }

    /// Connects by it.
    pub(crate) async fn connect(&self) -> Result<Client, BuildError> {
        let options = ConnectOptions::new()
            .environment(Environment::empty())
            .addr(self.proxy.address());
        let options = match (self.way, &self.authority) {
            (Way::Docker(route), _) => options.backend(Backend::Docker).docker_route(route),
            (_, Some(authority)) => options
                .backend(Backend::Buildkitd)
                .tls(TlsOptions::new().ca(Pem::Bytes(authority.clone()))),
            (_, None) => options.backend(Backend::Buildkitd),
        };
        Box::pin(connect_with(options)).await
    }
}
