//! Registry tokens fetched on this machine: a registry's password goes to its token server, and only the token, which
//! is short-lived and good for a few repositories, goes to the daemon.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::{Credential, SecretText};

/// Exchanges credentials for tokens.
///
/// What arrives here comes from the daemon and is not to be trusted: above all the realm, to which a password would be
/// sent.
#[async_trait]
pub trait TokenExchange: Send + Sync {
    /// Whether tokens for the registry `host` can be had from here. Asked before any token; the daemon cannot change its
    /// mind afterwards.
    async fn reach(&self, host: &str) -> Reach;

    /// A token for `request`, for the owner of `credential`, or for anybody without one.
    ///
    /// # Errors
    /// See [`TokenError`].
    async fn token(
        &self,
        request: &TokenRequest,
        credential: Option<&Credential>,
    ) -> Result<Token, TokenError>;
}

/// Whether tokens of a registry can be had from this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// Yes: its token server answers.
    Yes,
    /// The registry takes no tokens: it asks for a user and a password itself, or for nothing.
    NoTokens,
    /// The registry or its token server does not answer here, for the reason given. The daemon may have more luck.
    Unreachable(String),
}

/// What the daemon wants a token for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenRequest {
    /// The registry's `host[:port]`.
    pub host: String,
    /// The URL of the token server, as the registry told the daemon, as the daemon tells us.
    pub realm: String,
    /// The name by which the token server knows the registry.
    pub service: String,
    /// Each for instance `repository:team/app:pull`.
    pub scopes: Vec<String>,
    /// The name of the client that the daemon wants to be used; empty for none.
    pub client_id: String,
}

impl TokenRequest {
    /// A request for a token of the registry `host` from `realm`.
    pub fn new(host: impl Into<String>, realm: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            realm: realm.into(),
            ..Self::default()
        }
    }

    /// Sets the name by which the token server knows the registry; the default is none.
    #[must_use]
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = service.into();
        self
    }

    /// Sets what the token is for; the default is nothing.
    #[must_use]
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the name of the client; the default is none.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }
}

/// A token that a registry takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// The token.
    pub token: SecretText,
    /// How long it is good after `issued_at`.
    pub expires_in: Duration,
    /// When it was made, by the token server's clock; unknown by default.
    pub issued_at: Option<SystemTime>,
}

impl Token {
    /// A token that is good for `expires_in`.
    pub fn new(token: impl Into<SecretText>, expires_in: Duration) -> Self {
        Self {
            token: token.into(),
            expires_in,
            issued_at: None,
        }
    }

    /// Sets when it was made; the default is unknown.
    #[must_use]
    pub fn issued_at(mut self, time: Option<SystemTime>) -> Self {
        self.issued_at = time;
        self
    }
}

/// Why there is no token. No message holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The token server does not take the credentials.
    #[error("the token server {realm} refused the credentials: HTTP {status}")]
    Refused {
        /// The token server.
        realm: String,
        /// Its HTTP status.
        status: u16,
    },
    /// The credentials may not go to the realm that the daemon names.
    #[error("will not send credentials to {realm}: {reason}")]
    Untrusted {
        /// The realm.
        realm: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token server cannot be reached, or gives no usable answer.
    #[error("no token from {realm}: {reason}")]
    Failed {
        /// The token server.
        realm: String,
        /// What happened.
        reason: String,
    },
}
