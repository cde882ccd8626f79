//! What each event looks like on the wire, byte for byte.

use bk_build::{BuilderInfo, LineRange, LogStream, ProgressGroup, Transfer, WarningKind};

use super::*;

fn drawn(events: &[BuildEvent]) -> String {
    let mut bytes = Vec::new();
    let mut renderer = RawJson::new(&mut bytes);
    for event in events {
        renderer.event(event).expect("a vector takes everything");
    }
    renderer.finish().expect("a vector takes everything");
    drop(renderer);
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

fn at(seconds: u64, nanos: u32) -> Option<SystemTime> {
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos))
}

#[test]
fn a_vertex_shows_what_it_has() {
    let mut v = Vertex::new("sha256:1", "[1/2] FROM a&b <\u{1b}>");
    let queued = v.clone();
    v.inputs = vec!["sha256:0".into()];
    v.started = at(1_700_000_000, 120_000_000);
    v.completed = at(1_700_000_001, 1);
    v.error = Some("exit code: 1".to_owned());
    v.cached = true;
    v.group = Some(ProgressGroup::new("g", "group", true));
    assert_eq!(
        drawn(&[BuildEvent::VertexQueued(queued), BuildEvent::VertexFailed(v)]),
        concat!(
            r#"{"vertexes":[{"digest":"sha256:1","name":"[1/2] FROM a&b <\u001b>"}]}"#,
            "\n",
            r#"{"vertexes":[{"digest":"sha256:1","inputs":["sha256:0"],"name":"[1/2] FROM a&b <\u001b>","#,
            r#""started":"2023-11-14T22:13:20.12Z","completed":"2023-11-14T22:13:21.000000001Z","cached":true,"#,
            r#""error":"exit code: 1","progressGroup":{"id":"g","name":"group","weak":true}}]}"#,
            "\n",
        )
    );
}

#[test]
fn status_and_log_keep_their_mandatory_members() {
    let mut s = StatusUpdate::new("v".into(), "transferring context:");
    s.timestamp = at(1_700_000_000, 0);
    s.total = 7;
    let l = LogChunk::new("v".into(), LogStream::Stderr, &b"\xff\n"[..]);
    assert_eq!(
        drawn(&[BuildEvent::Status(s), BuildEvent::Log(l)]),
        concat!(
            r#"{"statuses":[{"id":"transferring context:","vertex":"v","total":7,"current":0,"#,
            r#""timestamp":"2023-11-14T22:13:20Z"}]}"#,
            "\n",
            r#"{"logs":[{"vertex":"v","stream":2,"data":"/wo=","timestamp":"0001-01-01T00:00:00Z"}]}"#,
            "\n",
        )
    );
}

#[test]
fn a_warning_carries_its_source() {
    let mut w = Warning::new(WarningKind::Daemon, "short");
    w.vertex = Some("v".into());
    w.level = 1;
    w.detail = vec!["more".to_owned()];
    w.url = "https://example.com".to_owned();
    w.source = Some(SourceSnippet::new(
        "Dockerfile",
        "FROM x\n",
        vec![LineRange { start: 1, end: 1 }],
    ));
    let client = Warning::new(WarningKind::SkippedFile("s".to_owned()), "skipped s");
    assert_eq!(
        drawn(&[BuildEvent::Warning(w), BuildEvent::Warning(client)]),
        concat!(
            r#"{"warnings":[{"vertex":"v","level":1,"short":"c2hvcnQ=","detail":["bW9yZQ=="],"url":"https://example.com","#,
            r#""sourceInfo":{"filename":"Dockerfile","data":"RlJPTSB4Cg=="},"range":[{"start":{"line":1},"end":{"line":1}}]}]}"#,
            "\n",
            r#"{"warnings":[{"short":"c2tpcHBlZCBz"}]}"#,
            "\n",
        )
    );
}

#[test]
fn events_outside_the_schema_draw_nothing() {
    let now = SystemTime::UNIX_EPOCH;
    let started = BuildEvent::Started {
        build_ref: "r".to_owned(),
        builder: BuilderInfo::new("docker", "a"),
        at: now,
    };
    let completed = BuildEvent::Completed {
        at: now,
        error: Some("no".to_owned()),
    };
    assert_eq!(
        drawn(&[
            started,
            BuildEvent::Transfer(Transfer::new("context", 0)),
            completed
        ]),
        ""
    );
}

#[test]
fn times_out_of_range_are_zero_and_never_panic() {
    let far = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(1 << 60));
    let before = SystemTime::UNIX_EPOCH.checked_sub(Duration::from_millis(1500));
    let mut s = StatusUpdate::new("v".into(), "i");
    s.timestamp = far;
    s.started = before;
    assert_eq!(
        drawn(&[BuildEvent::Status(s)]),
        concat!(
            r#"{"statuses":[{"id":"i","vertex":"v","current":0,"timestamp":"0001-01-01T00:00:00Z","#,
            r#""started":"1969-12-31T23:59:58.5Z"}]}"#,
            "\n"
        )
    );
}
