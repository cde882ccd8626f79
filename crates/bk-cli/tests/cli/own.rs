//! A dockerd of a test's own, for what must not be done to one that others use. Nothing of it stays.

use std::{
    env,
    fs::{self, File},
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bk_testkit::live::dockerd_program;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use super::bk;

/// How long it may take to start or stop on a loaded machine.
const LIMIT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);

/// A private engine. Dropping it stops it.
pub(super) struct Own {
    dir: tempfile::TempDir,
    child: Child,
}

impl Own {
    /// Starts one, with images in the store of containerd or in one of its own; `None`, said loudly, when there is no program.
    pub(super) fn start(test: &str, containerd: bool) -> Option<Self> {
        let program = dockerd_program(test)?;
        let dir = tempfile::Builder::new()
            .prefix("bk-own-")
            .tempdir_in("/run")
            .expect("a directory in /run");
        let at = |name: &str| dir.path().join(name);
        // Drivers without mounts: nothing is left of them but files.
        let config = json!({
            "data-root": at("data"), "exec-root": at("exec"), "pidfile": at("pid"),
            "hosts": [format!("unix://{}", at("docker.sock").display())],
            "bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false, "ip-masq": false,
            "shutdown-timeout": 5,
            "features": {"containerd-snapshotter": containerd},
            "storage-driver": if containerd { "native" } else { "vfs" },
        });
        fs::write(at("daemon.json"), config.to_string()).expect("writable");
        fs::create_dir(at("docker")).expect("writable");
        fs::write(at("docker/config.json"), "{}").expect("writable");
        if let Some(plugins) = variable("BK_LIVE_DOCKER_CLI_CONFIG") {
            symlink(Path::new(&plugins).join("cli-plugins"), at("docker/cli-plugins")).expect("a link");
        }
        let log = File::create(at("log")).expect("a log");
        let child = Command::new(program)
            .arg("--config-file")
            .arg(at("daemon.json"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("dockerd starts");
        let mut own = Self { dir, child };
        let since = Instant::now();
        while UnixStream::connect(own.socket()).is_err() {
            let ended = own.child.try_wait().expect("a child");
            let log = || fs::read_to_string(own.dir.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && since.elapsed() < LIMIT, "{}", log());
            std::thread::sleep(PAUSE); // sleep: a daemon tells nobody that it is ready
        }
        Some(own)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Where it listens.
    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// `bk` on it, with these words.
    pub(super) fn bk(&self, words: &[&str]) -> Command {
        let mut command = bk(&["--backend", "docker", "--addr", &self.address()]);
        command.args(words);
        command
    }

    /// `docker buildx` on it, with these words; `None` when there is no such program.
    pub(super) fn buildx(&self, words: &[&str]) -> Option<Command> {
        let mut command = Command::new(variable("BK_LIVE_DOCKER_CLI")?);
        command
            .env("DOCKER_CONFIG", self.dir.path().join("docker"))
            .env("DOCKER_HOST", self.address())
            .arg("buildx")
            .args(words);
        Some(command)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        let stop = |signal| {
            kill(Pid::from_raw(pid), signal).ok();
        };
        stop(Signal::SIGTERM);
        let since = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if since.elapsed() > LIMIT {
                stop(Signal::SIGKILL);
                self.child.wait().ok();
                break;
            }
            std::thread::sleep(PAUSE); // sleep: the wait has a limit
        }
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|v| !v.is_empty())
}
