//! Questions to a daemon that has no gateway: a typed error in bounded time, and nothing stays behind.

use bk_client::{BuildError, BuildEvent, BuildRequest, Call, ImageBuilder};
use bk_testkit::{
    events::Recorder,
    fake::{Fault, Moment, Script},
};

use crate::{LIMIT, bounded, client, fake, small};

async fn fails(script: Script) -> BuildError {
    let daemon = fake(script);
    let client = client(&daemon.address()).await;
    let tree = small();
    let recorder = Recorder::new();
    let asked = client.call(BuildRequest::new(tree.path()), Call::Check, recorder.sink());
    let error = bounded("the question", asked).await.expect_err("no answer");
    daemon.wait_idle(1, LIMIT).await.expect("idle daemon");
    let events = recorder.events();
    assert!(
        matches!(events.last(), Some(BuildEvent::Completed { error: Some(_), .. })),
        "{events:?}"
    );
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_without_a_gateway_is_a_refusal() {
    for script in [Script::healthy(), Script::healthy().fault(Fault::SilentSolve)] {
        let error = fails(script).await;
        assert!(matches!(error, BuildError::Refused(_)), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_daemon_is_refused_before_anything_is_sent() {
    let error = fails(Script::healthy().version(Some("v0.13.1"))).await;
    let BuildError::TooOld(error) = error else {
        panic!("{error:?}")
    };
    assert_eq!((&*error.option, &*error.has), ("--call check", "BuildKit 0.13"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_ends_the_question() {
    let error = fails(Script::healthy().fault(Fault::CutConnection(Moment::SessionAttached))).await;
    assert!(
        matches!(error, BuildError::SessionLost(_) | BuildError::Refused(_)),
        "{error:?}"
    );
}
