//! Whom a TLS connection trusts: the system's authorities, explicit ones, and those of `certs.d` for that host.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

use crate::limits::{MAX_CERTIFICATE_FILE, MAX_CERTIFICATES};

/// Loads certificates, each in DER. Called on a thread that may block.
pub type LoadRoots = dyn Fn() -> Result<Vec<Vec<u8>>, String> + Send + Sync;

/// Whom to trust.
#[derive(Clone, Default)]
pub(super) struct Trust {
    pub(super) system: Option<Arc<LoadRoots>>,
    pub(super) explicit: Vec<Vec<u8>>,
    pub(super) dirs: Vec<PathBuf>,
}

impl Trust {
    /// A connector for a connection that has to do with `hosts`, each `host[:port]`. Reads files.
    pub(super) async fn connector(&self, hosts: Vec<String>) -> Result<TlsConnector, String> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.load(&hosts))
            .await
            .map_err(|e| e.to_string())?
    }

    fn load(&self, hosts: &[String]) -> Result<TlsConnector, String> {
        let mut roots = RootCertStore::empty();
        let mut problem = None;
        if let Some(load) = &self.system {
            match load() {
                // Some systems have single certificates that nobody can read; the others count.
                Ok(list) => drop(roots.add_parsable_certificates(list.into_iter().map(CertificateDer::from))),
                Err(e) => problem = Some(e),
            }
        }
        for pem in &self.explicit {
            add(&mut roots, pem).map_err(|e| format!("an explicit certificate: {e}"))?;
        }
        for dir in &self.dirs {
            for host in hosts {
                self.add_dir(&mut roots, dir, host)?;
            }
        }
        if roots.is_empty() {
            let problem = problem.unwrap_or_else(|| "there are none".to_owned());
            return Err(format!("no certificate authority is trusted: {problem}"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// The `*.crt` files of one host.
    fn add_dir(&self, roots: &mut RootCertStore, dir: &Path, host: &str) -> Result<(), String> {
        // A host was checked to be one, so it cannot lead out of the directory; `..` is one by its letters.
        if host.starts_with('.') {
            return Ok(());
        }
        let dir = dir.join(host);
        let list = match std::fs::read_dir(&dir) {
            Ok(list) => list,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(e) => return Err(format!("{}: {e}", dir.display())),
        };
        for entry in list.take(MAX_CERTIFICATES) {
            let path = entry.map_err(|e| format!("{}: {e}", dir.display()))?.path();
            if path.extension().is_some_and(|e| e == "crt") {
                let named = |e: String| format!("{}: {e}", path.display());
                let pem = read(&path).map_err(|e| named(e.to_string()))?;
                add(roots, &pem).map_err(named)?;
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    io::Read::read_to_end(
        &mut io::Read::take(std::fs::File::open(path)?, MAX_CERTIFICATE_FILE),
        &mut text,
    )?;
    Ok(text)
}

fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let mut any = false;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| e.to_string())?;
        roots.add(certificate).map_err(|e| e.to_string())?;
        any = true;
    }
    match any {
        true => Ok(()),
        false => Err("no certificate in PEM".to_owned()),
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("system", &self.system.is_some())
            .field("explicit", &self.explicit.len())
            .field("dirs", &self.dirs)
            .finish()
    }
}
