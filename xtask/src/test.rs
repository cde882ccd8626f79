//! `cargo xtask test`: every test of the workspace, with the real daemons up.
//!
//! A live test that could not reach its daemon is a failure here, never a silent success: tests are told so by
//! `BK_LIVE_REQUIRED=1`, and each writes a line to the ledger, which is counted in the end.

use crate::daemons;
use crate::guard::Guard;
use crate::run::{Result, cargo};
use crate::support;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// The job itself: `--no-live`, and words that select tests by name.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let (flags, filters): (Vec<&String>, Vec<&String>) = arguments.iter().partition(|a| a.starts_with('-'));
    if let Some(unknown) = flags.iter().find(|flag| flag.as_str() != "--no-live") {
        return Err(
            format!("there is no option {unknown}; usage: cargo xtask test [--no-live] [FILTER...]").into(),
        );
    }
    if flags.is_empty() {
        live(&filters)
    } else {
        without_daemons(&filters)
    }
}

fn without_daemons(filters: &[&String]) -> Result<()> {
    let mut command = tests(filters);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BK_LIVE_") {
            command.env_remove(name);
        }
    }
    let passed = command.status()?.success();
    println!("\nlive tests: none, because of --no-live");
    if passed {
        Ok(())
    } else {
        Err("tests failed".into())
    }
}

fn live(filters: &[&String]) -> Result<()> {
    let stopped = daemons::stopped();
    let guard = if stopped.is_empty() {
        None
    } else {
        let down = ["daemons", "down"].iter().map(|word| (*word).to_owned());
        Some(Guard::new(&down.chain(stopped).collect::<Vec<_>>())?)
    };
    let outcome = run_live(filters);
    let cleaned = guard.map_or(Ok(()), Guard::close);
    outcome.and(cleaned)
}

fn run_live(filters: &[&String]) -> Result<()> {
    let running = daemons::up_all()?;
    let ledger = Ledger::create()?;
    let trimming = daemons::trimming();
    let passed = tests(filters)
        .envs(running.variables.iter().map(|(name, value)| (name, value)))
        .env("BK_LIVE_REQUIRED", "1")
        .env("BK_LIVE_LEDGER", &ledger.file)
        .status()?
        .success();
    drop(trimming);
    let notes = fs::read_to_string(&ledger.file)?;
    let summary = Summary::of(&notes, &running.versions);
    print!("\n{summary}");
    if !passed {
        return Err("tests failed".into());
    }
    // A filter selects tests of some daemons only, or no live test at all.
    if filters.is_empty() {
        summary.complete()?;
        support::check(&notes)
    } else {
        Ok(())
    }
}

/// One run of cargo for all packages, so that its closing lines are those of `cargo test`.
fn tests(filters: &[&String]) -> std::process::Command {
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    if !filters.is_empty() {
        command.arg("--").args(filters);
    }
    command
}

/// The file to which each live test appends `daemon<TAB>test<TAB>ok`, and what became of features.
struct Ledger {
    file: PathBuf,
}

impl Ledger {
    fn create() -> Result<Ledger> {
        let file = daemons::base().join("ledger");
        fs::write(&file, "")?;
        Ok(Ledger { file })
    }
}

/// How many live tests passed on which daemon.
struct Summary {
    rows: Vec<(String, String, usize)>,
    others: BTreeMap<String, usize>,
}

impl Summary {
    /// Counts the ledger by daemon; `versions` has the name and the version of each daemon that runs.
    fn of(ledger: &str, versions: &[(String, String)]) -> Summary {
        let mut rows: Vec<_> = versions
            .iter()
            .map(|(name, version)| (name.clone(), version.clone(), 0))
            .collect();
        let mut others = BTreeMap::new();
        for line in ledger.lines() {
            let mut fields = line.split('\t');
            let daemon = fields.next().unwrap_or_default();
            if fields.nth(1) != Some("ok") {
                continue;
            }
            match best_match(daemon, versions) {
                Some(index) => rows[index].2 += 1,
                None => *others.entry(daemon.to_owned()).or_insert(0) += 1,
            }
        }
        Summary { rows, others }
    }

    /// Fails unless every daemon that runs was tested.
    fn complete(&self) -> Result<()> {
        let idle: Vec<&str> = self
            .rows
            .iter()
            .filter(|row| row.2 == 0)
            .map(|row| row.0.as_str())
            .collect();
        if idle.is_empty() {
            Ok(())
        } else {
            Err(format!("no live test ran on {}", idle.join(", ")).into())
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total: usize = self
            .rows
            .iter()
            .map(|row| row.2)
            .chain(self.others.values().copied())
            .sum();
        writeln!(f, "live tests: {total}")?;
        for (name, version, count) in &self.rows {
            writeln!(f, "  {count:>5}  on {name} ({version})")?;
        }
        for (name, count) in &self.others {
            writeln!(f, "  {count:>5}  on {name}")?;
        }
        Ok(())
    }
}

/// The daemon that a ledger line means: the one with the longest name in the words of the line, however they are
/// joined, so that a variable's name (`BK_LIVE_DOCKER_28_5`) and a label (`docker 28.5`) mean the same.
fn best_match(daemon: &str, versions: &[(String, String)]) -> Option<usize> {
    let plain = |text: &str| -> String {
        let joined: String = text
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        format!("-{joined}-")
    };
    let daemon = plain(daemon);
    let fits = |name: &str| daemon.contains(&plain(name));
    (0..versions.len())
        .filter(|i| fits(&versions[*i].0))
        .max_by_key(|i| versions[*i].0.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> Vec<(String, String)> {
        let names = ["28.5", "28.5-containerd", "buildkit-tcp", "buildkit-tcp-26.1"];
        names.map(|name| (name.to_owned(), "1".to_owned())).to_vec()
    }

    #[test]
    fn the_ledger_is_counted_by_daemon() {
        let ledger = "BK_LIVE_DOCKER_28_5\ta\tok\nBK_LIVE_DOCKER_28_5_CONTAINERD\ta\tok\ndocker 28.5\tb\tok\n\
                      BK_LIVE_BUILDKIT_TCP_26_1\tc\tok\nBK_LIVE_BUILDKIT_TCP\tc\tok\nfake\td\tok\n28.5\te\tfailed\n";
        let summary = Summary::of(ledger, &versions());
        assert_eq!(
            summary.rows.iter().map(|row| row.2).collect::<Vec<_>>(),
            [2, 1, 1, 1]
        );
        assert_eq!(summary.others, BTreeMap::from([("fake".to_owned(), 1)]));
        assert!(summary.complete().is_ok());
        assert!(
            summary
                .to_string()
                .starts_with("live tests: 6\n      2  on 28.5 (1)\n")
        );
    }

    #[test]
    fn a_daemon_without_a_live_test_is_a_failure() {
        let summary = Summary::of("28.5\ta\tok\n", &versions());
        let error = summary.complete().unwrap_err().to_string();
        assert_eq!(
            error,
            "no live test ran on 28.5-containerd, buildkit-tcp, buildkit-tcp-26.1"
        );
    }
}
