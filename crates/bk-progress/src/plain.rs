//! Draws a build as lines of text: the display of `docker buildx --progress plain`.
//!
//! Each vertex is a block `#N`, numbered when it is drawn for the first time. One block has the output at a time:
//! blocks that ended go first, else the current one keeps it until it falls silent or its turn is over while others
//! wait. Everything is drawn in the end, and what waits meanwhile is bounded ([`limits`]).

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Write},
    time::Instant,
};

use bk_build::{BuildEvent, Transfer, Vertex, VertexId, Warning};

use crate::{Fold, Renderer, block::Block, limits, out::Out, text::neutralise_line, units};

/// Draws a build as lines of text.
///
/// Text from outside is neutralised: no escape sequence and no control byte of a step's output, of a name or of an
/// error reaches the writer. Once [`tick`](Renderer::tick)ed, it collects what happens for [`limits::TICK`] and draws that
/// together. Without ticks it draws each event at once, and a block keeps the output until it ends, or until another has
/// [`limits::WAITING_BYTES`] waiting.
pub struct Plain<W> {
    out: Out<W>,
    /// Whether each block keeps the output to its end, and how it is marked.
    ordered: Option<Fold>,
    /// The block whose marks are open.
    folded: Option<usize>,
    /// About how much memory waits, when blocks are ordered.
    held: usize,
    /// In the order in which they became known.
    blocks: Vec<Block>,
    by_vertex: HashMap<VertexId, usize>,
    by_group: HashMap<String, usize>,
    /// Blocks that want to be drawn, each at most once, the longest waiting first.
    queue: VecDeque<usize>,
    /// Blocks that ended and whose end may be undrawn, in the order in which they ended.
    ended: VecDeque<usize>,
    current: Option<usize>,
    /// When the current block got the output, and when it last drew something.
    turn_began: Option<Instant>,
    drew_last: Option<Instant>,
    /// The time as last told.
    now: Option<Instant>,
    /// Whether something happened that is not drawn yet, and when that was noticed.
    fresh: bool,
    fresh_since: Option<Instant>,
    last_number: u32,
    anything_drawn: bool,
    /// Transfers that go on: when each was last told of, and whether it was at all.
    transfers: HashMap<(String, u64), (Instant, bool)>,
}

impl<W: Write> Plain<W> {
    /// Draws to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out: Out::new(out),
            ordered: None,
            folded: None,
            held: 0,
            blocks: Vec::new(),
            by_vertex: HashMap::new(),
            by_group: HashMap::new(),
            queue: VecDeque::new(),
            ended: VecDeque::new(),
            current: None,
            turn_began: None,
            drew_last: None,
            now: None,
            fresh: false,
            fresh_since: None,
            last_number: 0,
            anything_drawn: false,
            transfers: HashMap::new(),
        }
    }

    /// Draws to `out` whole steps, one after the other, in the order in which they began; `fold` says how each is marked for
    /// a service that folds it.
    ///
    /// The first step that has not ended is drawn as it goes on. What the others write waits, at most
    /// [`limits::ORDERED_STEP_BYTES`] each and [`limits::ORDERED_BYTES`] in all: beyond that the oldest lines are left out,
    /// and a line says how many.
    pub fn ordered(out: W, fold: Fold) -> Self {
        Self {
            ordered: Some(fold),
            ..Self::new(out)
        }
    }

    /// The block of a vertex, made when it is new.
    fn block_of(&mut self, vertex: &Vertex) -> usize {
        let known = self.by_vertex.get(&vertex.id).copied().or_else(|| {
            let group = vertex.group.as_ref()?;
            self.by_group.get(&group.id).copied()
        });
        let index = known.unwrap_or_else(|| {
            self.blocks.push(Block::default());
            self.blocks.len() - 1
        });
        self.by_vertex.entry(vertex.id.clone()).or_insert(index);
        if let Some(group) = &vertex.group {
            self.by_group.entry(group.id.clone()).or_insert(index);
        }
        if let Some(block) = self.blocks.get_mut(index) {
            block.describe(vertex);
        }
        index
    }

    fn vertex(&mut self, vertex: &Vertex, change: fn(&mut Block, &Vertex)) {
        let index = self.block_of(vertex);
        if let Some(block) = self.blocks.get_mut(index) {
            change(block, vertex);
            self.want(index);
        }
    }

    /// Puts a block that has something to draw into the queue.
    fn want(&mut self, index: usize) {
        let Some(block) = self.blocks.get_mut(index) else {
            return;
        };
        if !block.is_visible() {
            return;
        }
        if block.is_ended() {
            self.ended.push_back(index);
        }
        let unnumbered = block.number.is_none();
        if self.current != Some(index) && !block.waiting && (unnumbered || block.has_pending()) {
            block.waiting = true;
            self.queue.push_back(index);
        }
    }

    /// Lets something of a known block happen. What belongs to an unknown vertex is dropped, as upstream does.
    fn inside(&mut self, vertex: &VertexId, change: impl FnOnce(&mut Block)) {
        if let Some(&index) = self.by_vertex.get(vertex) {
            if let Some(block) = self.blocks.get_mut(index) {
                change(block);
            }
            self.want(index);
        }
    }

    fn warning(&mut self, warning: &Warning) {
        let block = warning
            .vertex
            .as_ref()
            .filter(|v| self.by_vertex.contains_key(*v));
        match block {
            Some(vertex) => self.inside(vertex, |block| block.warn(&warning.short)),
            // No block to put it in, and too good to lose: the number of the build itself.
            None => {
                self.close_line();
                self.out
                    .push(&format!("#0 WARN: {}\n", neutralise_line(&warning.short)));
                self.anything_drawn = true;
            }
        }
    }

    /// Tells of a transfer that takes long: files and bytes by our own count. The daemon's status knows bytes only, and not
    /// how many there are.
    fn transfer(&mut self, transfer: &Transfer) {
        let Some(now) = self.now else { return };
        let key = (transfer.source.clone(), transfer.transfer);
        let (last, told) = self.transfers.get(&key).copied().unwrap_or((now, false));
        let due = now.saturating_duration_since(last) >= limits::SENT_EVERY;
        let draws = due || transfer.done && told;
        if transfer.done {
            self.transfers.remove(&key);
        } else {
            let last = if draws { now } else { last };
            self.transfers.insert(key, (last, told || draws));
        }
        if !draws {
            return;
        }
        let bytes = |count: u64| units::bytes(i64::try_from(count).unwrap_or(i64::MAX));
        let report = &transfer.report;
        let s = if report.sent_files == 1 { "" } else { "s" };
        self.close_line();
        self.out.push(&format!(
            "#0 {}: sent {} file{s}, {} of {} offered\n",
            neutralise_line(&transfer.source),
            report.sent_files,
            bytes(report.sent_bytes),
            bytes(report.offered_bytes)
        ));
        self.anything_drawn = true;
    }

    fn close_line(&mut self) {
        if let Some(block) = self.current.and_then(|i| self.blocks.get_mut(i)) {
            block.close_line(&mut self.out);
        }
    }

    /// Gives the output to whom it belongs, until nobody has a claim.
    fn settle(&mut self) {
        (self.fresh, self.fresh_since) = (false, None);
        if self.ordered.is_some() {
            return self.settle_in_order(false);
        }
        let claims = |b: &Block| b.has_pending() || b.is_ended();
        if let Some(current) = self.current.filter(|i| self.blocks.get(*i).is_some_and(claims)) {
            self.draw(current);
        }
        // Of those that ended since the last time, what ended first goes first, whichever was told first.
        let blocks = &self.blocks;
        let end = |index: &usize| blocks.get(*index).and_then(Block::latest_end);
        self.ended.make_contiguous().sort_by_key(end);
        while let Some(index) = self.ended.pop_front() {
            if self.blocks.get(index).is_some_and(Block::is_ended) {
                self.draw(index);
            }
        }
        while let Some(index) = self.claimant() {
            self.draw(index);
        }
    }

    /// Draws block after block, up to the first that goes on. `all`: nothing goes on any more.
    fn settle_in_order(&mut self, all: bool) {
        while let Some(index) = self.current.or_else(|| self.queue.front().copied()) {
            let Some(block) = self.blocks.get(index) else {
                return;
            };
            if self.current.is_none() || block.has_pending() || block.is_ended() {
                self.draw(index);
            }
            if self.current.is_none() {
                continue;
            }
            // A status that never ends must not hold back all others.
            let silent = self
                .now
                .zip(self.drew_last)
                .is_none_or(|(now, t)| now.saturating_duration_since(t) >= limits::SILENCE);
            let end_due = self.blocks.get(index).is_some_and(Block::is_end_due);
            if end_due && (silent || all) {
                self.end(index);
            } else if all {
                self.close_line();
                self.unfold();
                self.current = None;
            } else {
                return;
            }
        }
    }

    /// Keeps what waits in bounds, when blocks are ordered and block `index` got output.
    fn bound(&mut self, index: usize) {
        let largest = |blocks: &[Block]| {
            let held = |i: &usize| blocks.get(*i).map_or(0, Block::held);
            (0..blocks.len()).max_by_key(held)
        };
        let mut over = self
            .blocks
            .get(index)
            .filter(|b| b.held() > limits::ORDERED_STEP_BYTES)
            .map(|_| index);
        if over.is_none() && self.held > limits::ORDERED_BYTES {
            over = largest(&self.blocks);
        }
        if let Some(block) = over.and_then(|i| self.blocks.get_mut(i)) {
            let before = block.held();
            block.shed();
            self.held = self.held.saturating_sub(before - block.held());
        }
    }

    /// Draws the end line of the current block.
    fn end(&mut self, index: usize) {
        if let Some(block) = self.blocks.get_mut(index) {
            block.draw_end(&mut self.out);
        }
        self.current = None;
        self.unfold();
    }

    /// Ends the marks of the block that has them open.
    fn unfold(&mut self) {
        let Some(index) = self.folded.take() else { return };
        if let (Some(fold), Some(block)) = (self.ordered, self.blocks.get(index)) {
            let n = block.number.unwrap_or_default();
            self.out
                .push(&fold.close(n, block.unix_times().1, block.has_failed()));
        }
    }

    /// Who gets the output: the longest waiting block when nobody has it, else whoever may take it from one that runs.
    fn claimant(&self) -> Option<usize> {
        let next = self.queue.front().copied()?;
        if self.current.is_none() {
            return Some(next);
        }
        let full = |i: &usize| {
            self.blocks
                .get(*i)
                .is_some_and(|b| b.pending_bytes() > limits::WAITING_BYTES)
        };
        if let Some(index) = self.queue.iter().copied().find(full) {
            return Some(index);
        }
        let now = self.now?;
        let passed =
            |since: Option<Instant>, limit| since.is_none_or(|t| now.saturating_duration_since(t) >= limit);
        let silent = passed(self.drew_last, limits::SILENCE);
        let turn_over = passed(self.turn_began, limits::TURN);
        (silent || turn_over).then_some(next)
    }

    /// Draws what a block has, switching to it when another had the output.
    fn draw(&mut self, index: usize) {
        self.switch_to(index);
        let Some(block) = self.blocks.get_mut(index) else {
            return;
        };
        if std::mem::take(&mut block.waiting) {
            self.queue.retain(|i| *i != index);
        }
        self.held = self.held.saturating_sub(block.held());
        block.draw(&mut self.out);
        self.drew_last = self.now;
        if block.is_ended() {
            self.end(index);
        }
    }

    fn switch_to(&mut self, index: usize) {
        if self.current == Some(index) {
            return;
        }
        self.close_line();
        if let Some(old) = self.current.and_then(|i| self.blocks.get(i)) {
            self.out
                .push(&format!("#{} ...\n", old.number.unwrap_or_default()));
        }
        let Some(block) = self.blocks.get_mut(index) else {
            return;
        };
        if self.anything_drawn {
            self.out.push("\n");
        }
        let number = *block.number.get_or_insert_with(|| {
            self.last_number = self.last_number.saturating_add(1);
            self.last_number
        });
        match self.ordered {
            Some(fold) => {
                let title = format!("#{number} {}", block.name);
                self.out.push(&fold.open(number, block.unix_times().0, &title));
                self.folded = Some(index);
            }
            None => self.out.push(&format!("#{number} {}\n", block.name)),
        }
        self.anything_drawn = true;
        self.current = Some(index);
        self.turn_began = self.now;
    }
}

impl<W: Write> Renderer for Plain<W> {
    fn event(&mut self, event: &BuildEvent) -> io::Result<()> {
        let mut at_once = self.now.is_none();
        match event {
            BuildEvent::Started { builder, .. } => {
                let builder = neutralise_line(&builder.to_string());
                self.out.push(&format!("#0 building with {builder}\n"));
                self.anything_drawn = true;
            }
            BuildEvent::VertexQueued(v) => {
                self.block_of(v);
            }
            BuildEvent::VertexStarted(v) => self.vertex(v, Block::start),
            BuildEvent::VertexCached(v) | BuildEvent::VertexCompleted(v) | BuildEvent::VertexFailed(v) => {
                self.vertex(v, Block::end);
            }
            BuildEvent::Status(s) => self.inside(&s.vertex, |block| block.status(s)),
            BuildEvent::Log(l) => {
                let (mut full, mut grew) = (false, 0);
                self.inside(&l.vertex, |block| {
                    let before = block.held();
                    block.log(l);
                    grew = block.held() - before;
                    full = block.pending_bytes() > limits::WAITING_BYTES;
                });
                at_once |= full;
                if let (Some(_), Some(&index)) = (self.ordered, self.by_vertex.get(&l.vertex)) {
                    self.held += grew;
                    if self.current != Some(index) {
                        self.bound(index);
                    }
                }
            }
            BuildEvent::Warning(w) => self.warning(w),
            BuildEvent::Retrying { .. } => {
                if let Some(warning) = event.retry_warning() {
                    self.warning(&warning);
                }
            }
            BuildEvent::Transfer(t) => self.transfer(t),
            _ => {}
        }
        self.fresh = true;
        if at_once {
            self.settle();
        }
        self.out.flush()
    }

    fn tick(&mut self, now: Instant) -> io::Result<()> {
        if self.now.replace(now).is_none() {
            (self.turn_began, self.drew_last) = (Some(now), Some(now));
        }
        // A message of the daemon becomes several events, which belong together: an end and the statuses before it.
        let since = if self.fresh {
            *self.fresh_since.get_or_insert(now)
        } else {
            now
        };
        if !self.fresh || now.saturating_duration_since(since) >= limits::TICK {
            self.settle();
        }
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.settle();
        if self.ordered.is_some() {
            self.settle_in_order(true);
        }
        while let Some(&index) = self.queue.front() {
            self.draw(index);
        }
        for index in 0..self.blocks.len() {
            if self.blocks.get(index).is_some_and(Block::is_end_due) {
                self.switch_to(index);
                self.end(index);
            }
        }
        self.close_line();
        for block in &self.blocks {
            block.draw_failure(&mut self.out);
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod ordered_tests;
#[cfg(test)]
mod tests;
