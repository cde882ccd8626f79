//! The program with the feature `otel`: its spans arrive at a collector, in one trace with the caller's and the daemon's;
//! and a collector that is not there, says no, or says nothing costs a warning.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use bk_testkit::fake::{FakeDaemon, Script};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span,
};
use prost::Message;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A request that a collector got.
struct Got {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

/// A collector that gives the same answer to everything; none means that it says nothing.
fn collector(answer: Option<&'static str>) -> (String, Arc<Mutex<Vec<Got>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let all = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&all);
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            match answer {
                Some(answer) => kept.lock().expect("no panic").push(take(stream, answer)),
                None => open.push(stream),
            }
        }
    });
    (address, all)
}

fn take(stream: TcpStream, answer: &str) -> Got {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("readable");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let length = lines
        .iter()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        })
        .expect("a length");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("readable");
    let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
    reader.get_mut().write_all(text.as_bytes()).expect("writable");
    Got {
        line: lines.remove(0),
        headers: lines,
        body,
    }
}

/// A build on a fake daemon with these variables.
fn build(daemon: &FakeDaemon, variables: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").expect("writable");
    Command::new(env!("CARGO_BIN_EXE_bk"))
        .args([
            "--backend",
            "buildkitd",
            "--addr",
            &daemon.address(),
            "build",
            "--progress",
            "quiet",
        ])
        .arg(dir.path())
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("bk starts")
}

fn fake() -> FakeDaemon {
    FakeDaemon::start(Script::healthy()).expect("a fake daemon")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_spans_of_a_build_arrive_in_the_callers_trace() {
    let (address, got) = collector(Some("200 OK"));
    let daemon = fake();
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let ran = build(
        &daemon,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &address),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue"),
            ("TRACEPARENT", &parent),
        ],
    );
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "");
    assert_eq!(ran.status.code(), Some(0));
    let got = got.lock().expect("no panic");
    let mut spans: Vec<Span> = Vec::new();
    for request in got.iter() {
        assert_eq!(request.line, "POST /v1/traces HTTP/1.1");
        assert!(
            request.headers.iter().any(|h| h == "x-tenant: blue"),
            "{:?}",
            request.headers
        );
        let message = ExportTraceServiceRequest::decode(&*request.body).expect("OTLP");
        for resource in message.resource_spans {
            let name = resource.resource.expect("a resource").attributes.into_iter();
            let name = name
                .filter(|a| a.key == "service.name")
                .find_map(|a| a.value?.value);
            assert_eq!(name, Some(Value::StringValue("bk".to_owned())));
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    let mut names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    names.sort_unstable();
    names.dedup();
    let expected = [
        "bk",
        "bk.attach",
        "bk.build",
        "bk.connect",
        "bk.dial",
        "bk.inspect",
        "bk.solve",
        "bk.status",
        "bk.transfer",
    ];
    assert_eq!(names, expected);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:?}");
    let run = spans.iter().find(|span| span.name == "bk").expect("the run");
    assert_eq!(hex(&run.parent_span_id), CALLER);
    let of_build = spans
        .iter()
        .find(|span| span.name == "bk.build")
        .expect("the build");
    assert_eq!(of_build.parent_span_id, run.span_id);
    // The daemon is told the same trace, and the run as the parent of what it does.
    let wanted = format!("00-{TRACE}-{}-01", hex(&run.span_id));
    let calls = daemon.seen().calls;
    let solve = calls
        .iter()
        .find(|call| call.path.ends_with("/Solve"))
        .expect("a build");
    assert_eq!(solve.headers.get("traceparent"), Some(&wanted));
}

#[test]
fn what_goes_wrong_is_one_warning_and_no_failure() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", listener.local_addr().expect("bound"))
    };
    let (refuses, _) = collector(Some("503 Service Unavailable"));
    let (silent, _) = collector(None);
    for (address, why) in [
        (&nobody, "Connection refused"),
        (&refuses, "the collector answered 503 Service Unavailable"),
        (&silent, "no answer within"),
    ] {
        let daemon = fake();
        let begun = Instant::now();
        let ran = build(&daemon, &[("OTEL_EXPORTER_OTLP_ENDPOINT", address)]);
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{why}: {:?}",
            begun.elapsed()
        );
        assert_eq!(ran.status.code(), Some(0), "{why}");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        let start = format!("warning: the traces of this run were not exported: {address}/v1/traces: ");
        assert!(said.starts_with(&start) && said.contains(why), "{why}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let ran = build(
        &fake(),
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &nobody),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ],
    );
    assert_eq!(ran.status.code(), Some(0));
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(
        said.contains("`grpc` is not supported") && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn without_a_collector_nothing_is_sent() {
    let daemon = fake();
    let ran = build(&daemon, &[]);
    assert_eq!((ran.status.code(), &*ran.stderr), (Some(0), &b""[..]));
    assert!(
        daemon
            .seen()
            .calls
            .iter()
            .all(|call| !call.headers.contains_key("traceparent"))
    );
}
