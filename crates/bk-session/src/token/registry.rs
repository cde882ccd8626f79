//! Manifests in a registry: read and written from this machine, for what no daemon can put together.
//!
//! The rule: credentials follow the rules of tokens. A password goes to the registry itself or to the token server that it
//! names, never over plain HTTP to another machine, and never along a redirect.

use ::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use bk_build::{
    BuildError, Credential, CredentialKind, CredentialProvider, CredentialQuery, Refusal, TokenRequest,
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::{
    TokenClient, challenge,
    http::{Answer, Asked, Origin, basic},
};
use crate::limits::REGISTRY_DEADLINE;

/// What manifests may be.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";

/// The gRPC code for what has none.
const UNKNOWN: i32 = 2;

/// Docker Hub, as names call it and where it is.
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

/// A repository in a registry, and what proves that we may use it. What was found out about that is kept.
pub struct Repository<'a> {
    client: &'a TokenClient,
    credentials: &'a dyn CredentialProvider,
    host: String,
    path: String,
    proof: Mutex<Proof>,
}

#[derive(Clone, Default)]
struct Proof {
    /// Whether the registry is spoken to without TLS.
    scheme: Option<&'static str>,
    header: Option<HeaderValue>,
}

/// A manifest or an index as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// What the registry calls it, for instance `application/vnd.oci.image.index.v1+json`.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Manifest {
    /// Those bytes as something of that type.
    pub fn new(media_type: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            media_type: media_type.into(),
            bytes: bytes.into(),
        }
    }

    /// Its digest, `sha256:…`.
    pub fn digest(&self) -> String {
        let hash = Sha256::digest(&self.bytes);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }
}

impl<'a> Repository<'a> {
    /// The repository of the image name `name` (its tag and digest play no part); `client` knows the way there.
    pub fn of(name: &str, client: &'a TokenClient, credentials: &'a dyn CredentialProvider) -> Self {
        let name = name.split('@').next().unwrap_or_default();
        let name = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => repository,
            _ => name,
        };
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
            Some(_) => (HUB, name.to_owned()),
            None => (HUB, format!("library/{name}")),
        };
        let host = match host {
            HUB | "index.docker.io" => HUB_HOST,
            host => host,
        };
        Self {
            client,
            credentials,
            host: host.to_owned(),
            path,
            proof: Mutex::default(),
        }
    }

    /// `host/path`, for messages.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The manifest with that digest, which is checked, or tag.
    ///
    /// # Errors
    /// [`BuildError::Auth`], or [`BuildError::Refused`] with what the registry said.
    pub async fn get(&self, reference: &str) -> Result<Manifest, BuildError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(MANIFESTS));
        let answer = self.ask(Method::GET, reference, headers, Bytes::new()).await?;
        if answer.status != StatusCode::OK {
            return Err(self.refused("cannot read", reference, &answer));
        }
        let media_type = answer
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|t| t.to_str().ok());
        let media_type = media_type
            .and_then(|t| t.split(';').next())
            .unwrap_or_default()
            .trim();
        let manifest = Manifest::new(media_type, answer.body.to_vec());
        if reference.starts_with("sha256:") && manifest.digest() != reference {
            let text = format!(
                "{} has other bytes under {reference} than that digest says",
                self.name()
            );
            return Err(Refusal::new(Refusal::INTERNAL, text).into());
        }
        Ok(manifest)
    }

    /// Writes a manifest under a tag or its digest; what it names must be there already.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn put(&self, reference: &str, manifest: &Manifest) -> Result<(), BuildError> {
        let mut headers = HeaderMap::new();
        let media_type = HeaderValue::from_str(&manifest.media_type)
            .map_err(|_| BuildError::Misuse("the type of a manifest must be plain text".to_owned()))?;
        headers.insert(header::CONTENT_TYPE, media_type);
        let body = Bytes::from(manifest.bytes.clone());
        let answer = self.ask(Method::PUT, reference, headers, body).await?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(self.refused("cannot write", reference, &answer)),
        }
    }

    fn refused(&self, what: &str, reference: &str, answer: &Answer) -> BuildError {
        let said = String::from_utf8_lossy(&answer.body);
        let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
        let status = answer.status.as_u16();
        let message = format!(
            "{what} {}:{reference}: the registry answered HTTP {status} {said}",
            self.name()
        );
        match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => BuildError::Auth {
                message,
                source: None,
            },
            _ => Refusal::new(UNKNOWN, message.trim_end()).into(),
        }
    }

    async fn ask(
        &self,
        method: Method,
        reference: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, BuildError> {
        let work = self.ask_with_proof(method, reference, headers, body);
        tokio::time::timeout(REGISTRY_DEADLINE, Box::pin(work))
            .await
            .unwrap_or_else(|_| {
                Err(BuildError::Timeout {
                    what: format!("an answer of the registry {}", self.host),
                    after: REGISTRY_DEADLINE,
                })
            })
    }

    /// Asks, and once again with what the registry wants to see.
    async fn ask_with_proof(
        &self,
        method: Method,
        reference: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, BuildError> {
        let mut proof = self.proof.lock().await;
        let mut asked_for = false;
        loop {
            let mut headers = headers.clone();
            if let Some(value) = &proof.header {
                headers.insert(header::AUTHORIZATION, value.clone());
            }
            let path = format!("/v2/{}/manifests/{reference}", self.path);
            let answer = self
                .send(&mut proof, method.clone(), &path, headers, body.clone())
                .await?;
            if answer.status != StatusCode::UNAUTHORIZED || asked_for {
                return Ok(answer);
            }
            asked_for = true;
            proof.header = self.prove(&answer).await?;
            if proof.header.is_none() {
                return Ok(answer);
            }
        }
    }

    /// Sends with TLS, and to this machine, or where that is allowed, also without.
    async fn send(
        &self,
        proof: &mut Proof,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, BuildError> {
        let failed = |why: String| {
            let text = format!("cannot reach the registry {}: {why}", self.host);
            BuildError::from(Refusal::new(Refusal::UNAVAILABLE, text))
        };
        let asked = |scheme: &str| -> Result<(Asked, Origin), BuildError> {
            let uri: Uri = format!("{scheme}://{}{path}", self.host)
                .parse()
                .map_err(|_| failed("it is no address".to_owned()))?;
            let origin = Origin::of(&uri).ok_or_else(|| failed("it is no address".to_owned()))?;
            let mut asked = Asked::get(uri);
            asked.method = method.clone();
            asked.headers = headers.clone();
            asked.body = body.clone();
            Ok((asked, origin))
        };
        let mut secure = None;
        if proof.scheme != Some("http") {
            match self.client.http.send(asked("https")?.0, &self.host).await {
                Ok(answer) => {
                    proof.scheme = Some("https");
                    return Ok(answer);
                }
                Err(e) => secure = Some(e),
            }
        }
        let (plain, origin) = asked("http")?;
        // One that has answered with TLS is not tried without.
        if proof.scheme == Some("https") || !self.client.may_be_plain(&origin) {
            return Err(failed(secure.unwrap_or_default()));
        }
        match self.client.http.send(plain, &self.host).await {
            Ok(answer) => {
                proof.scheme = Some("http");
                Ok(answer)
            }
            Err(e) => Err(failed(match secure {
                Some(secure) => format!("with TLS: {secure}; without: {e}"),
                None => e,
            })),
        }
    }

    /// What the registry wants to see; nothing when we have nothing for it.
    async fn prove(&self, answer: &Answer) -> Result<Option<HeaderValue>, BuildError> {
        let auth = |message: String| BuildError::Auth {
            message,
            source: None,
        };
        let scope = format!("repository:{}:pull,push", self.path);
        let query = CredentialQuery::new(&self.host).scopes(vec![scope.clone()]);
        let found = self
            .credentials
            .look_up(&query)
            .await
            .map_err(|e| BuildError::Auth {
                message: e.to_string(),
                source: Some(e),
            })?;
        let credential: Option<&Credential> = found.credential.as_ref();
        let text = match challenge::bearer(&answer.headers) {
            Some(bearer) => {
                let request = TokenRequest::new(&self.host, bearer.realm)
                    .service(bearer.service)
                    .scopes([scope]);
                let exchange: &dyn bk_build::TokenExchange = self.client;
                let token = exchange
                    .token(&request, credential)
                    .await
                    .map_err(|e| auth(e.to_string()))?;
                format!("Bearer {}", token.token.expose())
            }
            None => match credential {
                Some(credential) if credential.kind == CredentialKind::Password => {
                    let login = format!("{}:{}", credential.username, credential.secret.expose());
                    return basic(login.as_bytes()).map(Some).map_err(auth);
                }
                _ => return Ok(None),
            },
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| auth("the token server's answer is no token".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use bk_build::NoCredentials;

    use super::*;

    #[test]
    fn names_lead_to_repositories() {
        let client = TokenClient::new();
        let of = |name: &str| Repository::of(name, &client, &NoCredentials).name();
        for (name, place) in [
            ("app", "registry-1.docker.io/library/app"),
            ("team/app:1", "registry-1.docker.io/team/app"),
            ("docker.io/team/app", "registry-1.docker.io/team/app"),
            ("localhost/app", "localhost/app"),
            ("h:5000/a/b", "h:5000/a/b"),
            ("h:5000/a/b:1@sha256:00", "h:5000/a/b"),
        ] {
            assert_eq!(of(name), place, "{name}");
        }
    }

    #[test]
    fn digests_are_those_of_the_bytes() {
        let empty = Manifest::new("t", Vec::new());
        assert_eq!(
            empty.digest(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
