//! What became of each case on each target, as data and as a table.

use std::{
    fmt,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use super::{Case, Done, Exception};
use crate::{fake::locked, live::Support};

/// How the words begin of a case that passed because it was refused as it should be.
pub const REFUSED: &str = "refused with a clear error: ";

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Passed {
        /// How long it took.
        time: Duration,
        /// What was not asked of it, and why.
        but: Option<String>,
    },
    /// It cannot be run here, for this reason.
    Cannot(String),
    /// It does not hold.
    Failed(String),
}

impl Verdict {
    /// What it says of the target, for the ledger.
    pub fn support(&self) -> Support {
        match self {
            Self::Passed { but: None, .. } => Support::Yes,
            Self::Passed { but: Some(but), .. } => match but.strip_prefix(REFUSED) {
                Some(why) => Support::Refused(why.to_owned()),
                None => Support::But(but.clone()),
            },
            Self::Cannot(why) => Support::NotApplicable(why.clone()),
            Self::Failed(why) => Support::Fails(why.clone()),
        }
    }

    pub(super) fn passed(time: Duration, done: Done, exception: Option<Exception>) -> Self {
        let but = match (exception, done) {
            (Some(Exception::Refuses(why) | Exception::MayRefuse(why)), Done::Refused) => {
                Some(format!("{REFUSED}{why}"))
            }
            (Some(Exception::Loose(_, why)), _) => Some(why.to_owned()),
            _ => None,
        };
        Self::Passed { time, but }
    }
}

/// What became of the cases on one target.
#[derive(Clone, Debug)]
pub struct Report {
    target: String,
    verdicts: Vec<(Case, Verdict)>,
}

impl Report {
    pub(super) fn new(target: String) -> Self {
        Self {
            target,
            verdicts: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, case: Case, verdict: Verdict) {
        self.verdicts.push((case, verdict));
    }

    /// What became of each case, in the order they ran.
    pub fn verdicts(&self) -> &[(Case, Verdict)] {
        &self.verdicts
    }

    /// Everything that does not hold, or `None`.
    pub fn failures(&self) -> Option<String> {
        let failed = self.verdicts.iter().filter_map(|(case, verdict)| match verdict {
            Verdict::Failed(why) => Some(format!("{} on {}: {why}", case.name(), self.target)),
            _ => None,
        });
        let failed: Vec<String> = failed.collect();
        if failed.is_empty() {
            None
        } else {
            Some(failed.join("\n"))
        }
    }
}

/// Reports of several targets. `Display` draws cases by targets, with the reasons below.
#[derive(Clone, Debug, Default)]
pub struct Table {
    reports: Vec<Report>,
}

impl Table {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a report, behind those of other targets or in place of the same target's.
    pub fn add(&mut self, report: Report) {
        match self.reports.iter_mut().find(|r| r.target == report.target) {
            Some(old) => old.verdicts.extend(report.verdicts),
            None => self.reports.push(report),
        }
        self.reports.sort_by(|a, b| a.target.cmp(&b.target));
    }

    /// Adds a report to the table of this process; comes back with the table so far.
    pub fn add_to_process(report: Report) -> Self {
        static TABLE: OnceLock<Mutex<Table>> = OnceLock::new();
        let mut table = locked(TABLE.get_or_init(Mutex::default));
        table.add(report);
        table.clone()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons: Vec<&str> = Vec::new();
        let width = self.reports.iter().map(|r| r.target.len()).max().unwrap_or(0);
        write!(f, "{:width$}", "")?;
        for case in Case::ALL {
            write!(f, "  {}", case.name())?;
        }
        for report in &self.reports {
            write!(f, "\n{:width$}", report.target)?;
            for case in Case::ALL {
                let verdict = report.verdicts.iter().find(|(c, _)| *c == case).map(|(_, v)| v);
                let mut note = |why| {
                    let known = reasons.iter().position(|r| *r == why);
                    known.unwrap_or_else(|| {
                        reasons.push(why);
                        reasons.len() - 1
                    }) + 1
                };
                let cell = match verdict {
                    None => "-".to_owned(),
                    Some(Verdict::Passed { but: None, time }) if time.as_secs() > 2 => {
                        format!("ok {}s", time.as_secs())
                    }
                    Some(Verdict::Passed { but: None, .. }) => "ok".to_owned(),
                    Some(Verdict::Passed { but: Some(why), .. }) => format!("ok [{}]", note(why.as_str())),
                    Some(Verdict::Cannot(why)) => format!("n/a [{}]", note(why.as_str())),
                    Some(Verdict::Failed(_)) => "FAILED".to_owned(),
                };
                write!(f, "  {cell:0$}", case.name().len())?;
            }
        }
        for (number, reason) in reasons.iter().enumerate() {
            write!(f, "\n[{}] {reason}", number + 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_reasons_once() {
        let mut table = Table::new();
        for target in ["b/tar", "a/tar"] {
            let mut report = Report::new(target.to_owned());
            report.add(Case::RegistryBase, Verdict::Cannot("no session".to_owned()));
            report.add(
                Case::ArgFrom,
                Verdict::Passed {
                    time: Duration::from_millis(3),
                    but: None,
                },
            );
            table.add(report);
        }
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("       arg-from  registry-base  run-logs"),
            "{text}"
        );
        assert!(
            lines[1].starts_with("a/tar  ok        n/a [1]        -"),
            "{text}"
        );
        assert!(lines[2].starts_with("b/tar  ok        n/a [1]"), "{text}");
        assert_eq!(lines[3..], ["[1] no session"]);
    }

    #[test]
    fn failures_are_listed() {
        let mut report = Report::new("t".to_owned());
        assert_eq!(report.failures(), None);
        report.add(Case::BigFile, Verdict::Failed("torn".to_owned()));
        assert_eq!(report.failures().as_deref(), Some("big-file on t: torn"));
    }
}
