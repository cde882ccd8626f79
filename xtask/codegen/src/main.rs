//! Turns `proto/` into the generated modules of `bk-proto`.
//!
//! `xtask-codegen` writes `crates/bk-proto/src/generated/`; `xtask-codegen --check` writes nothing, names every
//! file that would change and exits 1 when there is one. The same sources always give the same bytes. The
//! compiler is written in Rust, so nothing has to be installed, and users of the crate run none of this.

mod generate;
mod tree;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// Where the sources are, from the root of the workspace.
const PROTO_DIR: &str = "proto";
/// Where the generated modules belong, from the root of the workspace.
const GENERATED_DIR: &str = "crates/bk-proto/src/generated";

/// What the command line asks for.
enum Job {
    Write,
    Check,
}

fn main() -> ExitCode {
    let job = match parse(std::env::args().skip(1)) {
        Ok(job) => job,
        Err(unknown) => {
            return report(
                &format!("unknown argument `{unknown}`; the only one is --check"),
                ExitCode::from(2),
            );
        }
    };
    match run(&job) {
        Ok(changed) if changed.is_empty() => ExitCode::SUCCESS,
        Ok(changed) => match job {
            Job::Write => report(&format!("wrote {}", changed.join(", ")), ExitCode::SUCCESS),
            Job::Check => report(
                &format!(
                    "{GENERATED_DIR} does not agree with {PROTO_DIR}: {}\nrun `cargo xtask codegen`",
                    changed.join(", ")
                ),
                ExitCode::FAILURE,
            ),
        },
        Err(err) => report(&err.to_string(), ExitCode::FAILURE),
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Job, String> {
    match args.next() {
        None => Ok(Job::Write),
        Some(arg) if arg == "--check" => args.next().map_or(Ok(Job::Check), Err),
        Some(arg) => Err(arg),
    }
}

/// Generates everything and gives the names of the files that differ, after writing them if that is the job.
fn run(job: &Job) -> Result<Vec<String>, generate::Error> {
    // The manifest lies two levels below the root of the workspace.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let wanted = generate::generate(&root.join(PROTO_DIR))?;
    let dir = root.join(GENERATED_DIR);
    let changed = tree::differences(&dir, &wanted)?;
    if matches!(job, Job::Write) {
        tree::write(&dir, &wanted, &changed)?;
    }
    Ok(changed)
}

/// Says something on standard error and passes the code on. A closed standard error changes neither.
fn report(text: &str, code: ExitCode) -> ExitCode {
    let _closed = writeln!(io::stderr(), "{text}");
    code
}
