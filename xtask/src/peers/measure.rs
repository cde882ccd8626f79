//! What one run of a client costs: wall time, processor time and peak memory, and the daemon's processor time.
//!
//! The rule: every run has a process of its own between this program and the client, so that what the kernel adds up for
//! children is that client's alone, with whatever plugins it started and waited for.

use crate::daemons;
use crate::run::{Result, last_lines, show};
use nix::sys::resource::{UsageWho, getrusage};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The hidden job that runs one command and writes what it cost to a file.
pub(crate) const JOB: &str = "__measure";

/// What one run cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost {
    /// From start to exit, in seconds.
    pub(super) wall: f64,
    /// The client's processor time, user and system, in seconds.
    pub(super) cpu: f64,
    /// The most memory that one process of the client held, in MiB.
    pub(super) memory: f64,
    /// The processor time of the daemon's processes meanwhile, in seconds.
    pub(super) daemon: f64,
}

/// Runs `command` and says what it cost; its output ends up in `scratch` and in the error if it fails.
pub(super) fn run(command: &Command, scratch: &Path) -> Result<Cost> {
    let (numbers, log) = (scratch.join("cost"), scratch.join("client.log"));
    let output = File::create(&log)?;
    let mut helper = Command::new(std::env::current_exe()?);
    helper.arg(JOB).arg(&numbers).arg(command.get_program());
    helper
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            helper.env(key, value);
        }
    }
    let before = daemon_cpu();
    let status = helper.status()?;
    let daemon = daemon_cpu() - before;
    if !status.success() {
        let said = last_lines(&String::from_utf8_lossy(&fs::read(&log)?), 15);
        return Err(format!("{} failed: {status}\n{said}", show(command)).into());
    }
    let text = fs::read_to_string(&numbers)?;
    let fields: Vec<f64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    match fields[..] {
        [wall, cpu, memory] => Ok(Cost {
            wall,
            cpu,
            memory,
            daemon,
        }),
        _ => Err(format!("{JOB} wrote {text:?}").into()),
    }
}

/// The hidden job itself: `FILE COMMAND...`.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let [file, program, rest @ ..] = arguments else {
        return Err(format!("usage: {JOB} FILE COMMAND...").into());
    };
    let since = Instant::now();
    let status = Command::new(program).args(rest).status()?;
    let wall = since.elapsed().as_secs_f64();
    if !status.success() {
        return Err(status.to_string().into());
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1_000_000.0;
    let cpu = seconds(usage.user_time()) + seconds(usage.system_time());
    let memory = usage.max_rss() as f64 / 1024.0;
    Ok(fs::write(file, format!("{wall} {cpu} {memory}\n"))?)
}

/// The processor time of all processes of the daemon so far, in seconds, those that ended and were waited for included.
fn daemon_cpu() -> f64 {
    /// Clock ticks a second in `/proc`, the same on every Linux.
    const TICKS: f64 = 100.0;
    let Some(session) = daemons::bench_session() else {
        return 0.0;
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return 0.0;
    };
    let ticks: u64 = entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .filter_map(|text| ticks_of(&text, session))
        .sum();
    ticks as f64 / TICKS
}

/// User and system time of a process of `session` and of its children, in ticks, from its `stat`.
fn ticks_of(stat: &str, session: u32) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let of_session = fields.get(3)?.parse() == Ok(session);
    let times = fields.get(11..15)?.iter();
    of_session.then(|| times.filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// Waits until the daemon is idle, for a while at most: what it does after one client's run must not be counted
/// against the next one's.
pub(super) fn settle() {
    const LOOK: Duration = Duration::from_millis(200);
    const LOOKS: usize = 50;
    let mut last = daemon_cpu();
    for _ in 0..LOOKS {
        std::thread::sleep(LOOK); // sleep: only time can show that a daemon does nothing
        let now = daemon_cpu();
        if now - last < 0.02 {
            return;
        }
        last = now;
    }
}

/// The median of each number.
pub(super) fn median(costs: &[Cost]) -> Cost {
    let of = |field: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = costs.iter().map(field).collect();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => values[n / 2],
            n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
        }
    };
    Cost {
        wall: of(|c| c.wall),
        cpu: of(|c| c.cpu),
        memory: of(|c| c.memory),
        daemon: of(|c| c.daemon),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_number_by_number() {
        let cost = |wall, cpu| Cost {
            wall,
            cpu,
            ..Cost::default()
        };
        let three = median(&[cost(3.0, 1.0), cost(1.0, 2.0), cost(2.0, 9.0)]);
        assert_eq!((three.wall, three.cpu), (2.0, 2.0));
        assert_eq!(median(&[cost(1.0, 0.0), cost(2.0, 1.0)]).wall, 1.5);
    }

    #[test]
    fn processes_of_other_sessions_do_not_count() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4 1 2 3 4 10 20 30 40 20 0";
        assert_eq!(ticks_of(stat, 7), Some(100));
        assert_eq!(ticks_of(stat, 8), None);
    }
}
