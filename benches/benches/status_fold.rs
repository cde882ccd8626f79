//! Folding the status messages of a chatty build into events. What it prints is messages a second.

use bk_benches::sizes;
use bk_proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus};
use bk_solve::StatusFold;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use prost_types::Timestamp;

/// Vertices of the build.
const VERTICES: usize = 50;

fn at(seconds: usize) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(0),
        nanos: 0,
    })
}

/// One message: some vertices again, a progress bar, and a few lines of output.
fn message(number: usize, lines: &Bytes) -> StatusResponse {
    let digest = |n: usize| format!("sha256:{:064}", n % VERTICES);
    let vertex = |n: usize| Vertex {
        digest: digest(n),
        name: format!("[{}/{VERTICES}] RUN make part{}", n % VERTICES, n % VERTICES),
        inputs: vec![digest(n + 1)],
        started: at(1),
        completed: if number.is_multiple_of(7) {
            at(number)
        } else {
            None
        },
        ..Vertex::default()
    };
    let status = VertexStatus {
        id: "extracting".to_owned(),
        vertex: digest(number),
        current: 5,
        total: 9,
        ..VertexStatus::default()
    };
    let log = VertexLog {
        vertex: digest(number),
        timestamp: at(number),
        stream: 1,
        msg: lines.clone(),
    };
    StatusResponse {
        vertexes: (number..number + 4).map(vertex).collect(),
        statuses: vec![status; 3],
        logs: vec![log; 2],
        warnings: Vec::new(),
    }
}

fn status_fold(c: &mut Criterion) {
    let count = sizes().messages;
    let lines = Bytes::from("compiling something with a rather long name\n".repeat(20));
    let messages: Vec<StatusResponse> = (0..count).map(|number| message(number, &lines)).collect();
    let mut group = c.benchmark_group("status_fold");
    group
        .sample_size(20)
        .throughput(Throughput::Elements(count as u64));
    group.bench_function("build", |b| {
        let fold = |messages: Vec<StatusResponse>| {
            let (mut fold, mut events, mut total) = (StatusFold::new(), Vec::new(), 0);
            for message in messages {
                fold.apply(message, &mut events);
                total += events.drain(..).count();
            }
            total
        };
        assert!(fold(messages.clone()) >= count * 5);
        b.iter_batched(|| messages.clone(), fold, BatchSize::LargeInput);
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    status_fold(&mut criterion);
    criterion.final_summary();
}
