//! TLS to a daemon: whom to trust, how to show who we are, and what a refusal means.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bk_build::InputError;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector, client,
    rustls::{
        self, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use crate::{host::without_zone, limits::MAX_PEM};

mod explain;
mod unchecked;

use explain::explain;

/// Loads certificates, each in DER. Called on a thread that may block.
pub type LoadRoots = dyn Fn() -> Result<Vec<Vec<u8>>, String> + Send + Sync;

/// Certificates or a key, as PEM text.
#[derive(Clone)]
#[non_exhaustive]
pub enum Pem {
    /// A file, read for each connection.
    File(PathBuf),
    /// The text itself.
    Bytes(Arc<[u8]>),
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            // It may be a key.
            Self::Bytes(_) => f.write_str("Bytes(***)"),
        }
    }
}

/// Whom a TLS connection trusts, and how it shows who it is. The names in errors are those of `buildctl`'s options.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct TlsOptions {
    /// The authorities that are trusted. Default: those of [`system_roots`](Self::system_roots).
    pub ca: Option<Pem>,
    /// The certificate that is shown to the daemon, with those behind it. Default: none.
    pub cert: Option<Pem>,
    /// Its private key.
    pub key: Option<Pem>,
    /// The name that the daemon's certificate must be for. Default: the host of the address.
    pub server_name: Option<String>,
    /// Loads the authorities of the system, which count when [`ca`](Self::ca) is not given. Default: nobody does.
    pub system_roots: Option<Arc<LoadRoots>>,
    /// Whether any certificate of the daemon is taken for good. Whoever sits between sees and changes everything then.
    /// Default: no.
    pub unchecked: bool,
    /// Where the files above come from, for errors, for instance `the Docker context \`far\``. Default: from options named
    /// like those of `buildctl`.
    pub origin: Option<String>,
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("ca", &self.ca)
            .field("cert", &self.cert)
            .field("key", &self.key.as_ref().map(|_| "***"))
            .field("server_name", &self.server_name)
            .field("system_roots", &self.system_roots.is_some())
            .field("unchecked", &self.unchecked)
            .field("origin", &self.origin)
            .finish()
    }
}

impl TlsOptions {
    /// Trusts nobody and shows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the authorities that are trusted; the default is those of the system, if somebody loads them.
    #[must_use]
    pub fn ca(mut self, ca: impl Into<Pem>) -> Self {
        self.ca = Some(ca.into());
        self
    }

    /// Sets the certificate that is shown, and its key; the default is none.
    #[must_use]
    pub fn identity(mut self, cert: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        (self.cert, self.key) = (Some(cert.into()), Some(key.into()));
        self
    }

    /// Sets the name that the daemon's certificate must be for; the default is the host of the address.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Sets who loads the authorities of the system; the default is nobody.
    #[must_use]
    pub fn system_roots(
        mut self,
        load: impl Fn() -> Result<Vec<Vec<u8>>, String> + Send + Sync + 'static,
    ) -> Self {
        self.system_roots = Some(Arc::new(load));
        self
    }

    /// Sets whether any certificate of the daemon is taken for good; the default is that it is checked.
    #[must_use]
    pub fn unchecked(mut self, unchecked: bool) -> Self {
        self.unchecked = unchecked;
        self
    }

    /// Sets where the files come from, for errors; the default is options.
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// What an error about `flag` names.
    fn what(&self, flag: &str) -> String {
        self.origin.clone().unwrap_or_else(|| flag.to_owned())
    }

    /// The files of a directory: `ca.pem` or `ca.crt`, `cert.pem` or `tls.crt`, `key.pem` or `tls.key`.
    ///
    /// # Errors
    /// An [`InputError`] when the directory has none of them.
    pub fn from_dir(dir: &Path) -> Result<Self, InputError> {
        let find = |names: [&str; 2]| {
            let paths = names.map(|name| dir.join(name));
            paths.into_iter().find(|path| path.exists()).map(Pem::File)
        };
        let this = Self {
            ca: find(["ca.pem", "ca.crt"]),
            cert: find(["cert.pem", "tls.crt"]),
            key: find(["key.pem", "tls.key"]),
            ..Self::default()
        };
        if this.ca.is_none() && this.cert.is_none() && this.key.is_none() {
            let why = format!("`{}` has neither certificates nor a key", dir.display());
            return Err(InputError::new(
                "--tlsdir",
                why,
                "a directory with ca.pem, cert.pem and key.pem, or ca.crt, tls.crt and tls.key",
            ));
        }
        Ok(this)
    }

    /// Speaks TLS on a connection to `host`. `protocols` may be spoken inside, as ALPN names them, the best first; which it is
    /// says [`TlsStream::protocol`].
    ///
    /// # Errors
    /// An [`InputError`] inside when what the options name cannot be read or used; else what is wrong with the other side,
    /// in words.
    pub async fn connect(&self, host: &str, protocols: &[&[u8]], stream: TcpStream) -> io::Result<TlsStream> {
        let name = self.server_name.as_deref().unwrap_or(without_zone(host));
        let name = name.to_owned();
        let (this, protocols) = (self.clone(), protocols.iter().map(|p| p.to_vec()).collect());
        let config = tokio::task::spawn_blocking(move || this.config(protocols));
        let config = config
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        let server = ServerName::try_from(name.clone()).map_err(|_| {
            let why = format!("`{name}` is neither a host's name nor an address");
            io::Error::other(InputError::new(
                self.what("--tlsservername"),
                why,
                "the name in the daemon's certificate",
            ))
        })?;
        let connecting = TlsConnector::from(Arc::new(config)).connect(server, stream);
        match connecting.await {
            Ok(stream) => Ok(TlsStream {
                stream,
                name,
                origin: self.origin.clone(),
            }),
            Err(e) => Err(explain(e, &name, self.origin.as_deref())),
        }
    }

    fn config(&self, protocols: Vec<Vec<u8>>) -> Result<ClientConfig, InputError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| InputError::new("TLS", e.to_string(), ""))?;
        let builder = match self.unchecked {
            true => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(unchecked::Unchecked::new(provider))),
            false => builder.with_root_certificates(self.roots()?),
        };
        let mut config = match (&self.cert, &self.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let (cert_flag, key_flag) = (self.what("--tlscert"), self.what("--tlskey"));
                let chain = certificates(&cert_flag, cert)?;
                let secret = private_key(&key_flag, key)?;
                builder.with_client_auth_cert(chain, secret).map_err(|e| {
                    let why = match e {
                        rustls::Error::InconsistentKeys(_) => format!("it does not fit the certificate: {e}"),
                        // There is a text in it, but none for people.
                        _ => "it is no key of a kind that is known: RSA, ECDSA (P-256, P-384) or Ed25519"
                            .to_owned(),
                    };
                    wrong(&key_flag, key, &why)
                })?
            }
            (Some(_), None) => {
                let why = "a certificate needs its key";
                return Err(InputError::new(self.what("--tlskey"), why, "a file"));
            }
            (None, Some(_)) => {
                let why = "a key needs its certificate";
                return Err(InputError::new(self.what("--tlscert"), why, "a file"));
            }
        };
        config.alpn_protocols = protocols;
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, InputError> {
        let flag = self.what("--tlscacert");
        let mut roots = RootCertStore::empty();
        match (&self.ca, &self.system_roots) {
            (Some(ca), _) => {
                for certificate in certificates(&flag, ca)? {
                    roots
                        .add(certificate)
                        .map_err(|e| wrong(&flag, ca, &e.to_string()))?;
                }
            }
            (None, Some(load)) => {
                let found =
                    load().map_err(|e| InputError::new(flag.clone(), e, "a file of authorities to trust"))?;
                // Some systems have single certificates that nobody can read; the others count.
                roots.add_parsable_certificates(found.into_iter().map(CertificateDer::from));
            }
            (None, None) => {}
        }
        if roots.is_empty() {
            let why = "no certificate authority is trusted, so no daemon would be";
            return Err(InputError::new(flag, why, "a file of authorities to trust"));
        }
        Ok(roots)
    }
}

fn wrong(flag: &str, pem: &Pem, why: &str) -> InputError {
    let text = match pem {
        Pem::File(path) => format!("{}: {why}", path.display()),
        Pem::Bytes(_) => why.to_owned(),
    };
    InputError::new(flag, text, "PEM text")
}

fn read(flag: &str, pem: &Pem) -> Result<Vec<u8>, InputError> {
    let path = match pem {
        Pem::Bytes(bytes) => return Ok(bytes.to_vec()),
        Pem::File(path) => path,
    };
    let mut text = Vec::new();
    // One more than there may be, so that too much is noticed and never cut off.
    std::fs::File::open(path)
        .and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, MAX_PEM + 1), &mut text))
        .map_err(|e| wrong(flag, pem, &format!("cannot read it: {e}")))?;
    match text.len() as u64 > MAX_PEM {
        true => Err(wrong(
            flag,
            pem,
            &format!("it is larger than {} MiB", MAX_PEM >> 20),
        )),
        false => Ok(text),
    }
}

fn certificates(flag: &str, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, InputError> {
    let text = read(flag, pem)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(wrong(flag, pem, "it holds no certificate in PEM")),
        // It would tell of bytes in numbers.
        Err(_) => Err(wrong(
            flag,
            pem,
            "it is damaged: a section of PEM has no end, or is no base64",
        )),
    }
}

/// What PEM says of a key that a password locks: in its label, or behind it as older programs write it.
const LOCKED: [&[u8]; 2] = [
    b"-----BEGIN ENCRYPTED PRIVATE KEY-----",
    b"Proc-Type: 4,ENCRYPTED",
];

fn private_key(flag: &str, pem: &Pem) -> Result<PrivateKeyDer<'static>, InputError> {
    let text = read(flag, pem)?;
    let has = |mark: &[u8]| text.windows(mark.len()).any(|part| part == mark);
    PrivateKeyDer::from_pem_slice(&text).map_err(|e| {
        let why = match LOCKED.iter().any(|mark| has(mark)) {
            true => {
                "it is locked with a password, which nobody is asked for; store it without one".to_owned()
            }
            false => format!("it holds no private key: {e}"),
        };
        wrong(flag, pem, &why)
    })
}

/// A TLS connection to a daemon.
#[derive(Debug)]
pub struct TlsStream {
    stream: client::TlsStream<TcpStream>,
    name: String,
    origin: Option<String>,
}

impl TlsStream {
    /// What is spoken inside, as ALPN names it; `None` when the other side said nothing of it.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What the daemon thinks of our certificate is told when it is read from for the first time.
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        read.map_err(|e| explain(e, &self.name, self.origin.as_deref()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, data) {
            // The other side has gone, and may have said why before: whoever reads is told.
            Poll::Ready(Err(e)) if is_gone(&e) => Poll::Ready(Ok(data.len())),
            other => other,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(e)) if is_gone(&e) => Poll::Ready(Ok(())),
            other => other,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests;
