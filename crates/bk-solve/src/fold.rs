//! Status messages of the daemon, folded into events.
//!
//! The daemon repeats vertices in every state and out of step with their logs; an event is made only when something
//! changed. What is kept is one small record a vertex and the last output of the running ones.

use std::{
    collections::{HashMap, VecDeque},
    time::SystemTime,
};

use bk_build::{
    BuildEvent, LineRange, LogChunk, LogStream, ProgressGroup, SourceSnippet, StatusUpdate, Vertex, VertexId,
    Warning, WarningKind, limits as build_limits,
};
use bk_proto::control::{
    StatusResponse, Vertex as WireVertex, VertexLog, VertexStatus as WireStatus, VertexWarning,
};
use prost_types::Timestamp;

use crate::{
    advise,
    limits::{LOG_TAIL_BYTES, MAX_STEPS_HELD},
};

/// What is kept of a step beside its texts, in bytes, about.
const KNOWN_BYTES: usize = 256;

/// Folds the Status messages of one build.
#[derive(Debug, Default)]
pub struct StatusFold {
    vertices: HashMap<VertexId, Known>,
    /// Bytes of what is remembered of steps, about.
    held: usize,
}

#[derive(Debug, Default)]
struct Known {
    vertex: Vertex,
    tail: VecDeque<u8>,
    /// Whether the daemon left a part of the output out.
    clipped: bool,
}

impl StatusFold {
    /// A fold that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one message and appends what it means to `events`, in the order in which a display needs it: vertices,
    /// statuses, logs, warnings.
    pub fn apply(&mut self, message: StatusResponse, events: &mut Vec<BuildEvent>) {
        for vertex in message.vertexes {
            self.vertex(vertex, events);
        }
        for status in message.statuses {
            events.push(BuildEvent::Status(self.status(status)));
        }
        for log in message.logs {
            events.push(BuildEvent::Log(self.log(log)));
        }
        for warning in message.warnings {
            events.push(BuildEvent::Warning(self.warning(warning)));
        }
    }

    /// A vertex by its key.
    pub fn get(&self, id: &str) -> Option<&Vertex> {
        self.vertices.get(id).map(|k| &k.vertex)
    }

    /// The vertex that failed by itself (not by cancellation), the one that ended first when several did.
    pub fn failed(&self) -> Option<&Vertex> {
        self.vertices
            .values()
            .map(|k| &k.vertex)
            .filter(|v| v.error.is_some() && !v.is_cancelled())
            .min_by_key(|v| v.completed)
    }

    /// The last lines that a vertex wrote, at most [`build_limits::LOG_TAIL_LINES`].
    pub fn log_tail(&self, id: &str) -> Vec<String> {
        let Some(known) = self.vertices.get(id) else {
            return Vec::new();
        };
        let bytes: Vec<u8> = known.tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<String> = text.lines().map(cut).collect();
        let surplus = lines.len().saturating_sub(build_limits::LOG_TAIL_LINES);
        lines.drain(..surplus);
        lines
    }

    /// Whether the daemon said that it left out a part of what a vertex wrote.
    pub fn is_clipped(&self, id: &str) -> bool {
        self.vertices.get(id).is_some_and(|k| k.clipped)
    }

    /// The shared key text of a vertex, so that its logs do not each hold a copy.
    fn intern(&self, id: String) -> VertexId {
        self.vertices
            .get_key_value(id.as_str())
            .map_or_else(|| id.into(), |(k, _)| k.clone())
    }

    fn vertex(&mut self, wire: WireVertex, events: &mut Vec<BuildEvent>) {
        let id = self.intern(wire.digest);
        let mut next = Vertex::new(id.clone(), wire.name);
        next.inputs = wire.inputs.into_iter().map(|i| self.intern(i)).collect();
        next.group = wire
            .progress_group
            .map(|g| ProgressGroup::new(g.id, g.name, g.weak));
        next.started = time(wire.started);
        next.completed = time(wire.completed);
        next.cached = wire.cached;
        next.error = Some(wire.error).filter(|e| !e.is_empty());

        let seen = self.vertices.get(&id).map(|k| k.vertex.clone());
        if let Some(old) = &seen {
            if next.started.is_none() {
                // A late announcement does not take a run back.
                next.started = old.started;
                next.completed = next.completed.or(old.completed);
                next.cached |= old.cached;
                next.error = next.error.or_else(|| old.error.clone());
            }
            if next.name.is_empty() {
                next.name.clone_from(&old.name);
            }
        }
        let old = seen.unwrap_or_default();
        let announced_before = self.vertices.contains_key(&id);
        let restarted = next.started.is_some() && next.started != old.started;
        let ended = next.completed.is_some()
            && (restarted || next.completed != old.completed || next.error != old.error);
        if self.make_room(size(&next), if announced_before { size(&old) } else { 0 }) {
            self.vertices.entry(id.clone()).or_default().vertex = next.clone();
        }
        if restarted && !next.cached {
            events.push(BuildEvent::VertexStarted(next.clone()));
        }
        if next.error.is_some() && ended {
            events.push(BuildEvent::VertexFailed(next));
        } else if next.cached && (!old.cached || restarted) {
            events.push(BuildEvent::VertexCached(next));
        } else if ended && !next.cached {
            if let Some(known) = self.vertices.get_mut(&id) {
                self.held = self.held.saturating_sub(known.tail.len());
                known.tail = VecDeque::new();
            }
            events.push(BuildEvent::VertexCompleted(next));
        } else if !announced_before && next.started.is_none() {
            events.push(BuildEvent::VertexQueued(next));
        }
    }

    /// Counts `new` bytes that take the place of `old` ones; says whether there is room for them.
    fn make_room(&mut self, new: usize, old: usize) -> bool {
        let held = self.held.saturating_sub(old) + new;
        let fits = held <= MAX_STEPS_HELD;
        if fits {
            self.held = held;
        }
        fits
    }

    fn status(&self, wire: WireStatus) -> StatusUpdate {
        let mut status = StatusUpdate::new(self.intern(wire.vertex), wire.id);
        status.name = wire.name;
        status.current = wire.current;
        status.total = wire.total;
        status.timestamp = time(wire.timestamp);
        status.started = time(wire.started);
        status.completed = time(wire.completed);
        status
    }

    fn log(&mut self, wire: VertexLog) -> LogChunk {
        let id = self.intern(wire.vertex);
        let keep = &wire.msg[wire.msg.len().saturating_sub(LOG_TAIL_BYTES)..];
        let tail = self.vertices.get(&id).map_or(0, |known| known.tail.len());
        let fits = self.make_room((tail + keep.len()).min(LOG_TAIL_BYTES), tail);
        if let Some(known) = self.vertices.get_mut(&id).filter(|_| fits) {
            known.clipped |= advise::is_clipped(&wire.msg);
            known.tail.extend(keep);
            let surplus = known.tail.len().saturating_sub(LOG_TAIL_BYTES);
            known.tail.drain(..surplus);
        }
        LogChunk::new(id, LogStream::from_wire(wire.stream), wire.msg).at(time(wire.timestamp))
    }

    fn warning(&self, wire: VertexWarning) -> Warning {
        let mut warning = Warning::new(
            WarningKind::Daemon,
            String::from_utf8_lossy(&wire.short).into_owned(),
        );
        warning.vertex = Some(self.intern(wire.vertex));
        warning.level = wire.level;
        warning.detail = wire
            .detail
            .iter()
            .map(|d| String::from_utf8_lossy(d).into_owned())
            .collect();
        warning.url = wire.url;
        warning.source = wire.info.map(|info| {
            let ranges = wire
                .ranges
                .iter()
                .filter_map(|r| {
                    let start = r.start.as_ref()?.line;
                    let end = r.end.as_ref().map_or(start, |p| p.line.max(start));
                    Some(LineRange { start, end })
                })
                .collect();
            SourceSnippet::new(info.filename, info.data, ranges)
        });
        warning
    }
}

/// A daemon's time; `None` when it is absent or cannot be represented.
fn time(stamp: Option<Timestamp>) -> Option<SystemTime> {
    stamp.and_then(|t| SystemTime::try_from(t).ok())
}

/// One line of a tail, cut at a character when it is too long.
fn cut(line: &str) -> String {
    if line.len() <= build_limits::LOG_TAIL_LINE_BYTES {
        return line.to_owned();
    }
    let mut end = build_limits::LOG_TAIL_LINE_BYTES;
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &line[..end])
}

/// What is kept of a step, in bytes, about.
fn size(vertex: &Vertex) -> usize {
    let inputs: usize = vertex.inputs.iter().map(|i| i.len() + KNOWN_BYTES).sum();
    let error = vertex.error.as_ref().map_or(0, String::len);
    vertex.id.len() + vertex.name.len() + error + inputs + KNOWN_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    fn vertex(digest: &str, started: Option<Timestamp>, completed: Option<Timestamp>) -> WireVertex {
        WireVertex {
            digest: digest.to_owned(),
            name: format!("n-{digest}"),
            started,
            completed,
            ..Default::default()
        }
    }

    fn apply(fold: &mut StatusFold, vertexes: Vec<WireVertex>) -> Vec<&'static str> {
        let mut events = Vec::new();
        fold.apply(
            StatusResponse {
                vertexes,
                ..Default::default()
            },
            &mut events,
        );
        events
            .iter()
            .map(|e| match e {
                BuildEvent::VertexQueued(_) => "queued",
                BuildEvent::VertexStarted(_) => "started",
                BuildEvent::VertexCached(_) => "cached",
                BuildEvent::VertexCompleted(_) => "completed",
                BuildEvent::VertexFailed(_) => "failed",
                _ => "other",
            })
            .collect()
    }

    #[test]
    fn a_life_is_told_once() {
        let mut fold = StatusFold::new();
        assert_eq!(apply(&mut fold, vec![vertex("a", None, None)]), ["queued"]);
        assert_eq!(apply(&mut fold, vec![vertex("a", None, None)]), [""; 0]);
        assert_eq!(apply(&mut fold, vec![vertex("a", at(1), None)]), ["started"]);
        assert_eq!(apply(&mut fold, vec![vertex("a", None, None)]), [""; 0]);
        assert_eq!(apply(&mut fold, vec![vertex("a", at(1), at(2))]), ["completed"]);
        assert_eq!(apply(&mut fold, vec![vertex("a", at(1), at(2))]), [""; 0]);
        // A second run of the same vertex.
        assert_eq!(apply(&mut fold, vec![vertex("a", at(3), None)]), ["started"]);
        assert_eq!(apply(&mut fold, vec![vertex("a", at(3), at(4))]), ["completed"]);
        // Everything at once.
        assert_eq!(
            apply(&mut fold, vec![vertex("b", at(3), at(4))]),
            ["started", "completed"]
        );
    }

    #[test]
    fn cached_and_failed() {
        let mut fold = StatusFold::new();
        let mut cached = vertex("c", at(1), at(1));
        cached.cached = true;
        assert_eq!(apply(&mut fold, vec![cached.clone(), cached]), ["cached"]);
        let mut failed = vertex("f", at(1), at(2));
        failed.error = "boom".to_owned();
        assert_eq!(
            apply(&mut fold, vec![vertex("f", at(1), None), failed.clone(), failed]),
            ["started", "failed"]
        );
        assert_eq!(fold.failed().map(|v| v.name.as_str()), Some("n-f"));
    }

    #[test]
    fn tails_are_bounded_and_end_with_success() {
        let mut fold = StatusFold::new();
        apply(&mut fold, vec![vertex("a", at(1), None)]);
        let mut events = Vec::new();
        for i in 0..5000 {
            let msg = format!("line {i}\n").into_bytes().into();
            let log = VertexLog {
                vertex: "a".to_owned(),
                stream: 1,
                msg,
                timestamp: None,
            };
            fold.apply(
                StatusResponse {
                    logs: vec![log],
                    ..Default::default()
                },
                &mut events,
            );
        }
        assert_eq!(events.len(), 5000);
        let tail = fold.log_tail("a");
        assert_eq!(tail.len(), build_limits::LOG_TAIL_LINES);
        assert_eq!(tail.last().map(String::as_str), Some("line 4999"));
        assert!(fold.vertices["a"].tail.len() <= LOG_TAIL_BYTES);
        apply(&mut fold, vec![vertex("a", at(1), at(2))]);
        assert!(fold.log_tail("a").is_empty());
    }

    #[test]
    fn hostile_messages_do_no_harm() {
        let mut fold = StatusFold::new();
        let bad = Some(Timestamp {
            seconds: i64::MIN,
            nanos: i32::MIN,
        });
        apply(&mut fold, vec![vertex("", bad, bad)]);
        let log = VertexLog {
            vertex: "unknown".to_owned(),
            stream: -7,
            msg: vec![0xff; 9].into(),
            timestamp: bad,
        };
        let mut events = Vec::new();
        fold.apply(
            StatusResponse {
                logs: vec![log],
                ..Default::default()
            },
            &mut events,
        );
        assert!(matches!(&events[0], BuildEvent::Log(l) if l.stream == LogStream::Other(-7)));
    }
}
