//! Live daemons: which there are, by which routes they are reached, and the ledger of what ran on them.
//!
//! The environment says where they are (`cargo xtask daemons up` prints it). A test whose daemon is missing says so
//! loudly; with `BK_LIVE_REQUIRED=1` it fails.

mod engine;
mod ledger;

use std::{
    collections::HashMap,
    env,
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

use tokio::sync::OwnedMutexGuard;

use crate::{conformance::Base, fake::locked};

pub use engine::{Engine, EngineError, Ran, until};
pub use ledger::{Support, record_named};

/// A daemon that the live tests know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Daemon {
    /// Docker Engine 20.10 (BuildKit 0.8).
    Docker20_10,
    /// Docker Engine 26.1 (BuildKit 0.13).
    Docker26_1,
    /// Docker Engine 28.5 with graph drivers.
    Docker28_5,
    /// Docker Engine 28.5 with the containerd store.
    Docker28_5Containerd,
    /// A BuildKit endpoint on a unix socket.
    BuildkitUnix,
    /// A BuildKit endpoint on TCP.
    BuildkitTcp,
    /// A BuildKit endpoint on TCP in front of Docker Engine 26.1.
    BuildkitTcp26_1,
}

impl Daemon {
    /// Every daemon.
    pub const ALL: [Self; 7] = [
        Self::Docker20_10,
        Self::Docker26_1,
        Self::Docker28_5,
        Self::Docker28_5Containerd,
        Self::BuildkitUnix,
        Self::BuildkitTcp,
        Self::BuildkitTcp26_1,
    ];

    /// Its name in tables and ledgers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker20_10 => "docker-20.10",
            Self::Docker26_1 => "docker-26.1",
            Self::Docker28_5 => "docker-28.5",
            Self::Docker28_5Containerd => "docker-28.5-containerd",
            Self::BuildkitUnix => "buildkit-unix",
            Self::BuildkitTcp => "buildkit-tcp",
            Self::BuildkitTcp26_1 => "buildkit-tcp-26.1",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Docker20_10 => "BK_LIVE_DOCKER_20_10",
            Self::Docker26_1 => "BK_LIVE_DOCKER_26_1",
            Self::Docker28_5 => "BK_LIVE_DOCKER_28_5",
            Self::Docker28_5Containerd => "BK_LIVE_DOCKER_28_5_CONTAINERD",
            Self::BuildkitUnix => "BK_LIVE_BUILDKIT_UNIX",
            Self::BuildkitTcp => "BK_LIVE_BUILDKIT_TCP",
            Self::BuildkitTcp26_1 => "BK_LIVE_BUILDKIT_TCP_26_1",
        }
    }

    fn is_buildkit(self) -> bool {
        matches!(
            self,
            Self::BuildkitUnix | Self::BuildkitTcp | Self::BuildkitTcp26_1
        )
    }
}

/// How a daemon is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Docker, gRPC on the API socket (through [`Front`](crate::front::Front) where the engine is too old).
    H2c,
    /// Docker, `/grpc` and `/session`.
    Grpc,
    /// Docker, `/build` and `/session`.
    Build,
    /// Docker, `/build` with a tar body.
    Tar,
    /// A BuildKit endpoint.
    Direct,
}

impl Route {
    /// Its name in tables, ledgers and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::H2c => "h2c",
            Self::Grpc => "grpc",
            Self::Build => "build",
            Self::Tar => "tar",
            Self::Direct => "direct",
        }
    }
}

/// A daemon, a route to it, and everything a test needs besides.
#[derive(Clone, Debug)]
pub struct Target {
    /// Which daemon.
    pub daemon: Daemon,
    /// Which route.
    pub route: Route,
    /// Its address as a client takes it.
    pub address: String,
    /// The socket of the Docker Engine that holds its images.
    pub docker: PathBuf,
    /// A statically linked busybox.
    pub busybox: PathBuf,
    /// The base image in the password-protected registry.
    pub base: Base,
}

impl Target {
    /// `docker-28.5/grpc`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.daemon.name(), self.route.name())
    }

    /// Finds a target for the test `test`; `None`, said loudly, when it is not there.
    ///
    /// # Panics
    /// When it is not there although `BK_LIVE_REQUIRED=1` says that it must be.
    pub fn find(daemon: Daemon, route: Route, test: &str) -> Option<Self> {
        match Self::look(daemon, route) {
            Ok(target) => Some(target),
            Err(missing) => {
                not_run(&format!("{test} on {}/{}", daemon.name(), route.name()), &missing);
                None
            }
        }
    }

    fn look(daemon: Daemon, route: Route) -> Result<Self, String> {
        let variable = |name: &str| {
            env::var(name)
                .ok()
                .filter(|v| !v.is_empty())
                .ok_or_else(|| name.to_owned())
        };
        let address = variable(daemon.variable())?;
        let docker = match daemon.is_buildkit() {
            true => variable(&format!("{}_DOCKER", daemon.variable()))?,
            false => address.clone(),
        };
        let base = Base {
            image: variable("BK_LIVE_REGISTRY_BASE")?,
            host: variable("BK_LIVE_REGISTRY")?,
            user: variable("BK_LIVE_REGISTRY_USER")?,
            password: variable("BK_LIVE_REGISTRY_PASSWORD")?,
        };
        let docker = docker.strip_prefix("unix://").unwrap_or(&docker).into();
        let busybox = variable("BK_LIVE_BUSYBOX")?.into();
        Ok(Self {
            daemon,
            route,
            address,
            docker,
            busybox,
            base,
        })
    }

    /// Waits until no other test of this process uses the engine behind. Tests on one engine take turns; the guard is
    /// the turn.
    pub async fn turn(&self) -> OwnedMutexGuard<()> {
        static TURNS: OnceLock<Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>> = OnceLock::new();
        let turns = TURNS.get_or_init(Mutex::default);
        let turn = Arc::clone(locked(turns).entry(self.docker.clone()).or_default());
        turn.lock_owned().await
    }
}

/// The program of a registry, for tests that start their own; `None`, said loudly, when it is not there.
///
/// # Panics
/// When it is not there although `BK_LIVE_REQUIRED=1` says that it must be.
pub fn registry_program(test: &str) -> Option<PathBuf> {
    program("BK_LIVE_REGISTRY_PROGRAM", test)
}

/// The program of OpenSSH's server, for tests that start their own; `None`, said loudly, when it is not there.
///
/// # Panics
/// As [`registry_program`].
pub fn sshd_program(test: &str) -> Option<PathBuf> {
    program("BK_LIVE_SSHD", test)
}

/// The program of Podman, with the `conmon` and `runc` that it needs beside it; `None`, said loudly, when it is not there.
///
/// # Panics
/// As [`registry_program`].
pub fn podman_program(test: &str) -> Option<PathBuf> {
    program("BK_LIVE_PODMAN", test)
}

/// A dockerd that tests may start as their own; `None`, said loudly, when it is not there.
///
/// # Panics
/// As [`registry_program`].
pub fn dockerd_program(test: &str) -> Option<PathBuf> {
    program("BK_LIVE_DOCKERD", test)
}

/// A program that makes OCI layouts; `None`, said loudly, when it is not there.
///
/// # Panics
/// As [`registry_program`].
pub fn umoci_program(test: &str) -> Option<PathBuf> {
    program("BK_LIVE_UMOCI", test)
}

fn program(variable: &str, test: &str) -> Option<PathBuf> {
    let found = env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    if found.is_none() {
        not_run(test, variable);
    }
    found
}

fn not_run(test: &str, missing: &str) {
    let text = format!("NOT RUN: {test}: {missing} is not set");
    let required = env::var("BK_LIVE_REQUIRED").is_ok_and(|v| v == "1");
    assert!(!required, "{text}, and BK_LIVE_REQUIRED=1");
    say(&text);
}

/// Says something that libtest's capture must not swallow, as whole lines.
#[expect(
    clippy::print_stderr,
    reason = "test support tells the person who runs the tests"
)]
pub fn say(text: &str) {
    let lines: String = text.lines().map(|line| format!("bk-live: {line}\n")).collect();
    // Straight to the descriptor: `eprintln!` is captured for tests that pass.
    if std::io::stderr().write_all(lines.as_bytes()).is_err() {
        eprint!("{lines}");
    }
}
