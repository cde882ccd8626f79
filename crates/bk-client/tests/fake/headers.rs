//! What a program adds to the calls of a build is on every one of them, and nothing else is.

use std::collections::BTreeSet;

use bk_client::{
    Backend, BuildError, BuildRequest, Call, ConnectOptions, Environment, EventSink, ImageBuilder, Inspect,
    TraceContext,
};
use bk_testkit::fake::{History, Script};

use crate::{bounded, fake, small};

const OUTER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const INNER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-aaaaaaaaaaaaaaaa-01";

fn options(address: &str) -> ConnectOptions {
    ConnectOptions::new()
        .environment(Environment::empty())
        .addr(address)
        .backend(Backend::Buildkitd)
}

/// The headers that are ours, call by call.
fn ours(daemon: &bk_testkit::fake::FakeDaemon) -> Vec<(String, Vec<String>)> {
    let calls = daemon.seen().calls.into_iter();
    calls
        .map(|call| {
            let own = |name: &str| name.starts_with("trace") || name.starts_with("x-");
            let headers = call.headers.iter().filter(|(name, _)| own(name));
            let path = call.path.rsplit('/').next().unwrap_or_default().to_owned();
            (path, headers.map(|(n, v)| format!("{n}: {v}")).collect())
        })
        .collect()
}

#[tokio::test]
async fn headers_and_trace_are_on_every_call_of_a_build() {
    let mut history = History::new();
    let digest = history.blob(b"{}");
    let daemon = fake(Script::healthy().history(history.provenance("", &digest)));
    let mut environment = Environment::empty();
    environment.traceparent = Some(OUTER.to_owned());
    environment.tracestate = Some("vendor=1".to_owned());
    let options = options(&daemon.address())
        .environment(environment)
        .header("x-affinity", "client")
        .header("x-token", "hunter2");
    let client = bounded("connecting", Box::pin(bk_client::connect_with(options)))
        .await
        .expect("connect");
    // The environment's trace is that of builds; the first question belongs to none.
    let expected = ["x-affinity: client", "x-token: hunter2"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(ours(&daemon), [("ListWorkers".to_owned(), expected)]);

    let tree = small();
    let request = || BuildRequest::new(tree.path()).inspect(Inspect::new().provenance(true));
    let built = client.build(request().header("x-affinity", "request"), EventSink::discard());
    bounded("the build", built).await.expect("a build");
    let build = &ours(&daemon)[1..];
    let methods: BTreeSet<&str> = build.iter().map(|(path, _)| path.as_str()).collect();
    let all = ["ListenBuildHistory", "Read", "Session", "Solve", "Status"];
    assert_eq!(methods, BTreeSet::from(all));
    let expected = [
        &format!("traceparent: {OUTER}"),
        "tracestate: vendor=1",
        "x-affinity: request",
        "x-token: hunter2",
    ];
    for (path, headers) in build {
        assert_eq!(headers, &expected, "{path}");
    }

    // A request's own trace wins whole: the environment's state belongs to the environment's parent.
    let before = ours(&daemon).len();
    let inner = TraceContext::parse(INNER).expect("a trace");
    let built = client.build(request().trace(inner), EventSink::discard());
    bounded("the build", built).await.expect("a build");
    let build = &ours(&daemon)[before..];
    assert!(build.len() >= 5, "{build:?}");
    for (path, headers) in build {
        let expected = [
            &format!("traceparent: {INNER}"),
            "x-affinity: client",
            "x-token: hunter2",
        ];
        assert_eq!(headers, &expected, "{path}");
    }
}

#[tokio::test]
async fn questions_to_a_frontend_carry_them_too() {
    let daemon = fake(Script::healthy());
    let client = bounded(
        "connecting",
        Box::pin(bk_client::connect_with(options(&daemon.address()))),
    )
    .await
    .expect("connect");
    let tree = small();
    let trace = TraceContext::parse(OUTER).expect("a trace");
    let request = BuildRequest::new(tree.path()).trace(trace).header("x-a", "1");
    // The fake daemon has no gateway: what counts is what was asked.
    let asked = client.call(request, Call::Check, EventSink::discard());
    bounded("the question", asked).await.expect_err("no gateway here");
    let calls = &ours(&daemon)[1..];
    assert!(calls.iter().any(|(path, _)| path == "Ping"), "{calls:?}");
    for (path, headers) in calls {
        assert_eq!(
            headers,
            &[format!("traceparent: {OUTER}"), "x-a: 1".to_owned()],
            "{path}"
        );
    }
}

#[tokio::test]
async fn without_any_there_are_none_and_bad_ones_are_refused_before_anything_is_sent() {
    let daemon = fake(Script::healthy());
    let mut environment = Environment::empty();
    environment.traceparent = Some("00-nonsense".to_owned());
    let connecting = bk_client::connect_with(options(&daemon.address()).environment(environment));
    let client = bounded("connecting", Box::pin(connecting))
        .await
        .expect("connect");
    let tree = small();
    let built = client.build(BuildRequest::new(tree.path()), EventSink::discard());
    bounded("the build", built)
        .await
        .expect("a trace that makes no sense is none");
    assert!(
        ours(&daemon).iter().all(|(_, headers)| headers.is_empty()),
        "{:?}",
        ours(&daemon)
    );

    let before = daemon.seen().calls.len();
    let request = BuildRequest::new(tree.path()).header("grpc-timeout", "1S");
    let refused = bounded("the build", client.build(request, EventSink::discard())).await;
    assert!(
        matches!(&refused, Err(BuildError::Input(e)) if e.what == "headers"),
        "{refused:?}"
    );
    let connecting = bk_client::connect_with(options(&daemon.address()).header("Host", "x"));
    let refused = bounded("connecting", Box::pin(connecting)).await.map(drop);
    assert!(
        matches!(&refused, Err(BuildError::Input(e)) if e.what == "headers"),
        "{refused:?}"
    );
    assert_eq!(daemon.seen().calls.len(), before);
}
