//! How a connection asks whether the other side is still there.
//!
//! The rule: a side that lives answers a ping at once, whatever it does beside, so a connection on which nothing comes
//! although it was asked is dead or its other side is stopped. Pings are sent into silence only; a daemon that checks the
//! health of its session every few seconds is never asked, and never has reason to complain of too many pings.

use std::time::Duration;

use crate::limits::{PING_DEADLINE, PING_DEADLINE_UNWATCHED, PING_INTERVAL};

/// When pings are sent on a connection, and how long their answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pings {
    /// After how much silence.
    pub(crate) interval: Duration,
    /// How long the answer may take before the connection is given up.
    pub(crate) deadline: Duration,
}

impl Pings {
    /// Those of a build that bears so much silence: at least two pings fall into it. The build's own watch, or the deadline
    /// for a first answer, ends it before the deadline of any of them does: one that was sent inside a tunnel has no silence
    /// before it that the watch sees, and after a stop of this process the watch begins anew.
    pub fn within(stall: Option<Duration>) -> Self {
        match stall {
            Some(stall) => Self {
                interval: (stall / 3).min(PING_INTERVAL),
                deadline: stall.saturating_mul(2).max(PING_DEADLINE),
            },
            None => Self {
                interval: PING_INTERVAL,
                deadline: PING_DEADLINE_UNWATCHED,
            },
        }
    }

    /// After how much silence a ping is sent.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// How long its answer may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}

impl Default for Pings {
    fn default() -> Self {
        // Nobody else watches.
        Self {
            interval: PING_INTERVAL,
            deadline: bk_build::limits::STALL_TIMEOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_deadlines_end_a_build_before_any_ping_does() {
        for seconds in [1, 4, 120] {
            let stall = Duration::from_secs(seconds);
            let pings = Pings::within(Some(stall));
            assert!(pings.interval() * 3 <= stall, "{pings:?}");
            // The last look of the watch, and a machine that is busy.
            assert!(pings.deadline() > stall + Duration::from_millis(900), "{pings:?}");
            // What the first answer has.
            assert!(pings.deadline() > Duration::from_secs(10), "{pings:?}");
        }
        assert_eq!(Pings::within(None).deadline(), PING_DEADLINE_UNWATCHED);
    }
}
