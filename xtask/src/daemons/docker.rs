//! The Docker engines: one private dockerd each, with its own socket, data root, containerd and bridge.
//!
//! A daemon reads no configuration of the system, changes no firewall rule and no kernel setting: builds need neither
//! forwarding nor address translation, and a registry on loopback is reached from the daemon itself.

use super::layout::Layout;
use super::packages::{BOOKWORM, FORKY, TRIXIE};
use super::{api, process};
use crate::run::{Result, output};
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a dockerd may take to start; it does within 3 s on an idle machine.
const READY_DEADLINE: Duration = Duration::from_secs(90);

/// All engines for tests, the oldest first.
pub(crate) const ENGINES: [Engine; 4] = [
    Engine::new("20.10", BOOKWORM, 0),
    Engine::new("26.1", TRIXIE, 1),
    Engine::new("28.5", FORKY, 2),
    Engine {
        containerd_store: true,
        ..Engine::new("28.5-containerd", FORKY, 3)
    },
];

/// The engine of the demo: the one of Debian 12, with graph drivers.
pub(crate) const DEMO: Engine = Engine::new("demo", BOOKWORM, 9);

/// The engine that clients are compared on: the newest, with its data in memory, so that no disk is measured.
pub(crate) const BENCH: Engine = Engine {
    in_memory: true,
    ..Engine::new("bench", FORKY, 8)
};

/// Programs that tests start as engines of their own: the variable that names each, its suite, and its file below `bin`.
const PROGRAMS: [(&str, &str, &str); 3] = [
    ("BK_LIVE_DOCKERD", FORKY, "dockerd"),
    ("BK_LIVE_DOCKERD_26_1", TRIXIE, "dockerd-26.1"),
    ("BK_LIVE_DOCKERD_20_10", BOOKWORM, "dockerd-20.10"),
];

/// One engine. The name of one for tests begins with the version that its suite is expected to have.
pub(crate) struct Engine {
    /// The name on the command line.
    pub(crate) name: &'static str,
    /// The Debian suite whose packages it runs.
    pub(crate) suite: &'static str,
    /// Whether images live in containerd's store instead of a graph driver's.
    containerd_store: bool,
    /// Whether its data lies in memory.
    in_memory: bool,
    /// Different for each engine: part of its bridge's name and addresses.
    index: u8,
}

impl Engine {
    const fn new(name: &'static str, suite: &'static str, index: u8) -> Engine {
        Engine {
            name,
            suite,
            containerd_store: false,
            in_memory: false,
            index,
        }
    }

    /// The engine's socket; its directory belongs to this engine alone.
    fn socket(&self, layout: &Layout) -> PathBuf {
        layout.run_of(self.name).join("docker.sock")
    }

    /// The engine's address in the form of `DOCKER_HOST`.
    pub(crate) fn address(&self, layout: &Layout) -> String {
        format!("unix://{}", self.socket(layout).display())
    }

    /// The name of the variable with the engine's address.
    pub(crate) fn variable(&self) -> String {
        format!(
            "BK_LIVE_DOCKER_{}",
            self.name.replace(['.', '-'], "_").to_uppercase()
        )
    }

    /// Starts the engine; does not wait for it.
    pub(crate) fn start(&self, layout: &Layout) -> Result<()> {
        self.remove(layout)?;
        let data = layout.data(self.name);
        let run = layout.run_of(self.name);
        fs::create_dir_all(&data)?;
        fs::create_dir_all(&run)?;
        if self.in_memory {
            let options = ["-t", "tmpfs", "-o", "size=60%", "bk-bench"];
            output(Command::new("mount").args(options).arg(&data))?;
        }
        self.make_bridge(layout)?;
        let file = data.join("daemon.json");
        fs::write(&file, format!("{:#}\n", self.configuration(layout)))?;
        let mut command = tool(layout, self.suite, "usr/sbin/dockerd");
        command.arg("--config-file").arg(&file);
        command.env("HOME", &data).env("TMPDIR", data.join("tmp"));
        fs::create_dir_all(data.join("tmp"))?;
        process::start(layout, self.name, &command)
    }

    /// Waits until the engine answers; says so when its version is not the one that its name promises.
    pub(crate) fn wait(&self, layout: &Layout) -> Result<()> {
        let address = self.address(layout);
        process::wait_ready(layout, self.name, READY_DEADLINE, || {
            api::get(&address, "/_ping").is_ok()
        })?;
        let version = api::version(&address, "Version").unwrap_or_default();
        let expected = self.name.split('-').next().unwrap_or_default();
        if ENGINES.iter().any(|e| e.name == self.name) && !version.starts_with(expected) {
            eprintln!(
                "note: Debian {} has Docker {version} by now, not {expected}",
                self.suite
            );
        }
        Ok(())
    }

    /// Stops the engine and removes everything it kept: images, build cache, bridge.
    pub(crate) fn remove(&self, layout: &Layout) -> Result<()> {
        process::stop(layout, self.name)?;
        let bridge = layout.bridge(self.index);
        if Path::new("/sys/class/net").join(&bridge).exists() {
            output(busybox(layout).args(["ip", "link", "del", &bridge]))?;
        }
        super::remove_dir(&layout.data(self.name))?;
        super::remove_dir(&layout.run_of(self.name))
    }

    /// dockerd adopts a bridge that exists under the given name, and never removes it.
    fn make_bridge(&self, layout: &Layout) -> Result<()> {
        let bridge = layout.bridge(self.index);
        let address = format!("{}.{}.1/24", layout.network(), self.index);
        output(busybox(layout).args(["ip", "link", "add", &bridge, "type", "bridge"]))?;
        output(busybox(layout).args(["ip", "addr", "add", &address, "dev", &bridge]))?;
        output(busybox(layout).args(["ip", "link", "set", &bridge, "up"]))?;
        Ok(())
    }

    fn configuration(&self, layout: &Layout) -> serde_json::Value {
        let run = layout.run_of(self.name);
        let mut value = json!({
            "hosts": [self.address(layout)],
            "data-root": layout.data(self.name).join("root"),
            "exec-root": run.join("exec"),
            "pidfile": run.join("docker.pid"),
            "bridge": layout.bridge(self.index),
            "default-address-pools":
                [{"base": format!("{}.{}.0/20", layout.network(), 64 + 16 * self.index), "size": 24}],
            "iptables": false,
            "ip6tables": false,
            "ip-forward": false,
            "ip-masq": false,
            "shutdown-timeout": 5,
        });
        if self.containerd_store {
            value["features"] = json!({"containerd-snapshotter": true});
        } else {
            value["storage-driver"] = json!("overlay2");
        }
        value
    }
}

/// A command that runs `program` of a suite's packages, with the tools of that suite first in its path and nothing
/// else of this program's environment.
pub(crate) fn tool(layout: &Layout, suite: &str, program: &str) -> Command {
    let root = layout.packages(suite);
    let base = layout.packages(BOOKWORM);
    let mut path = vec![
        root.join("usr/sbin"),
        root.join("usr/bin"),
        layout.base().join("bin"),
    ];
    path.extend(
        [
            "/usr/local/sbin",
            "/usr/local/bin",
            "/usr/sbin",
            "/usr/bin",
            "/sbin",
            "/bin",
        ]
        .map(PathBuf::from),
    );
    let libraries = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    let libraries = [
        root.join("usr").join(&libraries),
        base.join("usr").join(&libraries),
        base.join(&libraries),
    ];
    let mut command = Command::new(root.join(program));
    command.env_clear();
    command
        .env("PATH", join(&path))
        .env("LD_LIBRARY_PATH", join(&libraries))
        .env("LC_ALL", "C.UTF-8");
    command.env("HOME", layout.base());
    command
}

/// Makes the engines whose packages are there programs that anybody can start; returns the variables that name them.
pub(crate) fn programs(layout: &Layout) -> Result<Vec<(&'static str, PathBuf)>> {
    let program = "usr/sbin/dockerd";
    let mut found = Vec::new();
    for (variable, suite, name) in PROGRAMS {
        if layout.packages(suite).join(program).exists() {
            found.push((variable, wrap(layout, suite, program, name, true)?));
        }
    }
    Ok(found)
}

/// Makes a program of the packages one that finds its libraries, whoever starts it: `bin/NAME`, which is returned. With
/// `tools` it also finds the other programs of its packages.
pub(crate) fn wrap(layout: &Layout, set: &str, program: &str, name: &str, tools: bool) -> Result<PathBuf> {
    let command = tool(layout, set, program);
    let text = |value: &OsStr| value.to_string_lossy().into_owned();
    let variable = |wanted: &str| {
        command
            .get_envs()
            .find(|(name, _)| *name == wanted)
            .and_then(|(_, value)| value)
            .map(text)
            .unwrap_or_default()
    };
    let libraries = variable("LD_LIBRARY_PATH");
    let path = match tools {
        true => format!("export PATH='{}'\n", variable("PATH")),
        false => String::new(),
    };
    let file = layout.base().join("bin").join(name);
    fs::write(
        &file,
        format!(
            "#!/bin/sh\nexport LD_LIBRARY_PATH='{libraries}'\n{path}exec '{}' \"$@\"\n",
            text(command.get_program())
        ),
    )?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(file)
}

/// The static busybox of the packages.
pub(crate) fn busybox(layout: &Layout) -> Command {
    Command::new(busybox_path(layout))
}

/// The file of [`busybox`].
pub(crate) fn busybox_path(layout: &Layout) -> PathBuf {
    layout.packages(BOOKWORM).join("bin/busybox")
}

fn join(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|p| p.display().to_string())
        .collect::<Vec<_>>()
        .join(":")
}
