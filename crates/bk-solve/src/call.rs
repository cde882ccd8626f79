//! One question to a frontend: session, an empty Solve that holds the build open, and the gateway beside it.
//!
//! The answer to a plain Solve has no place for what a frontend says, so the client drives the build itself: it lets the
//! frontend solve through the gateway and returns what that gave. Without the return the build would wait for ever; it
//! is sent whatever happened, and dropping the future ends the build as always.

use std::{collections::BTreeMap, sync::Arc};

use bk_build::{
    BuildError, BuildRequest, Call, CallAnswer, EventSink, Frontend, InputError, LossKind, ProtocolFailure,
    SessionLost, Stalled,
};
use bk_proto::{
    control::SolveRequest,
    gateway::{self, llb_bridge_client::LlbBridgeClient},
    id::Id,
    rpc_status::Status as RpcStatus,
};
use bk_session::explain_failure;
use bytes::Bytes;
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tonic::{Code, Request, Status, metadata::MetadataValue};
use tracing::{Instrument as _, info_span};

use crate::{
    begin::{Begun, prepare},
    channel::Channel,
    classify,
    dial::Dialer,
    fold::StatusFold,
    limits::{CLOSE_GRACE, JOB_ATTEMPTS, MAX_MESSAGE, SESSION_END_GRACE},
    requires,
    solve::{SolveOptions, client, follow_status, lost_session, with_seen, with_start_and_end},
};

/// Names the build that a gateway call belongs to.
const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// What a frontend that is fetched has to understand; the mark lets the built-in one pass it on.
const SUBREQUESTS: &str = "moby.buildkit.frontend.subrequests+forward";
/// What frontends say to a question that they do not know.
const UNSUPPORTED: &str = "unsupported request ";

/// Asks the frontend of a request on the daemon that `dialer` reaches. Outputs and caches to be written are left aside.
///
/// Dropping the future ends the build that is the question's frame.
///
/// # Errors
/// [`BuildError::TooOld`] when the frontend does not know the question, else as [`build`](crate::build).
pub async fn call(
    dialer: &dyn Dialer,
    options: &SolveOptions,
    request: BuildRequest,
    call: Call,
    events: EventSink,
) -> Result<CallAnswer, BuildError> {
    let build_ref = Id::random().to_string();
    let asking = Box::pin(run(dialer, options, request, &call, &build_ref, &events));
    with_start_and_end(dialer.info(), &build_ref, &events, asking).await
}

async fn run(
    dialer: &dyn Dialer,
    options: &SolveOptions,
    mut request: BuildRequest,
    call: &Call,
    build_ref: &str,
    events: &EventSink,
) -> Result<CallAnswer, BuildError> {
    request.validate()?;
    if matches!(request.frontend, Frontend::Definition(_)) {
        let why = format!("`{call}`: steps that were made elsewhere have no frontend that could be asked");
        return Err(InputError::new("--call", why, "").into());
    }
    // Nothing is exported.
    request.session_exporter = None;
    let info = dialer.info();
    requires::check_call(&request, call, &info).await?;
    requires::check(&request, &info).await?;
    // Nothing is looked up in them, and nothing comes out.
    request.cache_from.clear();
    request.cache_to.clear();
    request.outputs.clear();
    let prepared = prepare(&mut request, options, events).await?;
    let Begun {
        channel,
        session,
        solve,
        filename,
        watch,
    } = prepared.begin(dialer, options, &mut request, build_ref).await?;
    let (frame, question) = split(solve, call);
    let failures = session.failures();

    let mut fold = StatusFold::new();
    let (solved, when_solved) = watch::channel(false);
    let (gone, when_gone) = oneshot::channel::<()>();
    let stall = request.patience.stall;
    let solving = async {
        let asking = drive(&channel, build_ref, frame, question);
        let asking = asking.instrument(info_span!("bk.call", call = %call));
        let result = tokio::select! {
            biased;
            result = asking => result,
            reason = lost_session(&session) => Err(Failure::Session(reason)),
            () = watch.silence(stall) => Err(Failure::Stalled),
        };
        let seen = watch.seen(session.health_age());
        session.close(CLOSE_GRACE).await;
        solved.send_replace(true);
        if let Err(Failure::Session(_) | Failure::Stalled) = &result {
            // Nothing more will be told.
            gone.send(()).ok();
        }
        (result, seen)
    };
    let following = async {
        tokio::select! {
            biased;
            Ok(()) = when_gone => {}
            () = follow_status(&channel, build_ref, &mut fold, events, when_solved).instrument(info_span!("bk.status")) => {}
        }
    };
    let ((result, seen), ()) = tokio::join!(solving, following);
    match result {
        Ok(metadata) => Ok(CallAnswer::from_metadata(metadata)?),
        Err(Failure::Protocol(text)) => Err(ProtocolFailure::new(text).into()),
        Err(Failure::Session(reason)) => {
            let lost = SessionLost::new(&info.address, reason.to_string()).kind(LossKind::Session);
            Err(with_seen(failures.explain(lost.into()), seen))
        }
        Err(Failure::Stalled) => {
            let stalled = Stalled::new(&info.address, stall.unwrap_or_default());
            Err(with_seen(stalled.into(), seen))
        }
        Err(Failure::Status(status)) if status.message().contains(UNSUPPORTED) => {
            Err(requires::unknown_call(call, &info))
        }
        Err(Failure::Status(status)) => {
            let name = filename.as_deref().unwrap_or("Dockerfile");
            let error = classify::solve_failure(&status, &fold, &info.address, name);
            let error = with_seen(failures.explain(error), seen);
            Err(explain_failure(&request, error).await)
        }
    }
}

/// Parts a build into the frame that holds it open and the question that is asked inside.
fn split(mut solve: SolveRequest, call: &Call) -> (SolveRequest, gateway::SolveRequest) {
    let mut attrs = std::mem::take(&mut solve.frontend_attrs);
    attrs.insert("requestid".to_owned(), call.request_id().to_owned());
    attrs
        .entry("frontend.caps".to_owned())
        .and_modify(|caps| *caps = format!("{caps},{SUBREQUESTS}"))
        .or_insert_with(|| SUBREQUESTS.to_owned());
    // Statements are made about images, and there will be none; and nothing is looked up in a cache.
    attrs.retain(|key, _| !key.starts_with("attest:") && key != "cache-imports");
    let policies = solve.source_policy.iter().cloned().collect();
    let question = gateway::SolveRequest {
        frontend: std::mem::take(&mut solve.frontend),
        frontend_opt: attrs,
        allow_result_return: true,
        allow_result_array_ref: true,
        source_policies: policies,
        ..gateway::SolveRequest::default()
    };
    let frame = SolveRequest {
        r#ref: solve.r#ref,
        session: solve.session,
        entitlements: solve.entitlements,
        source_policy: solve.source_policy,
        ..SolveRequest::default()
    };
    (frame, question)
}

enum Failure {
    Status(Status),
    Protocol(String),
    /// The session has ended by itself.
    Session(Arc<str>),
    /// Nothing came for too long.
    Stalled,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Runs the frame and the question side by side.
///
/// The frame may end first: it repeats a failure of the question without its details, and after a return its end and the
/// answer to the return come in either order.
async fn drive(
    channel: &Channel,
    build_ref: &str,
    frame: SolveRequest,
    question: gateway::SolveRequest,
) -> Result<BTreeMap<String, Bytes>, Failure> {
    let mut control = client(channel);
    let mut frame = std::pin::pin!(control.solve(frame));
    let mut asking = Box::pin(ask(channel, build_ref, question));
    let (answer, ended) = tokio::select! {
        biased;
        answer = &mut asking => (answer?, frame.await),
        ended = &mut frame => {
            let patience = if ended.is_ok() { CLOSE_GRACE } else { SESSION_END_GRACE };
            match (timeout(patience, asking).await, ended) {
                (Ok(Ok(answer)), ended) => (answer, ended),
                (_, Err(status)) => return Err(status.into()),
                (Ok(Err(status)), Ok(_)) => return Err(status.into()),
                (Err(_), Ok(_)) => return Err(Failure::Protocol(
                    "it ended the build before the question was answered".to_owned(),
                )),
            }
        }
    };
    let metadata = answer?;
    ended?;
    Ok(metadata)
}

/// Asks, and ends the build with the answer or with the failure. The outer error says that the build could not be ended:
/// then nothing more will come of it.
async fn ask(
    channel: &Channel,
    build_ref: &str,
    question: gateway::SolveRequest,
) -> Result<Result<BTreeMap<String, Bytes>, Status>, Status> {
    let id = MetadataValue::try_from(build_ref)
        .map_err(|_| Status::internal("the build's reference cannot be sent"))?;
    let mut bridge =
        LlbBridgeClient::with_origin(channel.clone(), http::Uri::from_static("http://localhost"))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(usize::MAX);
    // The daemon itself waits for the build to appear, three seconds each time.
    let mut attempts = 1;
    while let Err(status) = bridge.ping(of_build(&id, gateway::PingRequest::default())).await {
        if status.code() != Code::NotFound && !status.message().contains("no such job")
            || attempts == JOB_ATTEMPTS
        {
            return Err(status);
        }
        attempts += 1;
    }
    let answer = bridge.solve(of_build(&id, question)).await;
    let (end, answer) = match answer {
        Ok(answer) => {
            let metadata = answer.into_inner().result.unwrap_or_default().metadata;
            let result = gateway::Result {
                metadata: metadata.clone(),
                ..gateway::Result::default()
            };
            let end = gateway::ReturnRequest {
                result: Some(result),
                error: None,
            };
            (
                end,
                Ok(metadata.into_iter().map(|(k, v)| (k, v.into())).collect()),
            )
        }
        Err(status) => {
            let error = RpcStatus {
                code: status.code() as i32,
                message: status.message().to_owned(),
                details: Vec::new(),
            };
            let end = gateway::ReturnRequest {
                result: None,
                error: Some(error),
            };
            (end, Err(status))
        }
    };
    match bridge.r#return(of_build(&id, end)).await {
        Ok(_) => Ok(answer),
        // Why the question failed says more than that nobody could be told.
        Err(status) => Err(answer.err().unwrap_or(status)),
    }
}

fn of_build<T>(id: &MetadataValue<tonic::metadata::Ascii>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(BUILD_ID, id.clone());
    request
}

#[cfg(test)]
mod tests {
    use bk_build::{Attestation, Cache, NamedContext};

    use super::*;
    use crate::{ImageExporter, lower::lower};

    #[test]
    fn the_question_takes_the_frontend_and_the_frame_nothing_to_export() {
        let request = BuildRequest::new(".")
            .tag("a")
            .target("t")
            .attest(Attestation::sbom())
            .cache_to(Cache::inline())
            .cache_from(Cache::registry("c"))
            .named_context("n", NamedContext::Image("i".to_owned()));
        let (frame, question) = split(
            lower(&request, "r", "s", Some("D"), ImageExporter::Image),
            &Call::Check,
        );
        let empty = SolveRequest {
            r#ref: "r".to_owned(),
            session: "s".to_owned(),
            ..SolveRequest::default()
        };
        assert_eq!(frame, empty);
        let attrs: Vec<_> = question
            .frontend_opt
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(
            attrs,
            [
                "context:n=docker-image://i",
                "filename=D",
                "frontend.caps=moby.buildkit.frontend.contexts+forward,moby.buildkit.frontend.subrequests+forward",
                "requestid=frontend.lint",
                "target=t"
            ]
        );
        assert_eq!(question.frontend, "dockerfile.v0");
    }
}
