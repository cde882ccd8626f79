//! What stands on a terminal, as an emulator sees it.

use std::time::SystemTime;

use bk_build::{BuilderInfo, LogChunk, LogStream, StatusUpdate, Transfer, Vertex, Warning, WarningKind};

use super::*;
use crate::Theme;

/// A renderer that draws on an emulated terminal.
struct Stage {
    tty: Tty<Vec<u8>>,
    parser: vt100::Parser,
    read: usize,
    clock: Instant,
    /// Milliseconds since the beginning, for both clocks.
    millis: u64,
}

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis)
}

fn options(columns: u16, rows: u16) -> TtyOptions {
    TtyOptions {
        size: Size { columns, rows },
        theme: Theme::none(),
        reflows: false,
        ..TtyOptions::default()
    }
}

impl Stage {
    fn new(columns: u16, rows: u16) -> Self {
        let mut stage = Self {
            tty: Tty::new(Vec::new(), options(columns, rows)),
            parser: vt100::Parser::new(rows, columns, 1000),
            read: 0,
            clock: Instant::now(),
            millis: 0,
        };
        stage.parser.process(b"$ bk build .\r\n");
        stage.tick(0);
        stage
    }

    fn event(&mut self, event: BuildEvent) -> &mut Self {
        self.tty.event(&event).expect("a vector takes everything");
        self
    }

    fn start(&mut self, id: &str, name: &str) -> &mut Self {
        let mut v = Vertex::new(id, name);
        v.started = Some(at(self.millis));
        self.event(BuildEvent::VertexStarted(v))
    }

    fn end(&mut self, id: &str, name: &str, started: u64, error: Option<&str>) -> &mut Self {
        let mut v = Vertex::new(id, name);
        v.started = Some(at(started));
        v.completed = Some(at(self.millis));
        v.error = error.map(str::to_owned);
        self.event(if error.is_some() {
            BuildEvent::VertexFailed(v)
        } else {
            BuildEvent::VertexCompleted(v)
        })
    }

    fn log(&mut self, id: &str, data: &str) -> &mut Self {
        let chunk = LogChunk::new(id.into(), LogStream::Stdout, data.as_bytes().to_vec());
        self.event(BuildEvent::Log(chunk))
    }

    fn tick(&mut self, millis: u64) -> &mut Self {
        self.millis = millis;
        self.tty
            .tick(self.clock + Duration::from_millis(millis))
            .expect("a vector takes everything");
        self.read();
        self
    }

    fn read(&mut self) -> usize {
        // A terminal turns a line end into both.
        let all = self.tty.screen.out.inner();
        let fresh = all.get(self.read..).unwrap_or_default();
        let drawn = String::from_utf8_lossy(fresh)
            .replace("\r\n", "\n")
            .replace('\n', "\r\n");
        let count = fresh.len();
        self.read = all.len();
        self.parser.process(drawn.as_bytes());
        count
    }

    fn finish(&mut self) -> &mut Self {
        self.tty.finish().expect("a vector takes everything");
        self.read();
        self
    }

    fn screen(&self) -> Vec<String> {
        let columns = self.parser.screen().size().1;
        let mut rows: Vec<String> = self
            .parser
            .screen()
            .rows(0, columns)
            .map(|row| row.trim_end().to_owned())
            .collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    fn resize(&mut self, columns: u16, rows: u16) -> &mut Self {
        self.parser.screen_mut().set_size(rows, columns);
        self.tty
            .resize(Size { columns, rows })
            .expect("a vector takes everything");
        self
    }
}

#[test]
fn a_build_is_drawn_in_place_and_once_at_the_end() {
    let mut stage = Stage::new(60, 12);
    stage.event(BuildEvent::VertexQueued(Vertex::new("c", "[2/2] RUN make")));
    stage.start("a", "[internal] load build definition");
    stage.tick(200);
    assert_eq!(stage.screen(), ["$ bk build ."], "nothing before 250 ms");
    stage.end("a", "[internal] load build definition", 0, None);
    stage
        .start("c", "[2/2] RUN make")
        .log("c", "one\ntwo \x1b[31mred\nthr");
    stage.tick(300);
    assert_eq!(
        stage.screen(),
        [
            "$ bk build .",
            "[+] Building 0.3s (1/2)",
            " => [internal] load build definition                   0.2s",
            " => [2/2] RUN make                                     0.0s",
            " => => # one",
            " => => # two red",
            " => => # thr",
        ]
    );
    assert!(stage.parser.screen().hide_cursor());
    stage.tick(1500).end("c", "[2/2] RUN make", 200, None);
    stage.event(BuildEvent::Completed {
        at: at(0),
        error: None,
    });
    stage.finish();
    assert_eq!(
        stage.screen(),
        [
            "$ bk build .",
            "[+] Building 1.5s (2/2) FINISHED",
            " => [internal] load build definition                   0.2s",
            " => [2/2] RUN make                                     1.3s",
        ]
    );
    assert!(!stage.parser.screen().hide_cursor());
}

#[test]
fn a_failure_shows_its_output_below() {
    let mut stage = Stage::new(60, 12);
    stage.start("a", "[1/1] RUN false").log("a", "why\nnot");
    stage.tick(1000);
    stage.end("a", "[1/1] RUN false", 0, Some("exit code: 1"));
    let mut warning = Warning::new(WarningKind::Daemon, "JSONArgs: use \x1b[1mthem");
    warning.vertex = Some("a".into());
    stage.event(BuildEvent::Warning(warning));
    stage.event(BuildEvent::Completed {
        at: at(0),
        error: Some("exit code: 1".to_owned()),
    });
    stage.finish();
    assert_eq!(
        stage.screen(),
        [
            "$ bk build .",
            "[+] Building 1.0s (1/1) FAILED 1 warning",
            " => ERROR [1/1] RUN false                              1.0s",
            "------",
            " > [1/1] RUN false:",
            "why",
            "not",
            "------",
            "",
            " 1 warning found:",
            " - JSONArgs: use them",
        ]
    );
}

#[test]
fn statuses_and_transfers_stand_below_what_runs() {
    let mut stage = Stage::new(80, 12);
    stage.start("a", "[internal] load build context");
    let mut status = StatusUpdate::new("a".into(), "transferring context:");
    (status.current, status.started) = (1_230_000, Some(at(0)));
    stage.event(BuildEvent::Status(status));
    let mut transfer = Transfer::new("context", 0);
    transfer.report.entries = 12;
    transfer.report.requested_files = 10;
    transfer.report.sent_files = 3;
    transfer.report.sent_bytes = 5_000_000;
    stage.event(BuildEvent::Transfer(transfer));
    stage.start("b", "[1/1] FROM busybox");
    let mut layer = StatusUpdate::new("b".into(), format!("sha256:{}", "0a".repeat(32)));
    (layer.current, layer.total, layer.started) = (5_000_000, 10_000_000, Some(at(0)));
    stage.event(BuildEvent::Status(layer));
    stage.tick(1).tick(1000);
    assert_eq!(
        stage.screen(),
        [
            "$ bk build .",
            "[+] Building 1.0s (0/2)",
            " => [internal] load build context                                          1.0s",
            " => => listed 12 entries, sent 3 of 10 files, 5.00MB, 5.01MB/s",
            " => => transferring context: 1.23MB                                        1.0s",
            " => [1/1] FROM busybox                                                     1.0s",
            " => => sha256:0a0a0a0a0a0a [==========>         ] 5.00MB / 10.00MB         1.0s",
        ]
    );
}

#[test]
fn more_rows_than_lines_are_summed_up() {
    let mut stage = Stage::new(40, 8);
    for n in 0..20 {
        stage.start(&n.to_string(), &format!("step {n}"));
        if n % 2 == 0 {
            stage.end(&n.to_string(), &format!("step {n}"), 0, None);
        }
    }
    stage.tick(1).tick(300);
    assert_eq!(
        stage.screen(),
        [
            "[+] Building 0.3s (10/20)",
            " => … 15 more, 5 of them running",
            " => step 11                        0.3s",
            " => step 13                        0.3s",
            " => step 15                        0.3s",
            " => step 17                        0.3s",
            " => step 19                        0.3s",
        ],
        "the newest of those that run; the cursor's line is free"
    );
    for n in (1..20).step_by(2) {
        stage.end(&n.to_string(), &format!("step {n}"), 0, None);
    }
    stage.tick(400);
    assert_eq!(stage.screen()[1], " => … 15 more that ended");
    stage.finish();
    assert_eq!(
        stage
            .parser
            .screen()
            .rows(0, 40)
            .filter(|r| r.starts_with(" => step"))
            .count(),
        7
    );
}

#[test]
fn resizing_repaints_without_touching_what_stands_above() {
    let mut stage = Stage::new(60, 10);
    stage.event(BuildEvent::Started {
        build_ref: String::new(),
        builder: BuilderInfo::new("docker", "unix:///x"),
        at: at(0),
    });
    stage.start("a", "[1/2] RUN 漢字漢字漢字漢字漢字漢字 and more of it");
    stage.tick(1).tick(300);
    stage.resize(30, 10).tick(400);
    assert_eq!(
        stage.screen(),
        [
            "$ bk build .",
            "[+] Building 0.4s (0/1)",
            " => [1/2] RUN 漢字漢字…  0.4s",
        ]
    );
    stage.resize(12, 3).tick(500);
    assert_eq!(stage.screen().last().map(String::as_str), Some(" => [1/2] …"));
    stage.resize(60, 10).tick(600).finish();
    assert!(stage.screen().iter().any(|row| row.contains("CANCELED")));
}

#[test]
fn reflowed_lines_are_counted() {
    let mut screen = Screen::new(Vec::new());
    let line = |width| screen::Line {
        text: "x".repeat(width),
        width,
    };
    screen
        .paint(vec![line(50), line(5)])
        .expect("a vector takes everything");
    screen.resize(
        Size {
            columns: 20,
            rows: 10,
        },
        true,
    );
    let before = screen.out.inner().len();
    screen.paint(vec![line(5)]).expect("a vector takes everything");
    let drawn = String::from_utf8_lossy(&screen.out.inner()[before..]).into_owned();
    assert_eq!(drawn, "\r\u{1b}[4A\u{1b}[Jxxxxx\r\n");
}

#[test]
fn only_changes_are_written() {
    let mut stage = Stage::new(60, 20);
    for n in 0..10 {
        stage.start(&n.to_string(), &format!("step {n}"));
        stage.end(&n.to_string(), &format!("step {n}"), 0, None);
    }
    stage.start("r", "RUN make");
    stage.tick(300);
    let before = stage.tty.screen.out.inner().len();
    stage.tick(320).log("r", "x\n").tick(325);
    assert_eq!(
        stage.tty.screen.out.inner().len(),
        before,
        "at most 30 frames a second"
    );
    stage.tick(400);
    let drawn = String::from_utf8_lossy(&stage.tty.screen.out.inner()[before..]).into_owned();
    assert!(
        drawn.contains("# x") && drawn.contains("RUN make") && !drawn.contains("step"),
        "{drawn:?}"
    );
}

#[test]
fn dropping_gives_the_cursor_back() {
    let mut drawn = Vec::new();
    {
        let mut tty = Tty::new(&mut drawn, options(40, 10));
        let now = Instant::now();
        tty.tick(now).expect("a vector takes everything");
        tty.tick(now + Duration::from_secs(1))
            .expect("a vector takes everything");
    }
    let drawn = String::from_utf8(drawn).expect("only UTF-8 is drawn");
    assert!(
        drawn.starts_with("\u{1b}[?25l") && drawn.ends_with("\u{1b}[?25h"),
        "{drawn:?}"
    );
}
