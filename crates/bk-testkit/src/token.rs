//! A registry that takes tokens only, and the server that gives them: Debian's `docker-registry` with token
//! authentication, and a token server in this process that notes who asked for what, and how.
//!
//! Both listen on the loopback device and end with the value. The registry holds one image, `base/one:1`, with one file.

use std::{
    collections::HashMap,
    fs, io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rcgen::{CertificateParams, KeyPair};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use crate::{
    fake::locked,
    httpd::{Httpd, Request, answer},
};

/// The only user.
pub const USER: &str = "team";
/// The path of the only file of the image, and what it holds.
pub const FILE: (&str, &str) = ("from-the-registry", "one\n");

/// The registry's name for itself in tokens, and the token server's.
const SERVICE: &str = "registry.test";
const ISSUER: &str = "issuer.test";
/// How long a token is good, in seconds.
const LIFE: u64 = 300;
/// The registry listens within a fraction of a second.
const READY: Duration = Duration::from_secs(30);

/// How the registry names its token server, and how that one is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// Whether it speaks TLS, with a certificate of an authority of its own.
    pub tls: bool,
    /// Whether its address is one that does not look like this machine, though it is: no client sends a password there
    /// without TLS.
    pub elsewhere: bool,
    /// Whether it knows the older query only, and not OAuth's form.
    pub query_only: bool,
}

/// A question for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What asked, as it calls itself.
    pub agent: String,
    /// `GET` for the query, `POST` for OAuth's form.
    pub method: String,
    /// What was shown to prove who asks: `password`, `refresh_token`, or nothing.
    pub proof: String,
    /// The scopes.
    pub scopes: Vec<String>,
    /// Whether a token was given.
    pub given: bool,
}

/// A running registry with its token server.
#[derive(Debug)]
pub struct TokenRegistry {
    server: Httpd,
    shared: Arc<Shared>,
    registry: Child,
    host: String,
    authority: String,
    _dir: tempfile::TempDir,
}

#[derive(Debug)]
struct Shared {
    key: EcdsaKeyPair,
    certificate: Vec<u8>,
    password: String,
    identity: String,
    query_only: bool,
    asked: Mutex<Vec<Asked>>,
}

impl TokenRegistry {
    /// Starts both; `program` is `docker-registry`, and `tag` makes its secrets differ from those of others.
    ///
    /// # Errors
    /// When the program cannot be started or does not listen.
    pub fn start(program: &Path, kind: Kind, tag: &str) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("bk-token-").tempdir()?;
        let made = KeyPair::generate().map_err(io::Error::other)?;
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).map_err(io::Error::other)?;
        let certificate = params.self_signed(&made).map_err(io::Error::other)?;
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &made.serialize_der(),
            &SystemRandom::new(),
        );
        let shared = Arc::new(Shared {
            key: key.map_err(|e| io::Error::other(e.to_string()))?,
            certificate: certificate.der().to_vec(),
            password: format!("password-{tag}"),
            identity: format!("identity-{tag}"),
            query_only: kind.query_only,
            asked: Mutex::default(),
        });
        let tls = match kind.tls {
            true => Some(server_config(certificate.der().clone(), &made)?),
            false => None,
        };
        let answering = Arc::clone(&shared);
        let server = Httpd::start(tls, move |request| answering.answer(request))?;
        let scheme = if kind.tls { "https" } else { "http" };
        let address = match kind.elsewhere {
            // The kernel takes it for this machine.
            true => format!("0.0.0.0:{}", server.address().port()),
            false => server.address().to_string(),
        };
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let host = format!("127.0.0.1:{port}");
        let storage = dir.path().join("storage");
        store_image(&storage.join("docker/registry/v2"))?;
        let authority = certificate.pem();
        let bundle = dir.path().join("authority.pem");
        fs::write(&bundle, &authority)?;
        let configuration = json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": storage}},
            "http": {"addr": host},
            "auth": {"token": {
                "realm": format!("{scheme}://{address}/token"),
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": bundle,
            }},
        });
        // JSON is YAML.
        let file = dir.path().join("config.yml");
        fs::write(&file, configuration.to_string())?;
        let log = fs::File::create(dir.path().join("log"))?;
        let registry = Command::new(program)
            .arg("serve")
            .arg(&file)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut this = Self {
            server,
            shared,
            registry,
            host,
            authority,
            _dir: dir,
        };
        this.wait(port)?;
        Ok(this)
    }

    fn wait(&mut self, port: u16) -> io::Result<()> {
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = self.registry.try_wait()?;
            if ended.is_some() || begun.elapsed() > READY {
                let log = fs::read_to_string(self._dir.path().join("log"))?;
                return Err(io::Error::other(format!("the registry does not listen: {log}")));
            }
            thread::sleep(Duration::from_millis(20)); // sleep: a program that tells nobody when it is ready
        }
        Ok(())
    }

    /// Its `host:port`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The reference of its image.
    pub fn image(&self) -> String {
        format!("{}/base/one:1", self.host)
    }

    /// `host:port` of the token server as it listens.
    pub fn token_server(&self) -> String {
        self.server.address().to_string()
    }

    /// The password of [`USER`].
    pub fn password(&self) -> &str {
        &self.shared.password
    }

    /// The identity token of [`USER`].
    pub fn identity(&self) -> &str {
        &self.shared.identity
    }

    /// The authority of the token server's certificate, as PEM text.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Every question for a token, in order.
    pub fn asked(&self) -> Vec<Asked> {
        locked(&self.shared.asked).clone()
    }
}

impl Drop for TokenRegistry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

fn server_config(certificate: CertificateDer<'static>, key: &KeyPair) -> io::Result<Arc<ServerConfig>> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(io::Error::other)?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
        });
    Ok(Arc::new(config.map_err(io::Error::other)?))
}

impl Shared {
    fn answer(&self, request: &Request) -> io::Result<Vec<u8>> {
        if request.path != "/token" {
            return Ok(answer("404 Not Found", &[], b""));
        }
        if request.method == "POST" && self.query_only {
            return Ok(answer("404 Not Found", &[], b""));
        }
        let form = match &*request.method {
            "POST" => pairs(&String::from_utf8_lossy(&request.body)),
            _ => pairs(&request.query),
        };
        let mut scopes = Vec::new();
        let mut named = HashMap::new();
        for (key, value) in form {
            match &*key {
                "scope" => scopes.extend(value.split(' ').map(str::to_owned)),
                _ => drop(named.insert(key, value)),
            }
        }
        let field = |name: &str| named.get(name).map_or("", String::as_str);
        let login = format!("{USER}:{}", self.password);
        let (proof, good) = match (&*request.method, field("grant_type")) {
            ("POST", "password") => {
                let good = field("username") == USER && field("password") == self.password;
                ("password", good)
            }
            ("POST", "refresh_token") => ("refresh_token", field("refresh_token") == self.identity),
            ("GET", _) => match request.header("authorization") {
                "" => ("", false),
                header => ("password", header == format!("Basic {}", STANDARD.encode(login))),
            },
            _ => ("", false),
        };
        locked(&self.asked).push(Asked {
            agent: request.header("user-agent").to_owned(),
            method: request.method.clone(),
            proof: proof.to_owned(),
            scopes: scopes.clone(),
            given: good,
        });
        if !good {
            let text = json!({"errors": [{"code": "UNAUTHORIZED", "message": "wrong"}]}).to_string();
            return Ok(answer("401 Unauthorized", &[], text.as_bytes()));
        }
        let token = self.token(&scopes)?;
        let text = json!({"token": token, "access_token": token, "expires_in": LIFE}).to_string();
        let kind = [("Content-Type", "application/json")];
        Ok(answer("200 OK", &kind, text.as_bytes()))
    }

    /// A signed token for all that was asked for.
    fn token(&self, scopes: &[String]) -> io::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_err(io::Error::other)?.as_secs();
        let access: Vec<_> = scopes
            .iter()
            .filter_map(|scope| {
                let (kind, rest) = scope.split_once(':')?;
                let (name, actions) = rest.rsplit_once(':')?;
                let actions: Vec<_> = actions.split(',').collect();
                Some(json!({"type": kind, "name": name, "actions": actions}))
            })
            .collect();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&self.certificate)]});
        let claims = json!({
            "iss": ISSUER, "sub": USER, "aud": SERVICE, "jti": format!("{now}"),
            "iat": now, "nbf": now.saturating_sub(LIFE), "exp": now + LIFE, "access": access,
        });
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| io::Error::other("cannot sign"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The pairs of a query or a form.
fn pairs(text: &str) -> Vec<(String, String)> {
    let plain = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text)
            .decode_utf8_lossy()
            .into_owned()
    };
    let pair = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (plain(key), plain(value))
    };
    text.split('&').filter(|t| !t.is_empty()).map(pair).collect()
}

/// Writes the image as the registry keeps it.
fn store_image(root: &Path) -> io::Result<()> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(FILE.1.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, FILE.0, FILE.1.as_bytes())?;
    let tar = tar.into_inner()?;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut packed, &tar)?;
    let layer = packed.finish()?;
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]},
        "history": [{"created_by": "test"}],
    });
    let config = config.to_string().into_bytes();
    let part = |kind: &str, bytes: &[u8]| {
        json!({
            "mediaType": format!("application/vnd.docker.{kind}"),
            "size": bytes.len(),
            "digest": digest(bytes),
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": part("container.image.v1+json", &config),
        "layers": [part("image.rootfs.diff.tar.gzip", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let repository = root.join("repositories/base/one");
    for (bytes, is_manifest) in [(&layer, false), (&config, false), (&manifest, true)] {
        let digest = digest(bytes);
        let hex = digest.trim_start_matches("sha256:");
        let short: String = hex.chars().take(2).collect();
        put(
            &root.join("blobs/sha256").join(short).join(hex).join("data"),
            bytes,
        )?;
        let links = match is_manifest {
            false => vec![format!("_layers/sha256/{hex}/link")],
            true => vec![
                format!("_manifests/revisions/sha256/{hex}/link"),
                format!("_manifests/tags/1/index/sha256/{hex}/link"),
                "_manifests/tags/1/current/link".to_owned(),
            ],
        };
        for link in links {
            put(&repository.join(link), digest.as_bytes())?;
        }
    }
    Ok(())
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, bytes)
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}
