//! What a build came to: counts for one line, and the critical path.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use bk_build::{BuildEvent, TransferReport, Vertex, VertexId};

use crate::{limits::LONGEST_NAME, text::neutralise_line, units, width::fit};

/// Counts what happens in a build. What is kept is one small record a vertex.
#[derive(Default)]
pub struct Tally {
    steps: HashMap<VertexId, Step>,
    /// Transfers that go on, by their number.
    transfers: HashMap<u64, TransferReport>,
    transferred: TransferReport,
    began: Option<SystemTime>,
    ended: Option<SystemTime>,
}

#[derive(Default)]
struct Step {
    name: String,
    inputs: Vec<VertexId>,
    started: Option<SystemTime>,
    completed: Option<SystemTime>,
    cached: bool,
    failed: bool,
    /// Whether it has come to an end by itself, good or bad, in this run or an earlier one.
    ended: bool,
    /// Runs before the last one.
    before: Duration,
}

impl Step {
    fn took(&self) -> Duration {
        self.before + self.last_run()
    }

    fn last_run(&self) -> Duration {
        match (self.started, self.completed) {
            (Some(start), Some(end)) => units::between(start, end),
            _ => Duration::ZERO,
        }
    }

    /// Whether a person would call it a step, and not something around the steps.
    fn is_step(&self) -> bool {
        const AROUND: [&str; 6] = [
            "[internal] ",
            "[auth] ",
            "exporting ",
            "importing ",
            "pushing ",
            "resolve ",
        ];
        // With several platforms each has its own: `[linux/arm64 internal] load …`.
        let bracket = self.name.split(']').next().unwrap_or_default();
        !self.name.is_empty()
            && !bracket.ends_with(" internal")
            && !AROUND.iter().any(|start| self.name.starts_with(start))
    }

    /// Whether it is a step that came to an end, good or bad, by itself.
    fn counts(&self) -> bool {
        self.ended && self.is_step()
    }
}

impl Tally {
    /// Nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an event.
    pub fn event(&mut self, event: &BuildEvent) {
        match event {
            BuildEvent::Started { at, .. } => self.began = Some(*at),
            BuildEvent::Completed { at, .. } => self.ended = Some(*at),
            BuildEvent::VertexQueued(v)
            | BuildEvent::VertexStarted(v)
            | BuildEvent::VertexCached(v)
            | BuildEvent::VertexCompleted(v)
            | BuildEvent::VertexFailed(v) => self.vertex(v),
            BuildEvent::Transfer(t) => {
                // Builds of a set number their transfers each for itself.
                if t.done {
                    self.transfers.remove(&t.transfer);
                    self.transferred.add(&t.report);
                } else {
                    self.transfers.insert(t.transfer, t.report);
                }
            }
            _ => {}
        }
    }

    fn vertex(&mut self, vertex: &Vertex) {
        let step = self.steps.entry(vertex.id.clone()).or_default();
        if step.completed.is_some() && vertex.started != step.started {
            step.before += step.last_run();
        }
        if !vertex.name.is_empty() {
            step.name = neutralise_line(&vertex.name);
        }
        if !vertex.inputs.is_empty() {
            step.inputs.clone_from(&vertex.inputs);
        }
        (step.started, step.completed) = (vertex.started, vertex.completed);
        // A daemon may open what was cached once more, for a step that needs its files, and cancel that when the step
        // fails: how it ended before holds.
        if vertex.completed.is_some() && !vertex.is_cancelled() {
            step.ended = true;
            (step.cached, step.failed) = (vertex.cached, vertex.error.is_some());
        }
    }

    /// How long the build took by our own clock, when it has ended.
    pub fn took(&self) -> Option<Duration> {
        Some(units::between(self.began?, self.ended?))
    }

    /// The steps that ended, in the order in which they started: the name of each, and whether it was cached.
    pub fn ended_steps(&self) -> Vec<(String, bool)> {
        let mut steps: Vec<&Step> = self.steps.values().filter(|step| step.counts()).collect();
        steps.sort_by(|a, b| (a.started, &a.name).cmp(&(b.started, &b.name)));
        let named = steps.into_iter().map(|step| (step.name.clone(), step.cached));
        named.collect()
    }

    /// Whether the daemon has told of any step.
    pub fn has_steps(&self) -> bool {
        self.steps.values().any(Step::is_step)
    }

    /// One line without its end: how many steps were run and how many were cached, the longest of them, and how much was
    /// sent of what was offered. After a failure also how many steps failed, were stopped in the middle, or never started.
    pub fn summary(&self) -> String {
        let mut steps: Vec<&Step> = self.steps.values().filter(|step| step.counts()).collect();
        let cached = steps.iter().filter(|step| step.cached).count();
        let mut line = match self.took() {
            Some(took) => format!("{} in {:.1}s", plural(steps.len(), "step"), took.as_secs_f64()),
            None => plural(steps.len(), "step"),
        };
        let failed = steps.iter().filter(|step| step.failed).count();
        line.push_str(&format!(
            ": {cached} cached, {} run",
            steps.len() - cached - failed
        ));
        let left = self
            .steps
            .values()
            .filter(|step| step.is_step() && !step.counts());
        let (stopped, waiting): (Vec<&Step>, Vec<&Step>) = left.partition(|step| step.started.is_some());
        for (count, what) in [
            (failed, "failed"),
            (stopped.len(), "stopped"),
            (waiting.len(), "not started"),
        ] {
            if count > 0 {
                line.push_str(&format!(", {count} {what}"));
            }
        }
        steps.retain(|step| step.took() >= Duration::from_millis(100));
        steps.sort_by(|a, b| b.took().cmp(&a.took()).then_with(|| a.name.cmp(&b.name)));
        for (index, step) in steps.iter().take(2).enumerate() {
            let word = if index == 0 { "; longest" } else { "," };
            let (name, _) = fit(&step.name, LONGEST_NAME);
            line.push_str(&format!("{word} {name} {:.1}s", step.took().as_secs_f64()));
        }
        let mut sum = self.transferred;
        for report in self.transfers.values() {
            sum.add(report);
        }
        let bytes = |count: u64| units::bytes(i64::try_from(count).unwrap_or(i64::MAX));
        if sum.entries > 0 {
            line.push_str(&format!(
                "; sent {} of {}",
                bytes(sum.sent_bytes),
                bytes(sum.offered_bytes)
            ));
        }
        line
    }

    /// The chain of steps that determined how long the build took, a line each: when it began, how long it ran, its name.
    /// It is followed from the step that ended last to the input that ended last, and so on; from a step without inputs to
    /// the one that ended last before it began. Empty when no step has ended.
    pub fn critical_path(&self) -> String {
        let path = self.path();
        let Some(origin) = self.steps.values().filter_map(|s| s.started).min() else {
            return String::new();
        };
        let end = path.last().and_then(|s| s.completed).unwrap_or(origin);
        let ran: Duration = path.iter().map(|s| s.last_run()).sum();
        if path.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "critical path: {}, running for {:.1}s of {:.1}s\n",
            plural(path.len(), "step"),
            ran.as_secs_f64(),
            units::between(origin, end).as_secs_f64()
        );
        for step in path {
            let since = units::between(origin, step.started.unwrap_or(origin)).as_secs_f64();
            let mark = if step.cached { "CACHED " } else { "" };
            text.push_str(&format!(
                "  {:>8} {:>8}  {mark}{}\n",
                format!("+{since:.1}s"),
                format!("{:.1}s", step.last_run().as_secs_f64()),
                step.name
            ));
        }
        text
    }

    fn path(&self) -> Vec<&Step> {
        let later = |a: &(&VertexId, &Step), b: &(&VertexId, &Step)| {
            // Of those that ended at the same time the one that ran longer; then any, but always the same.
            (a.1.completed, b.1.started, a.0).cmp(&(b.1.completed, a.1.started, b.0))
        };
        let mut path = Vec::new();
        let mut seen = HashSet::new();
        let mut next = self
            .steps
            .iter()
            .filter(|(_, s)| s.completed.is_some())
            .max_by(later);
        while let Some((id, step)) = next {
            // The graph is the daemon's word: it may have a circle.
            if !seen.insert(id) {
                break;
            }
            path.push(step);
            next = step
                .inputs
                .iter()
                .filter_map(|input| self.steps.get_key_value(input))
                .filter(|(_, s)| s.completed.is_some())
                .max_by(later)
                .or_else(|| {
                    // Nothing that it says it needs: what ended before it began, if it waited for anything.
                    let before = |s: &Step| s.completed.is_some() && s.completed <= step.started;
                    let mut others = self.steps.iter();
                    let others = others.by_ref().filter(|(id, s)| before(s) && !seen.contains(id));
                    others.max_by(later)
                });
        }
        path.reverse();
        path
    }
}

fn plural(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

#[cfg(test)]
mod tests {
    use bk_build::Transfer;

    use super::*;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis)
    }

    fn ended(id: &str, name: &str, inputs: &[&str], run: (u64, u64), cached: bool) -> BuildEvent {
        let mut v = Vertex::new(id, name);
        v.inputs = inputs.iter().map(|i| VertexId::from(*i)).collect();
        (v.started, v.completed, v.cached) = (Some(at(run.0)), Some(at(run.1)), cached);
        if cached {
            BuildEvent::VertexCached(v)
        } else {
            BuildEvent::VertexCompleted(v)
        }
    }

    fn build() -> Tally {
        let mut tally = Tally::new();
        let mut transfer = Transfer::new("context", 0);
        transfer.report.entries = 3;
        (transfer.report.sent_bytes, transfer.report.offered_bytes) = (1500, 1_000_000);
        for event in [
            BuildEvent::Started {
                build_ref: String::new(),
                builder: bk_build::BuilderInfo::new("docker", "x"),
                at: at(0),
            },
            ended("d", "[internal] load build definition", &[], (0, 50), false),
            ended("f", "[base 1/2] FROM busybox", &[], (100, 100), true),
            ended("a", "[a 1/1] RUN sleep 1", &["f"], (200, 1200), false),
            ended("b", "[b 1/1] RUN sleep 3\u{1b}[2J", &["f"], (200, 3200), false),
            ended("c", "[c 1/1] COPY --from=a . .", &["a", "b"], (3300, 3350), false),
            BuildEvent::Transfer(transfer),
            ended("e", "exporting to image", &["c"], (3400, 3900), false),
            BuildEvent::Completed {
                at: at(4000),
                error: None,
            },
        ] {
            tally.event(&event);
        }
        tally
    }

    #[test]
    fn a_build_is_summed_up_on_one_line() {
        assert_eq!(
            build().summary(),
            "4 steps in 4.0s: 1 cached, 3 run; longest [b 1/1] RUN sleep 3 3.0s, [a 1/1] RUN sleep 1 1.0s; sent 1.50kB \
             of 1.00MB"
        );
        assert_eq!(Tally::new().summary(), "0 steps: 0 cached, 0 run");
    }

    #[test]
    fn a_failure_is_summed_up_too() {
        let mut tally = build();
        let mut failed = Vertex::new("x", "[x 1/2] RUN false");
        (failed.started, failed.completed) = (Some(at(3400)), Some(at(3450)));
        failed.error = Some("exit code: 1".to_owned());
        let mut stopped = Vertex::new("y", "[y 1/1] RUN sleep 9");
        (stopped.started, stopped.completed) = (Some(at(3400)), Some(at(3500)));
        stopped.error = Some("context canceled".to_owned());
        for event in [
            BuildEvent::VertexFailed(failed),
            BuildEvent::VertexFailed(stopped),
            BuildEvent::VertexQueued(Vertex::new("z", "[x 2/2] RUN true")),
            BuildEvent::VertexQueued(Vertex::new("w", "exporting to something")),
        ] {
            tally.event(&event);
        }
        assert_eq!(
            tally.summary(),
            "5 steps in 4.0s: 1 cached, 3 run, 1 failed, 1 stopped, 1 not started; longest [b 1/1] RUN sleep 3 3.0s, [a 1/1] \
             RUN sleep 1 1.0s; sent 1.50kB of 1.00MB"
        );
    }

    #[test]
    fn a_step_that_ended_once_is_not_stopped_afterwards() {
        let mut tally = build();
        // Daemons open a cached image once more for the step that needs its files, and cancel that when the step fails.
        let mut again = Vertex::new("f", "[base 1/2] FROM busybox");
        again.started = Some(at(150));
        tally.event(&BuildEvent::VertexStarted(again.clone()));
        assert!(
            tally.summary().starts_with("4 steps in 4.0s: 1 cached, 3 run;"),
            "{}",
            tally.summary()
        );
        again.completed = Some(at(180));
        again.error = Some("context canceled".to_owned());
        tally.event(&BuildEvent::VertexFailed(again.clone()));
        assert!(
            tally.summary().starts_with("4 steps in 4.0s: 1 cached, 3 run;"),
            "{}",
            tally.summary()
        );
        assert!(
            tally
                .ended_steps()
                .contains(&("[base 1/2] FROM busybox".to_owned(), true))
        );
        // What it comes to in the end counts.
        again.error = Some("disk full".to_owned());
        tally.event(&BuildEvent::VertexFailed(again));
        assert!(
            tally
                .summary()
                .starts_with("4 steps in 4.0s: 0 cached, 3 run, 1 failed;"),
            "{}",
            tally.summary()
        );
    }

    #[test]
    fn the_critical_path_follows_the_latest_input() {
        assert_eq!(
            build().critical_path(),
            "critical path: 5 steps, running for 3.6s of 3.9s\n     +0.0s     0.1s  [internal] load build definition\n     +0.1s     0.0s  CACHED [base 1/2] FROM busybox\n     \
             +0.2s     3.0s  [b 1/1] RUN sleep 3\n     +3.3s     0.1s  [c 1/1] COPY --from=a . .\n     +3.4s     0.5s  \
             exporting to image\n"
        );
        assert_eq!(Tally::new().critical_path(), "");
    }

    #[test]
    fn a_graph_with_a_circle_ends() {
        let mut tally = Tally::new();
        tally.event(&ended("a", "a", &["b"], (0, 1), false));
        tally.event(&ended("b", "b", &["a"], (0, 1), false));
        assert_eq!(tally.critical_path().lines().count(), 3);
    }
}
