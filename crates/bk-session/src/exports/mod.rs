//! The results that a session takes: which there are, what arrived, and when they become visible.
//!
//! The rule: a file is put in its place only when the whole build has succeeded. A stream that a daemon cancels looks like
//! one that has ended, so its end alone proves nothing.

mod file;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bk_build::{
    BuildError, ExportReport, ImageLoader, InputError, LocalFailure, ProtocolFailure, Sink, WriterFactory,
};
use bk_fsync::{Destination, ReceiveOptions};
use tokio::{sync::OnceCell, time::timeout};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

pub use file::ResultFile;
use file::{Staged, publish};

/// What a session takes, by the exporter's place in the request to the daemon.
#[derive(Clone, Default)]
pub struct Exports {
    slots: Arc<[Slot]>,
    /// Those that are known when the build is done, if there may be any.
    later: Option<Arc<OnceLock<Vec<Slot>>>>,
    running: TaskTracker,
}

/// One exporter of the request.
pub(crate) struct Slot {
    pub(crate) output: usize,
    pub(crate) target: Target,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    report: ExportReport,
    begun: bool,
    arrived: bool,
    failed: bool,
    staged: Option<Staged>,
}

/// Where the bytes of an export go.
pub(crate) enum Target {
    /// Nowhere: the daemon sends nothing.
    Nothing,
    Dir {
        path: PathBuf,
        options: ReceiveOptions,
        opened: OnceCell<Arc<Destination>>,
    },
    File(PathBuf),
    Writer(Arc<WriterFactory>),
    Engine(Arc<dyn ImageLoader>),
}

impl Target {
    /// Its kind, for traces.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Dir { .. } => "directory",
            Self::File(_) => "file",
            Self::Writer(_) => "writer",
            Self::Engine(_) => "engine",
        }
    }
}

impl Exports {
    /// Takes results for the exporters of a request, in their order: for each the output's number and where it goes.
    ///
    /// # Errors
    /// [`BuildError::Input`] or [`BuildError::Local`] when a place cannot take its result, which is better known before the
    /// build than after it; an [`Sink::Engine`] without a loader is one of these.
    pub async fn new(sinks: Vec<(usize, Sink)>) -> Result<Self, BuildError> {
        Ok(Self {
            slots: slots(sinks).await?.into(),
            later: None,
            running: TaskTracker::new(),
        })
    }

    /// Leaves room for exporters that are known when the build is done.
    #[must_use]
    pub fn open_to_more(mut self) -> Self {
        self.later = Some(Arc::default());
        self
    }

    /// Takes the results of further exporters, which the daemon counts on from the others.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`BuildError::Protocol`] when that was done before, and [`BuildError::Misuse`] when there is
    /// no room for more.
    pub(crate) async fn add(&self, sinks: Vec<(usize, Sink)>) -> Result<(), BuildError> {
        let Some(later) = &self.later else {
            return Err(BuildError::Misuse(
                "these exports are not open to more".to_owned(),
            ));
        };
        let slots = slots(sinks).await?;
        later
            .set(slots)
            .map_err(|_| ProtocolFailure::new("it asked twice which exporters there are").into())
    }

    /// Whether there was room for more and nobody ever asked.
    pub fn more_was_ignored(&self) -> bool {
        self.later.as_ref().is_some_and(|later| later.get().is_none())
    }

    fn all(&self) -> impl Iterator<Item = &Slot> {
        let later = self.later.as_ref().and_then(|later| later.get());
        self.slots.iter().chain(later.into_iter().flatten())
    }

    /// Whether anything of a result has arrived, or a stream for it was opened.
    pub fn any_begun(&self) -> bool {
        self.all().any(|slot| {
            let opened = matches!(&slot.target, Target::Dir { opened, .. } if opened.initialized());
            let state = slot.lock();
            opened || state.begun || state.arrived
        })
    }

    /// Whether the daemon has anything to send, or may have.
    pub(crate) fn takes_any(&self) -> bool {
        self.later.is_some() || self.slots.iter().any(Slot::takes)
    }

    pub(crate) fn get(&self, id: usize) -> Option<&Slot> {
        self.all().nth(id).filter(|slot| slot.takes())
    }

    /// Counts as a transfer until it is dropped.
    pub(crate) fn running(&self) -> TaskTrackerToken {
        self.running.token()
    }

    /// Waits, at most `grace`, until no transfer runs any more. To be called when the build has succeeded and before the
    /// session is closed: the daemon's answer can overtake the last packet of a directory.
    pub async fn settle(&self, grace: Duration) {
        self.running.close();
        // What has not arrived then is missed by `commit`.
        drop(timeout(grace, self.running.wait()).await);
    }

    /// Puts files in their places. To be called when the build has succeeded and no transfer runs any more.
    ///
    /// # Errors
    /// [`BuildError::Local`] when a file cannot be put in its place, [`BuildError::Protocol`] when the daemon has not sent
    /// something that it was asked for. The cause may be a failure of this machine that the session knows.
    pub async fn commit(&self) -> Result<Vec<ExportReport>, BuildError> {
        let mut reports = Vec::new();
        let mut staged = Vec::new();
        for slot in self.all().filter(|slot| slot.takes()) {
            let mut state = slot.lock();
            if !state.arrived || state.failed {
                let text = format!(
                    "it says that the build is complete, and has not sent output {}",
                    slot.output + 1
                );
                return Err(ProtocolFailure::new(text).into());
            }
            staged.extend(state.staged.take());
            reports.push(state.report.clone());
        }
        publish(staged).await?;
        reports.sort_by_key(|report| report.output);
        Ok(reports)
    }
}

/// Room for results, by exporter.
async fn slots(sinks: Vec<(usize, Sink)>) -> Result<Vec<Slot>, BuildError> {
    let paths: Vec<_> = sinks.iter().filter_map(|(_, sink)| place(sink)).collect();
    tokio::task::spawn_blocking(move || paths.iter().try_for_each(|(path, dir)| check(path, *dir)))
        .await
        .map_err(|e| BuildError::Misuse(format!("the runtime was shut down: {e}")))??;
    let mut slots = Vec::with_capacity(sinks.len());
    for (output, sink) in sinks {
        let mut report = ExportReport::new(output);
        report.path = place(&sink).map(|(path, _)| path);
        let target = match sink {
            Sink::Dir { path, options } => Target::Dir {
                path,
                options,
                opened: OnceCell::new(),
            },
            Sink::File(path) => Target::File(path),
            Sink::Writer(make) => Target::Writer(make),
            Sink::Engine(Some(loader)) => Target::Engine(loader),
            Sink::Engine(None) => {
                let why = "no Docker Engine is known that the image could be loaded into";
                return Err(
                    InputError::new("--load", why, "a builder inside Docker Engine, or DOCKER_HOST").into(),
                );
            }
            _ => Target::Nothing,
        };
        slots.push(Slot {
            output,
            target,
            state: Mutex::new(State {
                report,
                ..State::default()
            }),
        });
    }
    Ok(slots)
}

impl Slot {
    fn takes(&self) -> bool {
        !matches!(self.target, Target::Nothing)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the one stream that a file or an engine takes; whether it is the first.
    pub(crate) fn begin(&self) -> bool {
        !std::mem::replace(&mut self.lock().begun, true)
    }

    /// Notes what arrived. Streams into a directory add up.
    pub(crate) fn arrived(&self, add: impl FnOnce(&mut ExportReport)) {
        let mut state = self.lock();
        add(&mut state.report);
        state.arrived = true;
    }

    /// Notes that a stream has not arrived whole, even if others of the same output have.
    pub(crate) fn failed(&self) {
        self.lock().failed = true;
    }

    /// Bytes that have arrived so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().report.bytes
    }

    pub(crate) fn stage(&self, staged: Staged) {
        self.lock().staged = Some(staged);
    }
}

/// The place on this machine, and whether it is a directory.
fn place(sink: &Sink) -> Option<(PathBuf, bool)> {
    match sink {
        Sink::Dir { path, .. } => Some((path.clone(), true)),
        Sink::File(path) => Some((path.clone(), false)),
        _ => None,
    }
}

/// Whether a result can be put there, as far as that can be seen beforehand.
fn check(path: &Path, dir: bool) -> Result<(), BuildError> {
    let there = match std::fs::metadata(path) {
        Ok(there) => Some(there),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => {
            return Err(LocalFailure::new(path, "cannot put the result there")
                .caused_by(e)
                .into());
        }
    };
    match there {
        Some(there) if dir && !there.is_dir() => {
            Err(LocalFailure::new(path, "is no directory, and the result is one").into())
        }
        Some(there) if !dir && there.is_dir() => {
            Err(LocalFailure::new(path, "is a directory, and the result is a file").into())
        }
        None if !dir => {
            let parent = path
                .parent()
                .filter(|p| !p.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            match parent.metadata() {
                Ok(found) if found.is_dir() => Ok(()),
                Ok(_) => Err(LocalFailure::new(parent, "is no directory to put the result in").into()),
                Err(e) => Err(LocalFailure::new(parent, "cannot put the result there")
                    .caused_by(e)
                    .into()),
            }
        }
        _ => Ok(()),
    }
}
