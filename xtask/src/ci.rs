//! `cargo xtask ci`: what has to hold before a change is merged, as steps that also run alone.

use crate::run::{Result, cargo, check, workspace};
use crate::{test, tidy, windows};
use std::process::Command;
use std::time::Instant;

type Step = fn() -> Result<()>;

/// A step's name and what it does, in the order in which all of them run: cheap ones first.
const STEPS: [(&str, Step); 11] = [
    ("fmt", || check(cargo().args(["fmt", "--all", "--check"]))),
    ("tidy", || tidy::main(&[])),
    ("codegen", || codegen(&["--check".to_owned()])),
    ("clippy", || {
        check(cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]))
    }),
    ("doc", || {
        check(
            cargo()
                .args(["doc", "--workspace", "--no-deps"])
                .env("RUSTDOCFLAGS", "--deny warnings"),
        )
    }),
    ("features", features),
    ("windows", windows::main),
    ("vectors", || vectors(&[])),
    ("benches", benches),
    ("test", || test::main(&[])),
    ("fuzz", fuzz),
];

/// The job itself: all steps, or those named. Every step runs, whatever the others found.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let known: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = arguments.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("there is no step {unknown:?}; there are {}", known.join(", ")).into());
    }
    let mut failed = Vec::new();
    for (name, step) in STEPS
        .iter()
        .filter(|(name, _)| arguments.is_empty() || arguments.iter().any(|a| a == name))
    {
        eprintln!("\n== {name}");
        let since = Instant::now();
        let outcome = step();
        let seconds = since.elapsed().as_secs();
        match outcome {
            Ok(()) => eprintln!("== {name}: ok ({seconds} s)"),
            Err(error) => {
                eprintln!("== {name}: FAILED ({seconds} s): {error}");
                failed.push(*name);
            }
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("failed: {}", failed.join(", ")).into())
    }
}

/// The workspace of fuzz targets: style, lints, the tests of its models, and each target for a short time, which begins
/// with its seeds.
fn fuzz() -> Result<()> {
    const SECONDS: &str = "20";
    // The engine is C++, which nothing else here needs.
    let compiler = Command::new("c++").arg("--version").output();
    if !compiler.is_ok_and(|c| c.status.success()) {
        return Err("the fuzz targets need a C++ compiler: install g++".into());
    }
    let inside = |words: &[&str]| {
        let mut command = cargo();
        check(command.args(words).current_dir(workspace().join("fuzz")))
    };
    inside(&["fmt", "--check"])?;
    inside(&["clippy", "--all-targets", "--", "--deny", "warnings"])?;
    inside(&["test", "--lib"])?;
    check(Command::new(workspace().join("fuzz/run")).arg(SECONDS))
}

/// `cargo xtask codegen`: writes the generated code, or with `--check` compares it.
pub(crate) fn codegen(arguments: &[String]) -> Result<()> {
    check(run_package("xtask-codegen").arg("--").args(arguments))
}

/// `cargo xtask vectors`: checks pattern and walk vectors, those of the crate or those in a directory.
pub(crate) fn vectors(arguments: &[String]) -> Result<()> {
    let mut command = run_package("bk-fsync");
    command.args(["--example", "vectors", "--"]);
    for dir in arguments {
        // The example runs in the root of the workspace, wherever the user is.
        command.arg(std::path::absolute(dir)?);
    }
    check(&mut command)
}

/// A feature of the facade must neither need another one nor leave anything unused when it is alone.
fn features() -> Result<()> {
    for features in ["", "docker", "buildkitd", "docker,buildkitd"] {
        let selection = ["--no-default-features", "--features", features];
        let mut clippy = cargo();
        clippy.args(["clippy", "--package", "bk-client"]).args(selection);
        check(clippy.args(["--", "--deny", "warnings"]))?;
    }
    let traces = ["--package", "bk-cli", "--features", "otel"];
    let mut clippy = cargo();
    clippy
        .arg("clippy")
        .args(traces)
        .args(["--bins", "--test", "otel"]);
    check(clippy.args(["--", "--deny", "warnings"]))?;
    check(cargo().arg("test").args(traces).args(["--test", "otel"]))?;
    check(cargo().arg("test").args(traces).args(["--bin", "bk", "traces::"]))
}

/// Runs every benchmark once, small, so that none rots. Nothing is measured: what was compiled for the tests will do.
fn benches() -> Result<()> {
    check(
        cargo()
            .args([
                "bench",
                "--package",
                "bk-benches",
                "--profile",
                "dev",
                "--",
                "--test",
            ])
            .env("BK_BENCH_SMALL", "1"),
    )
}

fn run_package(package: &str) -> Command {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", package]);
    command
}
