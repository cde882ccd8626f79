//! A daemon that does things wrong: each ends in a typed error in bounded time, or does no harm.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bk_client::{
    Backend, BuildError, BuildEvent, BuildRequest, ConnectOptions, Environment, EventSink, Fault as Blame,
    ImageBuilder, Pem, TlsOptions,
};
use bk_testkit::{
    events::{Recorder, chain},
    fake::{Fault, Moment, Script},
    fixture::TreeBuilder,
    live::until,
    proxy::Proxy,
    tls::{Authority, TlsFront},
};

use crate::{LIMIT, bounded, client, fake, small};

/// Builds the small context on a daemon with that script, in bounded time; checks the promises about events, and that
/// nothing of the build stays on the daemon.
async fn build(script: Script) -> (Result<(), BuildError>, Recorder) {
    let daemon = fake(script);
    let client = client(&daemon.address()).await;
    let tree = small();
    let recorder = Recorder::new();
    let request = BuildRequest::new(tree.path()).tag("fault:1");
    let result = bounded("the build", client.build(request, recorder.sink()))
        .await
        .map(drop);
    recorder.check(result.is_ok()).expect("events");
    daemon.wait_idle(1, LIMIT).await.expect("idle daemon");
    (result, recorder)
}

async fn fails(fault: Fault) -> BuildError {
    let text = format!("{fault:?}");
    let (result, _) = build(Script::healthy().fault(fault)).await;
    let error = result
        .err()
        .unwrap_or_else(|| panic!("{text}: the build succeeded"));
    assert!(!chain(&error).is_empty());
    error
}

async fn harmless(fault: Fault) -> Recorder {
    let text = format!("{fault:?}");
    let (result, recorder) = build(Script::healthy().fault(fault)).await;
    if let Err(e) = result {
        panic!("{text}: {}", chain(&e));
    }
    recorder
}

fn status(code: i32, message: &str, details: &[(&str, &str)]) -> Fault {
    let details = details
        .iter()
        .map(|(kind, json)| ((*kind).to_owned(), (*json).to_owned()))
        .collect();
    Fault::FailSolve {
        code,
        message: message.to_owned(),
        details,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_keeps_its_code_and_text() {
    for (code, retry) in [(2, false), (3, false), (8, true), (13, false), (14, true)] {
        let error = fails(status(code, "we are \u{fc}ber full: 100%", &[])).await;
        let BuildError::Refused(refusal) = &error else {
            panic!("{error:?}")
        };
        assert_eq!(refusal.code, code);
        assert!(
            refusal.message.contains("we are \u{fc}ber full: 100%"),
            "{}",
            refusal.message
        );
        assert_eq!(error.is_retryable(), retry, "code {code}");
        assert_eq!(error.fault(), Blame::Daemon);
    }
    assert!(matches!(
        fails(status(1, "context canceled", &[])).await,
        BuildError::Cancelled
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn details_of_any_quality_never_hide_the_message() {
    let odd: [&[(&str, &str)]; 6] = [
        &[("errdefs.Source+json", "{")],
        &[(
            "errdefs.Source+json",
            r#"{"info":{"filename":"D","data":"%%%"},"ranges":[{"start":{"line":99}}]}"#,
        )],
        &[("gatewayapi.ExitMessage+json", r#"{"Code":"many"}"#)],
        &[("errdefs.Vertex+json", "null"), ("x/unknown.Thing", "\u{0}\u{1}")],
        &[(
            "errdefs.Solve+json",
            r#"{"inputIDs":["1"],"file":{"index":"3"},"op":7}"#,
        )],
        &[(
            "stack.Stack+json",
            r#"{"frames":[{"Name":"f","File":"g","Line":1}]}"#,
        )],
    ];
    for details in odd {
        let error = fails(status(2, "what happened", details)).await;
        assert!(chain(&error).contains("what happened"), "{error:?}");
    }
    let error = fails(Fault::RawDetails(vec![0xff; 40])).await;
    assert!(chain(&error).contains("odd details"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn big_details_are_taken() {
    let data = "QUFB".repeat(64 * 1024 / 4);
    let json = format!(
        r#"{{"info":{{"filename":"Dockerfile","data":"{data}"}},"ranges":[{{"start":{{"line":1}},"end":{{"line":1}}}}]}}"#
    );
    let error = fails(status(2, "too long a line", &[("errdefs.Source+json", &json)])).await;
    assert!(chain(&error).contains("too long a line"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_a_lost_session() {
    for moment in [
        Moment::SessionAttached,
        Moment::FirstEntry,
        Moment::FirstData,
        Moment::BeforeExport,
    ] {
        let error = fails(Fault::CutConnection(moment)).await;
        assert!(
            matches!(error, BuildError::SessionLost(_)),
            "{moment:?}: {error:?}"
        );
        assert!(error.is_retryable());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_session_fails_the_build() {
    for moment in [Moment::SessionAttached, Moment::FirstEntry, Moment::FirstData] {
        let error = fails(Fault::CutSession(moment)).await;
        assert!(
            matches!(error, BuildError::SessionLost(_)),
            "{moment:?}: {error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_for_files_are_the_daemons_fault() {
    for fault in [
        Fault::RequestTwice,
        Fault::RequestUnknown,
        Fault::RequestFlood(100_000),
    ] {
        let text = format!("{fault:?}");
        let error = fails(fault).await;
        assert!(
            matches!(error, BuildError::Refused(_) | BuildError::Protocol(_)),
            "{text}: {error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_gives_up_is_quoted() {
    let error = fails(Fault::ReceiverError("disk of the daemon is full".to_owned())).await;
    assert!(
        chain(&error).contains("disk of the daemon is full"),
        "{}",
        chain(&error)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_that_is_missing_or_late_does_not_stop_a_build() {
    for fault in [
        Fault::SilentStatus,
        Fault::StatusEndsEarly,
        Fault::StatusNeverEnds,
        Fault::NoStatus,
    ] {
        harmless(fault).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_methods_and_sources_are_answered_as_upstream_answers() {
    harmless(Fault::UnknownMethods).await;
    harmless(Fault::UnknownSource).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_later_daemons_break_nothing() {
    let recorder = harmless(Fault::UnknownFields).await;
    let healthy = build(Script::healthy()).await.1;
    assert_eq!(recorder.completed(), healthy.completed());
    assert!(!recorder.completed().is_empty());
    // A failure keeps its text and its place among the new fields too.
    let script = Script::healthy().fault(Fault::UnknownFields).fault(status(
        2,
        "what happened",
        &[("later.Kind+json", "{}")],
    ));
    let error = build(script).await.0.expect_err("it must fail");
    assert!(chain(&error).contains("what happened"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_progress_is_passed_on_without_harm() {
    let (result, recorder) = {
        let daemon = fake(Script::healthy().fault(Fault::OddProgress));
        let client = client(&daemon.address()).await;
        let tree = small();
        let recorder = Recorder::new();
        let request = BuildRequest::new(tree.path()).tag("odd:1");
        (
            bounded("the build", client.build(request, recorder.sink())).await,
            recorder,
        )
    };
    result.expect("build");
    assert!(recorder.events().len() > 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warnings_arrive_with_their_place() {
    let recorder = harmless(Fault::Warn("FromAsCasing: careful".to_owned())).await;
    let warnings = recorder.warnings();
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert_eq!(warning.short, "FromAsCasing: careful");
    let source = warning.source.as_ref().expect("place");
    assert_eq!(
        (source.filename.as_str(), source.first_line()),
        ("Dockerfile", Some(1))
    );
    assert_eq!(&source.data[..], b"FROM scratch\nCOPY . /out/\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_stays_healthy_under_a_strict_daemon() {
    harmless(Fault::WaitForHealthChecks(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_that_is_changed_under_tls_is_an_error_and_never_an_image() {
    let (tree, keys) = (small(), tempfile::tempdir().expect("a directory"));
    let authority = Authority::new().expect("keys");
    let identity = authority
        .sign(keys.path(), "127.0.0.1", false)
        .expect("a certificate");
    let trust = Pem::Bytes(authority.pem().into_bytes().into());
    let up = [0, 700, 5000, 20_000, 40_000, 70_000].map(|at| (Some(at), None));
    let down = [0, 300, 1500, 2000].map(|at| (None, Some(at)));
    for (up, down) in up.into_iter().chain(down) {
        let at = format!("{up:?} {down:?}");
        let daemon = fake(Script::healthy());
        let front = TlsFront::start(daemon.socket(), &identity, None).expect("a front");
        let proxy = Proxy::on_port(&format!("tcp://{}", front.address())).expect("a proxy");
        let options = ConnectOptions::new()
            .environment(Environment::empty())
            .addr(proxy.address())
            .tls(TlsOptions::new().ca(trust.clone()))
            .backend(Backend::Buildkitd);
        let client = bounded("connecting", Box::pin(bk_client::connect_with(options)))
            .await
            .expect("connect");
        // What the first question still has to say would be counted too.
        let closed = until(LIMIT, Duration::from_millis(5), async || proxy.connections() == 0).await;
        assert!(closed, "{at}");
        let (sent, came) = (proxy.bytes_to_daemon(), proxy.bytes_to_client());
        proxy.corrupt(up.map(|at| sent + at), down.map(|at| came + at));
        let request = BuildRequest::new(tree.path())
            .tag("changed:1")
            .stall_timeout(Some(Duration::from_secs(5)));
        let result = bounded("the build", client.build(request, EventSink::discard())).await;
        assert_eq!(proxy.corrupted(), 1, "{at}");
        let error = result
            .err()
            .unwrap_or_else(|| panic!("{at}: the build succeeded"));
        assert_eq!(error.fault(), Blame::Network, "{at}: {}", chain(&error));
        assert!(daemon.image("changed:1").is_none(), "{at}");
    }
}

#[tokio::test]
async fn a_callback_that_blocks_is_no_stall() {
    // All that comes from the daemon are answers to pings, and those are late.
    let daemon = fake(Script::healthy().health_interval(Duration::from_secs(3600)));
    let proxy = Proxy::start(&daemon.address()).expect("a proxy");
    let client = client(&proxy.address()).await;
    let tree = TreeBuilder::new()
        .file(
            "Dockerfile",
            "FROM scratch\nCOPY sh /bin/sh\nRUN echo begun && sleep 9\n",
        )
        .file("sh", "shell\n")
        .build()
        .expect("fixture");
    proxy.slow_down(Duration::ZERO, Duration::from_millis(600));
    let blocked = AtomicBool::new(false);
    let sink = EventSink::from_fn(move |event| {
        if matches!(event, BuildEvent::Log(_)) && !blocked.swap(true, Ordering::Relaxed) {
            // sleep: that is the callback
            std::thread::sleep(Duration::from_secs(5));
        }
    });
    let request = BuildRequest::new(tree.path())
        .tag("blocked:1")
        .stall_timeout(Some(Duration::from_secs(3)));
    let result = bounded("the build", client.build(request, sink)).await;
    if let Err(e) = result {
        panic!("{}", chain(&e));
    }
}
