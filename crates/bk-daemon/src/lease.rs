//! The client's side: a lease on the daemon, and what there is to ask and say about it.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
    task::spawn_blocking,
    time::timeout,
};

use crate::{
    DaemonError, DaemonFacts, Layout, Program, Status,
    host::{self, Stream},
    limits,
    message::{self, Answer, Ask},
};

/// What a keeper writes on its standard output when leases can be asked for.
pub(crate) const LISTENING: &str = "listening";

/// How a keeper is started: a program that calls [`keep`](crate::keep) with what follows its own arguments, and writes
/// `listening` on its standard output when it was told so, or else why it cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Keeper {
    /// `program arguments… --state DIR --run DIR --kind KIND --program PATH [--rootlesskit PATH] --idle SECONDS`.
    pub fn new(program: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.iter().map(OsString::from).collect(),
        }
    }
}

/// A private daemon that may run or not.
#[derive(Clone, Debug)]
pub struct PrivateDaemon {
    layout: Layout,
    program: Program,
    keeper: Keeper,
    idle: Duration,
    insists: bool,
}

/// A use of the daemon. It stays at least until this is dropped, or this process ends.
#[derive(Debug)]
pub struct Lease {
    facts: DaemonFacts,
    _connection: Stream,
}

impl Lease {
    /// Which daemon, and where it listens.
    pub fn daemon(&self) -> &DaemonFacts {
        &self.facts
    }
}

/// What one round came to.
enum Round {
    Leased(Lease),
    /// There is no keeper, or it is just ending.
    Nobody,
}

impl PrivateDaemon {
    /// The daemon on the state of `layout`, or else `program` when none runs there, kept by `keeper` for
    /// [`limits::IDLE`] after the last use.
    pub fn new(layout: Layout, program: Program, keeper: Keeper) -> Self {
        Self {
            layout,
            program,
            keeper,
            idle: limits::IDLE,
            insists: false,
        }
    }

    /// Sets how long the daemon stays after the last use, at most [`limits::MAX_IDLE`]; the last one who uses it decides.
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Sets whether it has to be this program; the default is that whatever runs there will do.
    #[must_use]
    pub fn insists(mut self, yes: bool) -> Self {
        self.insists = yes;
        self
    }

    /// The program that would be started.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// A lease on the daemon, which is started if it does not run. Returns when it answers.
    ///
    /// Dropping the future leaves a daemon that is starting to its keeper, which stops it after the time for that.
    ///
    /// # Errors
    /// [`DaemonError::Failed`] with the end of its log when it does not come up, [`DaemonError::Other`] when another
    /// program runs and this one insists on its own, else what is wrong with the state or the keeper.
    pub async fn lease(&self) -> Result<Lease, DaemonError> {
        let work = async {
            for _ in 0..limits::ROUNDS {
                if let Round::Leased(lease) = self.ask().await? {
                    return Ok(lease);
                }
                self.start_keeper().await?;
            }
            Err(self.keeper_failed("it ends again and again"))
        };
        let late = format!("no daemon within {} s", limits::LEASE_DEADLINE.as_secs());
        timeout(limits::LEASE_DEADLINE, work)
            .await
            .unwrap_or_else(|_| Err(self.keeper_failed(late)))
    }

    fn keeper_failed(&self, reason: impl Into<String>) -> DaemonError {
        keeper_failed(&self.layout, reason)
    }

    async fn ask(&self) -> Result<Round, DaemonError> {
        let ask = Ask::Lease {
            idle_seconds: self.idle.min(limits::MAX_IDLE).as_secs(),
            program: self.insists.then(|| self.program.path().to_owned()),
        };
        let Some(mut stream) = connect(&self.layout, &ask).await? else {
            return Ok(Round::Nobody);
        };
        let mut reader = BufReader::new(&mut stream);
        match message::read(&mut reader).await {
            Ok(Some(Answer::Ready(facts))) => Ok(Round::Leased(Lease {
                facts,
                _connection: stream,
            })),
            Ok(Some(Answer::Failed { program, reason, log })) => Err(DaemonError::Failed {
                program,
                reason,
                log,
                log_file: self.layout.daemon_log(),
            }),
            Ok(Some(Answer::Other { running })) => Err(DaemonError::Other {
                running: running.display().to_string(),
                wanted: self.program.path().display().to_string(),
            }),
            Ok(Some(other)) => Err(self.keeper_failed(format!("it answers a lease with {other:?}"))),
            Ok(None) => Ok(Round::Nobody),
            Err(e) if is_gone(&e) => Ok(Round::Nobody),
            Err(e) => Err(self.keeper_failed(e.to_string())),
        }
    }

    /// Starts a keeper and waits until it, or another one, can be asked.
    async fn start_keeper(&self) -> Result<(), DaemonError> {
        self.layout.make()?;
        let log = self.layout.keeper_log();
        let log =
            File::create(&log).map_err(|e| DaemonError::state(&log, "cannot write the keeper's log", e))?;
        let mut command = Command::new(&self.keeper.program);
        command
            .args(&self.keeper.arguments)
            .args([
                Path::new("--state"),
                self.layout.state(),
                Path::new("--run"),
                self.layout.run(),
            ])
            .args(["--kind", self.program.kind().name()])
            .args([Path::new("--program"), self.program.path()]);
        if let Some(kit) = self.program.rootlesskit() {
            command.args([Path::new("--rootlesskit"), kit]);
        }
        let idle = self.idle.min(limits::MAX_IDLE).as_secs().to_string();
        let mut child = command
            .args(["--idle", &idle])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|e| {
                self.keeper_failed(format!("cannot start {}: {e}", self.keeper.program.display()))
            })?;
        let Some(output) = child.stdout.take() else {
            return Err(self.keeper_failed("its output is missing"));
        };
        let mut output = BufReader::new(output).take(limits::MESSAGE);
        let mut said = String::new();
        let reading = async {
            output.read_line(&mut said).await?;
            if said.trim_end() != LISTENING {
                // It says why not, and ends.
                output.read_to_string(&mut said).await?;
            }
            io::Result::Ok(())
        };
        reading.await.map_err(|e| self.keeper_failed(e.to_string()))?;
        match said.trim() {
            LISTENING => Ok(()),
            "" => Err(self.keeper_failed("it ended without a word")),
            why => Err(self.keeper_failed(why.strip_prefix("ERROR: ").unwrap_or(why))),
        }
    }
}

fn keeper_failed(layout: &Layout, reason: impl Into<String>) -> DaemonError {
    DaemonError::Keeper {
        reason: reason.into(),
        log_file: layout.keeper_log(),
    }
}

fn is_gone(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected, NotFound};
    matches!(
        error.kind(),
        NotFound | ConnectionRefused | ConnectionReset | BrokenPipe | NotConnected
    )
}

/// A connection to the keeper on which this was asked; nothing when there is no keeper.
async fn connect(layout: &Layout, ask: &Ask) -> Result<Option<Stream>, DaemonError> {
    host::supported()?;
    let socket = layout.keeper_socket();
    let asking = async {
        let mut stream = host::connect(&socket).await?;
        message::write(&mut stream, ask).await?;
        io::Result::Ok(stream)
    };
    match asking.await {
        Ok(stream) => Ok(Some(stream)),
        Err(e) if is_gone(&e) || e.kind() == ErrorKind::NotADirectory => Ok(None),
        Err(e) => Err(DaemonError::state(
            socket,
            "cannot ask the keeper of the private daemon",
            e,
        )),
    }
}

/// How the daemon on that state is; nothing when none runs.
///
/// # Errors
/// The keeper's socket cannot be used, or the keeper does not answer.
pub async fn status(layout: &Layout) -> Result<Option<Status>, DaemonError> {
    let Some(mut stream) = connect(layout, &Ask::Status).await? else {
        return Ok(None);
    };
    let mut reader = BufReader::new(&mut stream);
    match timeout(limits::ANSWER_DEADLINE, message::read(&mut reader)).await {
        Ok(Ok(Some(Answer::Status(status)))) => Ok(Some(*status)),
        Ok(Ok(None)) => Ok(None),
        Ok(Err(e)) if is_gone(&e) => Ok(None),
        Ok(Ok(Some(other))) => Err(keeper_failed(
            layout,
            format!("it answers a question with {other:?}"),
        )),
        Ok(Err(e)) => Err(keeper_failed(layout, e.to_string())),
        Err(_) => {
            let seconds = limits::ANSWER_DEADLINE.as_secs();
            Err(keeper_failed(
                layout,
                format!("it does not answer within {seconds} s"),
            ))
        }
    }
}

/// A daemon that a keeper has left behind which was killed. The next start ends it, and so does [`stop`]. Blocks.
pub fn left_behind(layout: &Layout) -> Option<DaemonFacts> {
    host::orphan(layout)
}

/// What came of [`stop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopAnswer {
    /// It has ended, and everything of it.
    Stopped,
    /// It is used by so many, and goes on.
    InUse(usize),
    /// None was running.
    NotRunning,
    /// None was running under a keeper, but something that a crash left, which has ended.
    SweptUp,
}

/// Stops the daemon on that state, and waits for its end. One that is used goes on, unless `force` is set: then what uses
/// it fails.
///
/// # Errors
/// It cannot be asked, does not end in time, or what a crash left cannot be ended.
pub async fn stop(layout: &Layout, force: bool) -> Result<StopAnswer, DaemonError> {
    let Some(mut stream) = connect(layout, &Ask::Stop { force }).await? else {
        return sweep_up(layout).await;
    };
    let mut reader = BufReader::new(&mut stream);
    let asking = async {
        let answer = message::read(&mut reader).await;
        if let Ok(Some(Answer::Stopping { leases: 0 })) = &answer {
            // The end of the connection is the end of it all.
            let mut rest = Vec::new();
            let _ = reader.read_to_end(&mut rest).await;
        }
        answer
    };
    let patience = limits::STOP_DEADLINE + limits::LOCK_DEADLINE;
    match timeout(patience, asking).await {
        Ok(Ok(Some(Answer::Stopping { leases: 0 }))) => Ok(StopAnswer::Stopped),
        Ok(Ok(Some(Answer::Stopping { leases }))) => Ok(StopAnswer::InUse(leases)),
        Ok(Ok(None)) => Ok(StopAnswer::Stopped),
        Ok(Err(e)) if is_gone(&e) => Ok(StopAnswer::Stopped),
        Ok(Ok(Some(other))) => Err(keeper_failed(layout, format!("it answers with {other:?}"))),
        Ok(Err(e)) => Err(keeper_failed(layout, e.to_string())),
        Err(_) => {
            let seconds = patience.as_secs();
            Err(keeper_failed(
                layout,
                format!("it has not ended within {seconds} s"),
            ))
        }
    }
}

/// Ends what a crash left. A keeper that is about to start or to end has the lock, and does so itself.
async fn sweep_up(layout: &Layout) -> Result<StopAnswer, DaemonError> {
    if !layout.state().exists() {
        return Ok(StopAnswer::NotRunning);
    }
    layout.make()?;
    let Some(lock) = host::try_lock(layout)? else {
        return Err(keeper_failed(
            layout,
            "it is just starting or ending; try again in a moment",
        ));
    };
    let layout = layout.clone();
    let swept = spawn_blocking(move || {
        let swept = host::sweep(&layout);
        drop(lock);
        swept
    });
    match swept.await {
        Ok(Ok(true)) => Ok(StopAnswer::SweptUp),
        Ok(Ok(false)) => Ok(StopAnswer::NotRunning),
        Ok(Err(e)) => Err(e),
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}
