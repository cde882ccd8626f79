//! A program that decides about sources and adds outputs, as a daemon sees it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bk_build::{
    BuildError, BuildRequest, BuiltResult, NoCredentials, Output, PolicyDecision, PolicySource,
    PolicyVerifier, ProgramError, SessionExporter,
};
use bk_proto::{
    exporter::{
        ExporterRequest, FinalizeExportRequest, FindExportersRequest, exporter_client::ExporterClient,
    },
    filesync::{BytesMessage, file_send_client::FileSendClient},
    gateway::{ResolveSourceImageResponse, ResolveSourceMetaResponse},
    headers, metadata,
    ops::{Platform, SourceOp},
    policy_session::{
        CheckPolicyRequest, CheckPolicyResponse, check_policy_response::Result as Answer,
        policy_verifier_client::PolicyVerifierClient,
    },
    source_policy::PolicyAction,
};
use bk_session::{Exports, Extras, LaterOutput, LaterOutputs, RunningSession, SessionConfig, Sources};
use tonic::{Code, Request, Status};

use crate::{
    daemon::{Daemon, attach, origin},
    serving,
};

const IMAGE: &str = "docker-image://docker.io/library/alpine:latest";

/// Decides by what is in the name, and keeps what it was asked.
#[derive(Default)]
struct ByName(Mutex<Vec<PolicySource>>);

#[async_trait::async_trait]
impl PolicyVerifier for ByName {
    async fn check(&self, source: &PolicySource) -> Result<PolicyDecision, ProgramError> {
        self.0.lock().expect("no panic").push(source.clone());
        let name = &source.identifier;
        Ok(if name.contains("bad") {
            PolicyDecision::Deny(vec!["no".to_owned(), "never".to_owned()])
        } else if name.contains("old") {
            PolicyDecision::Convert {
                identifier: IMAGE.to_owned(),
                attrs: BTreeMap::new(),
            }
        } else if name.contains("broken") {
            return Err(ProgramError::new("the list is not there"));
        } else if source.image.is_none() {
            PolicyDecision::Inquire
        } else {
            PolicyDecision::Allow
        })
    }
}

async fn ask(
    daemon: &Daemon,
    identifier: &str,
    image: Option<ResolveSourceImageResponse>,
) -> Result<CheckPolicyResponse, Status> {
    let request = CheckPolicyRequest {
        platform: Some(Platform {
            os: "linux".to_owned(),
            architecture: "arm".to_owned(),
            variant: "v7".to_owned(),
            ..Platform::default()
        }),
        source: Some(ResolveSourceMetaResponse {
            source: Some(SourceOp {
                identifier: identifier.to_owned(),
                attrs: [("k".to_owned(), "v".to_owned())].into(),
            }),
            image,
            ..ResolveSourceMetaResponse::default()
        }),
        ..CheckPolicyRequest::default()
    };
    let mut client = PolicyVerifierClient::with_origin(daemon.clone(), origin());
    client
        .check_policy(request)
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_decides_about_each_source() {
    let verifier = Arc::new(ByName::default());
    let request = BuildRequest::new(".").policy_verifier(verifier.clone());
    let extras = Extras::of(&request).await.expect("nothing to look at");
    let config = SessionConfig::new(Sources::none(), Arc::new(NoCredentials)).extras(extras.clone());
    let (daemon, session) = attach(config).await;
    assert!(extras.verifier_was_ignored());

    // It looks first, and then it is the same source with more that is known.
    let Some(Answer::Request(more)) = ask(&daemon, IMAGE, None).await.expect("an answer").result else {
        panic!("no question")
    };
    let asked = more.source.expect("the same source");
    assert_eq!(
        (asked.identifier.as_str(), asked.attrs["k"].as_str()),
        (IMAGE, "v")
    );
    assert_eq!(more.platform.expect("the same platform").variant, "v7");
    assert!(more.image.is_some_and(|image| !image.no_config));
    let image = ResolveSourceImageResponse {
        digest: "sha256:1".to_owned(),
        config: b"{}".to_vec(),
        ..ResolveSourceImageResponse::default()
    };
    let decision = |answer: CheckPolicyResponse| match answer.result {
        Some(Answer::Decision(decision)) => decision,
        other => panic!("{other:?}"),
    };
    let allowed = decision(ask(&daemon, IMAGE, Some(image)).await.expect("an answer"));
    assert_eq!(allowed.action(), PolicyAction::Allow);
    let seen = verifier.0.lock().expect("no panic").clone();
    assert_eq!(seen[1].platform.as_deref(), Some("linux/arm/v7"));
    assert_eq!(seen[1].attrs["k"], "v");
    let known = seen[1].image.as_ref().expect("what is known");
    assert_eq!((known.digest.as_str(), &*known.config), ("sha256:1", &b"{}"[..]));
    assert!(!extras.verifier_was_ignored());

    let denied = decision(
        ask(&daemon, "https://bad.example/x", None)
            .await
            .expect("an answer"),
    );
    assert_eq!(denied.action(), PolicyAction::Deny);
    let reasons: Vec<_> = denied.deny_messages.iter().map(|m| m.message.as_str()).collect();
    assert_eq!(reasons, ["no", "never"]);
    // The daemon fails the build without them; the user hears them.
    assert_eq!(
        session.failures().explain(BuildError::Cancelled).to_string(),
        "policy for `https://bad.example/x`: denied by the program: no; never"
    );
    let other = decision(ask(&daemon, "docker-image://old", None).await.expect("an answer"));
    assert_eq!(other.action(), PolicyAction::Convert);
    assert_eq!(other.update.expect("another one").identifier, IMAGE);

    // What cannot be decided is an error, and the user hears why.
    let failed = ask(&daemon, "docker-image://broken", None)
        .await
        .expect_err("no answer");
    assert_eq!(failed.code(), Code::FailedPrecondition);
    assert!(!failed.message().contains("list"), "{failed}");
    let error = session.failures().explain(BuildError::Cancelled);
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(
        error.to_string(),
        "policy for `docker-image://broken`: the program could not decide"
    );
    assert_eq!(cause.as_deref(), Some("the list is not there"));
    let mut client = PolicyVerifierClient::with_origin(daemon, origin());
    let nothing = client.check_policy(CheckPolicyRequest::default()).await;
    assert_eq!(nothing.expect_err("no source").code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_decides_and_adds_unless_a_request_says_so() {
    let (daemon, _session) = serving(&BuildRequest::new(".")).await;
    let asked = ask(&daemon, IMAGE, None).await.expect_err("not served");
    assert_eq!(asked.code(), Code::Unimplemented);
    let found = find(&daemon).await.expect_err("not served");
    assert_eq!(found.code(), Code::Unimplemented);
}

/// Adds the outputs that it is made with, if there are any.
struct Adding(Option<Vec<Output>>, Mutex<BTreeMap<String, String>>);

#[async_trait::async_trait]
impl SessionExporter for Adding {
    async fn find(&self, result: &BuiltResult) -> Result<Vec<Output>, ProgramError> {
        assert_eq!(result.metadata["k"], b"v");
        assert_eq!(result.refs, ["r"]);
        self.0.clone().ok_or_else(|| ProgramError::new("out of ideas"))
    }

    async fn finalize(&self, answer: &BTreeMap<String, String>) -> Result<(), ProgramError> {
        self.1.lock().expect("no panic").extend(answer.clone());
        Ok(())
    }
}

async fn adding(exporter: Arc<Adding>, first: usize) -> (Daemon, RunningSession, Exports) {
    let exports = Exports::new(vec![(0, bk_build::Sink::Daemon)])
        .await
        .expect("nowhere")
        .open_to_more();
    let lower = move |found: Vec<Output>| {
        let later = found.into_iter().enumerate().map(|(at, output)| LaterOutput {
            output: first + at,
            kind: output.kind.name().to_owned(),
            attrs: output.attrs,
            sink: output.sink,
        });
        Ok(later.collect())
    };
    let config = SessionConfig::new(Sources::none(), Arc::new(NoCredentials))
        .exports(exports.clone())
        .later(LaterOutputs::new(exporter, Arc::new(lower)));
    let (daemon, session) = attach(config).await;
    (daemon, session, exports)
}

async fn find(daemon: &Daemon) -> Result<Vec<ExporterRequest>, Status> {
    let request = FindExportersRequest {
        metadata: [("k".to_owned(), b"v".to_vec())].into(),
        refs: vec!["r".to_owned()],
    };
    let mut client = ExporterClient::with_origin(daemon.clone(), origin());
    let found = client.find_exporters(request).await?;
    Ok(found.into_inner().exporters)
}

async fn send(daemon: &Daemon, id: &str, bytes: &'static [u8]) -> Result<(), Status> {
    let mut request = Request::new(tokio_stream::iter(vec![BytesMessage { data: bytes.into() }]));
    metadata::set(request.metadata_mut(), headers::EXPORTER_ID, &[id]).expect("metadata");
    let mut client = FileSendClient::with_origin(daemon.clone(), origin());
    let mut answer = client.diff_copy(request).await?.into_inner();
    while answer.message().await?.is_some() {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_adds_outputs_when_the_result_is_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("added");
    let exporter = Arc::new(Adding(
        Some(vec![Output::image().attr("name", "x"), Output::oci(&*file)]),
        Mutex::default(),
    ));
    let (daemon, session, exports) = adding(exporter.clone(), 4).await;
    assert!(exports.more_was_ignored());
    // Before it was asked nothing is taken.
    let early = send(&daemon, "2", b"x").await.expect_err("too early");
    assert_eq!(early.code(), Code::NotFound);
    let found = find(&daemon).await.expect("outputs");
    let kinds: Vec<_> = found.iter().map(|e| e.r#type.as_str()).collect();
    assert_eq!(kinds, ["image", "oci"]);
    assert_eq!(found[0].attrs["name"], "x");
    assert!(!exports.more_was_ignored());
    // The daemon counts on from the exporter that it knew, and the image has no place here.
    assert_eq!(
        send(&daemon, "1", b"x").await.expect_err("an image").code(),
        Code::NotFound
    );
    send(&daemon, "2", b"archive").await.expect("taken");
    let mut client = ExporterClient::with_origin(daemon.clone(), origin());
    let exporter_response: BTreeMap<_, _> = [("digest".to_owned(), "1".to_owned())].into();
    let answer = FinalizeExportRequest {
        exporter_response: exporter_response.clone(),
    };
    client.finalize_export(answer).await.expect("heard");
    assert_eq!(*exporter.1.lock().expect("no panic"), exporter_response);
    // A second question is no honest daemon's.
    assert_eq!(
        find(&daemon).await.expect_err("twice").code(),
        Code::FailedPrecondition
    );
    exports.settle(Duration::from_secs(5)).await;
    session.close(Duration::from_secs(5)).await;
    let reports = exports.commit().await.expect("in its place");
    let shown: Vec<_> = reports.iter().map(|r| (r.output, r.bytes)).collect();
    assert_eq!(shown, [(5, 7)]);
    assert_eq!(std::fs::read(&file).expect("the file"), b"archive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_fails_is_told_to_the_user() {
    let nowhere = Adding(Some(vec![Output::oci("/no/such/dir/file")]), Mutex::default());
    for (exporter, why) in [
        (
            Adding(None, Mutex::default()),
            "session exporter: the program could not say its outputs",
        ),
        (nowhere, "/no/such/dir: cannot put the result there"),
    ] {
        let (daemon, session, exports) = adding(Arc::new(exporter), 0).await;
        let failed = find(&daemon).await.expect_err("no outputs");
        assert_eq!(failed.code(), Code::FailedPrecondition);
        let error = session.failures().explain(BuildError::Cancelled);
        assert_eq!(error.to_string(), why);
        assert!(exports.more_was_ignored());
    }
}
