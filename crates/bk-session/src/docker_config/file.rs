//! The text of Docker's config file, and which part of it answers for a registry.

use std::collections::BTreeMap;

use base64::Engine;
use bk_build::{Credential, CredentialQuery, SecretText};
use serde::{Deserialize, Deserializer};

use super::key::{self, Paths};

/// What matters of the file. Unknown fields are many and mean other things.
#[derive(Deserialize, Default)]
pub(super) struct File {
    #[serde(default, deserialize_with = "or_default")]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credsStore", deserialize_with = "or_default")]
    store: String,
    #[serde(default, rename = "credHelpers", deserialize_with = "or_default")]
    helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default, deserialize_with = "secret")]
    auth: SecretText,
    #[serde(default, deserialize_with = "or_default")]
    username: String,
    #[serde(default, deserialize_with = "secret")]
    password: SecretText,
    #[serde(default, deserialize_with = "secret")]
    identitytoken: SecretText,
    #[serde(default, deserialize_with = "secret")]
    registrytoken: SecretText,
}

/// `null` counts as absent, as Go takes it.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<SecretText, D::Error> {
    Ok(SecretText::new(or_default::<D, String>(from)?))
}

/// A helper to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HelperCall {
    /// Its name without `docker-credential-`.
    pub(super) helper: String,
    /// What to ask for.
    pub(super) server: String,
    /// Which entry names it, for people.
    pub(super) entry: String,
    /// Whether anything says that this helper knows this host. The one of `credsStore` is asked for every host.
    pub(super) expected: bool,
}

/// What an entry of `auths` says, and its key.
pub(super) type Inline = (String, Credential);

impl File {
    /// Reads the text; an error names the place and quotes nothing.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        // serde_json's own words may quote a value; the position is enough.
        serde_json::from_slice(text)
            .map_err(|e| format!("not valid JSON at line {} column {}", e.line(), e.column()))
    }

    /// The helper that is to be asked, if any. What it does not know may stand in `auths` all the same.
    pub(super) fn helper(&self, query: &CredentialQuery) -> Option<HelperCall> {
        let paths = paths(query);
        if let Some(key) = key::best(self.helpers.keys().map(String::as_str), &query.host, paths) {
            return Some(HelperCall {
                helper: self.helpers[key].clone(),
                server: key::login_key(&query.host).to_owned(),
                entry: format!("`credHelpers` entry `{key}`"),
                expected: true,
            });
        }
        if self.store.is_empty() {
            return None;
        }
        // `docker login` leaves an entry without a secret for each host that it stored.
        let stored = key::best(self.auths.keys().map(String::as_str), &query.host, paths);
        Some(HelperCall {
            helper: self.store.clone(),
            server: stored.unwrap_or_else(|| key::login_key(&query.host)).to_owned(),
            entry: "`credsStore`".to_owned(),
            expected: stored.is_some(),
        })
    }

    /// What `auths` says itself.
    pub(super) fn inline(&self, query: &CredentialQuery) -> Result<Option<Inline>, String> {
        let full = self.auths.iter().filter(|(_, entry)| !entry.is_empty());
        let Some(key) = key::best(full.map(|(k, _)| k.as_str()), &query.host, paths(query)) else {
            return Ok(None);
        };
        let credential = self.auths[key].credential(key)?;
        Ok(Some((key.to_owned(), credential)))
    }
}

fn paths(query: &CredentialQuery) -> Paths<'_> {
    match key::repository(&query.scopes) {
        _ if query.any => Paths::Any,
        Some(repository) => Paths::Of(repository),
        None => Paths::Whole,
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        let secrets = [
            &self.auth,
            &self.password,
            &self.identitytoken,
            &self.registrytoken,
        ];
        self.username.is_empty() && secrets.iter().all(|s| s.is_empty())
    }

    fn credential(&self, key: &str) -> Result<Credential, String> {
        if !self.identitytoken.is_empty() {
            return Ok(Credential::identity_token(self.identitytoken.clone()));
        }
        if !self.registrytoken.is_empty() {
            return Ok(Credential::registry_token(self.registrytoken.clone()));
        }
        if self.auth.is_empty() {
            return Ok(Credential::basic(self.username.clone(), self.password.clone()));
        }
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(self.auth.expose().trim())
            .map(zeroize::Zeroizing::new);
        let text = decoded
            .as_ref()
            .ok()
            .and_then(|bytes| std::str::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| format!("the `auth` value of `{key}` is not base64 text"))?;
        let (user, password) = text
            .split_once(':')
            .ok_or_else(|| format!("the `auth` value of `{key}` holds no user:password pair"))?;
        Ok(Credential::basic(user, password.trim_end_matches('\0')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File::parse(text.as_bytes()).expect("valid")
    }

    #[test]
    fn helpers_come_before_the_store_and_the_store_before_auths() {
        let file = file(
            r#"{"auths":{"a:1":{},"b:1":{"auth":"dTpw"},"https://old.example":{},"h/team":{"auth":"dTpw"}},
                "credsStore":"desktop","credHelpers":{"gcr.io":"gcloud","docker.io":"hub"},"HttpHeaders":{}}"#,
        );
        let call = |host: &str| {
            let call = file.helper(&CredentialQuery::new(host)).expect("a helper");
            (call.helper, call.server, call.expected)
        };
        let of = |helper: &str, server: &str, expected| (helper.to_owned(), server.to_owned(), expected);
        assert_eq!(call("gcr.io"), of("gcloud", "gcr.io", true));
        assert_eq!(call("registry-1.docker.io"), of("hub", key::HUB_KEY, true));
        assert_eq!(call("a:1"), of("desktop", "a:1", true));
        assert_eq!(call("old.example"), of("desktop", "https://old.example", true));
        assert_eq!(call("unknown.example"), of("desktop", "unknown.example", false));
        let inline = |query: CredentialQuery| file.inline(&query).expect("sound").map(|(key, _)| key);
        assert_eq!(inline(CredentialQuery::new("b:1")).as_deref(), Some("b:1"));
        assert_eq!(inline(CredentialQuery::new("a:1")), None);
        assert_eq!(inline(CredentialQuery::new("h")), None);
        assert_eq!(inline(CredentialQuery::new("h").any()).as_deref(), Some("h/team"));
        let scoped = CredentialQuery::new("h").scopes(["repository:team/app:pull"]);
        assert_eq!(inline(scoped).as_deref(), Some("h/team"));
    }

    #[test]
    fn null_is_absent_and_kinds_are_told_apart() {
        let file = file(
            r#"{"auths":{"i":{"identitytoken":"t","auth":"eDp5"},"r":{"registrytoken":"t"},
                "n":{"auth":null,"username":null}},"credHelpers":null,"credsStore":null}"#,
        );
        let of = |host: &str| {
            file.inline(&CredentialQuery::new(host))
                .expect("sound")
                .map(|(_, c)| c)
        };
        assert_eq!(of("i"), Some(Credential::identity_token("t")));
        assert_eq!(of("r"), Some(Credential::registry_token("t")));
        assert_eq!(of("n"), None);
        assert_eq!(file.helper(&CredentialQuery::new("i")), None);
    }
}
