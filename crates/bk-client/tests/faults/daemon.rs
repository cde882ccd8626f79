//! A dockerd of this program's own, which may be stopped, killed and filled up. Nothing of it stays.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bk_testkit::live::{Engine, until};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// How long it may take to start on a busy machine.
const READY: Duration = Duration::from_secs(90);
/// Memory that its data may take.
const DATA: &str = "size=768m";

/// A private dockerd. Dropping it kills it and removes everything.
pub(crate) struct Dockerd {
    program: PathBuf,
    dir: TempDir,
    child: Option<Child>,
}

impl Dockerd {
    /// Starts one, with its data in memory.
    pub(crate) async fn start(program: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("bk-faults-").tempdir_in("/run")?;
        fs::create_dir(dir.path().join("data"))?;
        tmpfs(&dir.path().join("data"), DATA)?;
        fs::write(dir.path().join("daemon.json"), "{}\n")?;
        let mut daemon = Self {
            program: program.to_owned(),
            dir,
            child: None,
        };
        daemon.restart().await?;
        Ok(daemon)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.at("d.sock")
    }

    /// Starts it again after it was killed, and waits until it answers.
    pub(crate) async fn restart(&mut self) -> io::Result<()> {
        self.kill();
        drop(fs::remove_file(self.at("pid")));
        let flag = |name: &str, value: PathBuf| format!("--{name}={}", value.display());
        let log = File::options().create(true).append(true).open(self.at("log"))?;
        let child = Command::new(&self.program)
            .arg(flag("config-file", self.at("daemon.json")))
            .arg(format!("--host=unix://{}", self.socket().display()))
            .arg(flag("data-root", self.at("data/root")))
            .arg(flag("exec-root", self.at("exec")))
            .arg(flag("pidfile", self.at("pid")))
            .args([
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
            ])
            .args([
                "--ip-masq=false",
                "--storage-driver=overlay2",
                "--shutdown-timeout=2",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        let socket = self.socket();
        let pause = Duration::from_millis(100);
        let ready = until(READY, pause, async || match Engine::connect(&socket).await {
            Ok(engine) => engine.versions().await.is_ok(),
            Err(_) => false,
        })
        .await;
        if ready {
            return Ok(());
        }
        let log = fs::read_to_string(self.at("log")).unwrap_or_default();
        let end: Vec<_> = log.lines().rev().take(5).collect();
        Err(io::Error::other(format!("dockerd did not start: {end:#?}")))
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.child.as_ref().and_then(|c| i32::try_from(c.id()).ok()) {
            // It may be gone already, which is what is wanted then.
            kill(Pid::from_raw(id), signal).ok();
        }
    }

    /// Stops every thread of it.
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills it, and waits until it is gone. What it had started ends with it.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(mut child) = self.child.take() {
            drop(child.wait());
        }
    }

    /// Takes all but a little of the room for its data.
    pub(crate) fn fill_up(&self) -> io::Result<()> {
        let free = nix::sys::statvfs::statvfs(&self.at("data")).map_err(io::Error::from)?;
        let bytes = free.blocks_available() * free.fragment_size();
        let keep = 1 << 20;
        let mut file = File::create(self.at("data/filler"))?;
        let zeros = vec![0u8; 1 << 20];
        for _ in 0..bytes.saturating_sub(keep) >> 20 {
            io::Write::write_all(&mut file, &zeros)?;
        }
        Ok(())
    }

    /// Gives that room back.
    pub(crate) fn make_room(&self) {
        drop(fs::remove_file(self.at("data/filler")));
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.go_on();
        self.kill();
        unmount_below(self.dir.path());
    }
}

/// Mounts memory at `path`, with a size such as `size=1m`.
pub(crate) fn tmpfs(path: &Path, size: &str) -> io::Result<()> {
    let kind = Some("tmpfs");
    mount(kind, path, kind, MsFlags::empty(), Some(size)).map_err(io::Error::from)
}

/// Unmounts everything at `dir` and below, the innermost first.
pub(crate) fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|l| l.split(' ').nth(4));
    let mut below: Vec<_> = places.filter(|p| Path::new(p).starts_with(dir)).collect();
    below.reverse();
    for place in below {
        // What is left shows as a directory that cannot be removed.
        umount2(place, MntFlags::MNT_DETACH).ok();
    }
}
