//! Secrets for the steps of the Dockerfile in the current directory: one from the environment, the others from a function
//! that is asked when a step mounts one, so that nothing is fetched that no step wants.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to a terminal"
)]

use std::{error::Error, sync::Arc};

use async_trait::async_trait;
use bk_client::{
    BuildRequest, EventSink, ImageBuilder, SecretBytes, SecretError, SecretProvider, secret_from_environment,
};

/// Stands for a vault that is asked over the network.
struct Vault;

#[async_trait]
impl SecretProvider for Vault {
    async fn secret(&self, id: &str) -> Result<Option<SecretBytes>, SecretError> {
        eprintln!("a step asks for {id}");
        Ok(id
            .strip_prefix("vault-")
            .map(|key| format!("the value of {key}").into()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let request = BuildRequest::new(".")
        .secret("token", secret_from_environment("API_TOKEN")?)
        .secret_provider(Arc::new(Vault));
    let client = bk_client::connect().await?;
    let outcome = client
        .build(request, EventSink::from_fn(|event| eprintln!("{event:?}")))
        .await?;
    println!("built {}", outcome.image_id.unwrap_or_default());
    Ok(())
}
