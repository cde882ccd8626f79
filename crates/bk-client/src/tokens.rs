//! Who fetches registry tokens: this machine, with the proxies and the authorities that it uses for everything else.

use std::sync::Arc;

use bk_build::{CredentialProvider, TokenExchange, WithTokens};
use bk_session::TokenClient;

use crate::Environment;

/// What fetches tokens in this environment; nothing when it says that daemons do so themselves.
pub(crate) fn exchange(environment: &Environment) -> Option<Arc<dyn TokenExchange>> {
    if environment.no_client_token {
        return None;
    }
    Some(Arc::new(client(environment)))
}

/// What reaches registries and their token servers in this environment.
pub(crate) fn client(environment: &Environment) -> TokenClient {
    let client = TokenClient::new()
        .proxies(environment.proxies.clone())
        .system_roots(system_roots);
    let dirs = &environment.certs_dirs;
    dirs.iter().fold(client, |client, dir| client.certs_dir(dir))
}

/// Lets `exchange` fetch tokens for `provider`, unless that has somebody of its own.
pub(crate) fn with(
    provider: Arc<dyn CredentialProvider>,
    exchange: Option<&Arc<dyn TokenExchange>>,
) -> Arc<dyn CredentialProvider> {
    match exchange {
        Some(exchange) if provider.tokens().is_none() => {
            Arc::new(WithTokens::new(provider, Arc::clone(exchange)))
        }
        _ => provider,
    }
}

/// The authorities that the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` count.
pub(crate) fn system_roots() -> Result<Vec<Vec<u8>>, String> {
    let found = rustls_native_certs::load_native_certs();
    match found.errors.first() {
        Some(error) if found.certs.is_empty() => Err(error.to_string()),
        _ => Ok(found.certs.into_iter().map(|c| c.to_vec()).collect()),
    }
}
