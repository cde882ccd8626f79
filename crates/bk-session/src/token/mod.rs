//! Fetches registry tokens on this machine.
//!
//! The rule: a credential goes to the token server that the registry itself names, and to no other. The realm that a
//! daemon names is compared with what the registry says when it is asked from here; a daemon cannot send a password
//! elsewhere. Without TLS credentials go to this machine only, unless the caller allows a host.

mod challenge;
mod http;
mod oauth;
mod proxy;
mod registry;
mod tls;

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ::http::{StatusCode, Uri, header};
use bk_build::{Credential, CredentialKind, Reach, Token, TokenError, TokenExchange, TokenRequest};

use self::{
    http::{Answer, Asked, Http, Origin},
    proxy::is_loopback,
};
use crate::limits::{
    MAX_REDIRECTS, MAX_REGISTRIES, REACH_DEADLINE, REACH_MEMORY, TOKEN_DEADLINE, UNREACHABLE_MEMORY,
};

pub use proxy::Proxies;
pub use registry::{Manifest, Repository};
pub use tls::LoadRoots;

/// How a static token of a configuration is announced: the daemon asks again after that.
const STATIC_LIFE: Duration = Duration::from_secs(60);

/// Fetches tokens over HTTP. Clones share what they found out about registries.
///
/// A registry is asked once (`GET /v2/`, without credentials) where its token server is; answers are kept for minutes.
/// Nothing runs between calls; dropping a call closes its connection.
#[derive(Clone, Debug, Default)]
pub struct TokenClient {
    http: Http,
    plain: BTreeSet<String>,
    known: Arc<Mutex<HashMap<String, Arc<Slot>>>>,
}

/// What is known of a registry. Its lock is held while it is asked.
type Slot = tokio::sync::Mutex<Option<(Instant, Found)>>;

#[derive(Clone, Debug)]
enum Found {
    Realm(Origin),
    NoTokens,
    Unreachable(String),
}

impl TokenClient {
    /// Goes out directly and trusts nobody: set whom to trust before it can speak to others than this machine.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the proxies; the default is none.
    #[must_use]
    pub fn proxies(mut self, proxies: Proxies) -> Self {
        self.http.proxies = proxies;
        self
    }

    /// Sets what loads the system's certificate authorities; the default is none. It is called for each connection, on
    /// a thread that may block.
    #[must_use]
    pub fn system_roots(
        mut self,
        load: impl Fn() -> Result<Vec<Vec<u8>>, String> + Send + Sync + 'static,
    ) -> Self {
        self.http.trust.system = Some(Arc::new(load));
        self
    }

    /// Adds certificate authorities, as PEM text; the default is none.
    #[must_use]
    pub fn trust_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.http.trust.explicit.push(pem.into());
        self
    }

    /// Adds a directory that is laid out as Docker's `certs.d`: the `*.crt` files in its directory `host[:port]` are
    /// trusted for that registry and its token server. Default: none.
    #[must_use]
    pub fn certs_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.http.trust.dirs.push(dir.into());
        self
    }

    /// Allows to speak to a registry or a token server `host[:port]` without TLS; the default is this machine only.
    /// Credentials travel in the clear then.
    #[must_use]
    pub fn allow_plain(mut self, host: impl Into<String>) -> Self {
        self.plain.insert(host.into());
        self
    }

    fn may_be_plain(&self, origin: &Origin) -> bool {
        is_loopback(&origin.host)
            || self.plain.contains(&origin.authority())
            || self.plain.contains(&format!("{}:{}", origin.host, origin.port))
    }

    async fn find(&self, host: &str) -> Found {
        let slot = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= MAX_REGISTRIES && !known.contains_key(host) {
                known.retain(|_, slot| Arc::strong_count(slot) > 1);
            }
            Arc::clone(known.entry(host.to_owned()).or_default())
        };
        let mut slot = slot.lock().await;
        if let Some((at, found)) = &*slot {
            let memory = match found {
                Found::Unreachable(_) => UNREACHABLE_MEMORY,
                _ => REACH_MEMORY,
            };
            if at.elapsed() < memory {
                return found.clone();
            }
        }
        let found = match tokio::time::timeout(REACH_DEADLINE, Box::pin(self.ask(host))).await {
            Ok(Ok(found)) => found,
            Ok(Err(reason)) => Found::Unreachable(reason),
            Err(_) => Found::Unreachable(format!("no answer within {} s", REACH_DEADLINE.as_secs())),
        };
        *slot = Some((Instant::now(), found.clone()));
        found
    }

    /// Asks a registry where its token server is, and whether that is there.
    async fn ask(&self, host: &str) -> Result<Found, String> {
        let url = |scheme: &str| -> Result<(Uri, Origin), String> {
            let uri: Uri = format!("{scheme}://{host}/v2/")
                .parse()
                .map_err(|_| "not a host")?;
            let origin = Origin::of(&uri).ok_or("not a host")?;
            Ok((uri, origin))
        };
        let (uri, _) = url("https")?;
        let answer = match self.http.send(Asked::get(uri), host).await {
            Ok(answer) => answer,
            Err(e) => {
                let (uri, origin) = url("http")?;
                if !self.may_be_plain(&origin) {
                    return Err(format!("https://{host}: {e}"));
                }
                let plain = self.http.send(Asked::get(uri), host).await;
                plain.map_err(|p| format!("https://{host}: {e}; http://{host}: {p}"))?
            }
        };
        let realm = match answer.status {
            StatusCode::UNAUTHORIZED => challenge::bearer_realm(&answer.headers),
            _ => None,
        };
        let Some(realm) = realm else {
            return Ok(Found::NoTokens);
        };
        let shown = shown(&realm);
        let origin = realm.parse().ok().as_ref().and_then(Origin::of);
        let origin = origin.ok_or_else(|| format!("it names a token server that is no address: {shown}"))?;
        if !origin.tls && !self.may_be_plain(&origin) {
            return Err(format!("its token server {origin} has no TLS"));
        }
        let reached = self.http.reach(&origin, host).await;
        reached.map_err(|e| format!("its token server {origin}: {e}"))?;
        Ok(Found::Realm(origin))
    }

    /// Whether credentials may go to the realm that a daemon names.
    async fn check(&self, request: &TokenRequest) -> Result<Uri, TokenError> {
        let untrusted = |reason: String| TokenError::Untrusted {
            realm: shown(&request.realm),
            reason,
        };
        let uri: Option<Uri> = request.realm.parse().ok();
        let origin = uri.as_ref().and_then(Origin::of);
        let (Some(uri), Some(origin)) = (uri, origin) else {
            return Err(untrusted("it is not an http or https address".to_owned()));
        };
        match self.find(&request.host).await {
            Found::Realm(known) if known == origin => Ok(uri),
            Found::Realm(known) => {
                let reason = format!("registry {} names {known} as its token server", request.host);
                Err(untrusted(reason))
            }
            Found::NoTokens => Err(untrusted(format!(
                "registry {} names no token server",
                request.host
            ))),
            Found::Unreachable(reason) => Err(TokenError::Failed {
                realm: shown(&request.realm),
                reason,
            }),
        }
    }

    /// Sends a request; follows redirects of a query within the same origin.
    async fn send(&self, mut asked: Asked, registry: &str) -> Result<Answer, String> {
        let headers = asked.headers.clone();
        for _ in 0..=MAX_REDIRECTS {
            let uri = asked.uri.clone();
            let query = asked.method == ::http::Method::GET;
            let answer = self.http.send(asked, registry).await?;
            if !answer.status.is_redirection() {
                return Ok(answer);
            }
            if !query {
                return Err("it redirects, which is not followed with credentials".to_owned());
            }
            let next = answer
                .headers
                .get(header::LOCATION)
                .and_then(|l| l.to_str().ok())
                .and_then(|location| resolve(&uri, location))
                .ok_or("it redirects to what is no address")?;
            if Origin::of(&next) != Origin::of(&uri) {
                return Err("it redirects to another host".to_owned());
            }
            asked = Asked::get(next);
            asked.headers = headers.clone();
        }
        Err(format!("it redirects more than {MAX_REDIRECTS} times"))
    }

    async fn exchange(
        &self,
        realm: &Uri,
        request: &TokenRequest,
        credential: Option<&Credential>,
    ) -> Result<Token, TokenError> {
        let at = shown(&request.realm);
        let failed = |reason: String| TokenError::Failed {
            realm: at.clone(),
            reason,
        };
        if let Some(credential) = credential {
            let asked = oauth::form(realm, request, credential);
            let answer = self.send(asked, &request.host).await.map_err(failed)?;
            if !oauth::wants_query(answer.status, credential) {
                return judge(&answer, at);
            }
        }
        let asked = oauth::query(realm, request, credential).map_err(failed)?;
        let answer = self.send(asked, &request.host).await.map_err(failed)?;
        judge(&answer, at)
    }
}

fn judge(answer: &Answer, realm: String) -> Result<Token, TokenError> {
    let status = answer.status.as_u16();
    if answer.status.is_success() {
        return oauth::token(&answer.body).map_err(|reason| TokenError::Failed { realm, reason });
    }
    // OAuth says 400 for a wrong password, and for a wrong question, which this is not.
    match status {
        400 | 401 | 403 => Err(TokenError::Refused { realm, status }),
        _ => Err(TokenError::Failed {
            realm,
            reason: format!("it answered HTTP {status}"),
        }),
    }
}

/// Where a redirect leads.
fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    if !location.starts_with('/') || location.starts_with("//") {
        return location.parse().ok();
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(location.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// An address from outside, as it may be shown.
fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    let text = text.split(['?', '#']).next().unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[async_trait::async_trait]
impl TokenExchange for TokenClient {
    async fn reach(&self, host: &str) -> Reach {
        match self.find(host).await {
            Found::Realm(_) => Reach::Yes,
            Found::NoTokens => Reach::NoTokens,
            Found::Unreachable(reason) => Reach::Unreachable(reason),
        }
    }

    async fn token(
        &self,
        request: &TokenRequest,
        credential: Option<&Credential>,
    ) -> Result<Token, TokenError> {
        if let Some(token) = credential.filter(|c| c.kind == CredentialKind::RegistryToken) {
            return Ok(Token::new(token.secret.clone(), STATIC_LIFE));
        }
        let work = async {
            let realm = self.check(request).await?;
            self.exchange(&realm, request, credential).await
        };
        let work = tokio::time::timeout(TOKEN_DEADLINE, Box::pin(work));
        work.await.unwrap_or_else(|_| {
            Err(TokenError::Failed {
                realm: shown(&request.realm),
                reason: format!("no answer within {} s", TOKEN_DEADLINE.as_secs()),
            })
        })
    }
}
