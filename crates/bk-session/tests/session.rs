//! The session server as a daemon sees it: health under load, floods of requests, refusals and the end of all tasks.
//!
//! The daemon's side is an HTTP/2 client on an in-memory pipe; no sleeps order anything.

#[path = "session/report.rs"]
mod report;

use std::{
    io,
    pin::Pin,
    sync::{Arc, Condvar, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bk_build::{Credential, CredentialError, CredentialProvider, NoCredentials};
use bk_fsync::{
    FilePolicies, SyncPolicy,
    entry::Meta,
    path::RelPath,
    tree::{DirTree, Directory, MemoryTree, OpenFile, Tree},
};
use bk_proto::{
    auth::{CredentialsRequest, GetTokenAuthorityRequest, auth_client::AuthClient},
    filesync::file_sync_client::FileSyncClient,
    fsutil::{Packet, packet::PacketType},
    headers,
    health::{HealthCheckRequest, health_client::HealthClient},
    metadata,
    secrets::{GetSecretRequest, secrets_client::SecretsClient},
};
use bk_session::{RunningSession, Session, SessionConfig, Sources};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming, body::Body};

/// Bytes in the pipe between both sides.
const PIPE: usize = 256 * 1024;
/// What the health answer may take under load on a busy machine. Idle it is far below one millisecond.
const HEALTH: Duration = Duration::from_millis(250);
const FILES: u32 = 50_000;

#[derive(Clone)]
struct Daemon(http2::SendRequest<Body>);

impl tower_service::Service<http::Request<Body>> for Daemon {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

fn origin() -> http::Uri {
    http::Uri::from_static("http://localhost")
}

async fn attach(config: SessionConfig) -> (Daemon, RunningSession) {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let session = Session::new(config).serve(ours);
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .handshake(TokioIo::new(theirs))
        .await
        .expect("handshake");
    tokio::spawn(connection);
    (Daemon(sender), session)
}

async fn serving(tree: impl Tree + 'static) -> (Daemon, RunningSession) {
    attach(config(tree)).await
}

fn config(tree: impl Tree + 'static) -> SessionConfig {
    // Times as they are: the default reads files that have no inode already while it lists them, and some trees here
    // block on reading.
    let sources = Sources::none()
        .with("context", Arc::new(tree), None)
        .with_policies(FilePolicies::default().sync(SyncPolicy::Mtime));
    SessionConfig::new(sources, Arc::new(NoCredentials))
}

async fn health(daemon: &Daemon) -> Duration {
    let start = Instant::now();
    let answer = HealthClient::with_origin(daemon.clone(), origin())
        .check(HealthCheckRequest::default())
        .await
        .expect("health answers");
    assert_eq!(answer.into_inner().status, 1, "serving");
    start.elapsed()
}

/// Opens a transfer of `context`; returns where to send requests and the packets.
async fn diff_copy(daemon: &Daemon, room: usize) -> (mpsc::Sender<Packet>, Streaming<Packet>) {
    let (sender, receiver) = mpsc::channel(room);
    let mut request = Request::new(ReceiverStream::new(receiver));
    metadata::set(request.metadata_mut(), headers::DIR_NAME, &["context"]).expect("metadata");
    let packets = FileSyncClient::with_origin(daemon.clone(), origin())
        .max_decoding_message_size(usize::MAX)
        .diff_copy(request)
        .await
        .expect("transfer starts");
    (sender, packets.into_inner())
}

fn req(id: u32) -> Packet {
    Packet {
        r#type: PacketType::PacketReq.into(),
        id,
        ..Packet::default()
    }
}

fn fin() -> Packet {
    Packet {
        r#type: PacketType::PacketFin.into(),
        ..Packet::default()
    }
}

/// Reads until the end of the listing and returns the number of entries.
async fn listing(packets: &mut Streaming<Packet>) -> u32 {
    let mut entries = 0;
    loop {
        let packet = packets.message().await.expect("packet").expect("listing goes on");
        if packet.r#type == i32::from(PacketType::PacketStat) {
            if packet.stat.is_none() {
                return entries;
            }
            entries += 1;
        }
    }
}

/// Reads until `files` files have ended and returns their bytes.
async fn contents(packets: &mut Streaming<Packet>, files: u32) -> u64 {
    let (mut ended, mut bytes) = (0, 0);
    while ended < files {
        let packet = packets.message().await.expect("packet").expect("data goes on");
        assert_eq!(packet.r#type, i32::from(PacketType::PacketData));
        bytes += packet.data.len() as u64;
        ended += u32::from(packet.data.is_empty());
    }
    bytes
}

async fn finish(requests: mpsc::Sender<Packet>, mut packets: Streaming<Packet>) {
    requests.send(fin()).await.expect("sends FIN");
    let packet = packets.message().await.expect("packet").expect("FIN comes back");
    assert_eq!(packet.r#type, i32::from(PacketType::PacketFin));
    assert!(packets.message().await.expect("clean end").is_none());
}

fn many() -> MemoryTree {
    let mut tree = MemoryTree::new();
    for i in 0..FILES {
        tree.add_file(format!("f{i:05}"), 0o644, format!("{i}"))
            .expect("adds");
    }
    tree
}

fn many_bytes() -> u64 {
    (0..FILES).map(|i| i.to_string().len() as u64).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_not_served_is_unimplemented() {
    let (daemon, session) = serving(MemoryTree::new()).await;
    let status = SecretsClient::with_origin(daemon.clone(), origin())
        .get_secret(GetSecretRequest::default())
        .await
        .expect_err("no secrets here");
    assert_eq!(status.code(), Code::Unimplemented);
    let status = AuthClient::with_origin(daemon.clone(), origin())
        .get_token_authority(GetTokenAuthorityRequest::default())
        .await
        .expect_err("no token authority");
    assert_eq!(status.code(), Code::Unimplemented);
    let (_sender, receiver) = mpsc::channel::<Packet>(1);
    let mut request = Request::new(ReceiverStream::new(receiver));
    metadata::set(request.metadata_mut(), headers::DIR_NAME, &["other"]).expect("metadata");
    let status = FileSyncClient::with_origin(daemon, origin())
        .diff_copy(request)
        .await
        .expect_err("no such source");
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "no access allowed to dir \"other\"")
    );
    drop(session);
}

struct One;

#[async_trait::async_trait]
impl CredentialProvider for One {
    async fn credential(&self, host: &str) -> Result<Option<Credential>, CredentialError> {
        match host {
            "known" => Ok(Some(Credential::basic("me", "secret"))),
            "broken" => Err(CredentialError::new(host, "helper failed")),
            _ => Ok(None),
        }
    }
}

#[tokio::test]
async fn credentials_are_answered_and_unknown_hosts_are_anonymous() {
    let (daemon, _session) = attach(SessionConfig::new(Sources::none(), Arc::new(One))).await;
    let mut client = AuthClient::with_origin(daemon, origin());
    let mut ask = async |host: &str| {
        client
            .credentials(CredentialsRequest {
                host: host.to_owned(),
            })
            .await
    };
    let known = ask("known").await.expect("answers").into_inner();
    assert_eq!((known.username.as_str(), known.secret.as_str()), ("me", "secret"));
    let unknown = ask("elsewhere").await.expect("answers").into_inner();
    assert_eq!((unknown.username.as_str(), unknown.secret.as_str()), ("", ""));
    let status = ask("broken").await.expect_err("fails");
    assert!(status.message().contains("helper failed"), "{status}");
}

#[tokio::test]
async fn announcements_are_one_value_a_method() {
    let session = Session::new(SessionConfig::new(Sources::none(), Arc::new(NoCredentials)));
    let headers = session.headers();
    let methods: Vec<_> = headers
        .iter()
        .filter(|(n, _)| *n == "X-Docker-Expose-Session-Grpc-Method")
        .map(|(_, v)| v)
        .collect();
    assert!(
        methods.contains(&"/moby.filesync.v1.FileSync/DiffCopy"),
        "{methods:?}"
    );
    assert!(methods.contains(&"/grpc.health.v1.Health/Check"), "{methods:?}");
    assert!(methods.iter().all(|m| !m.contains(',')), "{methods:?}");
    let metadata = headers.to_metadata();
    assert_eq!(
        metadata
            .get_all("x-docker-expose-session-grpc-method")
            .iter()
            .count(),
        methods.len()
    );
    let other = Session::new(SessionConfig::new(Sources::none(), Arc::new(NoCredentials)));
    assert_ne!(session.id(), other.id());
}

/// A daemon that asks for every file at once and reads its answers as slowly as it likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_files_to_a_slow_reader() {
    let (daemon, session) = serving(many()).await;
    let (requests, mut packets) = diff_copy(&daemon, FILES as usize).await;
    assert_eq!(listing(&mut packets).await, FILES);
    // All requests go out before a single answer is read: the sender is stuck on a full window meanwhile.
    for id in 0..FILES {
        requests.send(req(id)).await.expect("request");
        if id % 10_000 == 0 {
            assert!(health(&daemon).await < HEALTH);
        }
    }
    assert!(health(&daemon).await < HEALTH);
    assert_eq!(contents(&mut packets, FILES).await, many_bytes());
    finish(requests, packets).await;
    assert_eq!(session.end_reason(), None, "the connection lives");
    let report = session.close(Duration::from_secs(5)).await.total;
    assert_eq!(
        (report.entries, report.sent_files, report.sent_bytes),
        (u64::from(FILES), u64::from(FILES), many_bytes())
    );
}

/// A gate that file reads wait at.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut open = self.open.lock().expect("lock");
        while !*open {
            open = self.changed.wait(open).expect("wait");
        }
    }

    fn open(&self) {
        *self.open.lock().expect("lock") = true;
        self.changed.notify_all();
    }
}

/// Opens a gate when a test ends, however it does: a runtime does not end before its blocked threads do, so that a
/// failure with the gate shut would hang instead of being told.
struct Opens(Arc<Gate>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// A tree whose reads block until a gate opens, like a disk that hangs.
struct Blocked {
    tree: MemoryTree,
    gate: Arc<Gate>,
    reading: mpsc::UnboundedSender<()>,
}

struct BlockedFile {
    file: Box<dyn OpenFile>,
    gate: Arc<Gate>,
    reading: mpsc::UnboundedSender<()>,
}

impl Tree for Blocked {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        self.tree.open_dir(path)
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        let (gate, reading) = (self.gate.clone(), self.reading.clone());
        Ok(Box::new(BlockedFile {
            file: self.tree.open(path)?,
            gate,
            reading,
        }))
    }
}

impl io::Read for BlockedFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let _ = self.reading.send(());
        self.gate.pass();
        self.file.read(buf)
    }
}

impl OpenFile for BlockedFile {
    fn stat(&self) -> io::Result<Meta> {
        self.file.stat()
    }
}

/// A sender that cannot read its files while all requests arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_files_from_a_slow_sender() {
    let gate = Arc::new(Gate::default());
    let _opens = Opens(gate.clone());
    let (reading, mut reads) = mpsc::unbounded_channel();
    let (daemon, session) = serving(Blocked {
        tree: many(),
        gate: gate.clone(),
        reading,
    })
    .await;
    let (requests, mut packets) = diff_copy(&daemon, 64).await;
    assert_eq!(listing(&mut packets).await, FILES);
    for id in 0..FILES {
        requests.send(req(id)).await.expect("request");
    }
    reads.recv().await.expect("a read blocks");
    assert!(health(&daemon).await < HEALTH);
    gate.open();
    assert_eq!(contents(&mut packets, FILES).await, many_bytes());
    finish(requests, packets).await;
    assert_eq!(session.end_reason(), None, "the connection lives");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_answers_while_two_gibibytes_are_sent() {
    const SIZE: u64 = 2 * 1024 * 1024 * 1024;
    let dir = tempfile::tempdir().expect("temp dir");
    std::fs::File::create(dir.path().join("big"))
        .and_then(|f| f.set_len(SIZE))
        .expect("sparse file");
    let (daemon, session) = serving(DirTree::open(dir.path()).expect("opens")).await;
    let (requests, mut packets) = diff_copy(&daemon, 1).await;
    assert_eq!(listing(&mut packets).await, 1);
    requests.send(req(0)).await.expect("request");
    let reading = tokio::spawn(async move {
        let bytes = contents(&mut packets, 1).await;
        (bytes, packets)
    });
    let mut checks = Vec::new();
    while !reading.is_finished() {
        checks.push(health(&daemon).await);
    }
    let (bytes, packets) = reading.await.expect("reads");
    assert_eq!(bytes, SIZE);
    assert!(checks.len() > 20, "only {} checks", checks.len());
    // Other programs of a busy machine may delay a few; the oldest daemons wait ten seconds for each.
    checks.sort_unstable();
    let (most, worst) = (checks[checks.len() * 9 / 10], checks[checks.len() - 1]);
    assert!(
        most < HEALTH && worst < HEALTH * 8,
        "of {} health answers a tenth took {most:?} and more, the slowest {worst:?}",
        checks.len()
    );
    finish(requests, packets).await;
    drop(session);
}

/// The largest message that daemons send is taken; a larger one ends its transfer and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_sixteen_mebibytes_are_taken_and_larger_ones_end_their_transfer() {
    const LARGEST: usize = 16 * 1024 * 1024;
    let (daemon, session) = serving(many()).await;
    for (size, text) in [(LARGEST, "xxxx"), (LARGEST + 1024 * 1024, "too large")] {
        let (requests, mut packets) = diff_copy(&daemon, 1).await;
        assert_eq!(listing(&mut packets).await, FILES);
        let gives_up = Packet {
            r#type: PacketType::PacketErr.into(),
            data: vec![b'x'; size].into(),
            ..Packet::default()
        };
        requests.send(gives_up).await.expect("sends");
        let status = packets.message().await.expect_err("the transfer ends");
        assert_eq!(status.code(), Code::Unknown, "{size}");
        assert!(
            status.message().contains(text),
            "{size}: {:.200}",
            status.message()
        );
        assert!(status.message().len() < 64 * 1024, "{}", status.message().len());
        assert!(health(&daemon).await < HEALTH * 8);
    }
    assert_eq!(session.end_reason(), None, "the connection lives");
}

#[tokio::test(flavor = "current_thread")]
async fn health_answers_while_a_disk_read_blocks() {
    let gate = Arc::new(Gate::default());
    let _opens = Opens(gate.clone());
    let (reading, mut reads) = mpsc::unbounded_channel();
    let mut tree = MemoryTree::new();
    tree.add_file("f", 0o644, "content").expect("adds");
    let (daemon, session) = serving(Blocked {
        tree,
        gate: gate.clone(),
        reading,
    })
    .await;
    let (requests, mut packets) = diff_copy(&daemon, 1).await;
    listing(&mut packets).await;
    requests.send(req(0)).await.expect("request");
    reads.recv().await.expect("a read blocks");
    for _ in 0..100 {
        assert!(health(&daemon).await < HEALTH);
    }
    gate.open();
    assert_eq!(contents(&mut packets, 1).await, 7);
    finish(requests, packets).await;
    drop(session);
}

/// Waits until only the test's own tasks are left: task ends are not ordered with anything a test can wait for.
async fn tasks_fall_to(limit: usize) {
    let metrics = tokio::runtime::Handle::current().metrics();
    let end = Instant::now() + Duration::from_secs(10);
    while metrics.num_alive_tasks() > limit {
        assert!(
            Instant::now() < end,
            "{} tasks are left, not {limit}",
            metrics.num_alive_tasks()
        );
        tokio::task::yield_now().await;
    }
}

async fn in_the_middle() -> (
    usize,
    Daemon,
    RunningSession,
    mpsc::Sender<Packet>,
    Streaming<Packet>,
) {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (daemon, session) = serving(many()).await;
    let (requests, mut packets) = diff_copy(&daemon, 64).await;
    assert_eq!(listing(&mut packets).await, FILES);
    for id in 0..100 {
        requests.send(req(id)).await.expect("request");
    }
    assert!(session.alive_tasks() > 0);
    (before, daemon, session, requests, packets)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_session_ends_everything() {
    let (before, daemon, session, requests, mut packets) = in_the_middle().await;
    drop(session);
    // The daemon sees its stream break.
    while let Ok(Some(_)) = packets.message().await {}
    drop((daemon, requests, packets));
    tasks_fall_to(before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_session_waits_for_its_end() {
    let (before, daemon, session, requests, packets) = in_the_middle().await;
    session.close(Duration::from_secs(10)).await;
    drop((daemon, requests, packets));
    tasks_fall_to(before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_call_ends_its_transfer_and_not_the_session() {
    let (_, daemon, session, requests, packets) = in_the_middle().await;
    let one_connection = 4;
    drop((requests, packets));
    let end = Instant::now() + Duration::from_secs(10);
    while session.alive_tasks() > one_connection {
        assert!(Instant::now() < end, "{} tasks are left", session.alive_tasks());
        tokio::task::yield_now().await;
    }
    assert!(health(&daemon).await < HEALTH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_the_daemon_ends_everything_and_says_so() {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let config = SessionConfig::new(Sources::none(), Arc::new(NoCredentials));
    let session = Session::new(config).serve(ours);
    drop(theirs);
    let reason = session.ended().await;
    assert!(!reason.is_empty());
    assert_eq!(session.end_reason(), Some(reason));
    drop(session);
    tasks_fall_to(before).await;
}
