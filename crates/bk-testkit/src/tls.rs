//! A front that speaks TLS before a daemon on a Unix socket, and the certificates for it.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    task::Context,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer},
        server::WebPkiClientVerifier,
    },
};
use tokio_util::sync::CancellationToken;

use crate::socket::serve_each;

/// An authority that signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Files of a certificate and of its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
    der: (CertificateDer<'static>, Vec<u8>),
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new() -> io::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new()).map_err(io::Error::other)?;
        let own = format!("authority {:?}", std::time::SystemTime::now());
        params.distinguished_name.push(DnType::CommonName, own);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().map_err(io::Error::other)?;
        CertifiedIssuer::self_signed(params, key)
            .map(Self)
            .map_err(io::Error::other)
    }

    /// Its own certificate, as PEM text.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate for `name`, good until 2002 if it has `expired`; writes it and its key into `dir`.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn sign(&self, dir: &Path, name: &str, expired: bool) -> io::Result<Identity> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(io::Error::other)?;
        if expired {
            (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        }
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.0).map_err(io::Error::other)?;
        let (cert, secret) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        std::fs::write(&cert, certificate.pem())?;
        std::fs::write(&secret, key.serialize_pem())?;
        Ok(Identity {
            cert,
            key: secret,
            der: (certificate.der().clone(), key.serialize_der()),
        })
    }
}

/// A running front. It and its connections end with the value.
#[derive(Debug)]
pub struct TlsFront {
    address: SocketAddr,
    stop: CancellationToken,
}

impl TlsFront {
    /// Listens on the loopback device as `identity` and passes bytes on to `socket`; wants a certificate of `clients` if that
    /// is given.
    ///
    /// # Errors
    /// When no port can be had or the certificates are of no use.
    pub fn start(socket: &Path, identity: &Identity, clients: Option<&Authority>) -> io::Result<Self> {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let builder = match clients {
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).map_err(io::Error::other)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(io::Error::other)?)
            }
            None => builder.with_no_client_auth(),
        };
        let (certificate, key) = identity.der.clone();
        let key = PrivateKeyDer::try_from(key).map_err(io::Error::other)?;
        let mut config = builder
            .with_single_cert(vec![certificate], key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let _apart = crate::apart::enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let (socket, stop) = (socket.to_owned(), CancellationToken::new());
        let accept = move |cx: &mut Context<'_>| listener.poll_accept(cx).map_ok(|(stream, _)| stream);
        let serve = move |stream| {
            let (acceptor, socket) = (acceptor.clone(), socket.clone());
            async move {
                let mut outer = acceptor.accept(stream).await?;
                let mut inner = UnixStream::connect(socket).await?;
                tokio::io::copy_bidirectional(&mut outer, &mut inner)
                    .await
                    .map(drop)
            }
        };
        crate::apart::spawn(serve_each(accept, serve, stop.clone()));
        Ok(Self { address, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
