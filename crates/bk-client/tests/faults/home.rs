//! Directories that do not outlive this program for long: what a run that was killed has left is swept up by the next.
//!
//! The rule: a directory is nobody's when the lock in it can be taken, which the kernel gives back however its owner ended.
//! Nothing is judged by its name or age alone.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;

use crate::daemon::{Dockerd, Version};

/// The variable that makes this program one that leaves a daemon behind.
const CHILD: &str = "BK_FAULTS_LEAVES";
/// With what the names begin.
const PREFIX: &str = "bk-faults-";
/// The lock of the owner.
const LOCK: &str = "owner";
/// How long a killed daemon may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// A directory of this program. Dropping it unmounts everything below, and removes it.
pub(crate) struct Home {
    dir: TempDir,
    _lock: Flock<File>,
}

impl Home {
    /// Makes one in `parent`.
    pub(crate) fn make(parent: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        // Under its name only when it is locked: nobody may find it free before.
        let made = dir.path().join("making");
        let lock = locked(File::create_new(&made)?)?;
        fs::rename(&made, dir.path().join(LOCK))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a directory in it.
    pub(crate) fn sub(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path().join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        unmount_below(self.path());
    }
}

/// Where homes are made: sockets need short paths, and daemons a place that is no overlay.
pub(crate) fn run_dir() -> &'static Path {
    Path::new("/run")
}

/// Removes what runs that are over have left in `parent`: their daemons, mounts and files. Returns what was swept up.
pub(crate) fn sweep(parent: &Path) -> Vec<PathBuf> {
    let mut swept = Vec::new();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Without a lock it is not known whose it is.
        let Ok(lock) = File::open(path.join(LOCK)) else {
            continue;
        };
        let Ok(_lock) = locked(lock) else {
            continue;
        };
        end_daemon(&path);
        unmount_below(&path);
        // What cannot be removed is found again by the next.
        if fs::remove_dir_all(&path).is_ok() {
            swept.push(path);
        }
    }
    swept
}

/// Takes a lock that nobody has.
fn locked(file: File) -> io::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e.into())
}

/// Kills the daemon of a home, if it still runs: the process of its `pid` file that has this file on its command line. What
/// it had started ends with it.
fn end_daemon(home: &Path) {
    let file = home.join("pid");
    let text = fs::read_to_string(&file).unwrap_or_default();
    let id = text.trim();
    let flag = format!("--pidfile={}", file.display());
    if !says(id, &flag) {
        return;
    }
    if let Ok(id) = id.parse() {
        kill(Pid::from_raw(id), Signal::SIGKILL).ok();
    }
    gone(id, &flag, GONE);
}

/// Whether a process has that word on its command line. One that is dead has none.
fn says(id: &str, word: &str) -> bool {
    let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|w| w == word.as_bytes())
}

/// Waits until a process that has that word on its command line is gone.
pub(crate) fn gone(id: &str, word: &str, limit: Duration) {
    let begun = std::time::Instant::now();
    while says(id, word) && begun.elapsed() < limit {
        // sleep: the end of a process that is not our child cannot be waited for
        std::thread::sleep(Duration::from_millis(20));
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

/// Whether this process is one that starts a daemon and never ends it; then it does that, until it is killed.
pub(crate) fn child() -> Option<ExitCode> {
    std::env::var_os(CHILD)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime.block_on(async {
        let daemon = Dockerd::start(Version::Docker28).await.ok()?;
        println!("{}", daemon.home().display());
        std::future::pending::<()>().await;
        Some(ExitCode::SUCCESS)
    })
}

/// Kills a run that has a daemon and sweeps up after it, beside one that lives; returns what is wrong.
pub(crate) async fn check() -> Vec<String> {
    match checked().await {
        Ok(()) => Vec::new(),
        Err(e) => vec![format!("sweeping up: {e}")],
    }
}

async fn checked() -> Result<(), String> {
    let said = |e: io::Error| e.to_string();
    let living = Home::make(run_dir()).map_err(said)?;
    let mut run = tokio::process::Command::new(std::env::current_exe().map_err(said)?)
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(said)?;
    let output = run.stdout.take().ok_or("no pipe")?;
    let mut lines = tokio::io::BufReader::new(output).lines();
    let dead = lines
        .next_line()
        .await
        .map_err(said)?
        .ok_or("its daemon did not start")?;
    let dead = PathBuf::from(dead);
    let id = fs::read_to_string(dead.join("pid")).map_err(said)?;
    let line = PathBuf::from("/proc").join(id.trim()).join("cmdline");
    // Of one that is dead and not yet buried by its new parent nothing can be read.
    let daemon_runs = || fs::read(&line).is_ok_and(|text| !text.is_empty());
    run.kill().await.map_err(said)?;
    if !daemon_runs() || !dead.join("data/root").exists() {
        return Err("nothing was left to be swept up".to_owned());
    }
    let swept = tokio::task::spawn_blocking(|| sweep(run_dir())).await;
    let swept = swept.map_err(|e| e.to_string())?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(said)?;
    let found = [
        (!swept.contains(&dead), "it is not among what was swept up"),
        (daemon_runs(), "its daemon runs"),
        (dead.exists(), "its directory is there"),
        (mounts.contains(&*dead.to_string_lossy()), "its memory is mounted"),
        (
            swept.contains(&living.path().to_owned()) || !living.path().join(LOCK).exists(),
            "a living run was swept up",
        ),
    ];
    match found.iter().find(|(wrong, _)| *wrong) {
        Some((_, what)) => Err((*what).to_owned()),
        None => Ok(()),
    }
}
