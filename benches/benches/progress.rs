//! Drawing: a million lines of output by each renderer, and a build of 5,000 vertices on a terminal.
//!
//! What the second prints is processor time; its share of one core is that time divided by the time that the build takes,
//! which is simulated.

use std::{
    hint::black_box,
    io,
    time::{Duration, Instant, SystemTime},
};

use bk_benches::sizes;
use bk_build::{BuildEvent, LogChunk, LogStream, Vertex};
use bk_progress::{Mode, Output, Renderer, Size, Tally, TtyOptions};
use bytes::Bytes;
use criterion::{Criterion, Throughput};

/// Lines in a message, as a daemon sends them that gathers output for 150 ms.
const LINES: usize = 50;
/// What the simulated build does in a second.
const VERTICES_A_SECOND: u64 = 50;
/// Steps of it that run at the same time.
const PARALLEL: usize = 20;

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis)
}

fn vertex(id: usize, started: u64, completed: Option<u64>) -> Vertex {
    let mut vertex = Vertex::new(
        format!("sha256:{id:064}"),
        format!("[stage {id}/5000] RUN make -C packages/part{id} all install"),
    );
    vertex.started = Some(at(started));
    vertex.completed = completed.map(at);
    vertex
}

fn log(id: usize, millis: u64, lines: &Bytes) -> BuildEvent {
    let vertex = format!("sha256:{id:064}").into();
    BuildEvent::Log(LogChunk::new(vertex, LogStream::Stdout, lines.clone()).at(Some(at(millis))))
}

fn output() -> Output {
    let mut options = TtyOptions::default();
    options.size = Size {
        columns: 160,
        rows: 50,
    };
    let mut output = Output::default();
    output.terminal = Some(options);
    output
}

/// Draws `count` lines of one step, with the ticks of a program.
fn lines(mode: Mode, count: usize, lines: &Bytes) -> io::Result<()> {
    let mut renderer = mode.renderer(io::sink(), &output());
    let clock = Instant::now();
    renderer.event(&BuildEvent::VertexStarted(vertex(0, 0, None)))?;
    for message in 0..count / LINES {
        let millis = message as u64;
        renderer.event(&log(0, millis, lines))?;
        renderer.tick(clock + Duration::from_millis(millis))?;
    }
    renderer.event(&BuildEvent::VertexCompleted(vertex(0, 0, Some(1))))?;
    renderer.finish()
}

/// Draws a build of many vertices; returns how long it would have taken.
fn build(renderer: &mut dyn Renderer, vertices: usize, lines: &Bytes) -> io::Result<Duration> {
    let clock = Instant::now();
    let step = 1000 / VERTICES_A_SECOND;
    let mut millis = 0;
    for id in 0..vertices + PARALLEL {
        millis = id as u64 * step;
        if id < vertices {
            renderer.event(&BuildEvent::VertexStarted(vertex(id, millis, None)))?;
            renderer.tick(clock + Duration::from_millis(millis))?;
            renderer.event(&log(id, millis, lines))?;
        }
        if let Some(ended) = id.checked_sub(PARALLEL) {
            let started = ended as u64 * step;
            renderer.event(&BuildEvent::VertexCompleted(vertex(ended, started, Some(millis))))?;
        }
        renderer.tick(clock + Duration::from_millis(millis))?;
    }
    renderer.finish()?;
    Ok(Duration::from_millis(millis))
}

/// Memory that the process has now, in KiB, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[expect(clippy::print_stdout, reason = "a benchmark is a program for people")]
fn progress(c: &mut Criterion) {
    let count = sizes().messages * 200;
    let text = Bytes::from("compiling something with a rather long name\n".repeat(LINES));
    let mut group = c.benchmark_group("progress");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(count as u64));
    for mode in [
        Mode::Plain,
        Mode::Ordered,
        Mode::Tty,
        Mode::Quiet,
        Mode::Json,
        Mode::RawJson,
    ] {
        lines(mode, count / 10, &text).expect("a sink takes everything");
        let before = resident();
        group.bench_function(format!("lines/{mode}"), |b| {
            b.iter(|| lines(mode, count, &text).expect("a sink takes everything"));
        });
        if let (Some(before), Some(after)) = (before, resident()) {
            println!("lines/{mode}: {before} KiB after a tenth of them, {after} KiB after all");
        }
    }
    let vertices = sizes().messages;
    let few = Bytes::from_static(b"one line\nanother line\n");
    group.throughput(Throughput::Elements(vertices as u64));
    let mut took = Duration::ZERO;
    let mut simulated = Duration::ZERO;
    group.bench_function("terminal", |b| {
        b.iter(|| {
            let mut renderer = Mode::Tty.renderer(io::sink(), &output());
            let begun = Instant::now();
            simulated = build(&mut *renderer, vertices, &few).expect("a sink takes everything");
            took = begun.elapsed();
        });
    });
    let share = took.as_secs_f64() / simulated.as_secs_f64() * 100.0;
    println!("terminal: {took:?} for a build of {simulated:?}: {share:.2} % of one core");
    group.bench_function("tally", |b| {
        let event = BuildEvent::VertexCompleted(vertex(1, 0, Some(1)));
        let mut tally = Tally::new();
        b.iter(|| tally.event(black_box(&event)));
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    progress(&mut criterion);
    criterion.final_summary();
}
