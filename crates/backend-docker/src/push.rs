//! Pushes by the engine's API, for engines whose builder cannot push: those with graph drivers.
//!
//! The rule: an engine that leaves a push out silently is never asked for one.

use std::{collections::BTreeSet, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use bk_build::{
    BuildError, BuildEvent, BuildOutcome, BuildRequest, CredentialGiven, CredentialKind, CredentialProvider,
    CredentialQuery, CredentialUse, EventSink, InputError, OutputKind, Vertex, Warning, WarningKind,
};
use bk_solve::{advise, not_on_graph_drivers};
use http::Method;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::{
    backend::DockerBackend, engine, http1::empty, limits::CLOSE_GRACE, load::split, route::DockerRoute,
};

/// Docker Hub: what a name without a host means, how the daemon spells it to credential providers, and what its own API
/// calls it.
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";
const HUB_ADDRESS: &str = "https://index.docker.io/v1/";

/// Names that are to be pushed once the image is there.
pub(crate) struct Pushes(BTreeSet<String>);

/// Takes the pushes out of a request, if the engine's builder cannot do them.
///
/// # Errors
/// [`BuildError::Input`] when the push cannot be done by the engine's API either.
pub(crate) async fn take(backend: &DockerBackend, request: &mut BuildRequest) -> Result<Pushes, BuildError> {
    let mut names = BTreeSet::new();
    let images = |o: &bk_build::Output| o.kind == OutputKind::Image && o.is_push();
    if !request.outputs.iter().any(images) {
        return Ok(Pushes(names));
    }
    if keeps_manifests(backend).await? {
        if backend.route() == DockerRoute::Tar {
            let text = "the Docker route tar has no session, and the image store of this engine pushes with one only";
            return Err(InputError::new("--push", text, "the routes build, grpc and h2c").into());
        }
        return Ok(Pushes(names));
    }
    request.validate()?;
    for output in request.outputs.iter_mut().filter(|o| images(o)) {
        for key in ["push-by-digest", "registry.insecure", "name-canonical"] {
            if output
                .attrs
                .get(key)
                .is_some_and(|v| !matches!(v.as_str(), "false" | "0" | "f" | "F" | "False" | "FALSE"))
            {
                return Err(not_on_graph_drivers(key).into());
            }
        }
        output.attrs.remove("push");
        let own = output.attrs.get("name").map_or("", String::as_str);
        let all: Vec<&str> = match &request.tags[..] {
            [] => own.split(',').collect(),
            tags => tags.iter().map(String::as_str).collect(),
        };
        names.extend(all.into_iter().filter(|n| !n.is_empty()).map(str::to_owned));
    }
    if let Some(bad) = names.iter().find(|n| !n.bytes().all(is_plain)) {
        let text = format!("`{bad}` is no name that can be pushed");
        return Err(InputError::new("--push", text, "repository[:tag]").into());
    }
    Ok(Pushes(names))
}

/// What may stand in a name; it becomes part of a path.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-:/[]".contains(&byte)
}

/// Whether the engine's images are in containerd.
pub(crate) async fn keeps_manifests(backend: &DockerBackend) -> Result<bool, BuildError> {
    let path = format!("/v{}/info", backend.daemon.used_api);
    let info = engine::json(&backend.site, &path).await?;
    let status = info.get("DriverStatus").and_then(Value::as_array);
    Ok(status.into_iter().flatten().any(|pair| {
        let text = |at: usize| pair.get(at).and_then(Value::as_str);
        text(0) == Some("driver-type") && text(1).is_some_and(|v| v.starts_with("io.containerd.snapshotter"))
    }))
}

impl Pushes {
    /// Pushes, and notes the digest that the registry has in `outcome`, as it would be there if the builder had pushed.
    pub(crate) async fn run(
        self,
        backend: &DockerBackend,
        credentials: &dyn CredentialProvider,
        events: &EventSink,
        outcome: &mut BuildOutcome,
    ) -> Result<(), BuildError> {
        for name in self.0 {
            let mut vertex = Vertex::new(format!("push:{name}"), format!("pushing {name} with docker"));
            vertex.started = Some(SystemTime::now());
            events.emit(BuildEvent::VertexStarted(vertex.clone())).await;
            let result = push(backend, credentials, events, &name).await;
            vertex.completed = Some(SystemTime::now());
            match result {
                Ok(digest) => {
                    events.emit(BuildEvent::VertexCompleted(vertex)).await;
                    note(outcome, digest);
                }
                Err(e) => {
                    vertex.error = Some(e.to_string());
                    events.emit(BuildEvent::VertexFailed(vertex)).await;
                    return Err(e);
                }
            }
        }
        Ok(())
    }
}

/// With graph drivers the builder knows no manifest: what it calls the digest is the config's.
fn note(outcome: &mut BuildOutcome, digest: Option<String>) {
    const DIGEST: &str = "containerimage.digest";
    const CONFIG_DIGEST: &str = "containerimage.config.digest";
    let Some(digest) = digest.filter(|_| outcome.digest.is_none()) else {
        return;
    };
    let all = &mut outcome.exporter_response;
    if let Some(config) = all
        .insert(DIGEST.to_owned(), digest.clone())
        .or(outcome.image_id.clone())
    {
        all.entry(CONFIG_DIGEST.to_owned())
            .or_insert_with(|| config.clone());
        outcome.config_digest.get_or_insert(config);
    }
    outcome.digest = Some(digest);
}

async fn push(
    backend: &DockerBackend,
    credentials: &dyn CredentialProvider,
    events: &EventSink,
    name: &str,
) -> Result<Option<String>, BuildError> {
    let (repo, tag) = split(name);
    let auth = auth(credentials, events, repo).await?;
    let auth = URL_SAFE.encode(auth.to_string());
    let tag: String = form_urlencoded::byte_serialize(tag.unwrap_or("latest").as_bytes()).collect();
    let path = format!("/v{}/images/{repo}/push?tag={tag}", backend.daemon.used_api);
    let headers = [("x-registry-auth", auth.as_str())];
    let (connection, response) = engine::call(&backend.site, Method::POST, &path, &headers, empty()).await?;
    let mut digest = None;
    let result = engine::lines(&backend.site, &path, response, |line| {
        if let Some(found) = line.pointer("/aux/Digest").and_then(Value::as_str) {
            digest = Some(found.to_owned());
        }
    })
    .await;
    connection.close(CLOSE_GRACE).await;
    match result {
        Ok(()) => Ok(digest),
        Err(BuildError::Refused(refusal)) if is_auth(&refusal.message) => Err(BuildError::Auth {
            message: format!("cannot push {name}: {}", refusal.message),
            source: None,
        }),
        Err(BuildError::Refused(mut refusal)) => {
            refusal.advice = refusal.advice.or_else(|| advise(refusal.code, &refusal.message));
            refusal.message = format!("cannot push {name}: {}", refusal.message);
            Err(refusal.into())
        }
        Err(e) => Err(e),
    }
}

/// What the engine shows to the registry of `repo`. Whose credentials they are is told.
async fn auth(
    credentials: &dyn CredentialProvider,
    events: &EventSink,
    repo: &str,
) -> Result<Value, BuildError> {
    let host = registry(repo);
    let path = repo.strip_prefix(host).and_then(|rest| rest.strip_prefix('/'));
    let (asked, address) = match host {
        HUB => (HUB_HOST, HUB_ADDRESS),
        host => (host, host),
    };
    let scopes = vec![format!("repository:{}:pull,push", path.unwrap_or(repo))];
    let answer = credentials
        .look_up(&CredentialQuery::new(asked).scopes(scopes.clone()))
        .await;
    let (source, given) = match &answer {
        Ok(answer) if answer.credential.is_some() => (&*answer.source, CredentialGiven::Credential),
        Ok(answer) => (&*answer.source, CredentialGiven::Nothing),
        Err(_) => ("", CredentialGiven::Refused),
    };
    let told = CredentialUse::new(asked, source, given).scopes(scopes);
    events.emit(BuildEvent::Credentials(told)).await;
    let answer = answer.map_err(|e| BuildError::Auth {
        message: e.to_string(),
        source: Some(e),
    })?;
    if let Some(text) = answer.warning {
        let warning = Warning::new(WarningKind::Client, text);
        events.emit(BuildEvent::Warning(warning)).await;
    }
    Ok(match answer.credential {
        None => json!({}),
        Some(c) => {
            let secret = c.secret.expose();
            match c.kind {
                CredentialKind::IdentityToken => json!({"identitytoken": secret, "serveraddress": address}),
                CredentialKind::RegistryToken => json!({"registrytoken": secret, "serveraddress": address}),
                _ => json!({"username": c.username, "password": secret, "serveraddress": address}),
            }
        }
    })
}

/// What engines say when a registry wants other credentials.
fn is_auth(message: &str) -> bool {
    [
        "no basic auth credentials",
        "unauthorized",
        "denied",
        "authentication required",
        "401",
    ]
    .iter()
    .any(|part| message.contains(part))
}

/// The registry of a name.
fn registry(name: &str) -> &str {
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => HUB,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_registry() {
        for (name, host) in [
            ("app:1", HUB),
            ("team/app", HUB),
            ("localhost/app", "localhost"),
            ("h:5000/a/b:1", "h:5000"),
            ("registry.example.com/a", "registry.example.com"),
        ] {
            assert_eq!(registry(name), host, "{name}");
        }
        assert_eq!(split("h:5000/a/b:1"), ("h:5000/a/b", Some("1")));
        assert_eq!(split("h:5000/a/b"), ("h:5000/a/b", None));
    }

    #[test]
    fn the_registrys_digest_is_noted() {
        let mut outcome = BuildOutcome::default();
        outcome.image_id = Some("sha256:1".to_owned());
        outcome
            .exporter_response
            .insert("containerimage.digest".to_owned(), "sha256:1".to_owned());
        note(&mut outcome, Some("sha256:2".to_owned()));
        note(&mut outcome, Some("sha256:3".to_owned()));
        assert_eq!(outcome.digest.as_deref(), Some("sha256:2"));
        assert_eq!(outcome.config_digest.as_deref(), Some("sha256:1"));
        assert_eq!(outcome.exporter_response["containerimage.digest"], "sha256:2");
        assert_eq!(
            outcome.exporter_response["containerimage.config.digest"],
            "sha256:1"
        );
    }
}
