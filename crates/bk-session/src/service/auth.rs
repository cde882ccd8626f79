//! Registry credentials and tokens for the daemon. Unknown hosts get empty credentials, which means anonymous: an error
//! would fail the pull of a public image.
//!
//! The rule: where tokens can be fetched here, they are, and the credential itself is not given out any more, whatever
//! the daemon asks. Each question is told as an event.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bk_build::{
    BuildEvent, Credential, CredentialAnswer, CredentialError, CredentialErrorKind, CredentialGiven,
    CredentialKind, CredentialProvider, CredentialQuery, CredentialUse, EventSink, Reach, Token, TokenError,
    TokenExchange, TokenRequest, Warning, WarningKind,
};
use bk_proto::auth::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
    auth_server::{Auth, AuthServer, SERVICE_NAME},
};
use tonic::{Request, Response, Status};

use super::{authority::Authority, dispatch::Services};
use crate::{
    limits::{MAX_AUTH_TEXT, MAX_MESSAGE, MAX_PROOF, MAX_REGISTRIES, MAX_SCOPES},
    session::SessionState,
};

/// Adds the service that answers for registry credentials.
pub(crate) fn serve(
    services: &mut Services,
    provider: Arc<dyn CredentialProvider>,
    events: EventSink,
    state: Arc<SessionState>,
) {
    // Without random numbers the daemon exchanges credentials itself.
    let tokens = provider.tokens().zip(Authority::random());
    let methods: &[&str] = match tokens {
        Some(_) => &[
            "Credentials",
            "FetchToken",
            "GetTokenAuthority",
            "VerifyTokenAuthority",
        ],
        None => &["Credentials"],
    };
    let service = AuthService {
        provider,
        tokens: tokens.map(|(exchange, authority)| Tokens {
            exchange,
            authority,
            hosts: Mutex::default(),
        }),
        events,
        state,
        warned: Mutex::default(),
    };
    let server = AuthServer::new(service).max_decoding_message_size(MAX_MESSAGE);
    services.add(SERVICE_NAME, methods, server);
}

struct AuthService {
    provider: Arc<dyn CredentialProvider>,
    tokens: Option<Tokens>,
    events: EventSink,
    state: Arc<SessionState>,
    warned: Mutex<BTreeSet<String>>,
}

/// What it takes to fetch tokens here.
struct Tokens {
    exchange: Arc<dyn TokenExchange>,
    authority: Authority,
    /// Those for which this session is the authority.
    hosts: Mutex<BTreeSet<String>>,
}

impl Tokens {
    fn is_authority(&self, host: &str) -> bool {
        self.hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(host)
    }
}

/// The daemon then exchanges the credentials for tokens by itself.
fn no_token_authority() -> Status {
    Status::unimplemented("tokens are not fetched on the client's side")
}

fn no_tokens_of(host: &str) -> Status {
    Status::unavailable(format!(
        "tokens of registry {host} are not fetched on the client's side"
    ))
}

/// Refuses what no registry is called, before it gets anywhere.
fn check(what: &str, text: &str) -> Result<(), Status> {
    if text.len() > MAX_AUTH_TEXT || text.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!("this is no {what}")));
    }
    Ok(())
}

fn check_host(host: &str) -> Result<(), Status> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    if host.is_empty() || host.len() > 300 || !host.bytes().all(plain) {
        return Err(Status::invalid_argument("this is no registry host"));
    }
    Ok(())
}

impl AuthService {
    async fn tell(&self, host: &str, scopes: &[String], source: &str, given: CredentialGiven) {
        let told = CredentialUse::new(host, source, given).scopes(scopes.to_vec());
        self.events.emit(BuildEvent::Credentials(told)).await;
    }

    /// Warns once for each registry.
    async fn warn(&self, host: &str, text: String) {
        let fresh = {
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            warned.len() < MAX_REGISTRIES && warned.insert(host.to_owned())
        };
        if fresh {
            let warning = Warning::new(WarningKind::Client, text);
            self.events.emit(BuildEvent::Warning(warning)).await;
        }
    }

    /// Asks the provider; a failure is told and kept for the build's error.
    async fn look_up(&self, query: &CredentialQuery) -> Result<CredentialAnswer, Status> {
        match self.provider.look_up(query).await {
            Ok(answer) => {
                if let Some(text) = &answer.warning {
                    self.warn(&query.host, text.clone()).await;
                }
                self.state.registry(&query.host, &answer.source, None);
                Ok(answer)
            }
            Err(e) => Err(self.refuse(&query.scopes, "the look-up failed", e).await),
        }
    }

    /// Tells and keeps a failure, and makes it the answer.
    async fn refuse(&self, scopes: &[String], source: &str, error: CredentialError) -> Status {
        let host = error.host.clone();
        self.tell(&host, scopes, source, CredentialGiven::Refused).await;
        let text = error.to_string();
        let status = match error.kind {
            CredentialErrorKind::Denied => Status::permission_denied(text),
            CredentialErrorKind::Refused => Status::unauthenticated(text),
            _ => Status::unknown(text),
        };
        self.state.registry(&host, source, Some(error));
        status
    }

    /// Whether this session fetches the tokens of a registry for which there is a credential.
    async fn fetches(&self, tokens: &Tokens, host: &str, known: &Credential) -> bool {
        if tokens.is_authority(host) || known.kind == CredentialKind::RegistryToken {
            return true;
        }
        match tokens.exchange.reach(host).await {
            Reach::Yes => true,
            Reach::Unreachable(reason) => {
                let text = format!(
                    "the daemon gets the credentials of registry {host} and fetches tokens itself: from this machine none \
                     can be had ({reason})"
                );
                self.warn(host, text).await;
                false
            }
            _ => false,
        }
    }

    /// A token; after a refusal once more with what the provider says then.
    async fn token(
        &self,
        tokens: &Tokens,
        request: &TokenRequest,
        query: CredentialQuery,
    ) -> Result<(Token, String), Status> {
        let first = self.look_up(&query).await?;
        let refused = match tokens.exchange.token(request, first.credential.as_ref()).await {
            Ok(token) => return Ok((token, first.source)),
            Err(e @ TokenError::Refused { .. }) if first.credential.is_some() => e,
            Err(e) => return Err(self.refuse_token(request, &first.source, &e).await),
        };
        let again = self.look_up(&query.refused()).await?;
        if again.credential.is_none() || again.credential == first.credential {
            return Err(self.refuse_token(request, &again.source, &refused).await);
        }
        match tokens.exchange.token(request, again.credential.as_ref()).await {
            Ok(token) => Ok((token, again.source)),
            Err(e) => Err(self.refuse_token(request, &again.source, &e).await),
        }
    }

    async fn refuse_token(&self, request: &TokenRequest, source: &str, error: &TokenError) -> Status {
        let reason = format!("{error}; credentials from {source}");
        let error = match error {
            TokenError::Refused { .. } => CredentialError::refused(&request.host, reason),
            TokenError::Untrusted { .. } => CredentialError::denied(&request.host, reason),
            _ => CredentialError::token(&request.host, reason),
        };
        self.refuse(&request.scopes, source, error).await
    }
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        check_host(&host)?;
        let answer = self.look_up(&CredentialQuery::new(&host)).await?;
        let Some(credential) = answer.credential else {
            self.tell(&host, &[], &answer.source, CredentialGiven::Nothing)
                .await;
            return Ok(Response::new(CredentialsResponse::default()));
        };
        if let Some(tokens) = &self.tokens
            && self.fetches(tokens, &host, &credential).await
        {
            let reason = "tokens for it are fetched on the client's side";
            let error = CredentialError::denied(&host, reason);
            return Err(self.refuse(&[], &answer.source, error).await);
        }
        if credential.kind == CredentialKind::RegistryToken {
            let text = format!(
                "the token from {} is of no use to a daemon that fetches tokens itself: registry {host} is asked without \
                 credentials",
                answer.source
            );
            self.warn(&host, text).await;
            self.tell(&host, &[], &answer.source, CredentialGiven::Nothing)
                .await;
            return Ok(Response::new(CredentialsResponse::default()));
        }
        self.tell(&host, &[], &answer.source, CredentialGiven::Credential)
            .await;
        Ok(Response::new(CredentialsResponse {
            username: credential.username,
            secret: credential.secret.expose().to_owned(),
        }))
    }

    async fn fetch_token(
        &self,
        request: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        let tokens = self.tokens.as_ref().ok_or_else(no_token_authority)?;
        let asked = request.into_inner();
        check_host(&asked.host)?;
        for (what, text) in [
            ("realm", &asked.realm),
            ("service", &asked.service),
            ("client id", &asked.client_id),
        ] {
            check(what, text)?;
        }
        if asked.scopes.len() > MAX_SCOPES {
            return Err(Status::invalid_argument("too many scopes"));
        }
        asked.scopes.iter().try_for_each(|scope| check("scope", scope))?;
        let host = asked.host;
        if !tokens.is_authority(&host) {
            let error =
                CredentialError::denied(&host, "this session was not asked to be its token authority");
            return Err(self.refuse(&asked.scopes, "nobody was asked", error).await);
        }
        let query = CredentialQuery::new(&host).scopes(&asked.scopes);
        let request = TokenRequest::new(&host, asked.realm)
            .service(asked.service)
            .scopes(asked.scopes)
            .client_id(asked.client_id);
        let (token, source) = self.token(tokens, &request, query).await?;
        self.tell(&host, &request.scopes, &source, CredentialGiven::Token)
            .await;
        Ok(Response::new(FetchTokenResponse {
            token: token.token.expose().to_owned(),
            expires_in: seconds(token.expires_in),
            issued_at: token.issued_at.map_or(0, since_epoch),
        }))
    }

    async fn get_token_authority(
        &self,
        request: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        let tokens = self.tokens.as_ref().ok_or_else(no_token_authority)?;
        let GetTokenAuthorityRequest { host, salt } = request.into_inner();
        check_host(&host)?;
        if salt.len() > MAX_PROOF {
            return Err(Status::invalid_argument("the salt is too long"));
        }
        let answer = self.look_up(&CredentialQuery::new(&host).any()).await?;
        // Without a credential there is nothing to protect, and the daemon reaches public registries best itself.
        let Some(credential) = answer.credential else {
            return Err(no_tokens_of(&host));
        };
        if !self.fetches(tokens, &host, &credential).await {
            return Err(no_tokens_of(&host));
        }
        let public_key = tokens
            .authority
            .public_key(&host, &salt)
            .ok_or_else(|| no_tokens_of(&host))?;
        let mut hosts = tokens.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MAX_REGISTRIES && !hosts.contains(&host) {
            return Err(Status::resource_exhausted("too many registries"));
        }
        hosts.insert(host);
        Ok(Response::new(GetTokenAuthorityResponse { public_key }))
    }

    async fn verify_token_authority(
        &self,
        request: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        let tokens = self.tokens.as_ref().ok_or_else(no_token_authority)?;
        let VerifyTokenAuthorityRequest { host, payload, salt } = request.into_inner();
        check_host(&host)?;
        if salt.len() > MAX_PROOF || payload.len() > MAX_PROOF {
            return Err(Status::invalid_argument("the salt or the payload is too long"));
        }
        if !tokens.is_authority(&host) {
            return Err(no_tokens_of(&host));
        }
        let signed = tokens
            .authority
            .sign(&host, &salt, &payload)
            .ok_or_else(|| no_tokens_of(&host))?;
        Ok(Response::new(VerifyTokenAuthorityResponse { signed }))
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn since_epoch(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, seconds)
}
