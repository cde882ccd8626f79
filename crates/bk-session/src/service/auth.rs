//! Registry credentials for the daemon. Unknown hosts get empty credentials, which means anonymous: an error would
//! fail the pull of a public image.

use std::sync::Arc;

use bk_build::CredentialProvider;
use bk_proto::auth::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
    auth_server::{Auth, AuthServer, SERVICE_NAME},
};
use tonic::{Request, Response, Status};

use super::dispatch::Services;
use crate::limits::MAX_MESSAGE;

/// Adds the service that answers for registry credentials.
pub(crate) fn serve(services: &mut Services, provider: Arc<dyn CredentialProvider>) {
    let server = AuthServer::new(AuthService { provider }).max_decoding_message_size(MAX_MESSAGE);
    services.add(SERVICE_NAME, &["Credentials"], server);
}

struct AuthService {
    provider: Arc<dyn CredentialProvider>,
}

/// The daemon then exchanges the credentials for tokens by itself.
fn no_token_authority() -> Status {
    Status::unimplemented("tokens are not fetched on the client's side")
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        match self.provider.credential(&host).await {
            Ok(Some(c)) => Ok(Response::new(CredentialsResponse {
                username: c.username,
                secret: c.secret,
            })),
            Ok(None) => Ok(Response::new(CredentialsResponse::default())),
            Err(e) => Err(Status::unknown(e.to_string())),
        }
    }

    async fn fetch_token(
        &self,
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        Err(no_token_authority())
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(no_token_authority())
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(no_token_authority())
    }
}
