//! Questions to the frontend, as the library's types give their answers.

use bk_client::{
    BuildError, BuildEvent, BuildRequest, Call, CallAnswer, Dockerfile, ImageBuilder, MemoryTree,
};
use bk_testkit::{
    events::Recorder,
    live::{Daemon, Route, Target},
};

use crate::{LIMIT, bounded, connect};

const TEXT: &str = "FROM scratch AS one\nFROM one\nARG A=1\nMAINTAINER me\nRUN --mount=type=secret,id=s --mount=type=ssh true\n";

fn request() -> BuildRequest {
    BuildRequest::new(std::sync::Arc::new(MemoryTree::new()) as std::sync::Arc<dyn bk_client::Tree>)
        .dockerfile(Dockerfile::Inline(TEXT.into()))
}

async fn answer(target: &Target, request: BuildRequest, call: Call) -> Result<CallAnswer, BuildError> {
    let connected = connect(target).await;
    let recorder = Recorder::new();
    let asked = connected.client.call(request, call, recorder.sink());
    let answer = bounded("the question", LIMIT, asked).await;
    let events = recorder.events();
    assert!(
        matches!(events.first(), Some(BuildEvent::Started { .. })),
        "{events:?}"
    );
    let error = answer.as_ref().err().map(ToString::to_string);
    assert!(
        matches!(events.last(), Some(BuildEvent::Completed { error: e, .. }) if *e == error),
        "{events:?}"
    );
    answer
}

async fn asked(daemon: Daemon, route: Route) {
    const TEST: &str = "asked";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let get = async |call| answer(&target, request(), call).await.expect("an answer");
    let targets = get(Call::Targets).await.targets().expect("targets").targets;
    let seen: Vec<_> = targets.iter().map(|t| (&*t.name, &*t.base, t.default)).collect();
    assert_eq!(seen, [("one", "scratch", false), ("", "one", true)]);
    let outline = get(Call::Outline).await.outline().expect("an outline");
    assert_eq!((&*outline.args[0].name, &*outline.args[0].value), ("A", "1"));
    assert_eq!(
        (&*outline.secrets[0].name, outline.secrets[0].required),
        ("s", false)
    );
    assert_eq!(outline.ssh.len(), 1);
    let given = answer(
        &target,
        request().build_arg("A", "2").target("one"),
        Call::Outline,
    )
    .await;
    assert_eq!(
        given.expect("an answer").outline().expect("an outline").name,
        "one"
    );
    let e = answer(&target, request().target("gone"), Call::Outline)
        .await
        .expect_err("no such stage");
    assert!(matches!(e, BuildError::Dockerfile(_)), "{e:?}");

    let check = answer(&target, request(), Call::Check).await;
    if daemon == Daemon::Docker26_1 {
        assert!(
            matches!(&check, Err(BuildError::TooOld(e)) if e.option == "--call check"),
            "{check:?}"
        );
    } else {
        let check = check.expect("an answer").check().expect("a check");
        assert_eq!(check.warnings[0].rule_name, "MaintainerDeprecated");
        let place = check.warnings[0].location.as_ref().expect("a place");
        let snippet = check.snippet(place).expect("a snippet");
        assert_eq!(
            (snippet.first_line(), &snippet.data[..]),
            (Some(4), TEXT.as_bytes())
        );
    }
    target.passed(TEST);
}

#[tokio::test]
async fn direct_buildkit_tcp_answers() {
    asked(Daemon::BuildkitTcp, Route::Direct).await;
}

#[tokio::test]
async fn grpc_docker_26_1_answers() {
    asked(Daemon::Docker26_1, Route::Grpc).await;
}

#[tokio::test]
async fn h2c_docker_28_5_containerd_answers() {
    asked(Daemon::Docker28_5Containerd, Route::H2c).await;
}
