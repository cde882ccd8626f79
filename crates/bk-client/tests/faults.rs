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
#[path = "faults/home.rs"]
mod home;
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
#[path = "faults/way.rs"]
mod way;

use std::{path::PathBuf, process::ExitCode};

use daemon::Version;
use home::Home;
use options::{Options, Parsed};
use scenario::Places;

/// Threads of the runtime that the client runs on, as in the program.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    if let Some(code) = hostile::child().or_else(home::child) {
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
    let data = std::env::var_os("BK_LIVE_DATA").map(PathBuf::from);
    let parents = [Some(home::run_dir().to_owned()), Some(std::env::temp_dir()), data];
    for path in parents.iter().flatten().flat_map(|parent| home::sweep(parent)) {
        println!(
            "faults: removed {}, which a run that was killed has left",
            path.display()
        );
    }
    // Lives as long as the process makes temporary files: where they are made can be said once only.
    let made =
        Home::make(&std::env::temp_dir()).and_then(|home| Ok((home.sub("tmp")?, home.sub("jobs")?, home)));
    let (scratch, jobs, _home) = match made {
        Ok(made) => made,
        Err(e) => return vec![format!("no temporary directory: {e}")],
    };
    if tempfile::env::override_temp_dir(&scratch).is_err() {
        return vec!["temporary files are made somewhere else already".to_owned()];
    }
    let places = Places {
        scratch: &scratch,
        jobs: &jobs,
    };
    let mut failures = Vec::new();
    if options.runs > 0 {
        failures.extend(live(options, places).await);
    }
    if options.hostile {
        failures.extend(hostile::all().await);
    }
    // First: what the load leaves in the memory of this process would hide a leak.
    if options.long {
        failures.extend(load::soak().await);
    }
    if options.load {
        failures.extend(load::load().await);
    }
    failures
}

/// The random runs on real daemons, if there are any.
async fn live(options: &Options, places: Places<'_>) -> Vec<String> {
    if !Version::Docker28.is_there() {
        let text = "no real daemon: BK_LIVE_DOCKERD names no dockerd (cargo xtask daemons up does)";
        println!("faults: {text}");
        return match std::env::var_os("BK_LIVE_REQUIRED") {
            Some(_) => vec![text.to_owned()],
            None => Vec::new(),
        };
    }
    println!(
        "faults: seed {}, {} runs on dockerds of its own",
        options.seed, options.runs
    );
    let mut failures = home::check().await;
    failures.extend(scenario::runs(options, places).await);
    failures
}
