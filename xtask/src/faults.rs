//! `cargo xtask faults`: builds that go wrong, on a real daemon of their own and on a hostile one.
//!
//! The runs themselves are the test program `faults` of `bk-client`; this job finds the engine for it and passes the
//! options on.

use crate::daemons;
use crate::run::{Result, cargo, check};

/// What the job takes.
const USAGE: &str = "usage: cargo xtask faults [--seed N] [--runs N] [--only KIND] [--long] [--load] [--no-live] [--no-hostile]";
/// Options with a value.
const VALUES: [&str; 3] = ["--seed", "--runs", "--only"];
/// Options without one.
const FLAGS: [&str; 4] = ["--long", "--load", "--no-live", "--no-hostile"];

/// The job itself.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let known = if VALUES.contains(&argument.as_str()) {
            rest.next().is_some()
        } else {
            FLAGS.contains(&argument.as_str())
        };
        if !known {
            return Err(format!("{argument}: {USAGE}").into());
        }
    }
    let mut command = cargo();
    command.args(["test", "--package", "bk-client", "--test", "faults", "--"]);
    command.args(arguments);
    let live = !arguments.iter().any(|a| a == "--no-live");
    // Those that are set already, by `cargo xtask daemons up` or by hand, win.
    if !live || std::env::var_os("BK_LIVE_DOCKERD").is_some() {
        return check(&mut command);
    }
    command.envs(daemons::private_engines()?);
    command.env("BK_LIVE_REQUIRED", "1");
    let trimming = daemons::trimming();
    let outcome = check(&mut command);
    drop(trimming);
    outcome.and(daemons::private_engines_gone())
}
