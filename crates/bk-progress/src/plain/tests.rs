//! What builds look like, byte for byte, and who gets the output when several steps run at once.

use std::time::{Duration, SystemTime};

use bk_build::{BuilderInfo, LogChunk, LogStream, ProgressGroup, StatusUpdate, Transfer, WarningKind};

use super::*;

/// A renderer under test with its writer, and shorthands for what happens.
pub(super) struct Stage {
    pub(super) plain: Plain<Vec<u8>>,
    clock: Instant,
}

pub(super) fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis)
}

pub(super) fn vertex(id: &str, name: &str, started: Option<u64>, completed: Option<u64>) -> Vertex {
    let mut v = Vertex::new(id, name);
    v.started = started.map(at);
    v.completed = completed.map(at);
    v
}

impl Stage {
    fn new() -> Self {
        Self::of(Plain::new(Vec::new()))
    }

    pub(super) fn of(plain: Plain<Vec<u8>>) -> Self {
        Self {
            plain,
            clock: Instant::now(),
        }
    }

    pub(super) fn event(&mut self, event: BuildEvent) -> &mut Self {
        self.plain.event(&event).expect("a vector takes everything");
        self
    }

    pub(super) fn start(&mut self, id: &str, name: &str, started: u64) -> &mut Self {
        self.event(BuildEvent::VertexStarted(vertex(id, name, Some(started), None)))
    }

    pub(super) fn done(&mut self, id: &str, name: &str, started: u64, completed: u64) -> &mut Self {
        self.event(BuildEvent::VertexCompleted(vertex(
            id,
            name,
            Some(started),
            Some(completed),
        )))
    }

    pub(super) fn fail(&mut self, id: &str, name: &str, run: Option<(u64, u64)>, error: &str) -> &mut Self {
        let mut v = vertex(id, name, run.map(|r| r.0), run.map(|r| r.1));
        v.error = Some(error.to_owned());
        self.event(BuildEvent::VertexFailed(v))
    }

    pub(super) fn log(&mut self, id: &str, when: u64, data: &[u8]) -> &mut Self {
        let chunk = LogChunk::new(id.into(), LogStream::Stdout, data.to_vec());
        self.event(BuildEvent::Log(chunk.at(Some(at(when)))))
    }

    pub(super) fn status(
        &mut self,
        id: &str,
        name: &str,
        (current, total): (i64, i64),
        when: u64,
        done: bool,
    ) -> &mut Self {
        let mut s = StatusUpdate::new(id.into(), name);
        (s.current, s.total) = (current, total);
        s.timestamp = Some(at(when));
        s.started = Some(at(0));
        s.completed = done.then(|| at(when));
        self.event(BuildEvent::Status(s))
    }

    /// Lets time pass as a program does that ticks behind each event and then waits.
    pub(super) fn pass(&mut self, time: Duration) -> &mut Self {
        for step in [Duration::ZERO, time] {
            self.clock += step;
            self.plain.tick(self.clock).expect("a vector takes everything");
        }
        self
    }

    pub(super) fn drawn(&mut self) -> String {
        self.plain.finish().expect("a vector takes everything");
        String::from_utf8(self.plain.out.inner().clone()).expect("only UTF-8 is drawn")
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_build_from_start_to_end() {
    let mut s = Stage::new();
    s.event(BuildEvent::Started {
        build_ref: "r".to_owned(),
        builder: BuilderInfo::new("docker", "unix:///var/run/docker.sock")
            .route("grpc")
            .version("26.1.5"),
        at: at(0),
    });
    s.event(BuildEvent::VertexQueued(vertex(
        "a",
        "[internal] load build definition",
        None,
        None,
    )));
    s.start("a", "[internal] load build definition", 0);
    s.status("a", "transferring dockerfile:", (1234, 0), 30, false);
    s.status("a", "transferring dockerfile:", (1234, 0), 50, true);
    s.done("a", "[internal] load build definition", 0, 60);
    let mut cached = vertex("b", "[1/2] FROM docker.io/library/busybox", Some(60), Some(60));
    cached.cached = true;
    s.event(BuildEvent::VertexCached(cached));
    s.start("c", "[2/2] RUN echo hi", 100);
    s.log("c", 223, b"hi\nthere\n").log("c", 12_345, b"\n");
    s.event(BuildEvent::Transfer(Transfer::new("context", 0)));
    s.done("c", "[2/2] RUN echo hi", 100, 12_400);
    s.event(BuildEvent::Completed {
        at: at(12_500),
        error: None,
    });
    assert_eq!(
        s.drawn(),
        "\
#0 building with docker 26.1.5 (grpc) at unix:///var/run/docker.sock

#1 [internal] load build definition
#1 transferring dockerfile: 1.23kB 0.0s
#1 transferring dockerfile: 1.23kB 0.1s done
#1 DONE 0.1s

#2 [1/2] FROM docker.io/library/busybox
#2 CACHED

#3 [2/2] RUN echo hi
#3 0.123 hi
#3 0.123 there
#3 12.24 \n#3 DONE 12.3s
"
    );
}

#[test]
fn a_failed_step_is_told_again_with_its_last_ten_lines() {
    let mut s = Stage::new();
    s.start("a", "[2/2] RUN make", 0);
    for i in 1..=12 {
        s.log("a", 0, format!("line {i}\n").as_bytes());
    }
    s.fail(
        "a",
        "[2/2] RUN make",
        Some((0, 1000)),
        "process \"make\" did not complete: exit code: 2",
    );
    s.fail("b", "other", Some((0, 1000)), "failed: context canceled");
    s.fail("never", "not begun", None, "context canceled");
    let drawn = s.drawn();
    let end = drawn.split_once("#1 0.000 line 12\n").map(|(_, end)| end);
    assert_eq!(
        end,
        Some(
            "\
#1 ERROR: process \"make\" did not complete: exit code: 2

#2 other
#2 CANCELED
------
 > [2/2] RUN make:
0.000 line 3
0.000 line 4
0.000 line 5
0.000 line 6
0.000 line 7
0.000 line 8
0.000 line 9
0.000 line 10
0.000 line 11
0.000 line 12
------
"
        )
    );
    assert!(!drawn.contains("not begun"), "{drawn}");
}

#[test]
fn a_silent_step_yields_and_a_returning_one_repeats_its_name() {
    let mut s = Stage::new();
    s.pass(Duration::ZERO).start("a", "A", 0).start("b", "B", 0);
    s.log("a", 100, b"a1\npart")
        .log("b", 200, b"b1\n")
        .pass(limits::TICK)
        .pass(SECOND / 2);
    assert!(
        !String::from_utf8_lossy(s.plain.out.inner()).contains('B'),
        "A is not silent long enough yet"
    );
    s.pass(SECOND / 2).log("a", 1100, b"ial\na2\n").pass(limits::TICK);
    assert!(
        !String::from_utf8_lossy(s.plain.out.inner()).contains("a2"),
        "B is not silent long enough yet"
    );
    s.pass(SECOND)
        .done("b", "B", 0, 2000)
        .pass(limits::TICK)
        .done("a", "A", 0, 3000);
    assert_eq!(
        s.drawn(),
        "\
#1 A
#1 0.100 a1
#1 0.100 part
#1 ...

#2 B
#2 0.200 b1
#2 ...

#1 A
#1 0.100 ial
#1 1.100 a2
#1 ...

#2 B
#2 DONE 2.0s

#1 A
#1 DONE 3.0s
"
    );
}

#[test]
fn a_talkative_step_yields_when_its_turn_is_over() {
    let mut s = Stage::new();
    s.pass(Duration::ZERO).start("a", "A", 0).start("b", "B", 0);
    for i in 0..20 {
        s.log("a", i * 500, b"x\n").pass(SECOND / 2);
    }
    let drawn = String::from_utf8_lossy(s.plain.out.inner()).into_owned();
    let (first, rest) = drawn.split_once("\n#2 B\n").expect("B was drawn");
    assert_eq!(
        first.matches("#1 ").count(),
        13,
        "header, eleven lines until five seconds passed, dots: {drawn}"
    );
    assert!(rest.contains("\n#1 A\n"), "A came back: {drawn}");
}

#[test]
fn what_waits_is_bounded_without_any_clock() {
    let mut s = Stage::new();
    s.start("a", "A", 0).start("b", "B", 0);
    let block = vec![b'x'; 10_000];
    for _ in 0..6 {
        s.log("b", 0, &block);
    }
    assert!(!String::from_utf8_lossy(s.plain.out.inner()).contains("#2"));
    s.log("b", 0, &block);
    assert!(String::from_utf8_lossy(s.plain.out.inner()).contains("\n#1 ...\n\n#2 B\n#2 0.000 xxx"));
}

#[test]
fn a_step_that_ends_goes_before_one_that_runs() {
    let mut s = Stage::new();
    s.start("a", "A", 0)
        .start("b", "B", 0)
        .done("b", "B", 0, 1500)
        .log("a", 1600, b"more\n");
    s.done("a", "A", 0, 2000);
    assert_eq!(
        s.drawn(),
        "#1 A\n#1 ...\n\n#2 B\n#2 DONE 1.5s\n\n#1 A\n#1 1.600 more\n#1 DONE 2.0s\n"
    );
}

#[test]
fn small_moves_of_a_status_are_not_drawn() {
    let mut s = Stage::new();
    s.start("a", "A", 0);
    for (current, when) in [(0, 0), (40, 100), (51, 200), (60, 300), (61, 5200), (900, 5300)] {
        s.status("a", "sha256:1", (current, 1000), when, false);
    }
    s.status("a", "sha256:1", (1000, 1000), 6000, true)
        .done("a", "A", 0, 6000);
    assert_eq!(
        s.drawn(),
        "\
#1 A
#1 sha256:1 0B / 1.00kB
#1 sha256:1 51B / 1.00kB 0.2s
#1 sha256:1 61B / 1.00kB 5.2s
#1 sha256:1 900B / 1.00kB 5.3s
#1 sha256:1 1.00kB / 1.00kB 6.0s done
#1 DONE 6.0s
"
    );
}

#[test]
fn the_end_waits_for_open_statuses() {
    let mut s = Stage::new();
    s.start("a", "A", 0)
        .status("a", "extracting", (0, 0), 0, false)
        .done("a", "A", 0, 1000);
    assert!(!String::from_utf8_lossy(s.plain.out.inner()).contains("DONE"));
    s.status("a", "extracting", (0, 0), 1100, true);
    s.start("b", "B", 0)
        .status("b", "open for ever", (5, 0), 100, false)
        .done("b", "B", 0, 2000);
    assert_eq!(
        s.drawn(),
        "#1 A\n#1 extracting\n#1 extracting 1.1s done\n#1 DONE 1.0s\n\n#2 B\n#2 open for ever 5B 0.1s\n#2 DONE 2.0s\n"
    );
}

#[test]
fn a_step_that_runs_again_adds_up() {
    let mut s = Stage::new();
    s.start("a", "A", 0)
        .done("a", "A", 0, 1000)
        .start("a", "A", 5000)
        .done("a", "A", 5000, 6500);
    assert_eq!(s.drawn(), "#1 A\n#1 DONE 1.0s\n\n#1 A\n#1 DONE 2.5s\n");
}

#[test]
fn a_group_is_one_block_and_hidden_while_only_weak_members_run() {
    let member = |id: &str, weak, started, completed| {
        let mut v = vertex(id, id, Some(started), completed);
        v.group = Some(ProgressGroup::new("g", "[auth] group", weak));
        v
    };
    let mut s = Stage::new();
    s.event(BuildEvent::VertexStarted(member("w", true, 0, None)));
    s.event(BuildEvent::VertexCompleted(member("w", true, 0, Some(500))));
    assert!(s.plain.out.inner().is_empty());
    s.event(BuildEvent::VertexStarted(member("x", false, 400, None)));
    s.log("x", 900, b"hello\n");
    s.event(BuildEvent::VertexCompleted(member("x", false, 400, Some(1000))));
    assert_eq!(s.drawn(), "#1 [auth] group\n#1 0.500 hello\n#1 DONE 1.0s\n");
}

#[test]
fn hostile_text_is_drawn_harmless() {
    let mut s = Stage::new();
    s.start("a", "\u{1b}[2J[1/1]\nRUN", 0);
    s.log("a", 0, b"\x1b[31mred\x1b[0m\x07\r\n10%\r100%\n\xff\n");
    s.status("a", "id\u{1b}]0;x\u{7}\n", (0, 0), 0, true);
    s.fail(
        "a",
        "\u{1b}[2J[1/1]\nRUN",
        Some((0, 0)),
        "bad\u{1b}[1m news\nmore\n",
    );
    assert_eq!(
        s.drawn(),
        "\
#1 [1/1] RUN
#1 0.000 red^G
#1 0.000 10%
#1 0.000 100%
#1 0.000 \u{fffd}
#1 id  done
#1 ERROR: bad news
more
------
 > [1/1] RUN:
0.000 red^G
0.000 10%
0.000 100%
0.000 \u{fffd}
------
"
    );
}

#[test]
fn warnings_have_a_place_with_and_without_a_vertex() {
    let mut s = Stage::new();
    s.start("a", "A", 0).log("a", 0, b"partial");
    let mut daemon = Warning::new(
        WarningKind::Daemon,
        "FromAsCasing: 'as' and 'FROM' differ (line 1)",
    );
    daemon.vertex = Some("a".into());
    s.event(BuildEvent::Warning(daemon));
    s.log("a", 0, b" end").event(BuildEvent::Warning(Warning::new(
        WarningKind::SkippedFile("run/s".to_owned()),
        "run/s: sockets cannot be sent",
    )));
    s.log("a", 0, b"\n").done("a", "A", 0, 0);
    assert_eq!(
        s.drawn(),
        "\
#1 A
#1 0.000 partial
#1 WARN: FromAsCasing: 'as' and 'FROM' differ (line 1)
#1 0.000  end
#0 WARN: run/s: sockets cannot be sent
#1 DONE 0.0s
"
    );
}

#[test]
fn events_of_unknown_vertices_are_dropped() {
    let mut s = Stage::new();
    s.log("?", 0, b"lost\n").status("?", "lost", (1, 2), 0, false);
    assert_eq!(s.drawn(), "");
}

#[test]
fn a_line_without_end_is_bounded_in_the_report() {
    let mut s = Stage::new();
    s.start("a", "A", 0);
    for _ in 0..10 {
        s.log("a", 0, "ä".repeat(1000).as_bytes());
    }
    s.fail("a", "A", Some((0, 0)), "no");
    let drawn = s.drawn();
    let report = drawn.split_once("------\n").map(|(_, r)| r.len());
    assert_eq!(
        report,
        Some(" > A:\n".len() + "0.000 ".len() + 4096 + "\n------\n".len())
    );
}

#[test]
fn what_belongs_together_is_drawn_together() {
    let mut s = Stage::new();
    s.pass(Duration::ZERO).start("a", "A", 0).done("a", "A", 0, 60);
    s.pass(limits::TICK / 2)
        .status("a", "transferring", (1, 0), 10, false);
    assert!(s.plain.out.inner().is_empty());
    s.status("a", "transferring", (366, 0), 50, true)
        .pass(limits::TICK / 2);
    assert_eq!(s.drawn(), "#1 A\n#1 transferring 366B 0.1s done\n#1 DONE 0.1s\n");
}

#[test]
fn a_transfer_that_takes_long_is_told_of() {
    let mut plain = Plain::new(Vec::new());
    let start = Instant::now();
    let mut draw = |millis: u64, source: &str, files, sent, done| {
        let mut transfer = Transfer::new(source, 0);
        transfer.report.sent_files = files;
        (transfer.report.sent_bytes, transfer.report.offered_bytes) = (sent, 120_000_000);
        transfer.done = done;
        plain
            .tick(start + Duration::from_millis(millis))
            .expect("a vector takes everything");
        plain
            .event(&BuildEvent::Transfer(transfer))
            .expect("a vector takes everything");
    };
    draw(0, "context", 0, 0, false);
    draw(0, "dockerfile", 0, 0, false);
    draw(100, "dockerfile", 1, 30, true);
    draw(2900, "context", 3, 1_000, false);
    draw(3000, "context", 12, 3_400_000, false);
    draw(3100, "context", 13, 3_500_000, false);
    draw(6000, "context", 20, 60_000_000, false);
    draw(6100, "context", 21, 120_000_000, true);
    plain.finish().expect("a vector takes everything");
    let drawn = String::from_utf8(plain.out.inner().clone()).expect("UTF-8");
    assert_eq!(
        drawn,
        "#0 context: sent 12 files, 3.40MB of 120.00MB offered\n\
         #0 context: sent 20 files, 60.00MB of 120.00MB offered\n\
         #0 context: sent 21 files, 120.00MB of 120.00MB offered\n"
    );
}
