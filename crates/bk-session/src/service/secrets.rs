//! Build secrets for the daemon. Only what the request names is given out: any other id is `NotFound`, which a step
//! that does not require the secret tolerates, and git and http sources rely on for their well-known ids.

use std::{collections::BTreeMap, sync::Arc};

use bk_build::{
    BuildError, BuildRequest, LocalFailure, SecretBytes, SecretProvider, SecretSource,
    limits::MAX_SECRET_BYTES,
};
use bk_proto::secrets::{
    GetSecretRequest, GetSecretResponse,
    secrets_server::{SERVICE_NAME, Secrets, SecretsServer},
};
use tonic::{Request, Response, Status};

use super::dispatch::Services;
use crate::{limits::MAX_MESSAGE, secret_file::SecretFile, session::SessionState, text::shown};

/// The secrets of a session.
#[derive(Clone, Default)]
pub(crate) struct SecretSet {
    by_id: BTreeMap<String, Known>,
    provider: Option<Arc<dyn SecretProvider>>,
}

#[derive(Clone)]
enum Known {
    File(Arc<SecretFile>),
    Bytes(SecretBytes),
    Provider(Arc<dyn SecretProvider>),
}

impl SecretSet {
    /// The secrets of a request; blocks while it looks whether their files are there.
    pub(crate) fn of(request: &BuildRequest) -> Result<Self, BuildError> {
        let mut by_id = BTreeMap::new();
        for (id, source) in &request.secrets {
            let known = match source {
                SecretSource::File(path) => Known::File(Arc::new(SecretFile::check(path)?)),
                SecretSource::Bytes(bytes) => Known::Bytes(bytes.clone()),
                SecretSource::Provider(provider) => Known::Provider(provider.clone()),
                _ => {
                    return Err(BuildError::Misuse(format!(
                        "the source of secret `{id}` is not supported"
                    )));
                }
            };
            by_id.insert(id.clone(), known);
        }
        Ok(Self {
            by_id,
            provider: request.secret_provider.clone(),
        })
    }

    /// Whether nothing would ever be found.
    fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.provider.is_none()
    }

    async fn get(&self, id: &str) -> Result<Option<SecretBytes>, LocalFailure> {
        let bytes = match self.by_id.get(id) {
            Some(Known::Bytes(bytes)) => Some(bytes.clone()),
            Some(Known::File(file)) => Some(file.read().await?),
            Some(Known::Provider(provider)) => ask(&**provider, id).await?,
            None => match &self.provider {
                Some(provider) => ask(&**provider, id).await?,
                None => None,
            },
        };
        match bytes {
            Some(bytes) if bytes.len() > MAX_SECRET_BYTES => {
                let text = format!("is larger than {} KiB", MAX_SECRET_BYTES / 1024);
                Err(LocalFailure::new(format!("secret {}", shown(id)), text))
            }
            bytes => Ok(bytes),
        }
    }
}

async fn ask(provider: &dyn SecretProvider, id: &str) -> Result<Option<SecretBytes>, LocalFailure> {
    provider.secret(id).await.map_err(|e| {
        LocalFailure::new(format!("secret {}", shown(id)), "cannot be had from its provider").caused_by(e)
    })
}

/// Adds the service that gives out secrets, if there are any.
pub(crate) fn serve(services: &mut Services, secrets: SecretSet, state: Arc<SessionState>) {
    if secrets.is_empty() {
        return;
    }
    let server = SecretsServer::new(SecretService { secrets, state }).max_decoding_message_size(MAX_MESSAGE);
    services.add(SERVICE_NAME, &["GetSecret"], server);
}

struct SecretService {
    secrets: SecretSet,
    state: Arc<SessionState>,
}

#[tonic::async_trait]
impl Secrets for SecretService {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        match self.secrets.get(&id).await {
            Ok(Some(bytes)) => Ok(Response::new(GetSecretResponse {
                data: bytes.expose().to_vec(),
            })),
            Ok(None) => Err(Status::not_found(format!("there is no secret {}", shown(&id)))),
            Err(failure) => {
                // The daemon learns that it failed; what failed is for the user.
                let status = Status::failed_precondition(format!("secret {} cannot be read", shown(&id)));
                self.state.fail(failure.into());
                Err(status)
            }
        }
    }
}
