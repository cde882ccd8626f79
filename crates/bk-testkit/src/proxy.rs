//! A proxy between a client and a daemon that counts, cuts and slows down.
//!
//! It listens on a unix socket and connects to a unix or TCP address. It looks into nothing, but can keep what went to
//! the daemon.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixListener, UnixStream},
    sync::{Notify, watch},
};
use tokio_util::sync::CancellationToken;

/// Most bytes that are kept of what went to the daemon.
const KEPT: usize = 64 << 20;
/// Bytes moved at a time.
const CHUNK: usize = 16 * 1024;

/// A running proxy. Dropping it cuts every connection.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    socket: PathBuf,
    stop: CancellationToken,
    _dir: TempDir,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    to_daemon: AtomicU64,
    to_client: AtomicU64,
    connections: AtomicUsize,
    moved: Notify,
    /// Cuts what is open now; later connections get a new one.
    life: std::sync::Mutex<CancellationToken>,
    refuse: watch::Sender<bool>,
    /// Pause before each chunk towards the daemon and towards the client, in microseconds.
    pause: [AtomicU64; 2],
    /// Bytes a second in each direction; 0 is no bound.
    rate: [AtomicU64; 2],
    /// The byte of each direction in which a bit is turned over, counted over all connections.
    flip: [AtomicU64; 2],
    /// What went to the daemon, if it is kept.
    kept: Option<std::sync::Mutex<Vec<u8>>>,
}

impl Proxy {
    /// Starts one in front of `upstream`: `unix:///path` or `tcp://host:port`.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn start(upstream: &str) -> io::Result<Self> {
        Self::new(upstream, None)
    }

    /// Starts one that keeps all that went to the daemon, up to 64 MiB.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn keeping(upstream: &str) -> io::Result<Self> {
        Self::new(upstream, Some(std::sync::Mutex::default()))
    }

    fn new(upstream: &str, kept: Option<std::sync::Mutex<Vec<u8>>>) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("bk-proxy-").tempdir()?;
        let socket = dir.path().join("proxy.sock");
        let _apart = crate::apart::enter();
        let listener = UnixListener::bind(&socket)?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            to_daemon: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            moved: Notify::new(),
            life: std::sync::Mutex::new(stop.child_token()),
            refuse: watch::Sender::new(false),
            pause: [AtomicU64::new(0), AtomicU64::new(0)],
            rate: [AtomicU64::new(0), AtomicU64::new(0)],
            flip: [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)],
            kept,
        });
        crate::apart::spawn(accept(listener, Arc::clone(&shared), stop.clone()));
        Ok(Self {
            shared,
            socket,
            stop,
            _dir: dir,
        })
    }

    /// Its address as a client takes it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Bytes moved towards the daemon so far.
    pub fn bytes_to_daemon(&self) -> u64 {
        self.shared.to_daemon.load(Ordering::SeqCst)
    }

    /// Bytes moved towards the client so far.
    pub fn bytes_to_client(&self) -> u64 {
        self.shared.to_client.load(Ordering::SeqCst)
    }

    /// Whether `bytes` went to the daemon, in one piece and over one connection.
    ///
    /// # Panics
    /// When nothing was kept, or not all of it could be.
    pub fn sent(&self, bytes: &[u8]) -> bool {
        let kept = self
            .shared
            .kept
            .as_ref()
            .expect("a proxy that keeps what is sent");
        let kept = crate::fake::locked(kept);
        assert!(kept.len() < KEPT, "more was sent than is kept");
        kept.windows(bytes.len()).any(|window| window == bytes)
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Cuts every connection now; new ones are taken again.
    pub fn cut(&self) {
        let mut life = crate::fake::locked(&self.shared.life);
        life.cancel();
        *life = self.stop.child_token();
    }

    /// Cuts every connection and refuses new ones: the daemon is gone.
    pub fn kill(&self) {
        self.shared.refuse.send_replace(true);
        self.cut();
    }

    /// Pauses before each chunk of 16 KiB towards the daemon and towards the client; zero is no pause.
    pub fn slow_down(&self, to_daemon: Duration, to_client: Duration) {
        for (pause, time) in self.shared.pause.iter().zip([to_daemon, to_client]) {
            pause.store(
                u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
                Ordering::SeqCst,
            );
        }
    }

    /// Lets no more than so many bytes a second pass in each direction and connection; 0 is no bound.
    pub fn throttle(&self, bytes_a_second: u64) {
        for rate in &self.shared.rate {
            rate.store(bytes_a_second, Ordering::SeqCst);
        }
    }

    /// Turns one bit of a byte over, counted from the first that passes in that direction over all connections.
    pub fn corrupt(&self, to_daemon: Option<u64>, to_client: Option<u64>) {
        for (flip, at) in self.shared.flip.iter().zip([to_daemon, to_client]) {
            flip.store(at.unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }

    /// Waits until at least `bytes` have moved towards the daemon.
    ///
    /// # Errors
    /// How many have moved after `limit`.
    pub async fn wait_to_daemon(&self, bytes: u64, limit: Duration) -> Result<(), String> {
        let enough = async {
            loop {
                let moved = self.shared.moved.notified();
                tokio::pin!(moved);
                moved.as_mut().enable();
                if self.bytes_to_daemon() >= bytes {
                    return;
                }
                moved.await;
            }
        };
        let late = |_| {
            format!(
                "after {limit:?} only {} bytes went to the daemon",
                self.bytes_to_daemon()
            )
        };
        tokio::time::timeout(limit, enough).await.map_err(late)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(_) => return,
            },
            () = stop.cancelled() => return,
        };
        if *shared.refuse.borrow() {
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            shared.connections.fetch_add(1, Ordering::SeqCst);
            let life = crate::fake::locked(&shared.life).clone();
            tokio::select! {
                // Both ends see how it ended; nobody else needs to know.
                _ = serve(client, &shared) => {}
                () = life.cancelled() => {}
            }
            shared.connections.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve(client: UnixStream, shared: &Shared) -> io::Result<()> {
    let (client_read, client_write) = client.into_split();
    if let Some(address) = shared.upstream.strip_prefix("tcp://") {
        let (read, write) = TcpStream::connect(address).await?.into_split();
        both(client_read, client_write, read, write, shared).await
    } else {
        let path = shared
            .upstream
            .strip_prefix("unix://")
            .unwrap_or(&shared.upstream);
        let (read, write) = UnixStream::connect(path).await?.into_split();
        both(client_read, client_write, read, write, shared).await
    }
}

async fn both(
    client_read: impl AsyncRead + Unpin,
    client_write: impl AsyncWrite + Unpin,
    daemon_read: impl AsyncRead + Unpin,
    daemon_write: impl AsyncWrite + Unpin,
    shared: &Shared,
) -> io::Result<()> {
    let up = copy(
        client_read,
        daemon_write,
        &shared.to_daemon,
        [&shared.pause[0], &shared.rate[0], &shared.flip[0]],
        &shared.moved,
        shared.kept.as_ref(),
    );
    let down = copy(
        daemon_read,
        client_write,
        &shared.to_client,
        [&shared.pause[1], &shared.rate[1], &shared.flip[1]],
        &shared.moved,
        None,
    );
    tokio::try_join!(up, down).map(drop)
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    counter: &AtomicU64,
    [pause, rate, flip]: [&AtomicU64; 3],
    moved: &Notify,
    kept: Option<&std::sync::Mutex<Vec<u8>>>,
) -> io::Result<()> {
    let mut buffer = vec![0u8; CHUNK];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        let pause = Duration::from_micros(pause.load(Ordering::SeqCst));
        if !pause.is_zero() {
            tokio::time::sleep(pause).await; // sleep: slowing a link down is what this proxy is for
        }
        let rate = rate.load(Ordering::SeqCst);
        if rate > 0 {
            // sleep: the same, for a link of a given width
            tokio::time::sleep(Duration::from_secs_f64(n as f64 / rate as f64)).await;
        }
        let passed = counter.fetch_add(n as u64, Ordering::SeqCst);
        let at = flip.load(Ordering::SeqCst).checked_sub(passed);
        if let Some(byte) = at.and_then(|at| buffer[..n].get_mut(usize::try_from(at).unwrap_or(usize::MAX))) {
            *byte ^= 0x10;
        }
        let chunk = buffer.get(..n).unwrap_or_default();
        if let Some(kept) = kept {
            let mut kept = crate::fake::locked(kept);
            let room = KEPT - kept.len();
            kept.extend_from_slice(&chunk[..n.min(room)]);
        }
        to.write_all(chunk).await?;
        moved.notify_waiters();
    }
}
