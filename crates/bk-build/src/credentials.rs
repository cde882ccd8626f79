//! Registry credentials: who is asked, and what an answer is. Secrets never appear in `Debug`.

use async_trait::async_trait;

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

/// A user name and its secret. An identity token has an empty user name, as on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user name; empty when `secret` is an identity token.
    pub username: String,
    /// The password or token.
    pub secret: String,
}

impl Credential {
    /// A user name with its password.
    pub fn basic(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            username: username.into(),
            secret: password.into(),
        }
    }

    /// An identity token, sent with an empty user name.
    pub fn identity_token(token: impl Into<String>) -> Self {
        Self {
            username: String::new(),
            secret: token.into(),
        }
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("username", &self.username)
            .field("secret", &"***")
            .finish()
    }
}

/// Why the credentials of a host could not be looked up.
#[derive(Debug, thiserror::Error)]
#[error("cannot look up the credentials of registry {host}: {reason}")]
pub struct CredentialError {
    /// The host that was asked for.
    pub host: String,
    /// What failed, without any secret.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_secret() {
        let text = format!("{:?}", Credential::basic("me", "hunter2"));
        assert_eq!(text, r#"Credential { username: "me", secret: "***" }"#);
    }
}
