//! `cargo xtask daemons`: the real daemons that live tests talk to.
//!
//! Everything comes from Debian packages, unpacked and never installed; a daemon of the system is never touched. The
//! daemons outlive this program until `down`, which also works after any of them crashed. `up` may be called again at
//! any time: it starts what is missing.
//!
//! Live tests learn of the daemons by variables, which `up` prints and keeps in `target/daemons/env`:
//!
//! | variable | value |
//! |---|---|
//! | `BK_LIVE_DOCKER_20_10`, `_26_1`, `_28_5`, `_28_5_CONTAINERD` | `unix://…` of the engine |
//! | `BK_LIVE_BUILDKIT_UNIX`, `_TCP`, `_TCP_26_1` | `unix://…` or `tcp://…` of a BuildKit endpoint |
//! | the same with `_DOCKER` | `unix://…` of the engine behind the endpoint |
//! | `BK_LIVE_REGISTRY`, `_USER`, `_PASSWORD`, `_BASE` | `host:port`, its one account, the base image |
//! | `BK_LIVE_REGISTRY_PROGRAM` | path of the registry's program, for tests that start their own |
//! | `BK_LIVE_SSHD` | path of a program that is OpenSSH's server |
//! | `BK_LIVE_PODMAN` | path of a program that is Podman, with the `conmon` and `runc` that it needs beside it |
//! | `BK_LIVE_DOCKERD`, `_20_10`, `_26_1` | path of a program that is a dockerd (the newest, and older ones), for tests that start their own |
//! | `BK_LIVE_DATA` | a directory on a disk in which they may keep the data of such an engine |
//! | `BK_LIVE_BUSYBOX` | path of a static busybox |
//! | `BK_LIVE_DOCKER_CLI`, `_CONFIG` | path of a Docker CLI, and its configuration with the buildx plugin |

pub(crate) mod api;
mod disk;
mod docker;
mod endpoint;
mod layout;
mod lock;
mod packages;
mod process;
mod registry;
mod service;

use crate::run::Result;
use docker::{BENCH, DEMO, Engine};
use layout::Layout;
use lock::Lock;
use packages::{BOOKWORM, BUSYBOX, FORKY, MINGW, PODMAN, SSHD, TRIXIE, UMOCI};
use service::{Service, select};
use std::fs;
use std::path::{Path, PathBuf};

/// The job itself: `up`, `down` or `status`, and the names of services, none for all.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let usage = "usage: cargo xtask daemons up|down|status [NAME...]";
    let (verb, names) = arguments.split_first().ok_or(usage)?;
    let layout = Layout::new();
    match verb.as_str() {
        "up" => {
            let _lock = Lock::take(&layout)?;
            up(&layout, names)?;
            for (name, value) in variables(&layout)? {
                println!("export {name}={value}");
            }
        }
        "down" => {
            let _lock = Lock::take(&layout)?;
            down(&layout, names)?;
        }
        "status" => status(&layout, names)?,
        _ => return Err(usage.into()),
    }
    Ok(())
}

/// What a run of live tests has to know of the daemons.
pub(crate) struct Running {
    /// The variables that tell the tests where each daemon is.
    pub(crate) variables: Vec<(String, String)>,
    /// The name and version of each daemon that builds.
    pub(crate) versions: Vec<(String, String)>,
}

/// Starts everything that is not up.
pub(crate) fn up_all() -> Result<Running> {
    let layout = Layout::new();
    let _lock = Lock::take(&layout)?;
    up(&layout, &[])?;
    let versions = Service::all()
        .iter()
        .filter_map(|service| Some((service.name().to_owned(), service.version(&layout)?)))
        .collect();
    Ok(Running {
        variables: variables(&layout)?,
        versions,
    })
}

/// A daemon that builds, and is up.
pub(crate) struct Place {
    /// The name of the service.
    pub(crate) name: &'static str,
    /// What it states of itself.
    pub(crate) version: String,
    /// What `bk --backend` calls its kind.
    pub(crate) backend: &'static str,
    /// Where it listens.
    pub(crate) address: String,
    /// Where the engine listens that has its images.
    pub(crate) engine: String,
}

/// Every daemon that builds and is up: those of this workspace, or else those that the variables of live tests name.
pub(crate) fn places() -> Vec<Place> {
    let layout = Layout::new();
    let all = Service::all();
    let up = all.iter().filter(|service| service.is_running(&layout));
    let up: Vec<Place> = up.filter_map(|service| service.place(&layout)).collect();
    if up.is_empty() {
        all.iter().filter_map(Service::named_place).collect()
    } else {
        up
    }
}

/// The names of the services that are not up.
pub(crate) fn stopped() -> Vec<String> {
    let layout = Layout::new();
    let stopped = Service::all()
        .into_iter()
        .filter(|service| !service.is_running(&layout));
    stopped.map(|service| service.name().to_owned()).collect()
}

/// Gives what the daemons remove back to the disk for as long as this is held.
pub(crate) fn trimming() -> disk::Trimming {
    disk::Trimming::begin(&Layout::new())
}

/// The directory of all state.
pub(crate) fn base() -> PathBuf {
    Layout::new().base().to_path_buf()
}

/// Starts the private engine of the demo; returns its address.
pub(crate) fn demo_up() -> Result<String> {
    let layout = Layout::new();
    let _lock = Lock::take(&layout)?;
    require_root()?;
    prepare(&layout, &[BOOKWORM])?;
    DEMO.start(&layout)?;
    DEMO.wait(&layout)?;
    Ok(DEMO.address(&layout))
}

/// Stops the private engine of the demo and removes what it kept.
pub(crate) fn demo_down() -> Result<()> {
    let layout = Layout::new();
    let _lock = Lock::take(&layout)?;
    DEMO.remove(&layout)?;
    remove_if_idle(&layout)
}

/// A busybox that needs no library.
pub(crate) fn demo_busybox() -> Result<PathBuf> {
    let layout = Layout::new();
    packages::ensure(&layout, &[BUSYBOX])?;
    Ok(layout.packages(BUSYBOX).join("bin/busybox"))
}

/// Where the C compiler and linker for Windows are unpacked.
pub(crate) fn windows_tools() -> Result<PathBuf> {
    let layout = Layout::new();
    let _lock = Lock::take(&layout)?;
    packages::ensure(&layout, &[MINGW])?;
    Ok(layout.packages(MINGW))
}

/// Programs for tests that start engines of their own, and a place on a disk for the data of large ones: the variables
/// that name them.
pub(crate) fn private_engines() -> Result<Vec<(&'static str, PathBuf)>> {
    let layout = Layout::new();
    let _lock = Lock::take(&layout)?;
    require_root()?;
    prepare(&layout, &[BOOKWORM, TRIXIE, FORKY])?;
    link_buildx(&layout)?;
    let mut found = docker::programs(&layout)?;
    let (docker, config) = docker_cli();
    found.extend([
        ("BK_LIVE_BUSYBOX", docker::busybox_path(&layout)),
        ("BK_LIVE_DOCKER_CLI", docker),
        ("BK_LIVE_DOCKER_CLI_CONFIG", config),
        ("BK_LIVE_DATA", layout.data_dir()),
    ]);
    Ok(found)
}

/// Removes what [`private_engines`] has prepared for them, unless other daemons use it.
pub(crate) fn private_engines_gone() -> Result<()> {
    let layout = Layout::new();
    let _lock = Lock::take(&layout)?;
    remove_if_idle(&layout)
}

/// Starts the private engine that clients are compared on; returns its address.
pub(crate) fn bench_up() -> Result<String> {
    let layout = Layout::new();
    let _lock = Lock::take(&layout)?;
    require_root()?;
    prepare(&layout, &[BOOKWORM, FORKY])?;
    link_buildx(&layout)?;
    BENCH.start(&layout)?;
    BENCH.wait(&layout)?;
    Ok(BENCH.address(&layout))
}

/// Stops that engine and removes what it kept.
pub(crate) fn bench_down() -> Result<()> {
    let layout = Layout::new();
    let _lock = Lock::take(&layout)?;
    BENCH.remove(&layout)?;
    remove_if_idle(&layout)
}

/// The session of that engine's processes while it runs.
pub(crate) fn bench_session() -> Option<u32> {
    process::running(&Layout::new(), BENCH.name)
}

/// A Docker CLI, and its configuration with the buildx plugin.
pub(crate) fn docker_cli() -> (PathBuf, PathBuf) {
    let layout = Layout::new();
    (layout.packages(FORKY).join("usr/bin/docker"), layout.cli_config())
}

/// Starts what is not running of `names` and waits until all of it answers.
fn up(layout: &Layout, names: &[String]) -> Result<()> {
    let services = select(names, true)?;
    require_root()?;
    let mut sets = vec![BOOKWORM, FORKY, PODMAN, SSHD, UMOCI];
    let engines: Vec<&Engine> = services
        .iter()
        .filter_map(|service| match service {
            Service::Engine(engine) => Some(*engine),
            _ => None,
        })
        .collect();
    sets.extend(engines.iter().map(|engine| engine.suite));
    prepare(layout, &sets)?;
    link_buildx(layout)?;
    docker::wrap(layout, SSHD, "usr/sbin/sshd", "sshd", false)?;
    docker::wrap(layout, PODMAN, "usr/bin/podman", "podman", false)?;
    docker::wrap(layout, PODMAN, "usr/bin/conmon", "conmon", false)?;

    let (first, second): (Vec<&Service>, Vec<&Service>) = services
        .iter()
        .partition(|service| matches!(service, Service::Engine(_)));
    for service in first.into_iter().filter(|service| !service.is_running(layout)) {
        service.start(layout)?;
    }
    for engine in engines {
        engine.wait(layout)?;
    }
    for service in second {
        if !service.is_running(layout) {
            service.start(layout)?;
        }
        if let Service::Registry = service {
            registry::push_base(layout)?;
        }
    }
    write_env(layout)
}

/// Fetches packages and makes the directories and links that every engine expects.
fn prepare(layout: &Layout, sets: &[&str]) -> Result<()> {
    for dir in ["state", "log", "bin", "cli/cli-plugins"] {
        fs::create_dir_all(layout.base().join(dir))?;
    }
    disk::prepare(layout)?;
    packages::ensure(layout, sets)?;
    let bookworm = layout.packages(BOOKWORM);
    link(
        &bookworm.join("usr/bin/tini-static"),
        &layout.base().join("bin/docker-init"),
    )?;
    link(&bookworm.join("usr/sbin/runc"), &layout.base().join("bin/runc"))
}

/// Makes buildx a plugin of the Docker CLI.
fn link_buildx(layout: &Layout) -> Result<()> {
    let plugin = layout
        .packages(FORKY)
        .join("usr/libexec/docker/cli-plugins/docker-buildx");
    link(&plugin, &layout.cli_config().join("cli-plugins/docker-buildx"))
}

/// Stops `names`, or everything; goes on after a failure and reports the first.
fn down(layout: &Layout, names: &[String]) -> Result<()> {
    let mut first = Ok(());
    let mut remove = |name: &str, outcome: Result<()>| {
        if let Err(error) = outcome {
            eprintln!("{name}: {error}");
            first = std::mem::replace(&mut first, Ok(())).and(Err(error));
        }
    };
    for service in select(names, false)?.iter().rev() {
        remove(service.name(), service.remove(layout));
    }
    if names.is_empty() {
        remove(DEMO.name, DEMO.remove(layout));
        remove(BENCH.name, BENCH.remove(layout));
    }
    write_env(layout)?;
    first?;
    remove_if_idle(layout)
}

/// Removes the directories that all services share, when none of them runs.
fn remove_if_idle(layout: &Layout) -> Result<()> {
    let alone = [&DEMO, &BENCH].map(|engine| process::running(layout, engine.name));
    if alone.iter().any(Option::is_some) || Service::all().iter().any(|service| service.is_running(layout)) {
        return Ok(());
    }
    disk::remove(layout)?;
    remove_dir(layout.run())
}

/// One line for each service; fails when one of those named is not up.
fn status(layout: &Layout, names: &[String]) -> Result<()> {
    let mut down = Vec::new();
    for service in select(names, false)? {
        let name = service.name();
        match process::running(layout, name) {
            Some(pid) => println!("{name:<18} up    pid {pid:<8} {}", service.describe(layout)),
            None => {
                println!("{name:<18} down");
                down.push(name);
            }
        }
    }
    if names.is_empty() || down.is_empty() {
        Ok(())
    } else {
        Err(format!("down: {}", down.join(", ")).into())
    }
}

/// The variables of all running services, which is what live tests read.
fn variables(layout: &Layout) -> Result<Vec<(String, String)>> {
    let running: Vec<Service> = Service::all()
        .into_iter()
        .filter(|service| service.is_running(layout))
        .collect();
    let mut list: Vec<(String, String)> = running
        .iter()
        .flat_map(|service| service.variables(layout))
        .collect();
    if !list.is_empty() {
        let mut add = |name: &str, path: PathBuf| list.push((name.to_owned(), path.display().to_string()));
        add("BK_LIVE_BUSYBOX", docker::busybox_path(layout));
        add("BK_LIVE_DATA", layout.data_dir());
        add(
            "BK_LIVE_DOCKER_CLI",
            layout.packages(FORKY).join("usr/bin/docker"),
        );
        add("BK_LIVE_DOCKER_CLI_CONFIG", layout.cli_config());
        add("BK_LIVE_REGISTRY_PROGRAM", registry::program(layout));
        for (name, path) in docker::programs(layout)? {
            add(name, path);
        }
        add("BK_LIVE_PODMAN", layout.base().join("bin/podman"));
        add("BK_LIVE_SSHD", layout.base().join("bin/sshd"));
        add("BK_LIVE_UMOCI", layout.packages(UMOCI).join("usr/bin/umoci"));
    }
    Ok(list)
}

fn write_env(layout: &Layout) -> Result<()> {
    if layout.base().exists() {
        let lines: String = variables(layout)?
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        fs::write(layout.env_file(), lines)?;
    }
    Ok(())
}

fn require_root() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .unwrap_or_default();
    let is_root = line.split_whitespace().nth(1) == Some("0");
    if is_root {
        Ok(())
    } else {
        Err("the daemons need root".into())
    }
}

/// Removes a directory tree in which nothing is mounted; one that is not there is fine.
fn remove_dir(dir: &Path) -> Result<()> {
    process::unmount_below(&[dir.to_path_buf()])?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", dir.display()).into())
        }
        _ => Ok(()),
    }
}

fn link(target: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(std::os::unix::fs::symlink(target, link)?)
}
