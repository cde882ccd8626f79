//! `cargo xtask bench-peers`: `bk build` beside `docker buildx build` and bollard's tar upload, on one daemon.
//!
//! The rule: all clients run in turn, round by round, so that whatever else the machine does hits all of them; each gets
//! the same daemon, the same files and the same work of the daemon. The daemon's data and the contexts lie in memory:
//! clients are compared, not disks.
//!
//! `bk` and `buildx` run a Dockerfile that mounts the whole context into one step, so that the daemon receives and sums
//! every file but copies none: its own work is the least that a whole context can cost. The classic builder, which is
//! what bollard's upload reaches, has no mounts; there the files are copied into an image.

mod contexts;
mod measure;
mod table;

use crate::daemons::{self, api};
use crate::guard::Guard;
use crate::run::{Result, cargo, check, output, workspace};
use contexts::{Context, Kind, NAMES};
use measure::{Cost, settle};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use table::{BASE, Runs};

pub(crate) use measure::{JOB as MEASURE, main as measure};

/// The hidden job that removes the daemon and the contexts.
pub(crate) const DOWN: &str = "__bench-down";

const USAGE: &str = "usage: cargo xtask bench-peers [--runs N] [--only NAME]... [--small] [--keep]";
const MOUNTED: &str = "FROM scratch\nCOPY busybox /bin/busybox\nRUN --network=none --mount=type=bind,target=/context [\"/bin/busybox\", \"true\"]\n";
const COPIED: &str = "FROM scratch\nCOPY . /\n";
const START_UP: &str = "FROM scratch\nCOPY tiny /\n";

struct Options {
    runs: usize,
    only: Vec<String>,
    small: bool,
    keep: bool,
}

/// The job itself.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let options = parse(arguments)?;
    println!("compiling bk and bollard's example, optimised");
    check(cargo().args(["build", "--release", "--package", "bk-cli"]))?;
    check(cargo().args([
        "build",
        "--release",
        "--package",
        "bk-benches",
        "--example",
        "bollard_upload",
    ]))?;
    let base = base()?;
    let guard = Guard::new(&[DOWN.to_owned(), base.display().to_string()])?;
    let outcome = daemons::bench_up().and_then(|address| compare(&options, &base, &address));
    let cleaned = guard.close();
    outcome.and(cleaned)
}

/// The hidden job: removes the daemon, and the directory of contexts.
pub(crate) fn down(arguments: &[String]) -> Result<()> {
    let removed = daemons::bench_down();
    for dir in arguments {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    removed
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        runs: 5,
        only: Vec::new(),
        small: false,
        keep: false,
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--runs" => {
                let count = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                options.runs = count.ok_or("--runs needs a number above 0")?;
            }
            "--only" => match words.next() {
                Some(name) if NAMES.contains(&name.as_str()) => options.only.push(name.clone()),
                _ => return Err(format!("--only needs one of {}", NAMES.join(", ")).into()),
            },
            "--small" => options.small = true,
            "--keep" => options.keep = true,
            other => return Err(format!("there is no option {other}\n{USAGE}").into()),
        }
    }
    Ok(options)
}

/// A directory for contexts, in memory where there is such a place.
fn base() -> Result<PathBuf> {
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() {
        shared.to_path_buf()
    } else {
        workspace().join("target")
    };
    let base = parent.join(format!("bk-bench-peers-{}", std::process::id()));
    fs::create_dir(&base)?;
    Ok(base)
}

/// What all runs need.
struct Bench<'a> {
    address: &'a str,
    base: &'a Path,
    bk: PathBuf,
    bollard: PathBuf,
    docker: (PathBuf, PathBuf),
}

fn compare(options: &Options, base: &Path, address: &str) -> Result<()> {
    let release = target_dir()?.join("release");
    let bench = Bench {
        address,
        base,
        bk: release.join("bk"),
        bollard: release.join("examples/bollard_upload"),
        docker: daemons::docker_cli(),
    };
    for (name, text) in [("mounted", MOUNTED), ("copied", COPIED), ("start-up", START_UP)] {
        fs::write(base.join(name), text)?;
    }
    let machine = table::machine(
        &format!("Docker {}", api::version(address, "Version").unwrap_or_default()),
        &bench.versions()?,
        base.starts_with("/dev/shm"),
    );
    println!("\n{machine}");
    let document = workspace().join("docs/benchmarks.md");
    if options.keep {
        table::keep(&document, "machine", &machine)?;
    }
    let chosen = |name: &&&'static str| {
        if options.only.is_empty() {
            // Half a million files take a while; they are there for one number.
            **name != "many"
        } else {
            options.only.iter().any(|n| n == **name)
        }
    };
    for name in NAMES.iter().filter(chosen) {
        let context = contexts::make(name, base, options.small)?;
        fs::copy(daemons::demo_busybox()?, context.dir.join("busybox"))?;
        let text = table::table(&context, &bench.measure(&context, options.runs)?);
        println!("{text}");
        if options.keep {
            table::keep(&document, name, &text)?;
        }
        if *name != "small-files" {
            fs::remove_dir_all(&context.dir)?;
        }
    }
    Ok(())
}

impl Bench<'_> {
    fn measure(&self, context: &Context, runs: usize) -> Result<Vec<Runs>> {
        let clients = ["bk", BASE, "bollard"];
        let mut results: Vec<Runs> = clients
            .iter()
            .map(|client| Runs {
                client,
                costs: Vec::new(),
            })
            .collect();
        self.forget()?;
        if context.kind != Kind::Fresh {
            // The first fills the daemon; the second lets a client see that nothing is new.
            for client in clients.into_iter().chain(clients) {
                self.once(client, context)?;
            }
        }
        for round in 0..runs {
            for at in 0..clients.len() {
                // Each client goes first in turn.
                let result = &mut results[(at + round) % clients.len()];
                if context.kind == Kind::Fresh {
                    self.forget()?;
                }
                let cost = self.once(result.client, context)?;
                eprintln!("  {} {}: {cost:.2?}", context.name, result.client);
                result.costs.push(cost);
            }
        }
        self.forget()?;
        Ok(results)
    }

    fn once(&self, client: &str, context: &Context) -> Result<Cost> {
        settle();
        let dockerfile = self.base.join(match (client, context.kind) {
            (_, Kind::Cached) => "start-up",
            ("bollard", _) => "copied",
            _ => "mounted",
        });
        let mut command;
        match client {
            "bk" => {
                command = Command::new(&self.bk);
                command.args(["--addr", self.address, "build", "--progress", "plain", "--file"]);
            }
            "bollard" => {
                command = Command::new(&self.bollard);
                command.arg(self.address);
            }
            _ => {
                command = Command::new(&self.docker.0);
                command.env("DOCKER_CONFIG", &self.docker.1);
                command.args([
                    "--host",
                    self.address,
                    "buildx",
                    "build",
                    "--progress",
                    "plain",
                    "--file",
                ]);
            }
        }
        command.arg(dockerfile).arg(&context.dir);
        measure::run(&command, self.base)
    }

    /// Makes the daemon forget every context, step and image.
    fn forget(&self) -> Result<()> {
        let images: Value = serde_json::from_str(&api::get(self.address, "/images/json")?)?;
        for id in images
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|i| i["Id"].as_str())
        {
            api::delete(self.address, &format!("/images/{id}?force=1"))?;
        }
        api::post(self.address, "/build/prune?all=true", &Value::Null)?;
        Ok(())
    }

    fn versions(&self) -> Result<Vec<String>> {
        let mut docker = Command::new(&self.docker.0);
        docker
            .env("DOCKER_CONFIG", &self.docker.1)
            .args(["buildx", "version"]);
        let buildx = output(&mut docker)?;
        let buildx = buildx.split_whitespace().nth(1).unwrap_or("?");
        let lock = fs::read_to_string(workspace().join("Cargo.lock"))?;
        let bollard = lock.split("name = \"bollard\"\nversion = \"").nth(1);
        let bollard = bollard.and_then(|rest| rest.split('"').next()).unwrap_or("?");
        Ok(vec![
            "bk of this tree".to_owned(),
            format!("{BASE} {buildx}"),
            format!("bollard {bollard} (classic builder)"),
        ])
    }
}

/// Where cargo puts what it builds.
fn target_dir() -> Result<PathBuf> {
    let text = output(cargo().args(["metadata", "--format-version", "1", "--no-deps", "--offline"]))?;
    let value: Value = serde_json::from_str(&text)?;
    let dir = value["target_directory"].as_str();
    Ok(dir.ok_or("cargo names no target directory")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let parse = |words: &[&str]| parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let options = parse(&["--runs", "3", "--only", "real", "--small"]).unwrap();
        assert_eq!((options.runs, options.small, options.keep), (3, true, false));
        assert_eq!(options.only, ["real"]);
        assert!(parse(&["--runs", "0"]).is_err());
        assert!(parse(&["--only", "nothing"]).is_err());
        assert!(parse(&["--what"]).is_err());
    }
}
