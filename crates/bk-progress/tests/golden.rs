//! Real builds, recorded as events, drawn by each renderer and compared with what they drew when somebody last looked.
//!
//! `BK_BLESS=1` writes the drawings anew. A recording is the output of `bk build --progress json`, with names of hosts
//! and paths replaced.

use std::{
    env, fs,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bk_build::BuildEvent;
use bk_progress::{Fold, Mode, Output, Renderer, Size, Tally, Theme, TtyOptions};

const BUILDS: [&str; 8] = [
    "success",
    "cached",
    "failing",
    "parallel",
    "platforms",
    "warnings",
    "long",
    "oldest",
];

/// The events of a recorded build.
fn recorded(name: &str) -> Vec<BuildEvent> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/recorded")
        .join(format!("{name}.json"));
    let text = fs::read_to_string(path).expect("the recording is there");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(r#"{"event":"schema","version":1}"#));
    lines
        .map(|line| serde_json::from_str(line).expect("an event"))
        .collect()
}

/// When an event happened, as far as it says so.
fn when(event: &BuildEvent) -> Option<SystemTime> {
    match event {
        BuildEvent::Started { at, .. } | BuildEvent::Completed { at, .. } => Some(*at),
        BuildEvent::VertexStarted(v)
        | BuildEvent::VertexCached(v)
        | BuildEvent::VertexCompleted(v)
        | BuildEvent::VertexFailed(v) => v.started.max(v.completed),
        BuildEvent::Status(s) => s.timestamp.max(s.completed),
        BuildEvent::Log(l) => l.timestamp,
        _ => None,
    }
}

/// Plays a build as it happened: a tick behind each event, and one every 100 ms in between. `look` sees each tick.
fn play(
    events: &[BuildEvent],
    renderer: &mut dyn Renderer,
    mut look: impl FnMut(Duration),
) -> io::Result<()> {
    let tick = bk_progress::limits::TICK;
    let clock = Instant::now();
    let origin = events.iter().find_map(when).expect("some event has a time");
    let mut now = Duration::ZERO;
    for event in events {
        let at = when(event)
            .and_then(|at| at.duration_since(origin).ok())
            .unwrap_or(now);
        while now + tick < at {
            now += tick;
            renderer.tick(clock + now)?;
            look(now);
        }
        now = now.max(at);
        renderer.event(event)?;
        renderer.tick(clock + now)?;
        look(now);
    }
    renderer.finish()
}

/// What was drawn, readable while the renderer owns the writer.
#[derive(Clone, Default)]
struct Drawn(Arc<Mutex<Vec<u8>>>);

impl Drawn {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Drawn {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compares with the drawing that is kept, or keeps it.
fn compare(name: &str, drawn: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if env::var_os("BK_BLESS").is_some() {
        fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
        fs::write(&path, drawn).expect("it can be written");
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let same = kept
        .lines()
        .zip(drawn.lines())
        .take_while(|(a, b)| a == b)
        .count();
    assert!(
        kept == drawn,
        "{} differs from line {} on: kept {:?}, drawn {:?}",
        path.display(),
        same + 1,
        kept.lines().nth(same),
        drawn.lines().nth(same)
    );
}

fn output(columns: u16, rows: u16, fold: Fold) -> Output {
    let mut options = TtyOptions::default();
    options.size = Size { columns, rows };
    options.theme = Theme::none();
    options.reflows = false;
    let mut output = Output::default();
    output.terminal = Some(options);
    output.fold = fold;
    output
}

#[test]
fn lines_are_drawn_as_before() {
    for build in BUILDS {
        let events = recorded(build);
        for (mode, fold) in [
            (Mode::Plain, Fold::None),
            (Mode::Ordered, Fold::None),
            (Mode::Grouped, Fold::GitHub),
            (Mode::Quiet, Fold::None),
            (Mode::RawJson, Fold::None),
        ] {
            let drawn = Drawn::default();
            let mut renderer = mode.renderer(drawn.clone(), &output(80, 24, fold));
            play(&events, &mut *renderer, |_| {}).expect("a vector takes everything");
            let text = String::from_utf8(drawn.take()).expect("only UTF-8 is drawn");
            if mode == Mode::RawJson {
                assert!(text.lines().all(|line| line.starts_with('{')), "{build}");
            }
            compare(&format!("{build}.{mode}.txt"), &text);
        }
    }
}

#[test]
fn our_own_json_is_the_recording() {
    for build in BUILDS {
        let drawn = Drawn::default();
        let mut renderer = Mode::Json.renderer(drawn.clone(), &Output::default());
        play(&recorded(build), &mut *renderer, |_| {}).expect("a vector takes everything");
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/recorded")
            .join(format!("{build}.json"));
        let kept = fs::read_to_string(path).expect("the recording is there");
        assert!(kept.as_bytes() == drawn.take(), "{build}");
    }
}

#[test]
fn grouped_steps_are_marked_for_each_service() {
    let events = recorded("parallel");
    for (fold, name) in [(Fold::GitLab, "gitlab"), (Fold::Buildkite, "buildkite")] {
        let drawn = Drawn::default();
        let mut renderer = Mode::Grouped.renderer(drawn.clone(), &output(80, 24, fold));
        play(&events, &mut *renderer, |_| {}).expect("a vector takes everything");
        let text = String::from_utf8(drawn.take()).expect("only UTF-8 is drawn");
        compare(
            &format!("parallel.{name}.txt"),
            &text.replace('\u{1b}', "^[").replace('\r', "^M"),
        );
    }
}

#[test]
fn builds_are_summed_up_as_before() {
    let mut text = String::new();
    for build in BUILDS {
        let mut tally = Tally::new();
        recorded(build).iter().for_each(|event| tally.event(event));
        text.push_str(&format!(
            "{build}: {}\n{}\n",
            tally.summary(),
            tally.critical_path()
        ));
    }
    compare("summaries.txt", &text);
}

/// The rows of an emulated terminal, without spaces at their ends.
fn dump(parser: &vt100::Parser) -> String {
    let columns = parser.screen().size().1;
    let rows: Vec<String> = parser
        .screen()
        .rows(0, columns)
        .map(|row| row.trim_end().to_owned())
        .collect();
    format!("{}\n", rows.join("\n").trim_end())
}

#[test]
fn terminals_show_the_same_as_before() {
    for build in BUILDS {
        let drawn = Drawn::default();
        let (columns, rows) = (90, 24);
        let mut renderer = Mode::Tty.renderer(drawn.clone(), &output(columns, rows, Fold::None));
        let mut parser = vt100::Parser::new(rows, columns, 0);
        let mut pictures = String::new();
        let mut next = Duration::from_millis(500);
        play(&recorded(build), &mut *renderer, |now| {
            // What a terminal driver makes of it.
            let bytes = String::from_utf8(drawn.take()).expect("only UTF-8 is drawn");
            parser.process(bytes.as_bytes());
            if now >= next {
                next = now + Duration::from_millis(1000);
                pictures.push_str(&format!("-- after {:.1}s\n{}", now.as_secs_f64(), dump(&parser)));
            }
        })
        .expect("a vector takes everything");
        let last = String::from_utf8(drawn.take()).expect("only UTF-8 is drawn");
        let (_, last) = last.rsplit_once("\u{1b}[?25h").unwrap_or(("", &last));
        compare(
            &format!("{build}.tty.txt"),
            &format!("{pictures}-- at the end\n{last}"),
        );
    }
}
