//! The display for terminals on a real pseudo-terminal of three widths, with a change of size in the middle.
#![cfg(unix)]

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bk_build::{BuildEvent, LogChunk, LogStream, StatusUpdate, Vertex};
use bk_progress::{Renderer as _, Size, Theme, Tty, TtyOptions};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

/// A pseudo-terminal and what came out of it.
struct Terminal {
    controller: OwnedFd,
    line: File,
    read: Arc<(Mutex<Vec<u8>>, Condvar)>,
    marks: usize,
}

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Terminal {
    fn new(columns: u16, rows: u16) -> Self {
        let pair = nix::pty::openpty(None, None).expect("a pseudo-terminal");
        tcsetwinsize(&pair.master, winsize(columns, rows)).expect("it has a size");
        let read: Arc<(Mutex<Vec<u8>>, Condvar)> = Arc::default();
        let mut source = File::from(pair.master.try_clone().expect("another handle"));
        let kept = Arc::clone(&read);
        // Ends when the other side is closed.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                let mut all = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend_from_slice(&buffer[..count]);
                kept.1.notify_all();
            }
        });
        Self {
            controller: pair.master,
            line: File::from(pair.slave),
            read,
            marks: 0,
        }
    }

    fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.controller, winsize(columns, rows)).expect("it has a size");
    }

    /// The size that a program on this terminal sees.
    fn size(&self) -> Size {
        let told = tcgetwinsize(self.line.as_fd()).expect("it has a size");
        Size {
            columns: told.ws_col,
            rows: told.ws_row,
        }
    }

    /// Everything that was written up to now, once all of it has arrived.
    fn drawn(&mut self) -> Vec<u8> {
        self.marks += 1;
        // The title of a window: nothing that is seen.
        let mark = format!("\u{1b}]0;mark {}\u{7}", self.marks);
        self.line.write_all(mark.as_bytes()).expect("it takes everything");
        let (all, changed) = &*self.read;
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        while !all.windows(mark.len()).any(|part| part == mark.as_bytes()) {
            let (more, wait) = changed
                .wait_timeout(all, Duration::from_secs(20))
                .unwrap_or_else(PoisonError::into_inner);
            assert!(!wait.timed_out(), "the terminal passes on what is written");
            all = more;
        }
        std::mem::take(&mut *all)
    }
}

/// A terminal, an emulator that looks at it, and the display under test.
struct Stage {
    terminal: Terminal,
    parser: vt100::Parser,
    tty: Tty<File>,
    clock: Instant,
}

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis)
}

impl Stage {
    fn new(columns: u16, rows: u16) -> Self {
        let mut terminal = Terminal::new(columns, rows);
        terminal
            .line
            .write_all(b"$ bk build .\n")
            .expect("it takes everything");
        let mut options = TtyOptions::default();
        options.size = terminal.size();
        options.theme = Theme::none();
        options.reflows = false;
        let line = terminal.line.try_clone().expect("another handle");
        Self {
            tty: Tty::new(line, options),
            terminal,
            parser: vt100::Parser::new(rows, columns, 100),
            clock: Instant::now(),
        }
    }

    fn event(&mut self, event: BuildEvent) {
        self.tty.event(&event).expect("it takes everything");
    }

    fn tick(&mut self, millis: u64) {
        self.tty
            .tick(self.clock + Duration::from_millis(millis))
            .expect("it takes everything");
    }

    fn resize(&mut self, columns: u16, rows: u16) {
        // What was drawn for the old size is seen in the old size.
        self.look();
        self.terminal.resize(columns, rows);
        self.parser.screen_mut().set_size(rows, columns);
        let size = self.terminal.size();
        assert_eq!(size, Size { columns, rows });
        self.tty.resize(size).expect("it takes everything");
    }

    fn look(&mut self) -> Vec<String> {
        let drawn = self.terminal.drawn();
        self.parser.process(&drawn);
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

    /// A build up to its middle: one step has ended, one pulls, one writes.
    fn build(&mut self) {
        self.tick(0);
        let mut done = Vertex::new("a", "[internal] load build definition from Dockerfile");
        (done.started, done.completed) = (Some(at(0)), Some(at(100)));
        self.event(BuildEvent::VertexCompleted(done));
        let mut pull = Vertex::new("b", "[1/2] FROM docker.io/library/busybox:1");
        pull.started = Some(at(100));
        self.event(BuildEvent::VertexStarted(pull));
        let mut layer = StatusUpdate::new("b".into(), format!("sha256:{}", "ab".repeat(32)));
        (layer.current, layer.total, layer.started) = (7_500_000, 10_000_000, Some(at(100)));
        self.event(BuildEvent::Status(layer));
        let mut run = Vertex::new("c", "[2/2] RUN 日本語 make all && make install");
        run.started = Some(at(100));
        self.event(BuildEvent::VertexStarted(run));
        self.tick(100);
        let log = LogChunk::new(
            "c".into(),
            LogStream::Stdout,
            &b"cc -o \x1b[31ma\x1b[0m\nld \x07b\n"[..],
        );
        self.event(BuildEvent::Log(log));
        self.tick(1500);
    }
}

#[test]
fn a_wide_terminal() {
    let mut stage = Stage::new(100, 20);
    stage.build();
    assert_eq!(
        stage.look(),
        [
            "$ bk build .",
            "[+] Building 1.5s (1/3)",
            " => [internal] load build definition from Dockerfile                                           0.1s",
            " => [1/2] FROM docker.io/library/busybox:1                                                     1.4s",
            " => => sha256:abababababab [===============>    ] 7.50MB / 10.00MB                             1.4s",
            " => [2/2] RUN 日本語 make all && make install                                                  1.4s",
            " => => # cc -o a",
            " => => # ld ^Gb",
        ]
    );
}

#[test]
fn a_terminal_of_the_usual_size_that_becomes_smaller_and_larger() {
    let mut stage = Stage::new(80, 24);
    stage.build();
    let before = stage.look();
    assert_eq!(
        before.get(5).map(String::as_str),
        Some(" => [2/2] RUN 日本語 make all && make install                              1.4s")
    );
    stage.resize(40, 9);
    stage.tick(1600);
    assert_eq!(
        stage.look(),
        [
            "$ bk build .",
            "[+] Building 1.6s (1/3)",
            " => [internal] load build definit… 0.1s",
            " => [1/2] FROM docker.io/library/… 1.5s",
            " => => sha256:abababababab 7.50MB… 1.5s",
            " => [2/2] RUN 日本語 make all && … 1.5s",
            " => => # cc -o a",
            " => => # ld ^Gb",
        ]
    );
    stage.resize(80, 24);
    stage.tick(1700);
    let after = stage.look();
    assert_eq!(after.first().map(String::as_str), Some("$ bk build ."));
    assert_eq!(after.len(), before.len());
    stage.tty.finish().expect("it takes everything");
    let last = stage.look();
    assert_eq!(
        last.get(1).map(String::as_str),
        Some("[+] Building 1.7s (1/3) CANCELED")
    );
    assert!(!stage.parser.screen().hide_cursor());
}

#[test]
fn a_narrow_terminal() {
    let mut stage = Stage::new(22, 12);
    stage.build();
    assert_eq!(
        stage.look(),
        [
            "$ bk build .",
            "[+] Building 1.5s (1…",
            " => [internal] … 0.1s",
            " => [1/2] FROM … 1.4s",
            " => => sha256:a… 1.4s",
            " => [2/2] RUN …  1.4s",
            " => => # cc -o a",
            " => => # ld ^Gb",
        ]
    );
    assert!(stage.parser.screen().hide_cursor());
    drop(stage.tty);
    let drawn = stage.terminal.drawn();
    stage.parser.process(&drawn);
    assert!(!stage.parser.screen().hide_cursor(), "also when nobody finished");
}
