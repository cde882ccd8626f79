//! The lines and the JSON of `docker buildx` and ours, drawn from the same status stream.
//!
//! The streams in `tests/buildx` are records of a daemon (28.5): `NAME.rawjson` and `NAME.plain` are what `docker buildx
//! history logs --progress rawjson` and `plain` wrote for one build, with names of hosts replaced.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bk_progress::{Plain, RawJson, Renderer};
use bk_proto::{
    control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning},
    ops::{Position, ProgressGroup, Range, SourceInfo},
};
use bk_solve::StatusFold;
use prost_types::Timestamp;
use serde_json::Value;

const BUILDS: [&str; 7] = [
    "success",
    "cached",
    "failing",
    "parallel",
    "platforms",
    "warnings",
    "long",
];

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/buildx")
        .join(name);
    fs::read_to_string(path).expect("the record is there")
}

fn text(value: &Value, key: &str) -> String {
    value
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn number(value: &Value, key: &str) -> i64 {
    value.get(key).and_then(Value::as_i64).unwrap_or_default()
}

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    STANDARD.decode(text(value, key)).expect("base64")
}

fn time(value: &Value, key: &str) -> Option<Timestamp> {
    let text = value.get(key)?.as_str()?;
    Some(text.parse().expect("a time"))
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// A line of the record as the message of the daemon that it was.
fn message(line: &str) -> StatusResponse {
    let value: Value = serde_json::from_str(line).expect("JSON");
    let strings = |value: &Value, key| {
        list(value, key)
            .map(|s| s.as_str().unwrap_or_default().to_owned())
            .collect()
    };
    StatusResponse {
        vertexes: list(&value, "vertexes")
            .map(|v| Vertex {
                digest: text(v, "digest"),
                inputs: strings(v, "inputs"),
                name: text(v, "name"),
                cached: flag(v, "cached"),
                started: time(v, "started"),
                completed: time(v, "completed"),
                error: text(v, "error"),
                progress_group: v.get("progressGroup").map(|g| ProgressGroup {
                    id: text(g, "id"),
                    name: text(g, "name"),
                    weak: flag(g, "weak"),
                }),
            })
            .collect(),
        statuses: list(&value, "statuses")
            .map(|s| VertexStatus {
                id: text(s, "id"),
                vertex: text(s, "vertex"),
                name: text(s, "name"),
                current: number(s, "current"),
                total: number(s, "total"),
                timestamp: time(s, "timestamp"),
                started: time(s, "started"),
                completed: time(s, "completed"),
            })
            .collect(),
        logs: list(&value, "logs")
            .map(|l| VertexLog {
                vertex: text(l, "vertex"),
                timestamp: time(l, "timestamp"),
                stream: number(l, "stream"),
                msg: bytes(l, "data").into(),
            })
            .collect(),
        warnings: list(&value, "warnings")
            .map(|w| VertexWarning {
                vertex: text(w, "vertex"),
                level: number(w, "level"),
                short: bytes(w, "short"),
                detail: list(w, "detail")
                    .map(|d| STANDARD.decode(d.as_str().unwrap_or_default()).expect("base64"))
                    .collect(),
                url: text(w, "url"),
                info: w.get("sourceInfo").map(|s| SourceInfo {
                    filename: text(s, "filename"),
                    data: bytes(s, "data"),
                    ..SourceInfo::default()
                }),
                ranges: list(w, "range").map(range).collect(),
            })
            .collect(),
    }
}

fn range(value: &Value) -> Range {
    let position = |key| {
        value.get(key).map(|p| Position {
            line: i32::try_from(number(p, "line")).expect("a line"),
            ..Position::default()
        })
    };
    Range {
        start: position("start"),
        end: position("end"),
    }
}

#[derive(Clone, Default)]
struct Drawn(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Drawn {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics").extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a renderer makes of the record. All of it comes at once, as it does for `history logs`.
fn drawn(build: &str, renderer: impl FnOnce(Drawn) -> Box<dyn Renderer>) -> String {
    let out = Drawn::default();
    let mut renderer = renderer(out.clone());
    let now = Instant::now();
    renderer.tick(now).expect("a vector takes everything");
    let mut fold = StatusFold::new();
    let mut events = Vec::new();
    for line in file(&format!("{build}.rawjson")).lines() {
        fold.apply(message(line), &mut events);
    }
    for event in &events {
        renderer.event(event).expect("a vector takes everything");
    }
    renderer
        .tick(now + Duration::from_secs(1))
        .expect("a vector takes everything");
    renderer.finish().expect("a vector takes everything");
    let bytes = out.0.lock().expect("nobody panics").clone();
    String::from_utf8(bytes).expect("only UTF-8 is drawn")
}

/// A line without its times, and without escape sequences, which we neutralise.
fn timeless(line: &str) -> String {
    let line = bk_progress::neutralise_line(line);
    let words = line.split(' ').filter(|word| {
        let bare = word.strip_suffix('s').unwrap_or(word);
        // A status that took no time at all has none.
        !(bare.contains('.') && bare.parse::<f64>().is_ok())
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The lines of each block, by the block's name, and the order of the names.
fn blocks(text: &str) -> (Vec<String>, BTreeMap<String, Vec<String>>) {
    let (mut names, mut blocks) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    let mut by_number = BTreeMap::<String, String>::new();
    for line in text.lines() {
        if line == "------" {
            // The report of failures: see the test of their lines.
            break;
        }
        let Some((number, rest)) = line.strip_prefix('#').and_then(|l| l.split_once(' ')) else {
            assert_eq!(line, "");
            continue;
        };
        let name = by_number.entry(number.to_owned()).or_insert_with(|| {
            names.push(rest.to_owned());
            rest.to_owned()
        });
        if rest != name && rest != "..." {
            // A carriage return begins a line of its own in ours.
            let parts = rest.split('\r').filter(|part| !part.is_empty());
            blocks
                .entry(name.clone())
                .or_default()
                .extend(parts.map(timeless));
        }
    }
    (names, blocks)
}

/// When each step ended, by its name.
fn ends(build: &str) -> BTreeMap<String, String> {
    file(&format!("{build}.rawjson"))
        .lines()
        .flat_map(|line| {
            let message: Value = serde_json::from_str(line).expect("JSON");
            list(&message, "vertexes")
                .map(|v| (text(v, "name"), text(v, "completed")))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn lines_are_those_of_buildx() {
    for build in BUILDS {
        let ours = drawn(build, |out| Box::new(Plain::new(out)));
        let theirs = file(&format!("{build}.plain"));
        let (our_names, our_blocks) = blocks(&ours);
        let (their_names, their_blocks) = blocks(&theirs);
        for (name, lines) in &their_blocks {
            assert_eq!(our_blocks.get(name), Some(lines), "{build}: {name}");
        }
        assert_eq!(our_blocks.len(), their_blocks.len(), "{build}");
        // Steps that end at the very same time have any order in theirs.
        let ends = ends(build);
        let order = |names: &[String]| -> Vec<Option<String>> {
            names.iter().map(|name| ends.get(name).cloned()).collect()
        };
        assert_eq!(
            order(&our_names),
            order(&their_names),
            "{build}: the same numbers"
        );
    }
}

#[test]
fn raw_json_is_that_of_buildx() {
    for build in BUILDS {
        let ours: Vec<Value> = drawn(build, |out| Box::new(RawJson::new(out)))
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        // Theirs has a line for each message of the daemon, ours one for each thing in it.
        let mut theirs = Vec::new();
        for line in file(&format!("{build}.rawjson")).lines() {
            let message: Value = serde_json::from_str(line).expect("JSON");
            for kind in ["vertexes", "statuses", "logs", "warnings"] {
                for entry in list(&message, kind) {
                    let mut entry = entry.clone();
                    if let Some(source) = entry.get_mut("sourceInfo").and_then(Value::as_object_mut) {
                        // We do not keep which language the source is in.
                        source.remove("language");
                    }
                    theirs.push(serde_json::json!({ kind: [entry] }));
                }
            }
        }
        let mut rest = theirs.iter();
        for line in &ours {
            assert!(
                rest.any(|their| their == line),
                "{build}: not in their order: {line}"
            );
        }
        for line in theirs.iter().filter(|line| line.get("vertexes").is_none()) {
            let count = |list: &[Value]| list.iter().filter(|l| *l == line).count();
            assert_eq!(count(&ours), count(&theirs), "{build}: {line}");
        }
        // The last word about each vertex is the same.
        let last = |lines: &[Value]| -> BTreeMap<String, Value> {
            lines
                .iter()
                .flat_map(|line| list(line, "vertexes"))
                .map(|vertex| (text(vertex, "digest"), vertex.clone()))
                .collect()
        };
        assert_eq!(last(&ours), last(&theirs), "{build}");
    }
}
