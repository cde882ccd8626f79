//! One row of the terminal display: a vertex, or a group of vertices shown as one, with what goes on inside.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use bk_build::{StatusUpdate, TransferReport, Vertex};

use crate::{limits::STATUSES_KEPT, spans::Spans, tail::Tail, text::neutralise_line};

/// A vertex or a group.
#[derive(Default)]
pub(super) struct Row {
    /// Clean, on one line.
    pub(super) name: String,
    group: bool,
    /// A group stays hidden until a member that is not weak has begun.
    visible: bool,
    /// Its place among the rows that have begun.
    pub(super) order: Option<u64>,
    members: u32,
    cached: u32,
    running: u32,
    pub(super) spans: Spans,
    pub(super) error: Option<Failure>,
    ended: bool,
    pub(super) statuses: Vec<StatusUpdate>,
    status_by_id: HashMap<String, usize>,
    /// Statuses that are not kept.
    pub(super) more_statuses: u64,
    /// What our own side counts of a transfer, while it goes on.
    pub(super) transfer: Option<TransferReport>,
    pub(super) tail: Tail,
}

pub(super) struct Failure {
    pub(super) cancelled: bool,
}

/// What is known of one member.
#[derive(Clone, Copy)]
pub(super) struct Member {
    pub(super) row: usize,
    running: bool,
    cached: bool,
}

impl Member {
    pub(super) fn of(row: usize) -> Self {
        Self {
            row,
            running: false,
            cached: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Running,
    Cached,
    Done,
    Failed,
    Cancelled,
}

impl Row {
    pub(super) fn describe(&mut self, vertex: &Vertex, new_member: bool) {
        match &vertex.group {
            Some(group) => {
                self.group = true;
                self.name = neutralise_line(&group.name);
            }
            None => {
                self.visible = true;
                self.name = neutralise_line(&vertex.name);
            }
        }
        self.members += u32::from(new_member);
    }

    pub(super) fn start(&mut self, vertex: &Vertex, member: &mut Member) {
        if vertex.group.as_ref().is_none_or(|g| !g.weak) {
            self.visible = true;
        }
        if !self.group {
            self.error = None;
            self.tail = Tail::default();
        }
        if !std::mem::replace(&mut member.running, true) {
            self.running += 1;
        }
        self.ended = false;
        if let Some(start) = vertex.started {
            self.spans.start(start);
        }
    }

    /// Returns whether anything is there to be shown.
    pub(super) fn end(&mut self, vertex: &Vertex, member: &mut Member) -> bool {
        let ran = std::mem::take(&mut member.running);
        self.running -= u32::from(ran);
        if let (Some(start), Some(end)) = (vertex.started, vertex.completed) {
            self.spans.end(start, end);
        }
        match (member.cached, vertex.cached) {
            (false, true) => self.cached += 1,
            (true, false) => self.cached -= 1,
            _ => {}
        }
        member.cached = vertex.cached;
        if vertex.error.is_some() {
            let cancelled = vertex.is_cancelled();
            self.error.get_or_insert(Failure { cancelled });
            // A step that was cancelled before it began never happened.
            if cancelled && !ran && vertex.started.is_none() {
                return false;
            }
        }
        if vertex.group.as_ref().is_none_or(|g| !g.weak) {
            self.visible = true;
        }
        self.ended = self.running == 0;
        if self.ended {
            self.transfer = None;
            if self.error.is_none() {
                self.tail = Tail::default();
            }
        }
        true
    }

    pub(super) fn status(&mut self, update: &StatusUpdate) {
        if let Some(known) = self
            .status_by_id
            .get(&update.id)
            .and_then(|i| self.statuses.get_mut(*i))
        {
            known.clone_from(update);
        } else if self.statuses.len() < STATUSES_KEPT {
            self.status_by_id.insert(update.id.clone(), self.statuses.len());
            self.statuses.push(update.clone());
        } else {
            self.more_statuses += 1;
        }
    }

    pub(super) fn state(&self) -> State {
        match &self.error {
            _ if self.running > 0 => State::Running,
            _ if !self.ended => State::Waiting,
            Some(failure) if failure.cancelled => State::Cancelled,
            Some(_) => State::Failed,
            None if self.members > 0 && self.cached == self.members => State::Cached,
            None => State::Done,
        }
    }

    /// Whether a display may show it.
    pub(super) fn is_shown(&self) -> bool {
        self.visible && self.order.is_some()
    }

    /// How long it ran, up to `now` if it still does.
    pub(super) fn took(&self, now: Option<SystemTime>) -> Duration {
        let ended = self.spans.total();
        match (self.running > 0, self.spans.latest_start(), now) {
            (true, Some(start), Some(now)) => ended + crate::units::between(start, now),
            _ => ended,
        }
    }
}
