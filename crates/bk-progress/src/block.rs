//! One numbered block of the plain display: a vertex, or a group of vertices shown as one.
//!
//! A block collects what happens to it and draws that when its turn comes. It knows nothing of the other blocks.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::Write,
    time::SystemTime,
};

use bk_build::{
    LogChunk, StatusUpdate, Vertex, VertexId,
    limits::{LOG_TAIL_LINE_BYTES, LOG_TAIL_LINES},
};

use crate::{
    limits::{LINE_COST, STATUS_PAUSE, STATUS_STEP},
    out::Out,
    spans::Spans,
    tail::prefix,
    text::{Cleaner, Piece, neutralise, neutralise_line},
    units,
};

/// A vertex or a group, and what of it is not drawn yet.
#[derive(Default)]
pub(crate) struct Block {
    /// The name, clean and on one line.
    pub(crate) name: String,
    /// `N` of `#N`; given when the block is drawn for the first time.
    pub(crate) number: Option<u32>,
    /// Whether it stands in the queue of blocks that want to be drawn.
    pub(crate) waiting: bool,
    group: bool,
    /// A group stays hidden until a member that is not weak has started.
    visible: bool,
    /// Whether anything happened beyond the announcement.
    begun: bool,
    running: HashSet<VertexId>,
    /// For each member that was told: whether it was answered from the cache.
    cached: HashMap<VertexId, bool>,
    spans: Spans,
    error: Option<Failure>,
    /// Whether a run came to its end and the end line was not drawn since.
    end_due: bool,
    statuses: Vec<Status>,
    status_by_id: HashMap<String, usize>,
    /// Indices into `statuses` that have a reading to draw, in the order in which they came.
    dirty: Vec<usize>,
    warnings: Vec<String>,
    log: Log,
}

struct Failure {
    text: String,
    cancelled: bool,
}

struct Status {
    latest: StatusUpdate,
    drawn: Option<StatusUpdate>,
    dirty: bool,
}

#[derive(Default)]
struct Log {
    cleaner: Cleaner,
    pending: Vec<Line>,
    pending_bytes: usize,
    /// The line that is being received: its stamp, and its text as far as the tail keeps it.
    current: Option<(String, String)>,
    /// The last complete lines, stamps included.
    tail: VecDeque<String>,
    /// Whether the last drawn line has no line end yet.
    open: bool,
    /// Lines that waited too long to be kept.
    shed: u64,
}

/// A part of a line of output that is not drawn yet.
struct Line {
    stamp: String,
    text: String,
    /// Whether the beginning of the line was taken out for drawing already.
    continued: bool,
    ended: bool,
}

impl Block {
    /// Takes what a vertex says of itself beyond its state.
    pub(crate) fn describe(&mut self, vertex: &Vertex) {
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
        self.cached.entry(vertex.id.clone()).or_insert(false);
    }

    /// A member began to run.
    pub(crate) fn start(&mut self, vertex: &Vertex) {
        if vertex.group.as_ref().is_some_and(|g| !g.weak) {
            self.visible = true;
        }
        if !self.group {
            self.error = None;
        }
        self.running.insert(vertex.id.clone());
        self.begun = true;
        self.end_due = false;
        if let Some(start) = vertex.started {
            self.spans.start(start);
        }
    }

    /// A member ended: from the cache, well, or with an error.
    pub(crate) fn end(&mut self, vertex: &Vertex) {
        let ran = self.running.remove(&vertex.id);
        if let (Some(start), Some(end)) = (vertex.started, vertex.completed) {
            self.spans.end(start, end);
        }
        self.cached.insert(vertex.id.clone(), vertex.cached);
        if let Some(text) = &vertex.error {
            let cancelled = vertex.is_cancelled();
            if self.error.is_none() {
                self.error = Some(Failure {
                    text: neutralise(text).trim_end().to_owned(),
                    cancelled,
                });
            }
            // A step that was cancelled before it began never happened.
            if cancelled && !ran && vertex.started.is_none() {
                return;
            }
        }
        if vertex.group.as_ref().is_none_or(|g| !g.weak) {
            self.visible = true;
        }
        self.begun = true;
        self.end_due = self.running.is_empty();
    }

    /// A status inside the block moved.
    pub(crate) fn status(&mut self, update: &StatusUpdate) {
        let index = match self.status_by_id.get(&update.id) {
            Some(&index) => index,
            None => {
                self.statuses.push(Status {
                    latest: update.clone(),
                    drawn: None,
                    dirty: false,
                });
                self.status_by_id
                    .insert(update.id.clone(), self.statuses.len() - 1);
                self.statuses.len() - 1
            }
        };
        let Some(status) = self.statuses.get_mut(index) else {
            return;
        };
        status.latest = update.clone();
        if !status.dirty && status.worth_drawing() {
            status.dirty = true;
            self.dirty.push(index);
        }
        let dirty = status.dirty;
        self.begun = true;
        self.repeat_end(dirty);
    }

    /// A warning of the daemon.
    pub(crate) fn warn(&mut self, short: &str) {
        self.warnings.push(neutralise_line(short));
        (self.visible, self.begun) = (true, true);
        self.repeat_end(true);
    }

    /// Output of the step.
    pub(crate) fn log(&mut self, chunk: &LogChunk) {
        let since = match (self.spans.latest_start(), chunk.timestamp) {
            (Some(start), Some(at)) => units::between(start, at),
            _ => std::time::Duration::ZERO,
        };
        self.log.take(&chunk.data, &units::log_stamp(since));
        // Never hidden, so that what waits stays bounded.
        (self.visible, self.begun) = (true, true);
        self.repeat_end(true);
    }

    /// Output behind the end makes the end line be drawn again behind it.
    fn repeat_end(&mut self, drew: bool) {
        let ended = self.running.is_empty() && (self.spans.latest_start().is_some() || self.error.is_some());
        self.end_due |= drew && ended;
    }

    /// Whether a display may show the block at all.
    pub(crate) fn is_visible(&self) -> bool {
        self.visible && self.begun
    }

    /// Whether everything has come and the end line can be drawn.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_end_due() && self.statuses.iter().all(Status::is_closed)
    }

    /// Whether the end came although a status never closed.
    pub(crate) fn is_end_due(&self) -> bool {
        self.end_due && self.is_visible()
    }

    /// Bytes of output that wait.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.log.pending_bytes
    }

    /// About how much memory the output that waits takes, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.log.pending_bytes + self.log.pending.len() * LINE_COST
    }

    /// Gives up the older half of the output that waits. The drawing will say how many lines that were.
    pub(crate) fn shed(&mut self) {
        self.log.shed();
    }

    /// Whether it ended with an error of its own.
    pub(crate) fn has_failed(&self) -> bool {
        self.error.as_ref().is_some_and(|e| !e.cancelled)
    }

    /// When its last run ended.
    pub(crate) fn latest_end(&self) -> Option<SystemTime> {
        self.spans.latest_end()
    }

    /// When it began for the last time, and when its last run ended, in seconds since 1970.
    pub(crate) fn unix_times(&self) -> (u64, u64) {
        let unix = |at: Option<SystemTime>| {
            at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
                .map_or(0, |since| since.as_secs())
        };
        let start = unix(self.spans.latest_start());
        (start, unix(self.spans.latest_end()).max(start))
    }

    /// Whether anything but the name waits to be drawn.
    pub(crate) fn has_pending(&self) -> bool {
        !self.dirty.is_empty() || !self.warnings.is_empty() || !self.log.pending.is_empty()
    }

    /// Draws everything that waits.
    pub(crate) fn draw<W: Write>(&mut self, out: &mut Out<W>) {
        let n = self.number.unwrap_or_default();
        if !self.dirty.is_empty() || !self.warnings.is_empty() {
            self.close_line(out);
        }
        for index in std::mem::take(&mut self.dirty) {
            if let Some(status) = self.statuses.get_mut(index) {
                out.push(&format!("#{n} {}\n", status.line()));
                status.dirty = false;
                status.drawn = Some(status.latest.clone());
            }
        }
        for warning in self.warnings.drain(..) {
            out.push(&format!("#{n} WARN: {warning}\n"));
        }
        self.log.draw(n, out);
    }

    /// Draws the end line.
    pub(crate) fn draw_end<W: Write>(&mut self, out: &mut Out<W>) {
        self.close_line(out);
        self.end_due = false;
        let n = self.number.unwrap_or_default();
        out.push(&match &self.error {
            Some(failure) if failure.cancelled => format!("#{n} CANCELED\n"),
            Some(failure) => format!("#{n} ERROR: {}\n", failure.text),
            None if self.is_cached() => format!("#{n} CACHED\n"),
            None => format!("#{n} DONE {:.1}s\n", self.spans.total().as_secs_f64()),
        });
    }

    fn is_cached(&self) -> bool {
        !self.cached.is_empty() && self.cached.values().all(|cached| *cached)
    }

    /// Ends a line of output that was drawn without its end.
    pub(crate) fn close_line<W: Write>(&mut self, out: &mut Out<W>) {
        if std::mem::take(&mut self.log.open) {
            out.push("\n");
        }
    }

    /// Draws the closing report of a failed block: its name and its last lines of output.
    pub(crate) fn draw_failure<W: Write>(&self, out: &mut Out<W>) {
        if self.error.as_ref().is_none_or(|e| e.cancelled) {
            return;
        }
        out.push(&format!("------\n > {}:\n", self.name));
        let unfinished = self
            .log
            .current
            .as_ref()
            .map(|(stamp, text)| format!("{stamp} {text}"));
        let lines = self.log.tail.len() + usize::from(unfinished.is_some());
        let skipped = lines.saturating_sub(LOG_TAIL_LINES);
        for line in self.log.tail.iter().chain(unfinished.as_ref()).skip(skipped) {
            out.push(line);
            out.push("\n");
        }
        out.push("------\n");
    }
}

impl Status {
    fn is_closed(&self) -> bool {
        self.latest.completed.is_some() || self.latest.started.is_none()
    }

    fn worth_drawing(&self) -> bool {
        let (Some(drawn), None) = (&self.drawn, self.latest.completed) else {
            return true;
        };
        let moved = self.latest.current.saturating_sub(drawn.current).saturating_abs();
        let whole = if self.latest.total > 0 {
            self.latest.total
        } else {
            self.latest.current
        };
        let far = moved > 0 && moved >= whole / STATUS_STEP;
        let late = match (drawn.timestamp, self.latest.timestamp) {
            (Some(before), Some(now)) => units::between(before, now) >= STATUS_PAUSE,
            _ => false,
        };
        far || late
    }

    fn line(&self) -> String {
        let s = &self.latest;
        let mut line = neutralise_line(&s.id);
        if s.total != 0 {
            line.push_str(&format!(
                " {} / {}",
                units::bytes(s.current),
                units::bytes(s.total)
            ));
        } else if s.current != 0 {
            line.push_str(&format!(" {}", units::bytes(s.current)));
        }
        if let (Some(start), Some(end)) = (s.started, s.completed.or(s.timestamp)) {
            let seconds = units::between(start, end).as_secs_f64();
            if seconds > 0.01 {
                line.push_str(&format!(" {seconds:.1}s"));
            }
        }
        if s.completed.is_some() {
            line.push_str(" done");
        }
        line
    }
}

impl Log {
    fn take(&mut self, data: &[u8], stamp: &str) {
        let Self {
            cleaner,
            pending,
            pending_bytes,
            current,
            tail,
            ..
        } = self;
        cleaner.feed(data, &mut |piece| {
            let continued = current.is_some();
            let (stamp, kept) = current.get_or_insert_with(|| (stamp.to_owned(), String::new()));
            if pending.last().is_none_or(|line| line.ended) {
                pending.push(Line {
                    stamp: stamp.clone(),
                    text: String::new(),
                    continued,
                    ended: false,
                });
            }
            let Some(line) = pending.last_mut() else { return };
            match piece {
                Piece::Text(text) => {
                    line.text.push_str(text);
                    *pending_bytes += text.len();
                    kept.push_str(prefix(text, LOG_TAIL_LINE_BYTES.saturating_sub(kept.len())));
                }
                Piece::LineEnd => {
                    line.ended = true;
                    *pending_bytes += 1;
                    if tail.len() == LOG_TAIL_LINES {
                        tail.pop_front();
                    }
                    tail.push_back(format!("{stamp} {kept}"));
                    *current = None;
                }
            }
        });
    }

    fn shed(&mut self) {
        let gone = self.pending.len() / 2;
        for line in self.pending.drain(..gone) {
            self.pending_bytes = self
                .pending_bytes
                .saturating_sub(line.text.len() + usize::from(line.ended));
            self.shed += u64::from(line.ended);
        }
    }

    fn draw<W: Write>(&mut self, n: u32, out: &mut Out<W>) {
        self.pending_bytes = 0;
        if self.shed > 0 {
            if std::mem::take(&mut self.open) {
                out.push("\n");
            }
            out.push(&format!(
                "#{n} [{} lines left out: too much output while other steps were shown]\n",
                std::mem::take(&mut self.shed)
            ));
        }
        for line in self.pending.drain(..) {
            if !(line.continued && self.open) {
                if self.open {
                    out.push("\n");
                }
                // The rest of a line whose beginning is followed by a line end already: only the end is missing.
                if line.continued && line.ended && line.text.is_empty() {
                    self.open = false;
                    continue;
                }
                out.push(&format!("#{n} {} ", line.stamp));
            }
            out.push(&line.text);
            if line.ended {
                out.push("\n");
            }
            self.open = !line.ended;
        }
    }
}
