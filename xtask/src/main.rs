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

mod ci;
mod daemons;
mod demo;
mod faults;
mod guard;
mod live;
mod peers;
mod prove_sync;
mod run;
mod support;
mod test;
mod tidy;
mod windows;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <job>

  demo                              build examples/hello with bk on a Docker daemon and run it
  test [--no-live] [FILTER...]      run every test, with the real daemons up
  live --addr ADDR [OPTION...]      run the conformance suite on any daemon and say what works there
  support [LEDGER]                  write docs/support.md as the last full test run saw it
  daemons up|down|status [NAME...]  start, stop or list the real daemons that live tests use
  faults [--seed N] [--runs N] [--only KIND] [--long] [--load] [--no-live] [--no-hostile]
                                    builds that go wrong, on a real daemon and on a hostile one
  prove-sync                        show on real daemons what file sync promises
  bench-peers [--runs N] [--only NAME]... [--small] [--keep]
                                    compare bk with docker buildx and bollard on one daemon
  tidy                              check layers, file heads and the like
  codegen [--check]                 write the generated protocol code, or compare it
  vectors [DIR]                     check pattern and walk vectors
  ci [STEP...]                      everything that has to hold before a change is merged
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(&arguments)
}

fn run(arguments: &[String]) -> ExitCode {
    let (job, rest) = match arguments.split_first() {
        Some((job, rest)) => (job.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match job {
        "demo" => demo::main(rest),
        "test" => test::main(rest),
        "live" => live::main(rest),
        "support" => support::main(rest),
        "daemons" => daemons::main(rest),
        "faults" => faults::main(rest),
        "prove-sync" => prove_sync::main(rest),
        "bench-peers" => peers::main(rest),
        "tidy" => tidy::main(rest),
        "codegen" => ci::codegen(rest),
        "vectors" => ci::vectors(rest),
        "ci" => ci::main(rest),
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(())
        }
        demo::DOWN => daemons::demo_down(),
        peers::DOWN => peers::down(rest),
        peers::MEASURE => peers::measure(rest),
        guard::JOB => {
            guard::wait();
            return run(rest);
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
