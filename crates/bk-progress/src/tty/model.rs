//! What is known of a build at one time. Taking an event costs the same however many rows there are.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Instant, SystemTime},
};

use bk_build::{BuildEvent, LogChunk, StatusUpdate, Transfer, Vertex, VertexId, Warning};

use super::row::{Member, Row, State};
use crate::{limits::WARNINGS_KEPT, text::neutralise_line};

#[derive(Default)]
pub(super) struct Model {
    pub(super) rows: Vec<Row>,
    members: HashMap<VertexId, Member>,
    groups: HashMap<String, usize>,
    /// Rows that have begun, in the order in which they did.
    pub(super) begun: Vec<usize>,
    /// Those of them that run, by their place there.
    pub(super) running: BTreeMap<u64, usize>,
    /// Rows in the order in which they ended, one entry for each end.
    pub(super) ended: Vec<usize>,
    pub(super) counts: Counts,
    pub(super) warnings: Vec<String>,
    pub(super) warned: u64,
    pub(super) builder: String,
    pub(super) end: Option<End>,
    /// The row whose daemon counts the transfer of a source.
    sources: HashMap<String, usize>,
    clock: Clock,
}

/// How the build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    Failed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) done: u64,
    pub(super) cached: u64,
    pub(super) failed: u64,
}

impl Counts {
    fn of(&mut self, state: State) -> Option<&mut u64> {
        match state {
            State::Waiting | State::Running => None,
            State::Cached => Some(&mut self.cached),
            State::Done => Some(&mut self.done),
            State::Failed | State::Cancelled => Some(&mut self.failed),
        }
    }

    pub(super) fn ended(&self) -> u64 {
        self.done + self.cached + self.failed
    }
}

/// The daemon's time, by the latest that it told.
#[derive(Default)]
struct Clock {
    told: Option<SystemTime>,
    anchor: Option<(Instant, SystemTime)>,
}

impl Clock {
    fn at(&self, now: Instant) -> Option<SystemTime> {
        let (then, told) = self.anchor?;
        told.checked_add(now.saturating_duration_since(then))
    }

    fn tick(&mut self, now: Instant) {
        if let Some(told) = self.told.take()
            && self.at(now).is_none_or(|guess| guess < told)
        {
            self.anchor = Some((now, told));
        }
    }

    fn hear(&mut self, at: Option<SystemTime>) {
        self.told = self.told.max(at);
    }
}

impl Model {
    /// Takes an event; says whether anything changed that could be seen.
    pub(super) fn event(&mut self, event: &BuildEvent) -> bool {
        match event {
            BuildEvent::Started { builder, .. } => self.builder = neutralise_line(&builder.to_string()),
            BuildEvent::VertexQueued(v) => {
                self.row_of(v);
            }
            BuildEvent::VertexStarted(v) => self.vertex(v, false),
            BuildEvent::VertexCached(v) | BuildEvent::VertexCompleted(v) | BuildEvent::VertexFailed(v) => {
                self.vertex(v, true);
            }
            BuildEvent::Status(s) => self.status(s),
            BuildEvent::Log(l) => self.log(l),
            BuildEvent::Warning(w) => self.warning(w),
            BuildEvent::Retrying { .. } => {
                if let Some(warning) = event.retry_warning() {
                    self.warning(&warning);
                }
            }
            BuildEvent::Transfer(t) => self.transfer(t),
            BuildEvent::Completed { error, .. } => {
                // Of several builds in one display, one that failed decides.
                let failed = error.is_some() || self.end == Some(End::Failed);
                self.end = Some(if failed { End::Failed } else { End::Finished });
            }
            _ => return false,
        }
        true
    }

    /// Says what time it is.
    pub(super) fn tick(&mut self, now: Instant) {
        self.clock.tick(now);
    }

    /// The daemon's time, when it has told one.
    pub(super) fn daemon_time(&self, now: Option<Instant>) -> Option<SystemTime> {
        self.clock.at(now?).or(self.clock.told)
    }

    fn row_of(&mut self, vertex: &Vertex) -> usize {
        let known = self.members.get(&vertex.id).map(|m| m.row);
        let row = known
            .or_else(|| self.groups.get(&vertex.group.as_ref()?.id).copied())
            .unwrap_or_else(|| {
                self.rows.push(Row::default());
                self.rows.len() - 1
            });
        if known.is_none() {
            self.members.insert(vertex.id.clone(), Member::of(row));
            if let Some(group) = &vertex.group {
                self.groups.entry(group.id.clone()).or_insert(row);
            }
        }
        if let Some(r) = self.rows.get_mut(row) {
            r.describe(vertex, known.is_none());
        }
        row
    }

    fn vertex(&mut self, vertex: &Vertex, ended: bool) {
        self.clock.hear(vertex.started.max(vertex.completed));
        let index = self.row_of(vertex);
        let (Some(row), Some(member)) = (self.rows.get_mut(index), self.members.get_mut(&vertex.id)) else {
            return;
        };
        let before = row.state();
        let happened = if ended {
            row.end(vertex, member)
        } else {
            row.start(vertex, member);
            true
        };
        if happened && row.order.is_none() {
            row.order = Some(self.begun.len() as u64);
            self.begun.push(index);
        }
        let after = row.state();
        let order = row.order.unwrap_or_default();
        if before == after {
            return;
        }
        if let Some(count) = self.counts.of(before) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = self.counts.of(after) {
            *count += 1;
        }
        if after == State::Running {
            self.running.insert(order, index);
        } else {
            self.running.remove(&order);
            if after != State::Waiting {
                self.ended.push(index);
            }
        }
    }

    fn status(&mut self, update: &StatusUpdate) {
        self.clock.hear(update.timestamp);
        let Some(index) = self.members.get(&update.vertex).map(|m| m.row) else {
            return;
        };
        if let Some(source) = update.id.strip_prefix("transferring ") {
            let source = source.trim_end_matches(':');
            if !self.sources.contains_key(source) {
                self.sources.insert(source.to_owned(), index);
            }
        }
        if let Some(row) = self.rows.get_mut(index) {
            row.status(update);
        }
    }

    fn log(&mut self, chunk: &LogChunk) {
        self.clock.hear(chunk.timestamp);
        let row = self
            .members
            .get(&chunk.vertex)
            .and_then(|m| self.rows.get_mut(m.row));
        if let Some(row) = row {
            row.tail.take(&chunk.data);
        }
    }

    fn warning(&mut self, warning: &Warning) {
        self.warned += 1;
        if self.warnings.len() < WARNINGS_KEPT {
            let mut text = neutralise_line(&warning.short);
            // Frontends say the line by themselves.
            if let Some(line) = warning.source.as_ref().and_then(|s| s.first_line())
                && !text.ends_with(')')
            {
                text.push_str(&format!(" (line {line})"));
            }
            self.warnings.push(text);
        }
    }

    fn transfer(&mut self, transfer: &Transfer) {
        let row = self
            .sources
            .get(&transfer.source)
            .and_then(|i| self.rows.get_mut(*i));
        if let Some(row) = row {
            row.transfer = (!transfer.done).then_some(transfer.report);
        }
    }
}
