//! Credentials from Docker's config file: the `auths` section.
//!
//! The file is read again for each question, off the async threads, so a `docker login` during a build counts.

use std::{collections::HashMap, io::Read, path::PathBuf};

use base64::Engine;
use bk_build::{Credential, CredentialError, CredentialProvider};
use serde::Deserialize;

use crate::limits::MAX_CONFIG_FILE;

/// The host by which the daemon asks for Docker Hub, and the key under which the config file keeps it.
const HUB_HOST: &str = "registry-1.docker.io";
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Answers from the `auths` section of a Docker `config.json`. A missing file answers nothing for every host.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    path: PathBuf,
}

#[derive(Deserialize, Default)]
struct File {
    #[serde(default)]
    auths: HashMap<String, Entry>,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

impl DockerConfig {
    /// Reads `path` (usually `~/.docker/config.json`) whenever the daemon asks.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn look_up(&self, host: &str) -> Result<Option<Credential>, CredentialError> {
        let fail = |reason: String| CredentialError {
            host: host.to_owned(),
            reason: format!("{}: {reason}", self.path.display()),
        };
        let mut text = Vec::new();
        match std::fs::File::open(&self.path) {
            Ok(file) => file
                .take(MAX_CONFIG_FILE)
                .read_to_end(&mut text)
                .map_err(|e| fail(e.to_string()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(e.to_string())),
        };
        let file: File = serde_json::from_slice(&text)
            // serde_json's text names a line and column but may quote a value; the position is enough.
            .map_err(|e| {
                fail(format!(
                    "not valid JSON at line {} column {}",
                    e.line(),
                    e.column()
                ))
            })?;
        let key = if host == HUB_HOST { HUB_KEY } else { host };
        let entry = file.auths.get(key).or_else(|| {
            file.auths
                .iter()
                .find(|(k, _)| host_of(k) == host_of(key) && is_whole_host(k))
                .map(|(_, e)| e)
        });
        let Some(entry) = entry else { return Ok(None) };
        if !entry.identitytoken.is_empty() {
            return Ok(Some(Credential::identity_token(&entry.identitytoken)));
        }
        if !entry.auth.is_empty() {
            let decoded = base64::engine::general_purpose::STANDARD
                .decode(entry.auth.trim())
                .ok()
                .and_then(|b| String::from_utf8(b).ok())
                .ok_or_else(|| fail(format!("the `auth` value of `{key}` is not base64 text")))?;
            let (user, password) = decoded
                .split_once(':')
                .ok_or_else(|| fail(format!("the `auth` value of `{key}` holds no user:password pair")))?;
            return Ok(Some(Credential::basic(user, password.trim_end_matches('\0'))));
        }
        if entry.username.is_empty() && entry.password.is_empty() {
            return Ok(None);
        }
        Ok(Some(Credential::basic(&entry.username, &entry.password)))
    }
}

/// The host of a config key: old keys are URLs such as `https://host/v1/`.
fn host_of(key: &str) -> &str {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

/// Whether a key means its whole host: no path, or only the registry API's version.
fn is_whole_host(key: &str) -> bool {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    matches!(
        rest.split_once('/').map_or("", |(_, p)| p.trim_end_matches('/')),
        "" | "v1" | "v2"
    )
}

#[async_trait::async_trait]
impl CredentialProvider for DockerConfig {
    async fn credential(&self, host: &str) -> Result<Option<Credential>, CredentialError> {
        let (this, name) = (self.clone(), host.to_owned());
        tokio::task::spawn_blocking(move || this.look_up(&name))
            .await
            .map_err(|e| CredentialError {
                host: host.to_owned(),
                reason: e.to_string(),
            })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> (tempfile::TempDir, DockerConfig) {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("config.json");
        std::fs::write(&path, text).expect("write");
        (dir, DockerConfig::new(path))
    }

    #[test]
    fn finds_whole_hosts_and_nothing_else() {
        let (_dir, config) = with(
            r#"{"auths":{
                "localhost:5000":{"auth":"dTpwOnc="},
                "https://old.example.com/v2/":{"username":"a","password":"b"},
                "https://index.docker.io/v1/":{"identitytoken":"tok","auth":"eDp5"},
                "path.example.com/team":{"auth":"dTpw"},
                "empty.example.com":{}
            },"credsStore":"x"}"#,
        );
        let get = |h: &str| config.look_up(h).expect("reads");
        assert_eq!(get("localhost:5000"), Some(Credential::basic("u", "p:w")));
        assert_eq!(get("old.example.com"), Some(Credential::basic("a", "b")));
        assert_eq!(
            get("registry-1.docker.io"),
            Some(Credential::identity_token("tok"))
        );
        for other in [
            "localhost:50001",
            "localhost",
            "example.com",
            "path.example.com",
            "empty.example.com",
            "",
        ] {
            assert_eq!(get(other), None, "{other}");
        }
    }

    #[test]
    fn bad_files_are_named_without_their_content() {
        let (_dir, config) = with(r#"{"auths":{"h":{"auth":"hunter2 hunter2"}}}"#);
        let e = config.look_up("h").expect_err("bad base64").to_string();
        assert!(
            e.contains("config.json") && e.contains("`h`") && !e.contains("hunter2"),
            "{e}"
        );
        let (_dir, config) = with("{\"auths\": hunter2}");
        let e = config.look_up("h").expect_err("bad JSON").to_string();
        assert!(e.contains("line 1") && !e.contains("hunter2"), "{e}");
        assert_eq!(
            DockerConfig::new("/nonexistent/config.json")
                .look_up("h")
                .expect("absent"),
            None
        );
    }
}
