//! Faults with real daemons and with a hostile one: each build ends with the right result or a typed error in time, and
//! nothing is left behind. `cargo xtask faults` runs this program, and `cargo test` a short selection of it.
//!
//! It is a program of its own, because it counts the tasks, descriptors, children and temporary files of its process.
#![expect(
    clippy::print_stdout,
    reason = "it is a program that tells a person what it did"
)]

#[path = "faults/builds.rs"]
mod builds;
#[path = "faults/daemon.rs"]
mod daemon;
#[path = "faults/hostile.rs"]
mod hostile;
#[path = "faults/leaks.rs"]
mod leaks;
#[path = "faults/load.rs"]
mod load;
#[path = "faults/options.rs"]
mod options;
#[path = "faults/scenario.rs"]
mod scenario;
#[path = "faults/table.rs"]
mod table;

use std::{path::Path, process::ExitCode};

use options::{Options, Parsed};

/// Threads of the runtime that the client runs on, as in the program.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    if let Some(code) = hostile::child() {
        return code;
    }
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Nothing) => return ExitCode::SUCCESS,
        Err(text) => {
            println!("faults: {text}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .expect("a runtime");
    let failures = runtime.block_on(all(&options));
    drop(runtime);
    if failures.is_empty() {
        println!("\nfaults: ok (seed {})", options.seed);
        return ExitCode::SUCCESS;
    }
    for failure in &failures {
        println!("faults: {failure}");
    }
    println!(
        "\nfaults: FAILED; the same again: cargo xtask faults --seed {}",
        options.seed
    );
    ExitCode::FAILURE
}

/// Everything that was asked for; returns what is wrong.
async fn all(options: &Options) -> Vec<String> {
    // Lives as long as the process makes temporary files: where they are made can be said once only.
    let scratch = match tempfile::Builder::new().prefix("bk-faults-tmp-").tempdir() {
        Ok(scratch) => scratch,
        Err(e) => return vec![format!("no temporary directory: {e}")],
    };
    if tempfile::env::override_temp_dir(scratch.path()).is_err() {
        return vec!["temporary files are made somewhere else already".to_owned()];
    }
    let mut failures = Vec::new();
    if options.runs > 0 {
        failures.extend(live(options, scratch.path()).await);
    }
    if options.hostile {
        failures.extend(hostile::all().await);
    }
    if options.load {
        failures.extend(load::load().await);
    }
    if options.long {
        failures.extend(load::soak().await);
    }
    failures
}

/// The random runs on a real daemon, if there is one.
async fn live(options: &Options, scratch: &Path) -> Vec<String> {
    let Some(program) = std::env::var_os("BK_LIVE_DOCKERD") else {
        let text = "no real daemon: BK_LIVE_DOCKERD names no dockerd (cargo xtask daemons up does)";
        println!("faults: {text}");
        return match std::env::var_os("BK_LIVE_REQUIRED") {
            Some(_) => vec![text.to_owned()],
            None => Vec::new(),
        };
    };
    println!(
        "faults: seed {}, {} runs on a dockerd of its own",
        options.seed, options.runs
    );
    scenario::runs(options, program.as_ref(), scratch).await
}
