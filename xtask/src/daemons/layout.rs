//! Where everything of the live daemons lies on disk.
//!
//! Packages, data roots, logs, ports and process records are below `target/daemons` of the workspace. Only sockets
//! and the daemons' exec roots are elsewhere, in a short directory below `/run`: the path of a unix socket may have
//! at most 107 bytes, and dockerd appends up to 40 of its own, so a checkout in a deep directory would not work.

use crate::run::{Result, workspace};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// The directories of one workspace's daemons.
pub(crate) struct Layout {
    base: PathBuf,
    run: PathBuf,
    hash: u64,
}

impl Layout {
    /// The layout of this workspace; creates nothing.
    pub(crate) fn new() -> Layout {
        let base = workspace().join("target/daemons");
        let hash = fnv(base.as_os_str().as_encoded_bytes());
        Layout {
            run: PathBuf::from(format!("/run/bk-{:08x}", hash as u32)),
            base,
            hash,
        }
    }

    /// `target/daemons`, which keeps the package cache when the daemons are down.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// The short directory of sockets and exec roots.
    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    /// The root of the unpacked packages of one Debian suite.
    pub(crate) fn packages(&self, suite: &str) -> PathBuf {
        self.base.join("pkgs").join(suite)
    }

    /// What the service `name` keeps on disk while it is up; `down` removes it.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.data_dir().join(name)
    }

    /// The directory of all services' data.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.base.join("data")
    }

    /// The service's own directory below [`Layout::run`].
    pub(crate) fn run_of(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    /// The file that collects what the service prints.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.base.join("log").join(format!("{name}.log"))
    }

    /// The process record of the service.
    pub(crate) fn record(&self, name: &str) -> PathBuf {
        self.base.join("state").join(format!("{name}.pid"))
    }

    /// The addresses of the running services as `NAME=value` lines.
    pub(crate) fn env_file(&self) -> PathBuf {
        self.base.join("env")
    }

    /// Docker CLI configuration with the buildx plugin and without credentials.
    pub(crate) fn cli_config(&self) -> PathBuf {
        self.base.join("cli")
    }

    /// A network interface name of at most 15 bytes, different for each workspace and `index`.
    pub(crate) fn bridge(&self, index: u8) -> String {
        format!("bk{:06x}{index}", self.hash & 0xff_ffff)
    }

    /// The first two bytes of this workspace's private IPv4 addresses, so that two checkouts rarely meet.
    pub(crate) fn network(&self) -> String {
        format!("10.{}", 200 + self.hash % 50)
    }

    /// The loopback port of the service: the one it had before as long as nobody else took it, else a free one.
    pub(crate) fn port(&self, name: &str) -> Result<u16> {
        let file = self.base.join("state").join(format!("{name}.port"));
        if let Some(port) = self.recorded_port(name)
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            return Ok(port);
        }
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        fs::write(file, port.to_string())?;
        Ok(port)
    }

    /// The port that [`Layout::port`] chose last for the service.
    pub(crate) fn recorded_port(&self, name: &str) -> Option<u16> {
        let file = self.base.join("state").join(format!("{name}.port"));
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }
}

/// FNV-1a: stable over compiler versions, unlike the standard library's hasher.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    })
}
