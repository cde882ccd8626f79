//! Builds by `POST /build` against a scripted engine: what is sent, what its answers mean, what ends early.

use std::{io::Read, path::Path, sync::Arc, time::Duration};

use base64::Engine as _;
use bk_build::{
    AdminOptions, BuildError, BuildEvent, BuildOutcome, BuildRequest, CacheQuery, CallHeaders, Dockerfile,
    EventSink, Fault, ImageBuilder, NoCredentials, Output, TraceContext,
};
use bk_fsync::{
    Tree,
    entry::Meta,
    path::RelPath,
    tree::{Directory, MemoryTree, OpenFile},
};
use bk_proto::control::{StatusResponse, Vertex};
use bk_session::Sources;
use bk_testkit::{
    compare::{Rules, compare},
    events::Recorder,
    fixture::{self, TreeBuilder},
    snapshot::Snapshot,
};
use http_body_util::BodyExt;
use prost::Message;
use tokio::sync::mpsc;

use bk_session::ContextTar;

use super::upload::Upload;
use crate::{
    DockerBackend, DockerRoute,
    limits::UPLOAD_CHUNK,
    testing::{Engine, Reply, Seen},
};

const ID: &str = "sha256:00c0ffee";

fn engine(build: Reply) -> Engine {
    Engine::of_version("26.1.5", "1.45", "linux", move |line| match line {
        line if line.contains("/session ") => Reply::Hold(Reply::switch(b"")),
        line if line.contains("/build?") => build.clone(),
        _ => Reply::http("404 Not Found", "", ""),
    })
}

fn success() -> Reply {
    Reply::chunked(&[format!("{{\"id\":\"moby.image.id\",\"aux\":{{\"ID\":\"{ID}\"}}}}\r\n").as_bytes()])
}

async fn run(
    engine: &Engine,
    route: DockerRoute,
    request: BuildRequest,
) -> (Result<BuildOutcome, BuildError>, Recorder) {
    let backend = DockerBackend::connect(&engine.address(), route, Arc::new(NoCredentials))
        .await
        .expect("connects");
    let recorder = Recorder::new();
    (backend.build(request, recorder.sink()).await, recorder)
}

/// The only build request that the engine got, once its connection has ended.
async fn seen(engine: &Engine) -> Seen {
    let seen = async {
        loop {
            tokio::task::yield_now().await;
            if let Some(seen) = engine.seen("/build?").pop() {
                return seen;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen)
        .await
        .expect("the connection ends")
}

fn memory(files: &[(&str, &str)]) -> Arc<dyn Tree> {
    let mut tree = MemoryTree::new();
    for (path, text) in files {
        tree.add_file(path, 0o644, (*text).to_owned()).expect("path");
    }
    Arc::new(tree)
}

fn plain() -> BuildRequest {
    BuildRequest::new(memory(&[("Dockerfile", "FROM scratch\n"), ("a", "1")]))
}

/// What is asked of an engine, without the version of the API, each with the values of a header.
fn asked(engine: &Engine, header: &str) -> Vec<(String, Vec<String>)> {
    let values = |head: &str| -> Vec<String> {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let own = lines.filter(|(name, _)| name.eq_ignore_ascii_case(header));
        own.map(|(_, value)| value.to_owned()).collect()
    };
    let line = |head: &str| {
        let line = head.lines().next().unwrap_or_default();
        let line = line.split('?').next().unwrap_or_default();
        line.replace("/v1.45/", "/").replace(" HTTP/1.1", "")
    };
    let heads = engine.heads();
    heads.iter().map(|head| (line(head), values(head))).collect()
}

#[tokio::test]
async fn every_request_to_an_engine_has_the_headers_of_the_program() {
    let ask = ["GET /_ping", "GET /version", "GET /version"];
    for (wanted, route, requests) in [
        (
            DockerRoute::Auto,
            DockerRoute::Build,
            &["POST /grpc", "POST /session"][..],
        ),
        (DockerRoute::Build, DockerRoute::Build, &["POST /session"]),
        (DockerRoute::Tar, DockerRoute::Tar, &[]),
    ] {
        let engine = engine(success());
        let mut headers = CallHeaders::new();
        headers.set("x-key", "client");
        let endpoint = engine.address().parse().expect("an endpoint");
        let backend =
            DockerBackend::connect_with_headers(endpoint, wanted, Arc::new(NoCredentials), headers.clone())
                .await
                .expect("connects");
        assert_eq!(backend.route(), route);
        let expected = |value: &str, requests: &[&str]| -> Vec<(String, Vec<String>)> {
            let with = |line: &&str| ((*line).to_owned(), vec![value.to_owned()]);
            requests.iter().map(with).collect()
        };
        let probes = [&ask[..], requests].concat();
        assert_eq!(asked(&engine, "x-key"), expected("client", &probes), "{wanted}");
        let before = probes.len();
        let built = backend.build(plain().header("x-key", "request"), EventSink::discard());
        built.await.expect("a build");
        let build = match route {
            DockerRoute::Tar => &["POST /build"][..],
            _ => &["POST /session", "POST /build"],
        };
        assert_eq!(
            asked(&engine, "x-key")[before..],
            expected("request", build),
            "{wanted}"
        );
        let before = before + build.len();
        let admin = backend
            .administration(AdminOptions::new().headers(&headers))
            .expect("an engine");
        // What is answered plays no part.
        drop(admin.ping().await);
        drop(admin.disk_usage(&CacheQuery::new()).await);
        let looks = ["GET /_ping", "GET /system/df"];
        assert_eq!(
            asked(&engine, "x-key")[before..],
            expected("client", &looks),
            "{wanted}"
        );
    }
}

#[tokio::test]
async fn a_header_that_is_not_allowed_is_refused_before_anything_is_sent() {
    let engine = engine(success());
    let backend = DockerBackend::connect(&engine.address(), DockerRoute::Tar, Arc::new(NoCredentials))
        .await
        .expect("connects");
    let before = engine.heads().len();
    let request = plain()
        .tag("h:1/a")
        .output(Output::registry())
        .header("host", "x");
    let refused = backend.build(request.clone(), EventSink::discard()).await;
    assert!(
        matches!(&refused, Err(BuildError::Input(e)) if e.what == "headers"),
        "{refused:?}"
    );
    let refused = backend.check(&request).await;
    assert!(
        matches!(&refused, Err(BuildError::Input(e)) if e.what == "headers"),
        "{refused:?}"
    );
    assert_eq!(engine.heads().len(), before);
}

fn trace(vertex: Vertex) -> Vec<u8> {
    let status = StatusResponse {
        vertexes: vec![vertex],
        ..StatusResponse::default()
    };
    let text = base64::engine::general_purpose::STANDARD.encode(status.encode_to_vec());
    format!("{{\"id\":\"moby.buildkit.trace\",\"aux\":\"{text}\"}}\r\n").into_bytes()
}

#[tokio::test]
async fn the_trace_goes_with_the_request() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = TraceContext::parse(PARENT)
        .and_then(|t| t.state("a=1"))
        .expect("a trace");
    for route in [DockerRoute::Build, DockerRoute::Tar] {
        let engine = engine(success());
        let (outcome, _) = run(&engine, route, plain().trace(trace.clone())).await;
        outcome.expect("builds");
        let head = seen(&engine).await.head;
        let lines: Vec<_> = head.lines().filter(|line| line.starts_with("trace")).collect();
        assert_eq!(
            lines,
            [&format!("traceparent: {PARENT}"), "tracestate: a=1"],
            "{route}"
        );
    }
}

#[tokio::test]
async fn records_become_events_and_an_outcome() {
    let mut answer = trace(Vertex {
        digest: "d".to_owned(),
        name: "[1/1] COPY a /".to_owned(),
        ..Vertex::default()
    });
    answer.extend_from_slice(format!("{{\"id\":\"moby.image.id\",\"aux\":{{\"ID\":\"{ID}\"}}}}").as_bytes());
    let chunks: Vec<&[u8]> = answer.chunks(7).collect();
    let engine = engine(Reply::chunked(&chunks));
    let (outcome, recorder) = run(&engine, DockerRoute::Build, plain().tag("x:1")).await;
    let outcome = outcome.expect("builds");
    assert_eq!(outcome.image_id.as_deref(), Some(ID));
    let events = recorder.events();
    assert!(matches!(&events[0], BuildEvent::Started { build_ref, .. } if *build_ref == outcome.build_ref));
    assert!(
        matches!(&events[1], BuildEvent::VertexQueued(v) if v.name == "[1/1] COPY a /"),
        "{events:?}"
    );
    assert!(matches!(
        events.last(),
        Some(BuildEvent::Completed { error: None, .. })
    ));
    let head = seen(&engine).await.head;
    let line = head.lines().next().unwrap_or_default();
    let start = format!(
        "POST /v1.45/build?version=2&buildid={}&remote=client-session&session=",
        outcome.build_ref
    );
    assert!(
        line.starts_with(&start) && line.ends_with("&t=x%3A1 HTTP/1.1"),
        "{line}"
    );
}

#[tokio::test]
async fn failures_are_sorted_by_fault() {
    let failed = r#"{"errorDetail":{"message":"process \"x\" did not complete successfully: exit code: 7"},"error":"x"}"#;
    for (reply, fault, part) in [
        (Reply::chunked(&[failed.as_bytes()]), Fault::Step, "exit code: 7"),
        (
            Reply::http(
                "500 Internal Server Error",
                "",
                r#"{"message":"dockerfile parse error line 3: x"}"#,
            ),
            Fault::User,
            "line 3",
        ),
        (
            Reply::http("400 Bad Request", "", r#"{"message":"invalid tag"}"#),
            Fault::Daemon,
            "invalid tag",
        ),
        (
            Reply::chunked(&[b"no json\r\n"]),
            Fault::Daemon,
            "no JSON object in a record of a build: no json",
        ),
        (
            Reply::chunked(&[b"{\"id\":\"moby.image.id\",\"aux\":{\"ID\":\"sha256:x\\n; rm\"}}"]),
            Fault::Daemon,
            "is no image id",
        ),
        // Cut off in the middle of a chunk, and before any answer.
        (
            Reply::Pieces(vec![
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}".to_vec(),
            ]),
            Fault::Network,
            "lost the daemon",
        ),
        (Reply::Pieces(vec![]), Fault::Network, "lost the daemon"),
    ] {
        let engine = engine(reply);
        let (result, recorder) = run(&engine, DockerRoute::Build, plain()).await;
        let e = result.expect_err(part);
        assert!(
            e.fault() == fault && e.to_string().contains(part),
            "{part}: {e:?}"
        );
        let events = recorder.events();
        assert!(
            matches!(events.last(), Some(BuildEvent::Completed { error: Some(_), .. })),
            "{events:?}"
        );
    }
}

#[tokio::test]
async fn what_a_route_cannot_do_is_refused_before_anything_is_sent() {
    let engine = engine(success());
    for route in [DockerRoute::Build, DockerRoute::Tar] {
        for request in [
            plain().platform("linux/amd64").platform("linux/arm64"),
            plain().frontend_attr("hostname", "h"),
            plain().output(Output::cache_only()),
        ] {
            let (result, _) = run(&engine, route, request).await;
            let e = result.expect_err("cannot do");
            assert!(
                matches!(&e, BuildError::Input(_)) && e.to_string().contains(route.name()),
                "{e:?}"
            );
        }
    }
    assert!(engine.seen("/build?").is_empty());
}

#[tokio::test]
async fn dropping_a_build_closes_its_connections() {
    let engine = engine(Reply::Hold(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
    ));
    let backend = DockerBackend::connect(&engine.address(), DockerRoute::Build, Arc::new(NoCredentials))
        .await
        .expect("connects");
    let mut build = backend.build(plain(), EventSink::discard());
    let asked = async {
        while engine.arrived("/build?") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        result = &mut build => panic!("ended by itself: {result:?}"),
        () = asked => {}
    }
    drop(build);
    let closed = async {
        // One session was only tried out when the route was chosen.
        while engine.seen("/session ").len() < 2 || engine.seen("/build?").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closed)
        .await
        .expect("both connections are closed");
}

async fn upload(request: BuildRequest) -> (BuildOutcome, Recorder, Seen) {
    let engine = engine(Reply::AfterBody(Box::new(success())));
    let (outcome, recorder) = run(&engine, DockerRoute::Tar, request).await;
    (outcome.expect("builds"), recorder, seen(&engine).await)
}

/// What the archive holds besides its root.
fn unpack(seen: &Seen) -> Snapshot {
    assert!(seen.whole);
    assert_eq!(
        &seen.body[257..263],
        b"ustar\0",
        "the first entry is no PAX header"
    );
    assert_eq!(seen.body[156], b'5');
    Snapshot::of_tar(&seen.body[..])
        .expect("reads")
        .filter(|path| path != b"." && !path.is_empty())
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .entries
        .keys()
        .map(|k| String::from_utf8_lossy(k).into_owned())
        .collect()
}

#[tokio::test]
async fn an_upload_is_the_tree_exactly() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let tree = TreeBuilder::new()
        .file("Dockerfile", "FROM scratch\nCOPY . /\n")
        .file_with("private", "secret", fixture::Meta::mode(0o600))
        .file_with("setuid", "x", fixture::Meta::mode(0o4755))
        .dir_with("sticky", fixture::Meta::mode(0o1777))
        .file("a/one", "same")
        .hard_link("a/two", "a/one")
        .hard_link("b/three", "a/one")
        .symlink("dangling", "/nowhere/at all")
        .symlink("long-link", "t".repeat(300))
        .file(&long, "deep")
        .file(fixture::raw(b"raw-\xff\xfe"), "bytes")
        .symlink(fixture::raw(b"raw-link-\xfd"), fixture::raw(b"to-\xfc"))
        .file_with("old", "y", fixture::Meta::mode(0o644).mtime(1000, 5))
        .file("empty", "")
        .big("big", 3 * 1024 * 1024 + 17, 1)
        .fifo("pipe")
        .socket("sock")
        .build()
        .expect("tree");
    let (outcome, recorder, seen) = upload(BuildRequest::new(tree.path())).await;
    let mut want = tree.snapshot().expect("snapshot");
    want.entries.remove(&b"sock"[..]);
    compare(&want, &unpack(&seen), Rules::image()).expect("the same tree");
    assert_eq!(recorder.skipped(), ["sock"]);
    assert_eq!(outcome.transfer.skipped, 1);
    assert_eq!(
        outcome.transfer.sent_bytes,
        want.content_bytes(),
        "links are sent once"
    );
    let head = seen.head.to_ascii_lowercase();
    assert!(head.contains("content-type: application/x-tar"), "{head}");
    assert!(head.starts_with("post /v1.45/build?version=2&buildid="), "{head}");
    assert!(
        head.lines()
            .next()
            .is_some_and(|l| l.ends_with("&dockerfile=dockerfile http/1.1")),
        "{head}"
    );
    assert!(!head.contains("remote="), "{head}");
    let done = recorder
        .events()
        .iter()
        .any(|e| matches!(e, BuildEvent::Transfer(t) if t.done && t.source == "context"));
    assert!(done);
}

#[tokio::test]
async fn ignore_rules_are_applied_here() {
    let files = [
        ("Dockerfile", "FROM scratch"),
        (".dockerignore", "*\n!keep\n!deep/**/x\n"),
        ("keep", "1"),
        ("drop", "2"),
        ("deep/er/x", "3"),
        ("deep/er/y", "4"),
    ];
    let (_, _, seen) = upload(BuildRequest::new(memory(&files))).await;
    // The Dockerfile and the ignore file are kept although the rules leave them out.
    assert_eq!(
        names(&unpack(&seen)),
        [
            ".dockerignore",
            "Dockerfile",
            "deep",
            "deep/er",
            "deep/er/x",
            "keep"
        ]
    );

    // An ignore file of the Dockerfile's own replaces the other one, even an empty one.
    let mut own = files.to_vec();
    own.push(("Dockerfile.dockerignore", "drop\n"));
    let (_, _, seen) = upload(BuildRequest::new(memory(&own))).await;
    assert!(!names(&unpack(&seen)).contains(&"drop".to_owned()) && names(&unpack(&seen)).len() == 8);
}

#[tokio::test]
async fn a_malformed_ignore_pattern_is_named_with_its_line() {
    let tree = TreeBuilder::new()
        .file("Dockerfile", "FROM scratch")
        .file(".dockerignore", "# comment\n\nok\na[\n")
        .build()
        .expect("tree");
    let engine = engine(success());
    let (result, _) = run(&engine, DockerRoute::Tar, BuildRequest::new(tree.path())).await;
    let e = result.expect_err("malformed");
    assert!(matches!(&e, BuildError::Input(_)), "{e:?}");
    assert!(
        e.to_string().contains(".dockerignore:4") && e.to_string().contains("a["),
        "{e}"
    );
    assert!(engine.seen("/build?").is_empty());
}

#[tokio::test]
async fn a_dockerfile_is_found_wherever_it_is() {
    let outside = TreeBuilder::new()
        .file("My.Dockerfile", "FROM scratch\n# outside")
        .build()
        .expect("tree");
    let tree = TreeBuilder::new()
        .file("sub/Other", "FROM scratch\n# inside")
        .file(".dockerfile.bk", "taken")
        .file(".dockerignore", "sub\n")
        .build()
        .expect("tree");
    let name = |seen: &Seen| {
        let line = seen.head.lines().next().unwrap_or_default().to_owned();
        line.split("dockerfile=")
            .nth(1)
            .and_then(|r| r.split(' ').next())
            .map(str::to_owned)
    };
    let from = |path: &Path| BuildRequest::new(tree.path()).dockerfile(Dockerfile::Path(path.to_owned()));

    let (_, _, seen) = upload(from(&tree.join("sub/Other"))).await;
    assert_eq!(name(&seen).as_deref(), Some("sub%2FOther"));
    assert_eq!(
        names(&unpack(&seen)),
        [".dockerfile.bk", ".dockerignore", "sub", "sub/Other"]
    );

    let text = b"FROM scratch\n# outside";
    let (_, _, seen) = upload(from(&outside.join("My.Dockerfile"))).await;
    assert_eq!(name(&seen).as_deref(), Some(".dockerfile.bk.1"));
    let snapshot = unpack(&seen);
    assert_eq!(
        names(&snapshot),
        [".dockerfile.bk", ".dockerfile.bk.1", ".dockerignore"]
    );
    let want = bk_testkit::snapshot::Entry::new(bk_testkit::snapshot::Kind::File, 0o644).content(text);
    assert_eq!(snapshot.entries[&b".dockerfile.bk.1"[..]], want);

    let inline =
        BuildRequest::new(memory(&[("a", "1")])).dockerfile(Dockerfile::Inline("FROM scratch".into()));
    let (_, _, seen) = upload(inline).await;
    assert_eq!(names(&unpack(&seen)), [".dockerfile.bk", "a"]);

    let (_, _, seen) = upload(BuildRequest::new(memory(&[("dockerfile", "FROM scratch")]))).await;
    assert_eq!(name(&seen).as_deref(), Some("dockerfile"));
    let engine = engine(success());
    let (result, _) = run(
        &engine,
        DockerRoute::Tar,
        BuildRequest::new(memory(&[("a", "1")])),
    )
    .await;
    let text = result.expect_err("no Dockerfile").to_string();
    assert!(
        text.contains("looked for `Dockerfile` and `dockerfile`"),
        "{text}"
    );
}

/// A tree in which one file is shorter than it says.
struct Shrinking(MemoryTree);

impl Tree for Shrinking {
    fn open_dir(&self, path: RelPath<'_>) -> std::io::Result<Box<dyn Directory>> {
        self.0.open_dir(path)
    }

    fn open(&self, path: RelPath<'_>) -> std::io::Result<Box<dyn OpenFile>> {
        let file = self.0.open(path)?;
        Ok(if path.as_bytes() == b"z" {
            Box::new(Short(file.take(3)))
        } else {
            file
        })
    }
}

/// Says that it has ten bytes and ends after three.
struct Short(std::io::Take<Box<dyn OpenFile>>);

impl Read for Short {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl OpenFile for Short {
    fn stat(&self) -> std::io::Result<Meta> {
        let mut meta = Meta::new(bk_fsync::entry::Kind::File);
        meta.size = 10;
        Ok(meta)
    }
}

#[tokio::test]
async fn a_file_that_shrinks_ends_the_request_and_is_named() {
    let mut tree = MemoryTree::new();
    tree.add_file("Dockerfile", 0o644, "FROM scratch").expect("path");
    tree.add_file("z", 0o644, "0123456789").expect("path");
    let engine = engine(Reply::AfterBody(Box::new(success())));
    let tree: Arc<dyn Tree> = Arc::new(Shrinking(tree));
    let (result, recorder) = run(&engine, DockerRoute::Tar, BuildRequest::new(tree)).await;
    let e = result.expect_err("must fail");
    assert!(matches!(&e, BuildError::Local(_)), "{e:?}");
    assert!(
        e.to_string().contains('z') && e.to_string().contains("from 10 to 3 bytes"),
        "{e}"
    );
    assert!(matches!(
        recorder.events().last(),
        Some(BuildEvent::Completed { error: Some(_), .. })
    ));
}

#[tokio::test]
async fn the_body_of_a_broken_upload_has_no_end() {
    let mut tree = MemoryTree::new();
    tree.add_file("Dockerfile", 0o644, vec![b'#'; 3 * UPLOAD_CHUNK])
        .expect("path");
    tree.add_file("z", 0o644, "0123456789").expect("path");
    let tree: Arc<dyn Tree> = Arc::new(Shrinking(tree));
    let sources = Sources::of(&BuildRequest::new(tree)).await.expect("sources");
    let plan = ContextTar::make(&sources, &Dockerfile::Default).expect("plan");
    let (sender, _events) = mpsc::channel(64);
    let (upload, mut body) = Upload::start(plan, sender);
    let mut sent = 0;
    let error = loop {
        match body.frame().await.expect("half a context must not look whole") {
            Ok(frame) => sent += frame.data_ref().map_or(0, |d| d.len()),
            Err(e) => break e,
        }
    };
    assert!(sent >= 3 * UPLOAD_CHUNK);
    assert!(error.to_string().contains("size changed"), "{error}");
    assert!(matches!(upload.end().await.1, Some(BuildError::Local(_))));
}

#[tokio::test]
async fn an_early_refusal_stops_the_upload() {
    let tree = TreeBuilder::new()
        .file("Dockerfile", "FROM scratch")
        .big("big", 64 * 1024 * 1024, 1)
        .build()
        .expect("tree");
    let engine = engine(Reply::Hold(
        b"HTTP/1.1 500 No\r\nContent-Length: 20\r\n\r\n{\"message\":\"no room\"}".to_vec(),
    ));
    let (result, recorder) = run(&engine, DockerRoute::Tar, BuildRequest::new(tree.path())).await;
    let e = result.expect_err("refused");
    assert!(e.to_string().contains("no room"), "{e:?}");
    assert!(matches!(
        recorder.events().last(),
        Some(BuildEvent::Completed { error: Some(_), .. })
    ));
}
