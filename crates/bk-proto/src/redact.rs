//! `Debug` for messages that carry secrets. They say that a secret is there and how long it is, never what.

use std::fmt;

use crate::auth::{CredentialsResponse, FetchTokenResponse};
use crate::secrets::GetSecretResponse;

/// Stands for a secret.
struct Hidden(usize);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0)
    }
}

impl fmt::Debug for CredentialsResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsResponse")
            .field("username", &self.username)
            .field("secret", &Hidden(self.secret.len()))
            .finish()
    }
}

impl fmt::Debug for FetchTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchTokenResponse")
            .field("token", &Hidden(self.token.len()))
            .field("expires_in", &self.expires_in)
            .field("issued_at", &self.issued_at)
            .finish()
    }
}

impl fmt::Debug for GetSecretResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetSecretResponse")
            .field("data", &Hidden(self.data.len()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let credentials = CredentialsResponse {
            username: "ann".into(),
            secret: "hunter2".into(),
        };
        assert_eq!(
            format!("{credentials:?}"),
            r#"CredentialsResponse { username: "ann", secret: <7 bytes> }"#
        );
        let token = FetchTokenResponse {
            token: "abc".into(),
            expires_in: 60,
            issued_at: 0,
        };
        assert_eq!(
            format!("{token:?}"),
            "FetchTokenResponse { token: <3 bytes>, expires_in: 60, issued_at: 0 }"
        );
        let secret = GetSecretResponse { data: b"xy".to_vec() };
        assert_eq!(format!("{secret:?}"), "GetSecretResponse { data: <2 bytes> }");
    }
}
