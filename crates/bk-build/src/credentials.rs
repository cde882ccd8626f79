//! Registry credentials: who is asked, and what an answer is. Secrets never appear in `Debug`.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use async_trait::async_trait;

use crate::{SecretText, TokenExchange};

/// Answers the daemon's question for the credentials of a registry host.
///
/// The daemon asks only for hosts that challenged it, while the build runs. Implementations must not block the async
/// threads: run credential helpers elsewhere.
#[async_trait]
pub trait CredentialProvider: Send + Sync {
    /// The credential for `host`, or `None` when there is none (the daemon then goes on anonymously).
    ///
    /// `host` is a registry `host[:port]` as the daemon spells it; Docker Hub arrives as `registry-1.docker.io`.
    ///
    /// # Errors
    /// A [`CredentialError`] fails the step that asked. "Nothing known for this host" is not an error.
    async fn credential(&self, host: &str) -> Result<Option<Credential>, CredentialError>;

    /// The same with all that is known of the question, and with a word on where the answer comes from. This is what
    /// a build calls; by default it asks [`credential`](Self::credential).
    ///
    /// # Errors
    /// As [`credential`](Self::credential).
    async fn look_up(&self, query: &CredentialQuery) -> Result<CredentialAnswer, CredentialError> {
        let credential = self.credential(&query.host).await?;
        Ok(CredentialAnswer::new(credential, "the program's own provider"))
    }

    /// Who exchanges these credentials for tokens on this machine, so that passwords need not go to the daemon.
    /// Default: nobody; the daemon then gets the credentials and exchanges them itself.
    fn tokens(&self) -> Option<Arc<dyn TokenExchange>> {
        None
    }
}

/// Knows no credential: every registry is asked anonymously.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCredentials;

#[async_trait]
impl CredentialProvider for NoCredentials {
    async fn credential(&self, _host: &str) -> Result<Option<Credential>, CredentialError> {
        Ok(None)
    }
}

/// Lets a provider answer for some hosts only; the daemon's question for any other is refused, and nobody is asked.
///
/// Without it a daemon can have the credentials of every registry that the provider knows. The list must name every
/// registry of the build, also those of public base images: a refusal fails the pull.
#[derive(Clone)]
pub struct OnlyHosts {
    provider: Arc<dyn CredentialProvider>,
    hosts: BTreeSet<String>,
}

impl OnlyHosts {
    /// Lets `provider` answer for `hosts`, each `host[:port]`; `docker.io` means Docker Hub.
    pub fn new(
        provider: Arc<dyn CredentialProvider>,
        hosts: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let name = |host: String| match &*host {
            "docker.io" | "index.docker.io" => "registry-1.docker.io".to_owned(),
            _ => host,
        };
        let hosts = hosts.into_iter().map(|h| name(h.into())).collect();
        Self { provider, hosts }
    }

    fn check(&self, host: &str) -> Result<(), CredentialError> {
        match self.hosts.contains(host) {
            true => Ok(()),
            false => Err(CredentialError::denied(
                host,
                "this build may use those of other registries only",
            )),
        }
    }
}

#[async_trait]
impl CredentialProvider for OnlyHosts {
    async fn credential(&self, host: &str) -> Result<Option<Credential>, CredentialError> {
        self.check(host)?;
        self.provider.credential(host).await
    }

    async fn look_up(&self, query: &CredentialQuery) -> Result<CredentialAnswer, CredentialError> {
        self.check(&query.host)?;
        self.provider.look_up(query).await
    }

    fn tokens(&self) -> Option<Arc<dyn TokenExchange>> {
        self.provider.tokens()
    }
}

/// Adds to a provider that its credentials are exchanged for tokens on this machine.
#[derive(Clone)]
pub struct WithTokens {
    provider: Arc<dyn CredentialProvider>,
    exchange: Arc<dyn TokenExchange>,
}

impl WithTokens {
    /// Exchanges the credentials of `provider` by `exchange`.
    pub fn new(provider: Arc<dyn CredentialProvider>, exchange: Arc<dyn TokenExchange>) -> Self {
        Self { provider, exchange }
    }
}

#[async_trait]
impl CredentialProvider for WithTokens {
    async fn credential(&self, host: &str) -> Result<Option<Credential>, CredentialError> {
        self.provider.credential(host).await
    }

    async fn look_up(&self, query: &CredentialQuery) -> Result<CredentialAnswer, CredentialError> {
        self.provider.look_up(query).await
    }

    fn tokens(&self) -> Option<Arc<dyn TokenExchange>> {
        Some(Arc::clone(&self.exchange))
    }
}

/// A question for credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CredentialQuery {
    /// The registry's `host[:port]` as the daemon spells it.
    pub host: String,
    /// What they are for, each for instance `repository:team/app:pull,push`. Empty when the daemon did not say.
    pub scopes: Vec<String>,
    /// Whether the last answer was refused: a provider should then look again and not answer from a cache.
    pub refused: bool,
    /// Whether the purpose is not known yet and all that counts is whether there are credentials of that host, for
    /// whatever repository.
    pub any: bool,
}

impl CredentialQuery {
    /// A question for the credentials of `host`, for whatever purpose.
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            ..Self::default()
        }
    }

    /// Sets what the credentials are for; the default is unknown.
    #[must_use]
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Asks only whether there are credentials of that host; the default is those for the scopes.
    #[must_use]
    pub fn any(mut self) -> Self {
        self.any = true;
        self
    }

    /// Says that the last answer was refused; the default is that it was not.
    #[must_use]
    pub fn refused(mut self) -> Self {
        self.refused = true;
        self
    }
}

/// An answer and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CredentialAnswer {
    /// The credential, if there is one.
    pub credential: Option<Credential>,
    /// Which entry of which configuration answered, for people; never a secret.
    pub source: String,
    /// Something worth telling, for instance that a helper could not be run and nothing else says that it is needed.
    pub warning: Option<String>,
}

impl CredentialAnswer {
    /// An answer that comes from `source`.
    pub fn new(credential: Option<Credential>, source: impl Into<String>) -> Self {
        Self {
            credential,
            source: source.into(),
            warning: None,
        }
    }

    /// Sets something worth telling; the default is nothing.
    #[must_use]
    pub fn warning(mut self, warning: impl Into<String>) -> Self {
        self.warning = Some(warning.into());
        self
    }
}

/// A user name and its secret. An identity token has an empty user name, as on the wire.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credential {
    /// The user name; empty when `secret` is a token.
    pub username: String,
    /// The password or token.
    pub secret: SecretText,
    /// What the secret is.
    pub kind: CredentialKind,
    /// When the secret ends to be of use; unknown by default. It is asked for again shortly before.
    pub expires_at: Option<SystemTime>,
}

/// What a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialKind {
    /// A password of a user.
    Password,
    /// A token by which further tokens can be had: OAuth's refresh token.
    IdentityToken,
    /// A token that the registry itself takes. It is of no use to a daemon that exchanges credentials by itself.
    RegistryToken,
}

impl Credential {
    /// A user name with its password.
    pub fn basic(username: impl Into<String>, password: impl Into<SecretText>) -> Self {
        Self::of_kind(CredentialKind::Password, username.into(), password.into())
    }

    /// An identity token, sent with an empty user name.
    pub fn identity_token(token: impl Into<SecretText>) -> Self {
        Self::of_kind(CredentialKind::IdentityToken, String::new(), token.into())
    }

    /// A token that the registry takes as it is.
    pub fn registry_token(token: impl Into<SecretText>) -> Self {
        Self::of_kind(CredentialKind::RegistryToken, String::new(), token.into())
    }

    fn of_kind(kind: CredentialKind, username: String, secret: SecretText) -> Self {
        Self {
            username,
            secret,
            kind,
            expires_at: None,
        }
    }

    /// Sets when the secret ends to be of use; the default is unknown.
    #[must_use]
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires_at = Some(time);
        self
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("username", &self.username)
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

/// Why the credentials of a host could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} registry {host}: {reason}", kind.words())]
#[non_exhaustive]
pub struct CredentialError {
    /// The host that was asked for.
    pub host: String,
    /// What failed, without any secret.
    pub reason: String,
    /// What kind of failure it is.
    pub kind: CredentialErrorKind,
}

/// Why credentials were of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialErrorKind {
    /// The look-up itself failed.
    LookUp,
    /// There are credentials, or none are needed, and the registry or its token server does not accept that.
    Refused,
    /// The daemon may not have these credentials.
    Denied,
    /// No token could be had.
    Token,
}

impl CredentialErrorKind {
    fn words(self) -> &'static str {
        match self {
            Self::LookUp => "cannot look up the credentials of",
            Self::Refused => "wrong or missing credentials for",
            Self::Denied => "will not give out credentials of",
            Self::Token => "cannot get a token of",
        }
    }
}

impl CredentialError {
    /// The look-up for `host` failed for `reason`, which must not hold a secret.
    pub fn new(host: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::of_kind(CredentialErrorKind::LookUp, host, reason)
    }

    /// The credentials of `host` are not accepted.
    pub fn refused(host: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::of_kind(CredentialErrorKind::Refused, host, reason)
    }

    /// The daemon may not have the credentials of `host`.
    pub fn denied(host: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::of_kind(CredentialErrorKind::Denied, host, reason)
    }

    /// No token of `host` could be had.
    pub fn token(host: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::of_kind(CredentialErrorKind::Token, host, reason)
    }

    fn of_kind(kind: CredentialErrorKind, host: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            reason: reason.into(),
            kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_secret() {
        let text = format!("{:?}", Credential::basic("me", "hunter2"));
        assert_eq!(text, r#"Credential { username: "me", secret: ***, .. }"#);
        let answer = CredentialAnswer::new(Some(Credential::identity_token("hunter2")), "here");
        assert!(!format!("{answer:?}").contains("hunter2"));
    }

    struct All;

    #[async_trait]
    impl CredentialProvider for All {
        async fn credential(&self, host: &str) -> Result<Option<Credential>, CredentialError> {
            Ok(Some(Credential::basic(host, "s")))
        }
    }

    #[tokio::test]
    async fn only_hosts_refuses_the_others() {
        let only = OnlyHosts::new(Arc::new(All), ["docker.io", "localhost:5000"]);
        for good in ["registry-1.docker.io", "localhost:5000"] {
            let answer = only.look_up(&CredentialQuery::new(good)).await.expect(good);
            assert_eq!(answer.credential, Some(Credential::basic(good, "s")));
        }
        for bad in ["localhost", "localhost:50001", "example.com", ""] {
            let error = only.look_up(&CredentialQuery::new(bad)).await.expect_err(bad);
            assert!(
                error.kind == CredentialErrorKind::Denied && error.host == bad,
                "{error:?}"
            );
            assert!(only.credential(bad).await.is_err());
        }
    }
}
