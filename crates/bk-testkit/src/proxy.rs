//! A proxy between a client and a daemon that counts, cuts and slows down.
//!
//! It listens on a unix socket or a TCP port and connects to a unix or TCP address. It looks into nothing, but can keep
//! what went to the daemon.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, watch},
};
use tokio_util::sync::CancellationToken;

use crate::health::{Health, HealthWatch};

/// Most bytes that are kept of what went to the daemon.
const KEPT: usize = 64 << 20;
/// Bytes moved at a time.
const CHUNK: usize = 16 * 1024;

/// A running proxy. Dropping it cuts every connection.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: String,
    stop: CancellationToken,
    _dir: Option<TempDir>,
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
    /// Bits that were turned over so far.
    flipped: AtomicUsize,
    /// Connections that there were so far.
    numbers: AtomicUsize,
    /// What is known of the health checks of sessions.
    health: std::sync::Mutex<HealthWatch>,
    /// What went to the daemon, if it is kept.
    kept: Option<std::sync::Mutex<Vec<u8>>>,
}

impl Proxy {
    /// Starts one in front of `upstream`: `unix:///path` or `tcp://host:port`.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn start(upstream: &str) -> io::Result<Self> {
        Self::on_socket(upstream, None)
    }

    /// Starts one that keeps all that went to the daemon, up to 64 MiB.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn keeping(upstream: &str) -> io::Result<Self> {
        Self::on_socket(upstream, Some(std::sync::Mutex::default()))
    }

    /// Starts one that listens on a port of the loopback device.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn on_port(upstream: &str) -> io::Result<Self> {
        let _apart = crate::apart::enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = format!("tcp://{}", listener.local_addr()?);
        let listener = Listener::Port(TcpListener::from_std(listener)?);
        Ok(Self::run(upstream, None, listener, address, None))
    }

    fn on_socket(upstream: &str, kept: Option<std::sync::Mutex<Vec<u8>>>) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("bk-proxy-").tempdir()?;
        let socket = dir.path().join("proxy.sock");
        let _apart = crate::apart::enter();
        let listener = Listener::Socket(UnixListener::bind(&socket)?);
        let address = format!("unix://{}", socket.display());
        Ok(Self::run(upstream, kept, listener, address, Some(dir)))
    }

    fn run(
        upstream: &str,
        kept: Option<std::sync::Mutex<Vec<u8>>>,
        listener: Listener,
        address: String,
        dir: Option<TempDir>,
    ) -> Self {
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
            flipped: AtomicUsize::new(0),
            numbers: AtomicUsize::new(0),
            health: std::sync::Mutex::default(),
            kept,
        });
        crate::apart::spawn(accept(listener, Arc::clone(&shared), stop.clone()));
        Self {
            shared,
            address,
            stop,
            _dir: dir,
        }
    }

    /// Its address as a client takes it.
    pub fn address(&self) -> String {
        self.address.clone()
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

    /// What was seen of the health checks of sessions on connections of their own (the Docker routes `grpc` and `build`).
    pub fn health(&self) -> Health {
        crate::fake::locked(&self.shared.health).seen()
    }

    /// Bits that were turned over so far.
    pub fn corrupted(&self) -> usize {
        self.shared.flipped.load(Ordering::SeqCst)
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

enum Listener {
    Socket(UnixListener),
    Port(TcpListener),
}

/// What a client's connection is.
enum Client {
    Socket(UnixStream),
    Port(TcpStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Client> {
        Ok(match self {
            Self::Socket(listener) => Client::Socket(listener.accept().await?.0),
            Self::Port(listener) => Client::Port(listener.accept().await?.0),
        })
    }
}

async fn accept(listener: Listener, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(client) => client,
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
            let serving = async {
                // Both ends see how it ended; nobody else needs to know.
                match client {
                    Client::Socket(client) => {
                        let (read, write) = client.into_split();
                        drop(serve(read, write, &shared).await);
                    }
                    Client::Port(client) => {
                        let (read, write) = client.into_split();
                        drop(serve(read, write, &shared).await);
                    }
                }
            };
            tokio::select! {
                () = serving => {}
                () = life.cancelled() => {}
            }
            shared.connections.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve(
    client_read: impl AsyncRead + Unpin,
    client_write: impl AsyncWrite + Unpin,
    shared: &Shared,
) -> io::Result<()> {
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
    let number = shared.numbers.fetch_add(1, Ordering::SeqCst);
    let up = copy(client_read, daemon_write, shared, (number, 0));
    let down = copy(daemon_read, client_write, shared, (number, 1));
    tokio::try_join!(up, down).map(drop)
}

/// Moves the bytes of one direction of a connection: 0 is towards the daemon.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    (number, direction): (usize, usize),
) -> io::Result<()> {
    let counter = [&shared.to_daemon, &shared.to_client][direction];
    let [pause, rate, flip] = [&shared.pause, &shared.rate, &shared.flip].map(|both| &both[direction]);
    let kept = shared.kept.as_ref().filter(|_| direction == 0);
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
            shared.flipped.fetch_add(1, Ordering::SeqCst);
        }
        let chunk = buffer.get(..n).unwrap_or_default();
        if let Some(kept) = kept {
            let mut kept = crate::fake::locked(kept);
            let room = KEPT - kept.len();
            kept.extend_from_slice(&chunk[..n.min(room)]);
        }
        crate::fake::locked(&shared.health).take(number, direction == 0, chunk);
        to.write_all(chunk).await?;
        shared.moved.notify_waiters();
    }
}
