//! Chores of the workspace, run as `cargo xtask <job>`.
//!
//! The rule here: every check of the project is one of these jobs, and continuous integration calls nothing else.
//! This crate depends on no other crate of the workspace, so that it compiles in seconds; jobs that need one run it
//! with `cargo run`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "xtask is a program for people at a terminal"
)]

mod daemons;
mod run;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <job>

  daemons up|down|status [NAME...]  start, stop or list the real daemons that live tests use
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (job, rest) = match arguments.split_first() {
        Some((job, rest)) => (job.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match job {
        "daemons" => daemons::main(rest),
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(())
        }
        other => Err(format!("there is no job {other:?}\n{USAGE}").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {job}: {error}");
            ExitCode::FAILURE
        }
    }
}
