//! The keeper: one process that owns one daemon, from the first lease to the last one and a while.
//!
//! The rule: whether the daemon may stop is decided in one place, [`Shared`], together with whether a lease is given. A
//! lease that was given keeps the daemon; one that comes too late sees the connection close and asks the next keeper.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt as _, BufReader},
    net::{UnixListener, UnixStream},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    Announcement, DaemonError, DaemonFacts, KeepOptions, Layout, Program, Status,
    host::try_lock,
    limits,
    message::{self, Answer, Ask},
    process::{self, Identity, MARK, Record},
    ready,
};

/// Keeps a daemon until nobody has used it for long enough, somebody stops it, a signal (SIGTERM, SIGINT) arrives, or it
/// ends by itself. Makes this process the leader of a session of its own, so that it outlives the terminal.
///
/// The daemon's end is waited for. Dropping the future leaves the daemon to the next keeper, which ends it.
///
/// # Errors
/// The state cannot be used, or what was left on it cannot be ended. That the daemon does not start or ends is told to
/// those who asked for a lease, and an error here as well.
pub async fn keep(options: KeepOptions, announce: impl FnOnce(Announcement)) -> Result<(), DaemonError> {
    // One that is the leader already need not become it.
    let _ = nix::unistd::setsid();
    let layout = options.layout.clone();
    layout.make()?;
    let Some(lock) = lock(&layout).await? else {
        announce(Announcement::AnotherListens);
        return Ok(());
    };
    sweep(&layout).await?;
    let socket = layout.keeper_socket();
    let listener = UnixListener::bind(&socket)
        .map_err(|e| DaemonError::state(&socket, "cannot listen for those who want to build", e))?;
    let failed = |e| DaemonError::state(&socket, "cannot listen for signals", e);
    let signals = [
        signal(SignalKind::terminate()).map_err(failed)?,
        signal(SignalKind::interrupt()).map_err(failed)?,
    ];
    let shared = Arc::new(Shared::new(&options));
    announce(Announcement::Listening);
    let mut tasks = JoinSet::new();
    let (end, child) = match start(&options) {
        Ok(mut child) => {
            let end = run(&options, &shared, &listener, signals, &mut child, &mut tasks).await;
            (end, Some(child))
        }
        Err(reason) => (End::Failed(reason), None),
    };
    let result = match end {
        End::Stopped => Ok(()),
        End::Failed(reason) => {
            let never_ready = matches!(*shared.phase.borrow(), Phase::Starting);
            if !never_ready {
                // The next one starts afresh.
                shared.uses.send_modify(|uses| uses.closing = true);
            }
            let failure = shared.fail(&options, reason);
            if never_ready {
                // Whoever started this keeper may be on its way here.
                let told = shared.told.notified();
                drop(
                    timeout(
                        limits::QUESTION,
                        serve_until(&listener, &shared, &mut tasks, told),
                    )
                    .await,
                );
            }
            Err(failure)
        }
    };
    shared.uses.send_modify(|uses| uses.closing = true);
    drop(listener);
    // Whether it is there or not: the sweep below removes it, or says why it cannot.
    let _ = fs::remove_file(&socket);
    if let Some(child) = child {
        stop(child).await;
    }
    let swept = sweep(&layout).await;
    drop(lock);
    // Only now do those who asked for the end see it.
    tasks.shutdown().await;
    result.and(swept)
}

/// Why a keeper ends.
enum End {
    Stopped,
    Failed(String),
}

async fn sweep(layout: &Layout) -> Result<(), DaemonError> {
    let layout = layout.clone();
    match spawn_blocking(move || process::sweep(&layout)).await {
        Ok(swept) => swept.map(drop),
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

/// The lock, or nothing when another keeper has it and listens.
async fn lock(layout: &Layout) -> Result<Option<File>, DaemonError> {
    let since = Instant::now();
    loop {
        if let Some(file) = try_lock(layout)? {
            return Ok(Some(file));
        }
        if UnixStream::connect(layout.keeper_socket()).await.is_ok() {
            return Ok(None);
        }
        if since.elapsed() > limits::LOCK_DEADLINE {
            let what = format!(
                "another keeper has this lock for {} s, and does not listen",
                limits::LOCK_DEADLINE.as_secs()
            );
            return Err(DaemonError::State {
                path: layout.lock(),
                what,
                source: None,
            });
        }
        sleep(limits::POLL).await; // sleep: nobody tells when a lock is free, and waiting for it has no deadline
    }
}

/// Starts the daemon, in a group of processes of its own.
fn start(options: &KeepOptions) -> Result<Child, String> {
    let layout = &options.layout;
    if let Some(file) = options.program.configuration(layout) {
        fs::write(&file, "{}\n").map_err(|e| format!("cannot be started: {}: {e}", file.display()))?;
    }
    let log = layout.daemon_log();
    let log = File::create(&log).map_err(|e| format!("cannot be started: {}: {e}", log.display()))?;
    let again = log.try_clone().map_err(|e| format!("cannot be started: {e}"))?;
    let (program, arguments) = options.program.command(layout);
    Command::new(&program)
        .args(arguments)
        .env(MARK, layout.state())
        .current_dir(layout.state())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(again)
        .process_group(0)
        .spawn()
        .map_err(|e| format!("cannot be started: {}: {e}", program.display()))
}

/// Ends the daemon: politely, then not.
async fn stop(mut child: Child) {
    let Some(pid) = child.id() else {
        return;
    };
    process::send(pid, Signal::SIGTERM);
    if timeout(limits::STOP_DEADLINE, child.wait()).await.is_err() {
        process::send(pid, Signal::SIGKILL);
        // What cannot even be killed the sweep reports.
        let _ = timeout(limits::KILL_DEADLINE, child.wait()).await;
    }
}

/// Serves while the daemon runs.
async fn run(
    options: &KeepOptions,
    shared: &Arc<Shared>,
    listener: &UnixListener,
    mut signals: [tokio::signal::unix::Signal; 2],
    child: &mut Child,
    tasks: &mut JoinSet<()>,
) -> End {
    let facts = shared.began(child.id().unwrap_or_default());
    let record = Record {
        process: Identity::of(facts.pid),
        facts: facts.clone(),
    };
    if let Err(e) = record.write(&options.layout) {
        return End::Failed(e.to_string());
    }
    let [terminate, interrupt] = &mut signals;
    let mut starting = std::pin::pin!(timeout(limits::START_DEADLINE, answers(options)));
    let mut uses = shared.uses.subscribe();
    let mut is_ready = false;
    loop {
        let (stop, idle_end) = {
            let uses = uses.borrow_and_update();
            (uses.stop, uses.unused_since.map(|since| since + uses.idle))
        };
        if stop {
            return End::Stopped;
        }
        tokio::select! {
            changed = uses.changed() => if changed.is_err() { return End::Stopped },
            () = serve_until(listener, shared, tasks, std::future::pending()) => {}
            status = child.wait() => return End::Failed(ended(status)),
            _ = terminate.recv() => return End::Stopped,
            _ = interrupt.recv() => return End::Stopped,
            answered = &mut starting, if !is_ready => {
                if answered.is_err() {
                    let seconds = limits::START_DEADLINE.as_secs();
                    return End::Failed(format!("did not answer within {seconds} s"));
                }
                is_ready = true;
                shared.phase.send_replace(Phase::Ready(facts.clone()));
                shared.uses.send_modify(Uses::note);
            }
            () = until(idle_end), if is_ready => if shared.close_if_unused() { return End::Stopped },
        }
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await, // sleep: the time for which the daemon stays unused, itself
        None => std::future::pending().await,
    }
}

fn ended(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("ended with {status}"),
        Err(e) => format!("cannot be waited for: {e}"),
    }
}

/// Waits until the daemon answers; who calls sets the deadline, and sees when it ends.
async fn answers(options: &KeepOptions) {
    let socket = options.program.socket(&options.layout);
    let kind = options.program.kind();
    loop {
        if let Ok(Ok(())) = timeout(limits::QUESTION, ready::ask(kind, &socket)).await {
            return;
        }
        sleep(limits::POLL).await; // sleep: a daemon announces its readiness to nobody but those who ask
    }
}

/// Takes connections until `end`.
async fn serve_until(
    listener: &UnixListener,
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<()>,
    end: impl Future<Output = ()>,
) {
    let mut end = std::pin::pin!(end);
    loop {
        let next = async {
            let permit = Arc::clone(&shared.room).acquire_owned().await.ok()?;
            let (stream, _) = listener.accept().await.ok()?;
            Some((stream, permit))
        };
        tokio::select! {
            () = &mut end => return,
            Some(_) = tasks.join_next() => {}
            next = next => match next {
                Some((stream, permit)) => {
                    tasks.spawn(answer(stream, Arc::clone(shared), permit));
                }
                // sleep: too many open files; that gets better, but tells nobody
                None => sleep(limits::POLL).await,
            },
        }
    }
}

/// Where a daemon is in its life.
#[derive(Clone, Debug)]
enum Phase {
    Starting,
    Ready(DaemonFacts),
    Failed { reason: String, log: Vec<String> },
}

/// Who uses it.
#[derive(Debug)]
struct Uses {
    leases: usize,
    idle: Duration,
    unused_since: Option<Instant>,
    /// No lease is given any more.
    closing: bool,
    /// Somebody asked for the end.
    stop: bool,
}

impl Uses {
    /// Notes since when nobody uses it.
    fn note(&mut self) {
        self.unused_since = (self.leases == 0).then(Instant::now);
    }
}

/// What the keeper and its connections share.
struct Shared {
    program: Program,
    address: String,
    began: Instant,
    pid: watch::Sender<u32>,
    uses: watch::Sender<Uses>,
    phase: watch::Sender<Phase>,
    room: Arc<Semaphore>,
    /// Somebody was told of a failure.
    told: Notify,
}

impl Shared {
    fn new(options: &KeepOptions) -> Self {
        let uses = Uses {
            leases: 0,
            idle: options.idle,
            unused_since: None,
            closing: false,
            stop: false,
        };
        Self {
            program: options.program.clone(),
            address: format!("unix://{}", options.program.socket(&options.layout).display()),
            began: Instant::now(),
            pid: watch::Sender::new(0),
            uses: watch::Sender::new(uses),
            phase: watch::Sender::new(Phase::Starting),
            room: Arc::new(Semaphore::new(limits::CONNECTIONS)),
            told: Notify::new(),
        }
    }

    fn began(&self, pid: u32) -> DaemonFacts {
        self.pid.send_replace(pid);
        self.facts()
    }

    fn facts(&self) -> DaemonFacts {
        let path: PathBuf = self.program.path().to_owned();
        DaemonFacts::new(
            self.program.kind(),
            path,
            self.address.clone(),
            *self.pid.borrow(),
        )
    }

    /// Tells all who wait that there is no daemon.
    fn fail(&self, options: &KeepOptions, reason: String) -> DaemonError {
        let log_file = options.layout.daemon_log();
        let log = last_lines(&log_file);
        let phase = Phase::Failed {
            reason: reason.clone(),
            log: log.clone(),
        };
        self.phase.send_replace(phase);
        DaemonError::Failed {
            program: self.program.kind().name().to_owned(),
            reason,
            log,
            log_file,
        }
    }

    /// A use, unless it is too late.
    fn enter(self: &Arc<Self>, idle: Duration) -> Option<Use> {
        let entered = self.uses.send_if_modified(|uses| {
            if uses.closing {
                return false;
            }
            uses.leases += 1;
            uses.idle = idle.min(limits::MAX_IDLE);
            uses.note();
            true
        });
        entered.then(|| Use(Arc::clone(self)))
    }

    fn close_if_unused(&self) -> bool {
        self.uses.send_if_modified(|uses| {
            let over = uses
                .unused_since
                .is_some_and(|since| since.elapsed() >= uses.idle);
            uses.closing |= over;
            over
        })
    }

    /// How many still use it; none when it will stop.
    fn ask_to_stop(&self, force: bool) -> usize {
        let mut leases = 0;
        self.uses.send_modify(|uses| {
            leases = uses.leases;
            if leases == 0 || force {
                (uses.closing, uses.stop) = (true, true);
            }
        });
        if force { 0 } else { leases }
    }

    fn status(&self) -> Status {
        let uses = self.uses.borrow();
        let left = uses
            .unused_since
            .map(|since| uses.idle.saturating_sub(since.elapsed()).as_secs());
        Status {
            daemon: self.facts(),
            ready: matches!(*self.phase.borrow(), Phase::Ready(_)),
            keeper_pid: std::process::id(),
            leases: uses.leases,
            up_seconds: self.began.elapsed().as_secs(),
            idle_seconds: uses.idle.as_secs(),
            stops_in_seconds: left,
        }
    }
}

/// One use of the daemon, which ends when it is dropped.
struct Use(Arc<Shared>);

impl Drop for Use {
    fn drop(&mut self) {
        self.0.uses.send_modify(|uses| {
            uses.leases = uses.leases.saturating_sub(1);
            uses.note();
        });
    }
}

/// One connection. What goes wrong on it concerns the other side alone, which sees it close.
async fn answer(stream: UnixStream, shared: Arc<Shared>, _permit: OwnedSemaphorePermit) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let Ok(Ok(Some(ask))) = timeout(limits::ANSWER_DEADLINE, message::read(&mut reader)).await else {
        return;
    };
    match ask {
        Ask::Status => {
            let status = Answer::Status(Box::new(shared.status()));
            drop(message::write(&mut writer, &status).await);
        }
        Ask::Stop { force } => {
            let leases = shared.ask_to_stop(force);
            let stopping = Answer::Stopping { leases };
            if message::write(&mut writer, &stopping).await.is_ok() && leases == 0 {
                // Open until the keeper has ended everything and drops this.
                std::future::pending().await
            }
        }
        Ask::Lease {
            idle_seconds,
            program,
        } => {
            if program.is_some_and(|program| program != shared.program.path()) {
                let running = shared.program.path().to_owned();
                drop(message::write(&mut writer, &Answer::Other { running }).await);
                return;
            }
            let Some(_use) = shared.enter(Duration::from_secs(idle_seconds)) else {
                return;
            };
            tokio::select! {
                () = gone(&mut reader) => {}
                () = tell(&shared, &mut writer) => {}
            }
        }
    }
}

/// Tells a lease when the daemon answers, and when there is none any more.
async fn tell(shared: &Shared, writer: &mut tokio::net::unix::OwnedWriteHalf) {
    let mut phase = shared.phase.subscribe();
    loop {
        let answer = match &*phase.borrow_and_update() {
            Phase::Starting => None,
            Phase::Ready(facts) => Some(Answer::Ready(facts.clone())),
            Phase::Failed { reason, log } => Some(Answer::Failed {
                program: shared.program.kind().name().to_owned(),
                reason: reason.clone(),
                log: log.clone(),
            }),
        };
        if let Some(answer) = &answer {
            let written = message::write(writer, answer).await;
            if matches!(answer, Answer::Failed { .. }) {
                shared.told.notify_one();
                return;
            }
            if written.is_err() {
                return;
            }
        }
        if phase.changed().await.is_err() {
            return;
        }
    }
}

/// Until the other side has closed. What it says more is ignored.
async fn gone(reader: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut buffer = [0; 256];
    while let Ok(1..) = reader.read(&mut buffer).await {}
}

/// The end of a log, as far as it can be read.
fn last_lines(file: &std::path::Path) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(file)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(limits::LOG_TAIL)))?;
        let mut text = Vec::new();
        file.take(limits::LOG_TAIL).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let surplus = lines.len().saturating_sub(limits::LOG_LINES);
    lines.iter().skip(surplus).map(|line| shorten(line)).collect()
}

/// A line of a log, without what no terminal shows well.
fn shorten(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).take(400).collect()
}
