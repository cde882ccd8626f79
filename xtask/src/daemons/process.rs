//! Processes that outlive this program: start, recognise, stop and sweep up after a crash.
//!
//! A process is ours when its record names its id and its start time, both of which the kernel gives to no other
//! process until the next boot. What a crashed daemon left behind is found by the program it runs (one of the unpacked
//! packages) or, for processes in containers, by the data root in their mount table: never by name alone.

use super::layout::Layout;
use crate::run::{Result, last_lines, output, show};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take to end after SIGTERM before it is killed: dockerd itself gives containers 10 s.
const STOP_DEADLINE: Duration = Duration::from_secs(25);
/// The same for what a crashed daemon left: nobody waits for it to finish anything.
const ORPHAN_DEADLINE: Duration = Duration::from_secs(2);
/// How long the kernel may take to end a killed process that is busy in it.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at a process or socket that cannot be waited for.
const POLL: Duration = Duration::from_millis(50);

/// Starts `command` in a session of its own with its output in the service's log, and records the process.
pub(crate) fn start(layout: &Layout, name: &str, command: &Command) -> Result<()> {
    let log = File::create(layout.log(name))?;
    let mut detached = Command::new("setsid");
    detached.arg(command.get_program()).args(command.get_args());
    detached.env_clear();
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            detached.env(key, value);
        }
    }
    detached
        .current_dir(layout.base())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let child = detached
        .spawn()
        .map_err(|e| format!("cannot start {}: {e}", show(&detached)))?;
    let pid = child.id();
    let started = start_time(pid).ok_or_else(|| format!("{} ended at once", show(command)))?;
    Record { pid, started }.write(layout, name)
}

/// The id of the service's process while it runs.
pub(crate) fn running(layout: &Layout, name: &str) -> Option<u32> {
    let record = Record::read(layout, name)?;
    (start_time(record.pid)? == record.started).then_some(record.pid)
}

/// Waits until `ready` says so; fails when the process ends first or `deadline` passes, with the end of its log.
pub(crate) fn wait_ready(
    layout: &Layout,
    name: &str,
    deadline: Duration,
    mut ready: impl FnMut() -> bool,
) -> Result<()> {
    let since = Instant::now();
    while !ready() {
        let problem = if running(layout, name).is_none() {
            "ended before it was ready".to_owned()
        } else if since.elapsed() > deadline {
            format!("is not ready after {} s", deadline.as_secs())
        } else {
            std::thread::sleep(POLL); // sleep: a daemon announces its readiness to nobody but those who ask
            continue;
        };
        let log = layout.log(name);
        let end = last_lines(&fs::read_to_string(&log).unwrap_or_default(), 15);
        return Err(format!("{name} {problem}; its log {} ends with\n{end}", log.display()).into());
    }
    Ok(())
}

/// Ends the service's process and everything it left, and forgets the record.
pub(crate) fn stop(layout: &Layout, name: &str) -> Result<()> {
    if let Some(pid) = running(layout, name) {
        end(&[pid], "TERM", STOP_DEADLINE);
    }
    let left = leftovers(layout, name);
    if !left.is_empty() {
        end(&left, "TERM", ORPHAN_DEADLINE);
        end(&leftovers(layout, name), "KILL", KILL_DEADLINE);
    }
    let left = leftovers(layout, name);
    if !left.is_empty() {
        return Err(format!("{name}: processes {left:?} cannot be killed").into());
    }
    unmount_below(&[layout.data(name), layout.run_of(name)])?;
    match fs::remove_file(layout.record(name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Unmounts everything mounted below `dirs`, the deepest first.
pub(crate) fn unmount_below(dirs: &[PathBuf]) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> = table.lines().filter_map(mount_point).collect();
    points.retain(|point| dirs.iter().any(|dir| point.starts_with(dir)));
    points.sort();
    for point in points.iter().rev() {
        output(Command::new("umount").arg("--lazy").arg(point))?;
    }
    Ok(())
}

/// Field 5 of a line of `mountinfo`, which writes blanks and backslashes in octal.
fn mount_point(line: &str) -> Option<PathBuf> {
    let field = line.split(' ').nth(4)?;
    let plain = field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\");
    Some(PathBuf::from(plain))
}

/// Sends `signal` to each process and waits until all are gone; past `deadline` the rest is killed.
fn end(pids: &[u32], signal: &str, deadline: Duration) {
    let identities: Vec<(u32, u64)> = pids
        .iter()
        .filter_map(|pid| Some((*pid, start_time(*pid)?)))
        .collect();
    let alive = || -> Vec<u32> {
        identities
            .iter()
            .filter(|(pid, t)| start_time(*pid) == Some(*t))
            .map(|(pid, _)| *pid)
            .collect()
    };
    send(signal, &alive());
    let since = Instant::now();
    while !alive().is_empty() && since.elapsed() < deadline {
        std::thread::sleep(POLL); // sleep: the end of a process that is not our child cannot be waited for
    }
    let rest = alive();
    if !rest.is_empty() && signal != "KILL" {
        end(&rest, "KILL", KILL_DEADLINE);
    }
}

/// The shell's own `kill`, since a small system has no other. A process that is gone by now is no failure.
fn send(signal: &str, pids: &[u32]) {
    for pid in pids {
        let script = format!("kill -s {signal} {pid}");
        if let Err(error) = Command::new("sh")
            .arg("-c")
            .arg(script)
            .stderr(Stdio::null())
            .status()
        {
            eprintln!("cannot signal process {pid}: {error}");
        }
    }
}

/// The start time of a process in clock ticks since boot; `None` when there is none or it is a zombie.
fn start_time(pid: u32) -> Option<u64> {
    Some(Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?.started)
}

/// What `/proc/PID/stat` says of a process that is not a zombie.
#[derive(Debug, PartialEq)]
struct Stat {
    session: u32,
    started: u64,
}

impl Stat {
    /// The program's name, second in the line, is in parentheses and may contain any character.
    fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let dead = ["Z", "X"].contains(fields.first()?);
        let stat = Stat {
            session: fields.get(3)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        };
        (!dead).then_some(stat)
    }
}

/// Which process a service is: written when it starts, trusted only during the same boot of the machine.
struct Record {
    pid: u32,
    started: u64,
}

impl Record {
    fn read(layout: &Layout, name: &str) -> Option<Record> {
        let text = fs::read_to_string(layout.record(name)).ok()?;
        let mut words = text.split_ascii_whitespace();
        let record = Record {
            pid: words.next()?.parse().ok()?,
            started: words.next()?.parse().ok()?,
        };
        (words.next() == Some(boot_id().ok()?.trim())).then_some(record)
    }

    fn write(&self, layout: &Layout, name: &str) -> Result<()> {
        let line = format!("{} {} {}", self.pid, self.started, boot_id()?);
        Ok(fs::write(layout.record(name), line)?)
    }
}

fn boot_id() -> std::io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
}

/// The processes of the service that are not its main one, or that outlived it: those of its session, those of our
/// packages that work in its directories, and those whose root file system lies in its data root.
fn leftovers(layout: &Layout, name: &str) -> Vec<u32> {
    let packages = layout.base().join("pkgs");
    let run = format!("{}/", layout.run_of(name).display());
    let data = format!("{}/", layout.data(name).display());
    // A session's number is not given to another process while the session has members.
    let session = Record::read(layout, name).map(|record| record.pid);
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let proc = PathBuf::from(format!("/proc/{pid}"));
            let Some(stat) = Stat::parse(&text_of(&proc.join("stat"))) else {
                return false;
            };
            let of_package = || fs::read_link(proc.join("exe")).is_ok_and(|exe| exe.starts_with(&packages));
            let mentions = |text: &str| text.contains(&run) || text.contains(&data);
            session == Some(stat.session)
                || (of_package() && mentions(&text_of(&proc.join("cmdline"))))
                || text_of(&proc.join("mountinfo"))
                    .lines()
                    .any(|line| is_root_in(line, &data))
        })
        .collect()
}

/// Whether this line of `mountinfo` is the root mount of its table and names `dir` as what it is made of.
fn is_root_in(line: &str, dir: &str) -> bool {
    mount_point(line).is_some_and(|point| point == Path::new("/")) && line.contains(dir)
}

fn text_of(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_times_are_read_past_odd_program_names() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 2 3";
        assert_eq!(
            Stat::parse(stat),
            Some(Stat {
                session: 42,
                started: 98765
            })
        );
        assert_eq!(Stat::parse(&stat.replace(") S ", ") Z ")), None);
        assert_eq!(Stat::parse("garbage"), None);
        assert!(start_time(std::process::id()).is_some());
    }

    #[test]
    fn mount_points_are_unescaped() {
        let line = "36 35 98:0 /mnt1 /mnt\\040a/b rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from("/mnt a/b")));
    }

    #[test]
    fn only_a_root_mount_made_of_the_data_root_marks_a_container() {
        let elsewhere = "36 35 0:50 / /t/data/a/merged rw - overlay overlay rw,upperdir=/t/data/a/u";
        let root = "36 35 0:50 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/t/data/a/u";
        assert!(is_root_in(root, "/t/data/a/"));
        assert!(!is_root_in(root, "/t/data/b/"));
        assert!(!is_root_in(elsewhere, "/t/data/a/"));
    }
}
