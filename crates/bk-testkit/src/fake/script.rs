//! What a fake daemon is told to do, and to do wrong.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::History;

/// How a fake daemon behaves. The default is a healthy daemon whose registry knows nobody.
#[derive(Clone, Debug)]
pub struct Script {
    faults: Vec<Fault>,
    /// How many builds go wrong, when not all.
    first: Option<usize>,
    /// Builds that were begun.
    begun: Arc<AtomicUsize>,
    pub(crate) registry: Option<(String, String, String)>,
    pub(crate) version: Option<String>,
    pub(crate) health_interval: Duration,
    pub(crate) history: Option<History>,
}

impl Default for Script {
    fn default() -> Self {
        Self::healthy()
    }
}

impl Script {
    /// A daemon that does everything right and calls itself v0.32.0.
    pub fn healthy() -> Self {
        Self {
            faults: Vec::new(),
            first: None,
            begun: Arc::default(),
            registry: None,
            version: Some("v0.32.0".to_owned()),
            health_interval: Duration::from_secs(1),
            history: None,
        }
    }

    /// Adds something that goes wrong; the default is nothing.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Sets that only the first `builds` go wrong; the default is all. For scripts with one daemon.
    #[must_use]
    pub fn only_first(mut self, builds: usize) -> Self {
        self.first = Some(builds);
        self
    }

    /// A registry at `host` (with port) that answers only to this user. Every image name below it is the same small
    /// base image.
    #[must_use]
    pub fn registry(mut self, host: &str, user: &str, password: &str) -> Self {
        self.registry = Some((host.to_owned(), user.to_owned(), password.to_owned()));
        self
    }

    /// Sets the version that it tells; `None` is a daemon so old that it has no `Info` and names no version.
    #[must_use]
    pub fn version(mut self, version: Option<&str>) -> Self {
        self.version = version.map(str::to_owned);
        self
    }

    /// Sets how often the session's health is checked; the default is a second, as the oldest daemons do.
    #[must_use]
    pub fn health_interval(mut self, interval: Duration) -> Self {
        self.health_interval = interval;
        self
    }

    /// Sets what it keeps of its builds; the default is that it has no history.
    #[must_use]
    pub fn history(mut self, history: History) -> Self {
        self.history = Some(history);
        self
    }

    pub(crate) fn has(&self, test: impl Fn(&Fault) -> bool) -> bool {
        self.faults().iter().any(test)
    }

    /// What goes wrong now.
    pub(crate) fn faults(&self) -> &[Fault] {
        match self.first {
            Some(first) if self.begun.load(Ordering::SeqCst) > first => &[],
            _ => &self.faults,
        }
    }

    /// Counts a build.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }
}

/// When a cut happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// As soon as a build has found its session.
    SessionAttached,
    /// After the first entry of the main context.
    FirstEntry,
    /// After the first bytes of a file of the main context.
    FirstData,
    /// When everything is built, before it is exported.
    BeforeExport,
}

/// Something that goes wrong. Several may be combined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `Solve` fails at once with this status; each detail is a type and its JSON text.
    FailSolve {
        /// The gRPC code.
        code: i32,
        /// The text.
        message: String,
        /// Details: type URL and JSON.
        details: Vec<(String, String)>,
    },
    /// `Solve` fails at once with these bytes in `grpc-status-details-bin`.
    RawDetails(Vec<u8>),
    /// The session tunnel ends, the connection stays.
    CutSession(Moment),
    /// Every connection ends.
    CutConnection(Moment),
    /// The whole daemon stands still, as one that is stopped: nothing is read, answered or closed any more, on no connection.
    Freeze(Moment),
    /// `Solve` answers at once with so many bytes of headers.
    HeaderBomb(usize),
    /// A source is asked for with so many bytes of headers.
    SessionHeaderBomb(usize),
    /// `Status` never ends: new steps all the time, each with that many bytes of output, as fast as they are taken.
    EndlessStatus(usize),
    /// The session gets no request that makes sense, but so many streams that are never ended, whatever it allows.
    ManyStreams(u32),
    /// `Solve` never answers and never builds.
    SilentSolve,
    /// `Status` sends nothing and never ends.
    SilentStatus,
    /// `Status` ends after its first message.
    StatusEndsEarly,
    /// `Status` stays open when the build has ended.
    StatusNeverEnds,
    /// `Status` says that there is no such job.
    NoStatus,
    /// Each file is requested again and again.
    RequestTwice,
    /// A file that was never announced is requested.
    RequestUnknown,
    /// A directory is requested as if it were a file.
    RequestDirectory,
    /// A flood of requests for one file, faster than they can be answered.
    RequestFlood(usize),
    /// The receiver gives up with this text.
    ReceiverError(String),
    /// The receiver asks for every file and reads nothing any more.
    NeverReads,
    /// Packets of no known type are sent to the sender.
    UnknownPackets,
    /// Methods that no session serves are called first; the build goes on only if each answer is `Unimplemented`.
    UnknownMethods,
    /// A local source that nobody offered is asked for first; the build goes on only if the answer is `NotFound`.
    UnknownSource,
    /// The build goes on only after this many health checks.
    WaitForHealthChecks(usize),
    /// Progress of every hostile kind: vertices that complete before they start, unknown inputs, control bytes, times
    /// out of range, logs of unknown streams.
    OddProgress,
    /// Every message of the daemon, also on the session, has fields of every wire type that nobody knows yet.
    UnknownFields,
    /// A file of this machine is removed after its entry has arrived and before it is asked for.
    Vanish {
        /// The path of the entry.
        entry: Vec<u8>,
        /// The file.
        file: PathBuf,
    },
    /// A warning with its place in the Dockerfile.
    Warn(String),
}
