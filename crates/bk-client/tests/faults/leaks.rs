//! What a build may leave behind in its process: tasks, descriptors, children, temporary files.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bk_testkit::live::until;
use tokio::runtime::Handle;

/// How long the last of a build may take to go: threads that read files end after their chunk.
const SETTLE: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(20);

/// What there is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) tasks: usize,
    pub(crate) files: usize,
    pub(crate) children: usize,
    pub(crate) temporary: usize,
}

impl Count {
    /// Counts; temporary files are those below `places`.
    pub(crate) fn now(places: &[&Path]) -> Self {
        Self {
            tasks: Handle::current().metrics().num_alive_tasks(),
            files: entries("/proc/self/fd"),
            children: children(),
            temporary: places.iter().map(|place| all_below(place)).sum(),
        }
    }

    /// Waits until there is no more of anything than in `before`; says what is left.
    pub(crate) async fn back_to(before: Self, places: &[&Path]) -> Result<(), String> {
        let mut now = Self::now(places);
        let gone = until(SETTLE, PAUSE, async || {
            now = Self::now(places);
            now.tasks <= before.tasks
                && now.files <= before.files
                && now.children <= before.children
                && now.temporary <= before.temporary
        })
        .await;
        if gone {
            return Ok(());
        }
        let found = places
            .iter()
            .flat_map(|p| names_below(p))
            .take(5)
            .collect::<Vec<_>>();
        Err(format!("left: {now:?}, before: {before:?}, {found:?}"))
    }
}

fn entries(dir: impl AsRef<Path>) -> usize {
    fs::read_dir(dir).map(Iterator::count).unwrap_or(0)
}

/// Processes that this one started and that have not been waited for.
fn children() -> usize {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks.map(|task| of(task).split_whitespace().count()).sum()
}

fn names_below(dir: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            names.extend(names_below(&entry.path()));
        }
        names.push(entry.path());
    }
    names
}

fn all_below(dir: &Path) -> usize {
    names_below(dir).len()
}

/// Resident memory of this process in MiB: now, and at most since the last call of [`forget_peak`].
pub(crate) fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    (
        line("VmRSS:").unwrap_or(0) / 1024,
        line("VmHWM:").unwrap_or(0) / 1024,
    )
}

/// Starts a new measurement of the peak.
pub(crate) fn forget_peak() {
    // Without it the peak is that of the whole process: never too small.
    drop(fs::write("/proc/self/clear_refs", "5"));
}
