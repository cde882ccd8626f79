//! Processes that may outlive whoever started them: how they are recognised, ended, and swept up after.
//!
//! The rule: a process is ours when the kernel says so, never by its name: by its id together with its start time, by a
//! variable that the daemon and what it starts have in their environment, or, in containers, by the file system that
//! is its root.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{DaemonError, DaemonFacts, Layout, limits};

/// The variable that marks the daemon and what it starts; its value is the directory of its state.
pub(crate) const MARK: &str = "BK_DAEMON_STATE";

/// A process that no other one is taken for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// In clock ticks since the machine started.
    started: u64,
    boot: String,
}

impl Identity {
    /// The process of that id as it is now; nothing when there is none, or the system does not say.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            started: start_time(pid)?,
            boot: boot()?,
        })
    }

    fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// What is written down of a daemon while it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) process: Option<Identity>,
    pub(crate) facts: DaemonFacts,
}

impl Record {
    pub(crate) fn write(&self, layout: &Layout) -> Result<(), DaemonError> {
        let (path, fresh) = (layout.record(), layout.state().join("daemon.json.new"));
        let failed = |e| DaemonError::state(&path, "cannot write down which daemon runs", e);
        let text = serde_json::to_vec(self).map_err(|e| failed(e.into()))?;
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(failed)
    }

    /// The last one written; one that is not understood is of no use to anybody.
    fn read(layout: &Layout) -> Option<Self> {
        serde_json::from_slice(&fs::read(layout.record()).ok()?).ok()
    }
}

/// A daemon that runs although its keeper is gone.
pub(crate) fn orphan(layout: &Layout) -> Option<DaemonFacts> {
    let record = Record::read(layout)?;
    record.process.filter(Identity::is_alive).map(|_| record.facts)
}

/// Ends what a daemon left behind, and its mounts, and empties the directory of sockets. Whether there was a process.
/// Blocks.
///
/// # Errors
/// Something cannot be ended or removed: another daemon must not start on that.
pub(crate) fn sweep(layout: &Layout) -> Result<bool, DaemonError> {
    let main = Record::read(layout).and_then(|record| record.process);
    let all = || -> Vec<Identity> {
        let main = main.iter().filter(|process| process.is_alive()).cloned();
        main.chain(marked(layout)).collect()
    };
    let mut found = false;
    for (signal, patience) in [
        (Signal::SIGTERM, limits::ORPHAN_DEADLINE),
        (Signal::SIGKILL, limits::KILL_DEADLINE),
    ] {
        let left = all();
        found |= !left.is_empty();
        end(&left, signal, patience);
    }
    let left = all();
    if let Some(process) = left.first() {
        let what = format!(
            "process {} of an earlier private daemon cannot be ended",
            process.pid
        );
        return Err(DaemonError::State {
            path: layout.state().to_owned(),
            what,
            source: None,
        });
    }
    unmount(layout)?;
    remove(layout, &layout.record())?;
    empty(layout)?;
    Ok(found)
}

/// Processes with the mark in their environment, and those in containers whose root is below the state.
fn marked(layout: &Layout) -> Vec<Identity> {
    let mark = [
        MARK.as_bytes(),
        b"=",
        layout.state().as_os_str().as_encoded_bytes(),
    ]
    .concat();
    let state = [layout.state().as_os_str().as_encoded_bytes(), b"/"].concat();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            let text = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            text("environ")
                .split(|b| *b == 0)
                .any(|variable| variable == mark)
                || text("mountinfo")
                    .split(|b| *b == b'\n')
                    .any(|line| is_root_in(line, &state))
        })
        .filter_map(Identity::of)
        .collect()
}

/// Whether a line of `mountinfo` is the root of its table and is made of something below `dir`.
fn is_root_in(line: &[u8], dir: &[u8]) -> bool {
    let is_root = line.split(|b| *b == b' ').nth(4) == Some(b"/");
    is_root && unescape(line).windows(dir.len()).any(|part| part == dir)
}

/// Signals each process and waits until all are gone, or for `patience`.
fn end(processes: &[Identity], signal: Signal, patience: Duration) {
    for process in processes.iter().filter(|process| process.is_alive()) {
        send(process.pid, signal);
    }
    let since = Instant::now();
    while processes.iter().any(Identity::is_alive) && since.elapsed() < patience {
        thread::sleep(limits::POLL); // sleep: the end of a process that is not our child cannot be waited for
    }
}

/// Signals a process. One that is gone by now is no failure, and who waits for one that cannot be signalled sees it.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Unmounts what is mounted below the state, the deepest first.
fn unmount(layout: &Layout) -> Result<(), DaemonError> {
    for point in mounts_below(layout) {
        match umount2(&point, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(e) => return Err(DaemonError::state(point, "cannot unmount this", e.into())),
        }
    }
    Ok(())
}

fn mounts_below(layout: &Layout) -> Vec<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let points = table
        .split(|b| *b == b'\n')
        .filter_map(|line| line.split(|b| *b == b' ').nth(4));
    let mut points: Vec<PathBuf> = points
        .map(|field| PathBuf::from(OsString::from_vec(unescape(field))))
        .filter(|point| point.starts_with(layout.state()) || point.starts_with(layout.run()))
        .filter(|point| point != layout.state())
        .collect();
    points.sort();
    points.reverse();
    points
}

/// `mountinfo` writes blanks and backslashes in octal.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind
            .get(..3)
            .filter(|d| *first == b'\\' && d.iter().all(|d| (b'0'..=b'7').contains(d)));
        match digits {
            Some(digits) => {
                let value = digits
                    .iter()
                    .fold(0_u32, |value, d| value * 8 + u32::from(d - b'0'));
                plain.push(u8::try_from(value).unwrap_or(b'?'));
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    plain
}

fn remove(layout: &Layout, file: &Path) -> Result<(), DaemonError> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            let what = format!("cannot remove {}", file.display());
            Err(DaemonError::state(layout.state(), what, e))
        }
        _ => Ok(()),
    }
}

/// Removes what is in the directory of sockets. Nothing is mounted there any more.
fn empty(layout: &Layout) -> Result<(), DaemonError> {
    let failed = |e| DaemonError::state(layout.run(), "cannot empty the directory of sockets", e);
    for entry in fs::read_dir(layout.run()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_dir = entry.file_type().map_err(failed)?.is_dir();
        let removed = match is_dir {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        };
        removed.map_err(failed)?;
    }
    Ok(())
}

/// The start of a process that is no zombie, in clock ticks since the machine started.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(&String::from_utf8_lossy(&stat))
}

/// The name of the program stands in parentheses and may hold any character.
fn parse(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    match *fields.first()? {
        "Z" | "X" => None,
        _ => fields.get(19)?.parse().ok(),
    }
}

fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::Kind;

    #[test]
    fn stat_is_read_past_odd_names() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 2 3";
        assert_eq!(parse(stat), Some(98765));
        assert_eq!(parse(&stat.replace(") S ", ") Z ")), None);
        assert_eq!(parse("garbage"), None);
    }

    #[test]
    fn points_and_roots_of_mounts() {
        assert_eq!(unescape(b"/a\\040b\\134c"), b"/a b\\c");
        assert_eq!(unescape(b"/a\\04"), b"/a\\04");
        let inside = b"36 35 0:50 / / rw - overlay overlay rw,lowerdir=/s/docker/l,upperdir=/s/docker/u";
        assert!(is_root_in(inside, b"/s/"));
        assert!(!is_root_in(inside, b"/t/"));
        let escaped =
            b"36 35 0:50 / / rw - overlay overlay rw,lowerdir=/m\\040e/docker/l,upperdir=/m\\040e/docker/u";
        assert!(is_root_in(escaped, b"/m e/"));
        assert!(!is_root_in(
            b"36 35 0:50 / /s/docker/merged rw - overlay overlay rw,lowerdir=/s/docker/l",
            b"/s/"
        ));
    }

    #[test]
    fn what_a_daemon_left_is_ended_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path().join("d"), None);
        layout.make().expect("made");
        fs::create_dir_all(layout.run().join("exec/x")).expect("made");
        fs::write(layout.run().join("docker.pid"), "1").expect("written");
        let sleep = |mark: &Path| {
            let mut command = Command::new("sleep");
            command.arg("1000").env(MARK, mark);
            command.spawn().expect("a process")
        };
        let mut other = sleep(&dir.path().join("other"));
        let ours = sleep(layout.state());
        let facts = DaemonFacts::new(
            Kind::Dockerd,
            "/b/dockerd".into(),
            "unix:///s".to_owned(),
            other.id(),
        );
        // As if the number of the daemon now belonged to somebody else.
        let process = Identity::of(other.id()).map(|mut process| {
            process.started += 1;
            process
        });
        let record = Record { process, facts };
        record.write(&layout).expect("written");
        assert!(orphan(&layout).is_none());
        let identity = Identity::of(ours.id()).expect("it runs");
        assert!(sweep(&layout).expect("swept"));
        assert!(!identity.is_alive());
        assert!(Identity::of(other.id()).is_some(), "the other one goes on");
        assert_eq!(fs::read_dir(layout.run()).expect("there").count(), 0);
        assert!(!sweep(&layout).expect("nothing is left"));
        other.kill().expect("ours to end");
        other.wait().expect("an end");
        let mut ours = ours;
        ours.wait().expect("an end");
    }
}
