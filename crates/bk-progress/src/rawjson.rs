//! Draws each event as one JSON object on its own line, in the schema of `docker buildx --progress rawjson`.
//!
//! The schema is that of a status message: `vertexes`, `statuses`, `logs` and `warnings`, each a list; empty members
//! are left out, times are RFC 3339 with nanoseconds in UTC, bytes are base64. Events without a place in the schema
//! (start and end of the build, transfers counted on our side) draw nothing.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bk_build::{BuildEvent, LogChunk, SourceSnippet, StatusUpdate, Vertex, Warning};
use serde::{Serialize, Serializer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{Renderer, out::Out};

/// Draws each event as one JSON object on its own line.
pub struct RawJson<W> {
    out: Out<W>,
}

impl<W: Write> RawJson<W> {
    /// Draws to `out`.
    pub fn new(out: W) -> Self {
        Self { out: Out::new(out) }
    }

    fn line(&mut self, message: &Message<'_>) -> io::Result<()> {
        serde_json::to_writer(self.out.buffer(), message)?;
        self.out.push("\n");
        self.out.flush()
    }
}

impl<W: Write> Renderer for RawJson<W> {
    fn event(&mut self, event: &BuildEvent) -> io::Result<()> {
        let retry = event.retry_warning();
        let message = match event {
            // The same is told by the event of its end, which follows.
            BuildEvent::VertexStarted(v) if v.completed.is_some() => return Ok(()),
            BuildEvent::VertexQueued(v)
            | BuildEvent::VertexStarted(v)
            | BuildEvent::VertexCached(v)
            | BuildEvent::VertexCompleted(v)
            | BuildEvent::VertexFailed(v) => Message {
                vertexes: Some([v.into()]),
                ..Message::default()
            },
            BuildEvent::Status(s) => Message {
                statuses: Some([s.into()]),
                ..Message::default()
            },
            BuildEvent::Log(l) => Message {
                logs: Some([l.into()]),
                ..Message::default()
            },
            BuildEvent::Warning(w) => Message {
                warnings: Some([w.into()]),
                ..Message::default()
            },
            BuildEvent::Retrying { .. } => Message {
                warnings: retry.as_ref().map(|w| [w.into()]),
                ..Message::default()
            },
            _ => return Ok(()),
        };
        self.line(&message)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A warning as it stands in the schema, and in the metadata files of `docker buildx`.
pub fn warning_json(warning: &Warning) -> serde_json::Value {
    // Strings, numbers and lists of them: nothing that could not be written.
    serde_json::to_value(JsonWarning::from(warning)).unwrap_or_default()
}

/// One line. An event touches one thing, so each list has at most one member.
#[derive(Default, Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertexes: Option<[JsonVertex<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statuses: Option<[JsonStatus<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<[JsonLog<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<[JsonWarning<'a>; 1]>,
}

#[derive(Serialize)]
struct JsonVertex<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    digest: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Time>,
    #[serde(skip_serializing_if = "is_false")]
    cached: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
    #[serde(rename = "progressGroup", skip_serializing_if = "Option::is_none")]
    group: Option<JsonGroup<'a>>,
}

#[derive(Serialize)]
struct JsonGroup<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    weak: bool,
}

#[derive(Serialize)]
struct JsonStatus<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    vertex: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    total: i64,
    current: i64,
    timestamp: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Time>,
}

#[derive(Serialize)]
struct JsonLog<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    vertex: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    stream: i64,
    data: Base64<'a>,
    timestamp: Time,
}

#[derive(Serialize)]
struct JsonWarning<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertex: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    level: i64,
    #[serde(skip_serializing_if = "Base64::is_empty")]
    short: Base64<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<Base64<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source: Option<JsonSource<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<JsonRange>,
}

#[derive(Serialize)]
struct JsonSource<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    filename: &'a str,
    #[serde(skip_serializing_if = "Base64::is_empty")]
    data: Base64<'a>,
}

#[derive(Serialize)]
struct JsonRange {
    start: JsonPosition,
    end: JsonPosition,
}

#[derive(Serialize)]
struct JsonPosition {
    #[serde(skip_serializing_if = "is_zero_line")]
    line: i32,
}

impl<'a> From<&'a Vertex> for JsonVertex<'a> {
    fn from(v: &'a Vertex) -> Self {
        Self {
            digest: &v.id,
            inputs: v.inputs.iter().map(|i| &**i).collect(),
            name: &v.name,
            started: v.started.map(|t| Time(Some(t))),
            completed: v.completed.map(|t| Time(Some(t))),
            cached: v.cached,
            error: v.error.as_deref().unwrap_or_default(),
            group: v.group.as_ref().map(|g| JsonGroup {
                id: &g.id,
                name: &g.name,
                weak: g.weak,
            }),
        }
    }
}

impl<'a> From<&'a StatusUpdate> for JsonStatus<'a> {
    fn from(s: &'a StatusUpdate) -> Self {
        Self {
            id: &s.id,
            vertex: &s.vertex,
            name: &s.name,
            total: s.total,
            current: s.current,
            timestamp: Time(s.timestamp),
            started: s.started.map(|t| Time(Some(t))),
            completed: s.completed.map(|t| Time(Some(t))),
        }
    }
}

impl<'a> From<&'a LogChunk> for JsonLog<'a> {
    fn from(l: &'a LogChunk) -> Self {
        Self {
            vertex: &l.vertex,
            stream: l.stream.to_wire(),
            data: Base64(&l.data),
            timestamp: Time(l.timestamp),
        }
    }
}

impl<'a> From<&'a Warning> for JsonWarning<'a> {
    fn from(w: &'a Warning) -> Self {
        let source = w.source.as_ref();
        Self {
            vertex: w.vertex.as_deref(),
            level: w.level,
            short: Base64(w.short.as_bytes()),
            detail: w.detail.iter().map(|d| Base64(d.as_bytes())).collect(),
            url: &w.url,
            source: source.map(|s| JsonSource {
                filename: &s.filename,
                data: Base64(&s.data),
            }),
            range: source.map(ranges).unwrap_or_default(),
        }
    }
}

fn ranges(source: &SourceSnippet) -> Vec<JsonRange> {
    let at = |line| JsonPosition { line };
    source
        .ranges
        .iter()
        .map(|r| JsonRange {
            start: at(r.start),
            end: at(r.end),
        })
        .collect()
}

/// A time as Go writes it; `None`, and anything outside the years that RFC 3339 has, is Go's zero time.
struct Time(Option<SystemTime>);

/// What Go writes for a time that was never set.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.and_then(rfc3339) {
            Some(text) => serializer.serialize_str(&text),
            None => serializer.serialize_str(ZERO_TIME),
        }
    }
}

fn rfc3339(at: SystemTime) -> Option<String> {
    // Not `OffsetDateTime::from`: it panics far outside the years that a daemon should send.
    let (magnitude, past) = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (after, false),
        Err(e) => (e.duration(), true),
    };
    let offset = signed(magnitude)?;
    let offset = if past { -offset } else { offset };
    OffsetDateTime::UNIX_EPOCH
        .checked_add(offset)?
        .format(&Rfc3339)
        .ok()
}

fn signed(duration: Duration) -> Option<time::Duration> {
    time::Duration::try_from(duration).ok()
}

struct Base64<'a>(&'a [u8]);

impl Base64<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn is_zero_line(value: &i32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests;
