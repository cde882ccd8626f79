//! Decisions of the program about sources.
//!
//! The rule: what cannot be understood or decided is an error, never a yes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bk_build::{
    LocalFailure, PolicyDecision, PolicyGit, PolicyHttp, PolicyImage, PolicySource, PolicyVerifier,
};
use bk_proto::{
    gateway::{
        ResolveSourceGitRequest, ResolveSourceImageRequest, ResolveSourceMetaRequest,
        ResolveSourceMetaResponse,
    },
    ops::{Platform, SourceOp},
    policy_session::{
        CheckPolicyRequest, CheckPolicyResponse, DecisionResponse, DenyMessage,
        check_policy_response::Result as Answer,
        policy_verifier_server::{PolicyVerifier as Service, PolicyVerifierServer, SERVICE_NAME},
    },
    source_policy::PolicyAction,
};
use tonic::{Request, Response, Status};

use super::dispatch::Services;
use crate::{limits::MAX_MESSAGE, session::SessionState, text::shown};

/// The program's verifier, and whether it was ever asked. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Verifier {
    verifier: Arc<dyn PolicyVerifier>,
    asked: Arc<AtomicBool>,
}

impl Verifier {
    pub(crate) fn new(verifier: Arc<dyn PolicyVerifier>) -> Self {
        Self {
            verifier,
            asked: Arc::default(),
        }
    }

    /// Whether the daemon has asked about any source.
    pub(crate) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Adds the service that decides about sources, if somebody does.
pub(crate) fn serve(services: &mut Services, verifier: Option<Verifier>, state: Arc<SessionState>) {
    if let Some(verifier) = verifier {
        let server = PolicyVerifierServer::new(PolicyService { verifier, state })
            .max_decoding_message_size(MAX_MESSAGE);
        services.add(SERVICE_NAME, &["CheckPolicy"], server);
    }
}

struct PolicyService {
    verifier: Verifier,
    state: Arc<SessionState>,
}

/// A platform as people write it.
fn platform(platform: &Platform) -> Option<String> {
    if platform.os.is_empty() {
        return None;
    }
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if !platform.variant.is_empty() {
        text.push('/');
        text.push_str(&platform.variant);
    }
    Some(text)
}

fn source(known: &ResolveSourceMetaResponse, op: &SourceOp, for_: Option<&Platform>) -> PolicySource {
    let mut source = PolicySource::new(&op.identifier);
    source.attrs = op.attrs.clone();
    source.platform = for_.and_then(platform);
    source.image = known.image.as_ref().map(|said| {
        let mut image = PolicyImage::default();
        image.digest.clone_from(&said.digest);
        image.config = said.config.to_vec();
        image
    });
    source.git = known.git.as_ref().map(|said| {
        let mut git = PolicyGit::default();
        git.checksum.clone_from(&said.checksum);
        git.reference.clone_from(&said.r#ref);
        git.commit_checksum.clone_from(&said.commit_checksum);
        git.commit = said.commit_object.to_vec();
        git.tag = said.tag_object.to_vec();
        git
    });
    source.http = known.http.as_ref().map(|said| {
        let mut http = PolicyHttp::default();
        http.checksum.clone_from(&said.checksum);
        http.filename.clone_from(&said.filename);
        http
    });
    source
}

fn decided(action: PolicyAction) -> DecisionResponse {
    DecisionResponse {
        action: action.into(),
        ..DecisionResponse::default()
    }
}

#[tonic::async_trait]
impl Service for PolicyService {
    async fn check_policy(
        &self,
        request: Request<CheckPolicyRequest>,
    ) -> Result<Response<CheckPolicyResponse>, Status> {
        self.verifier.asked.store(true, Ordering::SeqCst);
        let request = request.into_inner();
        let known = request.source.unwrap_or_default();
        let Some(op) = &known.source else {
            return Err(Status::invalid_argument("the question names no source"));
        };
        let asked = source(&known, op, request.platform.as_ref());
        let decision = self.verifier.verifier.check(&asked).await.map_err(|e| {
            let name = format!("policy for {}", shown(&op.identifier));
            let failure = LocalFailure::new(name, "the program could not decide").caused_by(e);
            self.state.fail(failure.into());
            Status::failed_precondition("the policy of the client failed")
        })?;
        let result = match decision {
            PolicyDecision::Allow => Answer::Decision(decided(PolicyAction::Allow)),
            PolicyDecision::Deny(reasons) => {
                // A daemon logs the reasons and fails the build without them.
                let why = match reasons.is_empty() {
                    true => "denied by the program".to_owned(),
                    false => format!("denied by the program: {}", reasons.join("; ")),
                };
                let name = format!("policy for {}", shown(&op.identifier));
                self.state.fail(LocalFailure::new(name, why).into());
                let deny_messages = reasons.into_iter().map(|message| DenyMessage { message });
                Answer::Decision(DecisionResponse {
                    deny_messages: deny_messages.collect(),
                    ..decided(PolicyAction::Deny)
                })
            }
            PolicyDecision::Convert { identifier, attrs } => Answer::Decision(DecisionResponse {
                update: Some(SourceOp { identifier, attrs }),
                ..decided(PolicyAction::Convert)
            }),
            PolicyDecision::Inquire => Answer::Request(ResolveSourceMetaRequest {
                // A daemon refuses a question about anything else than it has asked about.
                source: Some(op.clone()),
                platform: request.platform,
                image: Some(ResolveSourceImageRequest::default()),
                git: Some(ResolveSourceGitRequest { return_object: true }),
                ..ResolveSourceMetaRequest::default()
            }),
            other => {
                return Err(Status::internal(format!("{other:?} cannot be said")));
            }
        };
        Ok(Response::new(CheckPolicyResponse { result: Some(result) }))
    }
}
