//! Real daemons' spans of a build belong to the trace of the caller: what their history recorded says so.

use std::time::Duration;

use bk_client::{BuildRequest, EventSink, ImageBuilder, Output, TraceContext};
use bk_proto::{
    content::{ReadContentRequest, content_client::ContentClient},
    control::{BuildHistoryRequest, UpdateBuildHistoryRequest, control_client::ControlClient},
};
use bk_solve::{BoxedIo, Channel};
use bk_testkit::{
    conformance::fresh_token,
    events::chain,
    fixture::TreeBuilder,
    live::{Daemon, Route, Target, until},
    spans,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{LIMIT, bounded, connect};

/// A connection of the test's own to the BuildKit inside an engine, by `/grpc`.
async fn channel(target: &Target) -> Channel {
    let mut io = UnixStream::connect(&target.docker)
        .await
        .expect("the engine's socket");
    let ask = b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    io.write_all(ask).await.expect("writable");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.expect("an answer"));
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    let io: BoxedIo = Box::new(io);
    Channel::open(io).await.expect("HTTP/2")
}

fn origin() -> http::Uri {
    http::Uri::from_static("http://localhost")
}

/// What the daemon recorded of the trace of a build, as JSON, once it is there.
async fn recorded(channel: &Channel, build_ref: &str) -> String {
    let mut control = ControlClient::with_origin(channel.clone(), origin());
    // Daemons before 0.15 write it down a moment after the build and cannot be asked to do so at once.
    let finalize = UpdateBuildHistoryRequest {
        r#ref: build_ref.to_owned(),
        finalize: true,
        ..Default::default()
    };
    drop(control.update_build_history(finalize).await);
    let mut digest = None;
    let there = until(Duration::from_secs(60), Duration::from_millis(250), async || {
        // Never with a limit: BuildKit 0.25 does not survive that.
        let asked = BuildHistoryRequest {
            r#ref: build_ref.to_owned(),
            early_exit: true,
            ..Default::default()
        };
        let mut events = control
            .listen_build_history(asked)
            .await
            .expect("a history")
            .into_inner();
        while let Some(event) = events.message().await.expect("readable") {
            digest = event.record.and_then(|record| record.trace).map(|t| t.digest);
        }
        digest.is_some()
    });
    assert!(there.await, "the record of {build_ref} has no trace");
    let digest = digest.expect("it is there");
    let mut content = ContentClient::with_origin(channel.clone(), origin());
    let request = ReadContentRequest {
        digest,
        ..Default::default()
    };
    let mut pieces = content.read(request).await.expect("a blob").into_inner();
    let mut text = Vec::new();
    while let Some(piece) = pieces.message().await.expect("readable") {
        text.extend_from_slice(&piece.data);
    }
    String::from_utf8(text).expect("JSON")
}

async fn traced(daemon: Daemon, route: Route) {
    const TEST: &str = "traced";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let at = connect(&target).await;
    let name = target.name();
    let tree = TreeBuilder::new()
        .file("Dockerfile", "FROM scratch\nCOPY a /\n")
        .file("a", fresh_token())
        .build()
        .expect("fixture");
    let out = tempfile::tempdir().expect("a directory");
    let trace_id = hex(&fresh_token(), 32);
    let span_id = "00f067aa0ba902b7";
    let trace = TraceContext::parse(&format!("00-{trace_id}-{span_id}-01")).expect("a trace");
    let request = BuildRequest::new(tree.path())
        .output(Output::local(out.path()))
        .trace(trace);
    let (seen, _guard) = spans::watch();
    let build = at.client.build(request, EventSink::discard());
    let built = bounded("the build", LIMIT, build).await;
    let outcome = built.unwrap_or_else(|e| panic!("{name}: {}", chain(&e)));
    let text = recorded(&channel(&target).await, &outcome.build_ref).await;
    assert!(text.contains(&trace_id), "{name}: {trace_id} is not in {text}");
    assert!(text.contains(span_id), "{name}: {span_id} is not in {text}");
    let ended = seen.take();
    let all = spans::tree(&ended);
    for expected in [
        "/bk.build",
        "bk.build/bk.export",
        "bk.build/bk.transfer",
        "bk.build/bk.solve",
    ] {
        assert!(
            all.iter().any(|span| span == expected),
            "{name}: {expected} is not in {all:?}"
        );
    }
    let export = ended
        .iter()
        .find(|span| span.name == "bk.export")
        .expect("it is there");
    assert_eq!(export.fields["kind"], "directory", "{name}");
    assert_eq!(
        export.fields["bytes"],
        outcome.exports[0].bytes.to_string(),
        "{name}"
    );
    target.supports("Joining the caller's trace (`TRACEPARENT`)");
    target.passed(TEST);
}

/// So many hexadecimal digits that are made of `token`.
fn hex(token: &str, digits: usize) -> String {
    let all = token.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    all.chars()
        .rev()
        .chain("1".repeat(digits).chars())
        .take(digits)
        .collect()
}

macro_rules! tests {
    ($($test:ident => $daemon:ident, $route:ident;)+) => {
        // On one thread: the spans of others would not be seen.
        $(#[tokio::test]
        async fn $test() {
            Box::pin(traced(Daemon::$daemon, Route::$route)).await;
        })+
    };
}

tests! {
    direct_buildkit_unix => BuildkitUnix, Direct;
    grpc_docker_26_1 => Docker26_1, Grpc;
    grpc_docker_28_5 => Docker28_5, Grpc;
    grpc_docker_28_5_containerd => Docker28_5Containerd, Grpc;
}
