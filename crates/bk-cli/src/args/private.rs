//! The private daemon: `--daemonless` and `bk daemon`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

/// Whether a private daemon is started, and how.
#[derive(Debug, Default, Args)]
pub(crate) struct DaemonlessArgs {
    /// Start a private buildkitd (with rootlesskit, when not root) or dockerd and build on that. Default: only when no
    /// daemon is named, none answers, and one of these programs is there; false forbids it
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, conflicts_with_all = ["addr", "builder"])]
    pub(crate) daemonless: Option<bool>,
    /// The program of the private daemon: a path, or a name in PATH, with buildkitd or dockerd in it
    #[arg(long, global = true, value_name = "PROGRAM")]
    pub(crate) daemonless_program: Option<PathBuf>,
    /// How long the private daemon stays after its last use, for instance 90s, 10m or 1h. Default: 10m
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub(crate) daemonless_idle: Option<Duration>,
}

/// `bk daemon`.
#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Say whether the private daemon runs, and who uses it
    Status(DaemonStatusArgs),
    /// Stop the private daemon; its cache stays
    Stop(DaemonStopArgs),
    /// Look after the private daemon
    #[command(hide = true)]
    Keep(KeepArgs),
}

/// `bk daemon status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk daemon status                       whether it runs, where, who uses it, and when it will stop
  bk daemon status --json                the same for programs")]
pub(crate) struct DaemonStatusArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `bk daemon stop`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk daemon stop                         stop it, unless it is used
  bk daemon stop --force                 stop it anyway: what uses it fails

Exit codes: 0 none runs any more, 1 it is used and goes on")]
pub(crate) struct DaemonStopArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Stop it even while builds use it: they fail
    #[arg(long)]
    pub(crate) force: bool,
}

/// `bk daemon keep`, which `bk` itself starts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk daemon keep --state /s --run /s/run --kind buildkitd --program /usr/bin/buildkitd --idle 600   as bk starts it")]
pub(crate) struct KeepArgs {
    /// The directory of its state
    #[arg(long)]
    pub(crate) state: PathBuf,
    /// The directory of its sockets
    #[arg(long)]
    pub(crate) run: PathBuf,
    /// What the program is
    #[arg(long, value_enum)]
    pub(crate) kind: DaemonKind,
    /// The program
    #[arg(long)]
    pub(crate) program: PathBuf,
    /// The program that gives it a user namespace
    #[arg(long)]
    pub(crate) rootlesskit: Option<PathBuf>,
    /// Seconds that it stays unused
    #[arg(long)]
    pub(crate) idle: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DaemonKind {
    Buildkitd,
    Dockerd,
}

/// A number with `s`, `m` or `h` behind it; seconds without.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no time; say it as 90s, 10m or 1h");
    let (number, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((_, '0'..='9')) => (text, 1),
        _ => return Err(bad()),
    };
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let seconds = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .ok_or_else(bad)?;
    let idle = Duration::from_secs(seconds);
    if idle > bk_client::daemon::limits::MAX_IDLE {
        return Err(format!("`{text}` is more than a day"));
    }
    Ok(idle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [("0s", 0), ("7", 7), ("90s", 90), ("10m", 600), ("24h", 86400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in [
            "",
            "s",
            "-1s",
            "1.5m",
            "25h",
            "99999999999999999999h",
            "5d",
            "10µ",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
