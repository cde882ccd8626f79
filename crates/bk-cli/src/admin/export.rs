//! `bk history export`.
//!
//! The rule: nothing is exported unless every build that is meant has ended; an archive never goes to a terminal.

use std::io::{self, IsTerminal as _};

use bk_client::{Administration, BuildError, HistoryRecord, HistoryState, InputError, Sink};

use super::history::meant;
use crate::{args::HistoryExportArgs, exit};

/// Where the archive goes.
///
/// # Errors
/// It would go to a terminal.
pub(super) fn sink(args: &HistoryExportArgs) -> Result<Sink, InputError> {
    match &args.output {
        Some(path) if path.as_os_str() != "-" => Ok(Sink::File(path.clone())),
        _ if io::stdout().is_terminal() => Err(InputError::new(
            "--output",
            "an archive is not written to a terminal",
            "a FILE, or standard output as a file or pipe",
        )),
        _ => Ok(Sink::writer(|_| Ok(Box::new(tokio::io::stdout())))),
    }
}

/// Writes the archive.
pub(super) async fn export(admin: &dyn Administration, args: &HistoryExportArgs) -> Result<u8, BuildError> {
    let to = sink(args)?;
    let records = admin.history().await?;
    let builds = chosen(&records, args)?;
    if args.finalize {
        let without_trace = |build: &&String| {
            let record = records.iter().find(|r| r.build_ref == **build);
            record.is_some_and(|r| r.trace.is_none())
        };
        for build in builds.iter().filter(without_trace) {
            admin.history_finalize(build).await?;
        }
    }
    admin.history_export(&builds, to).await?;
    Ok(exit::SUCCESS)
}

/// The builds that are meant, all of which have ended.
fn chosen(records: &[HistoryRecord], args: &HistoryExportArgs) -> Result<Vec<String>, BuildError> {
    let has_ended = |record: &&HistoryRecord| record.state != HistoryState::Running;
    if !args.builds.is_empty() {
        // Those that run are refused where they are exported.
        return meant(records, &args.builds);
    }
    let ended = records.iter().filter(has_ended).map(|r| r.build_ref.clone());
    let builds: Vec<String> = ended.take(if args.all { usize::MAX } else { 1 }).collect();
    match builds.is_empty() {
        true => {
            let why = "the daemon remembers no build that has ended";
            Err(InputError::new("REF", why, "").into())
        }
        false => Ok(builds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_has_ended_is_meant_unless_others_are_named() {
        let record = |id: &str, state| {
            let mut record = HistoryRecord::default();
            record.build_ref = id.to_owned();
            record.state = state;
            record
        };
        let records = [
            record("run", HistoryState::Running),
            record("bad", HistoryState::Error),
            record("good", HistoryState::Completed),
        ];
        let args = |builds: &[&str], all| HistoryExportArgs {
            builds: builds.iter().map(|b| (*b).to_owned()).collect(),
            output: None,
            all,
            finalize: false,
        };
        for (given, expected) in [
            (args(&[], false), &["bad"][..]),
            (args(&[], true), &["bad", "good"]),
            (args(&["^2", "b"], false), &["good", "bad"]),
            (args(&["^0"], false), &["run"]),
        ] {
            assert_eq!(chosen(&records, &given).expect("builds"), expected);
        }
        let e = chosen(&records[..1], &args(&[], true)).expect_err("none");
        assert_eq!(e.to_string(), "REF: the daemon remembers no build that has ended");
    }
}
