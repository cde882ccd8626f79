//! The runs of a vertex or group: when it ran, and for how long in all.

use std::time::{Duration, SystemTime};

use crate::units;

/// Runs in the order in which they became known.
#[derive(Default)]
pub(crate) struct Spans(Vec<Span>);

struct Span {
    start: SystemTime,
    end: Option<SystemTime>,
}

impl Spans {
    /// A run began. Telling the same start twice changes nothing.
    pub(crate) fn start(&mut self, at: SystemTime) {
        if !self.0.iter().rev().any(|s| s.start == at && s.end.is_none()) {
            self.0.push(Span { start: at, end: None });
        }
    }

    /// The run that began at `start` ended. Telling the same end twice changes nothing.
    pub(crate) fn end(&mut self, start: SystemTime, end: SystemTime) {
        match self.0.iter_mut().rev().find(|s| s.start == start) {
            Some(span) => span.end = Some(end),
            None => self.0.push(Span {
                start,
                end: Some(end),
            }),
        }
    }

    /// The start of the latest run.
    pub(crate) fn latest_start(&self) -> Option<SystemTime> {
        self.0.last().map(|s| s.start)
    }

    /// The end of the latest run, if it has one.
    pub(crate) fn latest_end(&self) -> Option<SystemTime> {
        self.0.last().and_then(|s| s.end)
    }

    /// The time in all during which at least one run was going on, of the runs that ended.
    pub(crate) fn total(&self) -> Duration {
        let mut ended: Vec<_> = self
            .0
            .iter()
            .filter_map(|s| Some((s.start, s.end?.max(s.start))))
            .collect();
        ended.sort_unstable();
        let mut total = Duration::ZERO;
        let mut current: Option<(SystemTime, SystemTime)> = None;
        for (start, end) in ended {
            current = match current {
                Some((from, to)) if start <= to => Some((from, to.max(end))),
                Some((from, to)) => {
                    total += units::between(from, to);
                    Some((start, end))
                }
                None => Some((start, end)),
            };
        }
        total + current.map_or(Duration::ZERO, |(from, to)| units::between(from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn overlapping_runs_count_once() {
        let mut spans = Spans::default();
        for (start, end) in [(10, 12), (11, 15), (20, 21), (14, 14), (30, 29)] {
            spans.start(at(start));
            spans.end(at(start), at(end));
        }
        spans.start(at(40));
        spans.start(at(40));
        assert_eq!(spans.total(), Duration::from_secs(6));
        assert_eq!(spans.latest_start(), Some(at(40)));
    }
}
