//! What a daemon is asked for on behalf of a program that decides and adds, and daemons that ignore it.

use std::sync::Arc;

use async_trait::async_trait;
use bk_client::{
    BuildError, BuildRequest, BuiltResult, EventSink, ImageBuilder, Output, PolicyDecision, PolicySource,
    PolicyVerifier, ProgramError, SessionExporter,
};
use bk_testkit::fake::Script;

use crate::{bounded, client, fake, small};

struct Program;

#[async_trait]
impl SessionExporter for Program {
    async fn find(&self, _: &BuiltResult) -> Result<Vec<Output>, ProgramError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl PolicyVerifier for Program {
    async fn check(&self, _: &PolicySource) -> Result<PolicyDecision, ProgramError> {
        Ok(PolicyDecision::Allow)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_never_asks_is_found_out() {
    let tree = small();
    let new = || BuildRequest::new(tree.path()).tag("program:1");
    for (request, option, since) in [
        (
            new().session_exporter(Arc::new(Program)),
            "a session exporter",
            "BuildKit 0.22",
        ),
        (
            new().policy_verifier(Arc::new(Program)),
            "a policy verifier",
            "BuildKit 0.26",
        ),
    ] {
        for (version, sent) in [(Some("v0.32.0"), true), (None, true), (Some("v0.21.3"), false)] {
            let daemon = fake(Script::healthy().version(version));
            let client = client(&daemon.address()).await;
            let built = client.build(request.clone(), EventSink::discard());
            let error = bounded("the build", built).await.expect_err("ignored");
            assert!(matches!(error, BuildError::TooOld(_)), "{error:?}");
            let text = error.to_string();
            assert!(text.starts_with(&format!("{option} needs {since}")), "{text}");
            assert_eq!(text.contains("never asked"), sent, "{text}");
            let seen = daemon.seen();
            assert_eq!(seen.solves.len(), usize::from(sent));
            if let Some(solve) = seen.solves.first() {
                let exporter = request.session_exporter.is_some();
                assert_eq!(solve.enable_session_exporter, exporter);
                let decides = match exporter {
                    true => String::new(),
                    false => solve.session.clone(),
                };
                assert_eq!(solve.source_policy_session, decides);
                let method = match exporter {
                    true => "/moby.exporter.v1.Exporter/FindExporters",
                    false => "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy",
                };
                assert!(seen.sessions[0].methods.iter().any(|m| m == method));
            }
        }
    }
    let daemon = fake(Script::healthy());
    let client = client(&daemon.address()).await;
    bounded("the build", client.build(new(), EventSink::discard()))
        .await
        .expect("nothing to ask");
    let plain = &daemon.seen().solves[0];
    assert!(!plain.enable_session_exporter && plain.source_policy_session.is_empty());
}
