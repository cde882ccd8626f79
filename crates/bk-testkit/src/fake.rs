//! A daemon in this process that behaves like BuildKit where a client can see it, and misbehaves on demand.
//!
//! It serves the control service over a unix socket (HTTP/2 with prior knowledge), attaches to a client's session as an
//! HTTP/2 client through the session tunnel, checks its health every second with the strictness of the oldest daemon,
//! asks for credentials and files as the Dockerfile frontend does, and builds with a small interpreter. It checks what
//! the client sends more strictly than real daemons do: order, parents, hard links, sizes. What was built stays in
//! memory for comparison.
//!
//! It knows no cache of steps: only transferred files are kept between builds, under the session's shared key.

mod connection;
mod control;
mod details;
mod dockerfile;
mod frontend;
mod history;
mod hostile;
mod image;
mod job;
mod later;
mod receive;
mod script;
mod session;
mod steps;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bk_proto::control::{SolveRequest, UpdateBuildHistoryRequest};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::Notify};
use tokio_util::sync::CancellationToken;

use crate::snapshot::Snapshot;

pub use history::History;
pub use script::{Fault, Moment, Script};

/// A running fake daemon. Dropping it cuts every connection and removes its socket.
#[derive(Debug)]
pub struct FakeDaemon {
    state: Arc<State>,
    socket: PathBuf,
    _dir: TempDir,
}

impl FakeDaemon {
    /// Starts one that does what `script` says.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn start(script: Script) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("bk-fake-").tempdir()?;
        let socket = dir.path().join("buildkitd.sock");
        let _apart = crate::apart::enter();
        let listener = UnixListener::bind(&socket)?;
        let state = Arc::new(State::new(script));
        crate::apart::spawn(connection::accept(listener, Arc::clone(&state)));
        Ok(Self {
            state,
            socket,
            _dir: dir,
        })
    }

    /// Its address as a client takes it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The file system of the image with this tag.
    pub fn image(&self, tag: &str) -> Option<Snapshot> {
        locked(&self.state.images).get(tag).cloned()
    }

    /// What happened so far.
    pub fn seen(&self) -> Seen {
        locked(&self.state.seen).clone()
    }

    /// Builds that run now.
    pub fn running_builds(&self) -> usize {
        self.state.jobs.running()
    }

    /// Sessions that are attached now.
    pub fn attached_sessions(&self) -> usize {
        locked(&self.state.sessions).len()
    }

    /// Connections that are open now.
    pub fn open_connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Cuts every connection and session at once, as a daemon that is killed.
    pub fn cut(&self) {
        self.state.cut_connections();
    }

    /// Stands still from now on, as a daemon that is stopped: connections stay open, and nothing happens on them.
    pub fn freeze(&self) {
        self.state.frozen.cancel();
    }

    /// Waits until it stands still.
    ///
    /// # Errors
    /// That it does not after `limit`.
    pub async fn wait_frozen(&self, limit: Duration) -> Result<(), String> {
        let late = |_| format!("after {limit:?}: it still moves");
        tokio::time::timeout(limit, self.state.frozen.cancelled())
            .await
            .map_err(late)
    }

    /// Waits until no build runs, no session is attached, and no more than `connections` connections are open.
    ///
    /// # Errors
    /// What is still there after `limit`.
    pub async fn wait_idle(&self, connections: usize, limit: Duration) -> Result<(), String> {
        let idle = async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let open = self.open_connections();
                if self.running_builds() == 0 && self.attached_sessions() == 0 && open <= connections {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, idle).await.map_err(|_| {
            format!(
                "after {limit:?}: {} builds, {} sessions, {} connections",
                self.running_builds(),
                self.attached_sessions(),
                self.open_connections()
            )
        })
    }

    /// Waits until as many builds run.
    ///
    /// # Errors
    /// How many run after `limit`.
    pub async fn wait_builds(&self, builds: usize, limit: Duration) -> Result<(), String> {
        let enough = async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.running_builds() >= builds {
                    return;
                }
                changed.await;
            }
        };
        let late = |_| format!("after {limit:?}: {} builds run", self.running_builds());
        tokio::time::timeout(limit, enough).await.map_err(late)
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.state.stop.cancel();
    }
}

/// What a fake daemon saw. Grows only.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Connections that were made.
    pub connections: usize,
    /// Every request to build, in order of arrival.
    pub solves: Vec<SolveRequest>,
    /// Every change of its history that was asked for, in order of arrival.
    pub history_updates: Vec<UpdateBuildHistoryRequest>,
    /// Every call on a control connection, in order of arrival.
    pub calls: Vec<CallSeen>,
    /// Every session: its id, shared key and methods.
    pub sessions: Vec<SessionSeen>,
    /// Every transfer that ended well.
    pub transfers: Vec<TransferSeen>,
    /// Hosts for which credentials were asked.
    pub credential_hosts: Vec<String>,
    /// Health checks that were answered.
    pub health_checks: usize,
    /// The slowest answer to a health check.
    pub health_worst: Duration,
    /// Health checks that were not answered in time, or not with `SERVING`; each kills its session.
    pub health_failures: usize,
}

/// A call on a control connection.
#[derive(Clone, Debug)]
pub struct CallSeen {
    /// Its path: `/SERVICE/METHOD`.
    pub path: String,
    /// Its headers, without those that describe a session. Values that are no text are left out.
    pub headers: BTreeMap<String, String>,
}

/// A session as it announced itself.
#[derive(Clone, Debug)]
pub struct SessionSeen {
    /// Its id.
    pub id: String,
    /// Its shared key.
    pub shared_key: String,
    /// Its methods, each as it was spelt.
    pub methods: Vec<String>,
}

/// A transfer that ended well.
#[derive(Clone, Debug)]
pub struct TransferSeen {
    /// The local source that was asked for.
    pub dir: String,
    /// The exclude patterns that were sent.
    pub excludes: Vec<String>,
    /// The follow paths that were sent.
    pub follow: Vec<String>,
    /// Entries that arrived.
    pub entries: usize,
    /// Files that were asked for.
    pub requested: usize,
    /// Bytes of file content that arrived.
    pub data_bytes: u64,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) script: Script,
    pub(crate) stop: CancellationToken,
    pub(crate) frozen: CancellationToken,
    /// Replaced by each cut, so that later connections live.
    connection_life: Mutex<CancellationToken>,
    pub(crate) connections: AtomicUsize,
    pub(crate) sessions: Mutex<HashMap<String, Arc<session::Session>>>,
    pub(crate) jobs: job::Jobs,
    pub(crate) images: Mutex<BTreeMap<String, Snapshot>>,
    /// What was transferred, by local name and shared key.
    pub(crate) kept: Mutex<HashMap<(String, String), receive::Received>>,
    pub(crate) seen: Mutex<Seen>,
    /// Told whenever sessions, builds or connections come or go.
    pub(crate) changed: Notify,
}

impl State {
    fn new(script: Script) -> Self {
        let stop = CancellationToken::new();
        Self {
            script,
            connection_life: Mutex::new(stop.child_token()),
            stop,
            frozen: CancellationToken::new(),
            connections: AtomicUsize::new(0),
            sessions: Mutex::default(),
            jobs: job::Jobs::default(),
            images: Mutex::default(),
            kept: Mutex::default(),
            seen: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// The life of a connection that begins now.
    pub(crate) fn connection_life(&self) -> CancellationToken {
        locked(&self.connection_life).clone()
    }

    pub(crate) fn cut_connections(&self) {
        let mut life = locked(&self.connection_life);
        life.cancel();
        *life = self.stop.child_token();
    }

    pub(crate) fn see(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut locked(&self.seen));
    }
}

/// The content of a mutex, also after a panic in another test thread: nothing here is left half-written.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
