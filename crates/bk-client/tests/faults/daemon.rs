//! A dockerd of this program's own, which may be stopped, killed and filled up. Nothing of it stays.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bk_testkit::live::{Engine, until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::home::{Home, gone, run_dir, tmpfs};

/// How long it may take to start on a busy machine.
const READY: Duration = Duration::from_secs(90);
/// How often it is started before that is given up.
const STARTS: usize = 3;
/// How long what it had started may take to end with it.
const ORPHANS: Duration = Duration::from_secs(10);
/// Its socket.
const SOCKET: &str = "d.sock";
/// Memory that its data may take.
const DATA: &str = "size=768m";

/// Which dockerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// BuildKit 0.8.
    Docker20,
    /// BuildKit 0.13.
    Docker26,
    Docker28,
    /// The same with containerd's store of images.
    Containerd28,
}

impl Version {
    /// Each as often as it is to be chosen.
    pub(crate) const WEIGHTED: [Self; 8] = [
        Self::Docker28,
        Self::Docker28,
        Self::Docker28,
        Self::Containerd28,
        Self::Docker26,
        Self::Docker26,
        Self::Docker20,
        Self::Docker20,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Docker20 => "20.10",
            Self::Docker26 => "26.1",
            Self::Docker28 => "28.5",
            Self::Containerd28 => "28.5, containerd",
        }
    }

    /// The variable that names its program.
    fn variable(self) -> &'static str {
        match self {
            Self::Docker20 => "BK_LIVE_DOCKERD_20_10",
            Self::Docker26 => "BK_LIVE_DOCKERD_26_1",
            Self::Docker28 | Self::Containerd28 => "BK_LIVE_DOCKERD",
        }
    }

    /// Its program, if there is one.
    fn program(self) -> io::Result<PathBuf> {
        let program = std::env::var_os(self.variable()).filter(|v| !v.is_empty());
        let missing = || io::Error::other(format!("{} names no dockerd", self.variable()));
        program.map(PathBuf::from).ok_or_else(missing)
    }

    /// Whether its program is there.
    pub(crate) fn is_there(self) -> bool {
        self.program().is_ok()
    }

    fn configuration(self) -> &'static str {
        match self {
            Self::Containerd28 => "{\"features\": {\"containerd-snapshotter\": true}}\n",
            _ => "{\"storage-driver\": \"overlay2\"}\n",
        }
    }
}

/// Those that were needed so far.
#[derive(Default)]
pub(crate) struct Dockerds(BTreeMap<Version, Dockerd>);

impl Dockerds {
    /// The one of that version, which is started if it does not run yet.
    pub(crate) async fn get(&mut self, version: Version) -> io::Result<&mut Dockerd> {
        match self.0.entry(version) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(free) => Ok(free.insert(Dockerd::start(version).await?)),
        }
    }
}

/// A private dockerd. Dropping it kills it and removes everything.
pub(crate) struct Dockerd {
    program: PathBuf,
    home: Home,
    /// Where its data is if not in memory.
    disk: Option<Home>,
    child: Option<Child>,
}

impl Dockerd {
    /// Starts one, with its data in memory.
    pub(crate) async fn start(version: Version) -> io::Result<Self> {
        Self::make(version, None).await
    }

    /// Starts one, with its data below `place`.
    pub(crate) async fn start_on(version: Version, place: &Path) -> io::Result<Self> {
        Self::make(version, Some(Home::make(place)?)).await
    }

    async fn make(version: Version, disk: Option<Home>) -> io::Result<Self> {
        let program = version.program()?;
        let home = Home::make(run_dir())?;
        if disk.is_none() {
            tmpfs(&home.sub("data")?, DATA)?;
        }
        fs::write(home.path().join("daemon.json"), version.configuration())?;
        let mut daemon = Self {
            program,
            home,
            disk,
            child: None,
        };
        daemon.restart().await?;
        Ok(daemon)
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    fn data(&self) -> PathBuf {
        match &self.disk {
            Some(disk) => disk.path().join("root"),
            None => self.at("data/root"),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.at(SOCKET)
    }

    /// Starts it again after it was killed, and waits until it answers. One that gives up by itself, because its containerd
    /// was not there in time, is started once more.
    pub(crate) async fn restart(&mut self) -> io::Result<()> {
        let mut last = Ok(());
        for _ in 0..STARTS {
            self.kill();
            last = self.start_once().await;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    async fn start_once(&mut self) -> io::Result<()> {
        drop(fs::remove_file(self.at("pid")));
        let flag = |name: &str, value: PathBuf| format!("--{name}={}", value.display());
        let log = File::options().create(true).append(true).open(self.at("log"))?;
        let child = Command::new(&self.program)
            .arg(flag("config-file", self.at("daemon.json")))
            .arg(format!("--host=unix://{}", self.socket().display()))
            .arg(flag("data-root", self.data()))
            .arg(flag("exec-root", self.at("exec")))
            .arg(flag("pidfile", self.at("pid")))
            .args([
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
            ])
            // By this address BuildKit's endpoint is told from one without Docker, and there is no bridge that has one.
            .args([
                "--ip-masq=false",
                "--shutdown-timeout=2",
                "--host-gateway-ip=127.0.0.1",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let child = self.child.insert(child);
        let socket = self.home.path().join(SOCKET);
        let pause = Duration::from_millis(100);
        let mut ready = false;
        until(READY, pause, async || {
            ready = match Engine::connect(&socket).await {
                Ok(engine) => engine.versions().await.is_ok(),
                Err(_) => false,
            };
            ready || !matches!(child.try_wait(), Ok(None))
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
        // The next one would take it for its own.
        let (id, settings) = (
            "exec/containerd/containerd.pid",
            "exec/containerd/containerd.toml",
        );
        let id = fs::read_to_string(self.at(id)).unwrap_or_default();
        gone(id.trim(), &self.at(settings).display().to_string(), ORPHANS);
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
        // What it has mounted is unmounted with its home, and that before its data is removed.
        crate::home::unmount_below(self.home());
    }
}
