//! What came of the runs, as a table: for a person, and for `docs/reliability.md`.

use std::{collections::BTreeMap, fmt, time::Duration};

/// How one run ended.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) kind: &'static str,
    pub(crate) daemon: &'static str,
    /// The way to it.
    pub(crate) way: &'static str,
    /// `right`, `cancelled`, or the class of the error.
    pub(crate) outcome: String,
    pub(crate) took: Duration,
    pub(crate) leaks: usize,
}

/// The runs of each kind, on each daemon, and by each way.
#[derive(Default)]
pub(crate) struct Table(Vec<Ran>);

impl Table {
    pub(crate) fn add(&mut self, ran: Ran) {
        self.0.push(ran);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows(f, "fault", |ran| ran.kind)?;
        writeln!(f)?;
        self.rows(f, "daemon", |ran| ran.daemon)?;
        writeln!(f)?;
        self.rows(f, "way to it", |ran| ran.way)
    }
}

impl Table {
    fn rows<'a>(
        &'a self,
        f: &mut fmt::Formatter<'_>,
        title: &str,
        key: fn(&'a Ran) -> &'a str,
    ) -> fmt::Result {
        let mut groups: BTreeMap<&str, Vec<&Ran>> = BTreeMap::new();
        for ran in &self.0 {
            groups.entry(key(ran)).or_default().push(ran);
        }
        writeln!(f, "| {title} | runs | outcomes | longest | leaks |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        for (name, runs) in groups {
            let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
            for ran in &runs {
                *outcomes.entry(&ran.outcome).or_default() += 1;
            }
            let outcomes: Vec<_> = outcomes.iter().map(|(o, n)| format!("{n} {o}")).collect();
            let longest = runs.iter().map(|r| r.took).max().unwrap_or_default();
            let leaks: usize = runs.iter().map(|r| r.leaks).sum();
            writeln!(
                f,
                "| {name} | {} | {} | {:.1} s | {leaks} |",
                runs.len(),
                outcomes.join(", "),
                longest.as_secs_f64()
            )?;
        }
        Ok(())
    }
}
