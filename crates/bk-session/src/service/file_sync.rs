//! Files to the daemon: from a request's metadata to one run of the sender.
//!
//! Several transfers of one source may run at once. Each is a task of its own that ends with its response stream, so a
//! cancelled call stops the walk and the reads. The first local failure is kept: the daemon's own error only says that
//! the transfer broke.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bk_build::{
    AskedFor, BuildError, BuildEvent, EventSink, InputError, LocalFailure, ProtocolFailure, SentShare,
    Transfer, TransferDetails, TransferReport, Warning, WarningKind,
};
use bk_fsync::{
    FilterOptions, SendError, SendObserver, SendOptions, SendReport, Share, Warning as FileWarning,
    walk::WalkError,
};
use bk_proto::{filesync::file_sync_server::SERVICE_NAME, fsutil::Packet, headers, metadata};
use hyper::body::Incoming;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status, Streaming, body::Body, codec::Codec};
use tonic_prost::ProstCodec;
use tracing::{Instrument as _, Span, field::Empty, info_span};

use super::{dispatch::Services, packet_body::PacketBody, stream::chain};
use crate::{
    context::{
        lint::{FILLED, is_much},
        mistakes::warnings,
    },
    context_tar::{DEFAULT_NAMES, at, holding},
    host::path_of,
    limits::{MAX_MESSAGE, MAX_WARNINGS, OUTBOUND_PACKETS, PROGRESS_INTERVAL},
    session::SessionState,
    sources::{CONTEXT, DOCKERFILE, Source, Sources},
    unsent::{unreadable, unsent},
};

/// Adds the service that sends files.
pub(crate) fn serve(services: &mut Services, sources: Sources, events: EventSink, state: Arc<SessionState>) {
    let service = FileSyncService::new(sources, events, state);
    services.add(SERVICE_NAME, &[DIFF_COPY], Server(Arc::new(service)));
}

/// The one method of the service that is used. Its other one, a tar variant, is named by the protocol and never called.
const DIFF_COPY: &str = "DiffCopy";

/// The service as a server, by hand: a generated one would copy every file once more.
#[derive(Clone)]
struct Server(Arc<FileSyncService>);

impl tower_service::Service<http::Request<Incoming>> for Server {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        let response = self.0.respond(request).unwrap_or_else(Status::into_http);
        Box::pin(std::future::ready(Ok(response)))
    }
}

struct FileSyncService {
    sources: Sources,
    events: EventSink,
    state: Arc<SessionState>,
    transfers: AtomicU64,
    /// Paths that were warned of: the daemon asks for one source several times.
    warned: Arc<Mutex<BTreeSet<String>>>,
}

impl FileSyncService {
    fn new(sources: Sources, events: EventSink, state: Arc<SessionState>) -> Self {
        Self {
            sources,
            events,
            state,
            transfers: AtomicU64::new(0),
            warned: Arc::default(),
        }
    }
}

impl FileSyncService {
    fn respond(&self, request: http::Request<Incoming>) -> Result<http::Response<Body>, Status> {
        let path = request.uri().path();
        if path.rsplit('/').next() != Some(DIFF_COPY) {
            return Err(Status::unimplemented(format!(
                "{path} is not served by this session"
            )));
        }
        let decoder = ProstCodec::<Packet, Packet>::default().decoder();
        let request = Request::from_http(request)
            .map(|body| Streaming::new_request(decoder, body, None, Some(MAX_MESSAGE)));
        let mut response = http::Response::new(Body::new(self.diff_copy(request)?));
        let grpc = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
        Ok(response)
    }

    fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<PacketBody, Status> {
        let (name, source) = self.source(&request)?;
        let values = |key| metadata::values(request.metadata(), key);
        let mut filter = FilterOptions::default();
        filter.include = values(headers::INCLUDE_PATTERNS);
        filter.exclude = values(headers::EXCLUDE_PATTERNS);
        filter.follow = values(headers::FOLLOW_PATHS);
        let watch = Arc::new(Watch {
            counts: Mutex::default(),
            warnings: Mutex::default(),
            warned: self.warned.clone(),
            root: source.root.clone(),
            state: self.state.clone(),
        });
        let mut transfer = Running {
            asked: AskedFor::new(&filter.include, &filter.exclude, &filter.follow),
            transfer: Transfer::new(name, self.transfers.fetch_add(1, Ordering::Relaxed)),
            root: source.root.clone(),
            events: self.events.clone(),
            state: self.state.clone(),
            watch: watch.clone(),
            ignored: Vec::new(),
            sources: None,
        };
        if transfer.transfer.source == CONTEXT && !filter.exclude.is_empty() {
            transfer.ignored.clone_from(&filter.exclude);
            transfer.sources = Some(self.sources.clone());
        }
        let (outbound, packets) = mpsc::channel(OUTBOUND_PACKETS);
        let options = SendOptions::new()
            .filter(filter)
            .policies(self.sources.policies().clone())
            .observer(watch);
        let sending = bk_fsync::send(source.tree.clone(), options, request.into_inner(), outbound);
        let span = info_span!(
            "bk.transfer",
            source = &*transfer.transfer.source,
            transfer = transfer.transfer.transfer,
            entries = Empty,
            offered_bytes = Empty,
            sent_files = Empty,
            sent_bytes = Empty,
            error = Empty,
        );
        let task = AbortOnDropHandle::new(tokio::spawn(transfer.run(sending).instrument(span)));
        Ok(PacketBody::new(packets, task))
    }

    fn source(&self, request: &Request<Streaming<Packet>>) -> Result<(String, &Source), Status> {
        let name = metadata::first(request.metadata(), headers::DIR_NAME).unwrap_or_default();
        let name = String::from_utf8_lossy(&name).into_owned();
        match self.sources.get(&name) {
            Some(source) => Ok((name, source)),
            None => Err(Status::not_found(format!("no access allowed to dir {name:?}"))),
        }
    }
}

/// One transfer while it runs.
struct Running {
    transfer: Transfer,
    asked: AskedFor,
    root: Option<PathBuf>,
    events: EventSink,
    state: Arc<SessionState>,
    watch: Arc<Watch>,
    /// The patterns of an ignore file that the daemon leaves files out by, if it does.
    ignored: Vec<Vec<u8>>,
    /// Where that file is, then.
    sources: Option<Sources>,
}

impl Running {
    async fn run(
        mut self,
        sending: impl Future<Output = Result<SendReport, SendError>>,
    ) -> Result<(), Status> {
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sending = std::pin::pin!(sending);
        let result = loop {
            tokio::select! {
                biased;
                result = &mut sending => break result,
                _ = ticks.tick() => {
                    self.transfer.report = self.watch.counts();
                    // The next reading replaces one that finds no room.
                    self.events.try_emit(BuildEvent::Transfer(self.transfer.clone()));
                    self.tell_warnings().await;
                }
            }
        };
        self.transfer.report = self.watch.counts();
        self.transfer.done = true;
        self.tell_span(result.is_err());
        let details = result.as_ref().ok().map(|report| self.details(report));
        if let Ok(report) = &result {
            let ignored = self.ignored().await;
            self.watch.filled(&self.transfer.source, report, ignored.as_ref());
        }
        self.state.add(&self.transfer.report, details);
        // Kept before anything is waited for: the daemon may already be failing the build.
        let result = result.map(drop).map_err(|error| {
            let text = chain(&error);
            if let Some(cause) = self.blame(error) {
                self.state.fail(cause);
            }
            Status::unknown(text)
        });
        self.tell_warnings().await;
        self.events
            .emit(BuildEvent::Transfer(self.transfer.clone()))
            .await;
        result
    }

    /// The ignore file by which the daemon leaves files out, after telling what in it cannot be meant. It only informs: the
    /// daemon has read the file itself, and `None` is any other than that.
    async fn ignored(&mut self) -> Option<(PathBuf, Lines)> {
        let (sources, asked) = (self.sources.take()?, std::mem::take(&mut self.ignored));
        let looking = tokio::task::spawn_blocking(move || {
            let (context, beside) = (sources.get(CONTEXT)?, sources.get(DOCKERFILE)?);
            let given = sources.dockerfile_name().unwrap_or(DEFAULT_NAMES[0]);
            let (from, (name, lines)) = holding(context, beside, given).ok()??;
            let same = lines.iter().map(|(pattern, _)| pattern).eq(&asked);
            let file = at(from, &name);
            same.then(|| (warnings(context, &file, &lines), (file, lines)))
        });
        let (warnings, ignored) = looking.await.ok()??;
        for warning in warnings {
            self.watch
                .warn_once(format!("ignored {:?}", warning.kind), warning);
        }
        Some(ignored)
    }

    /// Counts, and no names: those are the user's own.
    fn tell_span(&self, failed: bool) {
        let (span, report) = (Span::current(), &self.transfer.report);
        span.record("entries", report.entries)
            .record("offered_bytes", report.offered_bytes)
            .record("sent_files", report.sent_files)
            .record("sent_bytes", report.sent_bytes)
            .record("error", failed);
    }

    fn details(&mut self, report: &SendReport) -> TransferDetails {
        let shares = |of: &[Share]| {
            let named = |s: &Share| SentShare::new(String::from_utf8_lossy(&s.path), s.bytes);
            of.iter().map(named).collect()
        };
        let mut details = TransferDetails::new(&*self.transfer.source, self.transfer.transfer);
        details.report = self.transfer.report;
        details.asked = std::mem::take(&mut self.asked);
        details.largest_files = shares(&report.largest_files);
        details.largest_directories = shares(&report.largest_directories);
        details
    }

    /// The cause on this machine; none when the daemon or the connection ended the transfer.
    fn blame(&self, error: SendError) -> Option<BuildError> {
        let at = |path: &str| locate(self.root.as_deref(), Path::new(path));
        match error {
            SendError::File(e) => Some(unsent(at(&e.path), e.fault).into()),
            SendError::List(WalkError::Io { action, path, source }) => {
                Some(unreadable(at(&path), action, source).into())
            }
            SendError::List(WalkError::Filter(e)) => Some(InputError::new(BAD_LIST, chain(&e), "").into()),
            SendError::Protocol(e) => Some(ProtocolFailure::new(chain(&e)).into()),
            SendError::List(e) => {
                let root = at("");
                Some(LocalFailure::new(root, chain(&e)).caused_by(e).into())
            }
            SendError::TaskLost => Some(BuildError::Misuse(chain(&error))),
            _ => None,
        }
    }

    async fn tell_warnings(&self) {
        let warnings = std::mem::take(&mut *lock(&self.watch.warnings));
        for warning in warnings {
            self.events.emit(BuildEvent::Warning(warning)).await;
        }
    }
}

/// What an input error is about when the daemon asked with a pattern that cannot be read.
pub(crate) const BAD_LIST: &str = "the ignore file or a path of the Dockerfile";

/// Patterns with their lines.
type Lines = Vec<(Vec<u8>, usize)>;

/// Where a file of a source lies on this machine, as far as that is known.
fn locate(root: Option<&Path>, path: &Path) -> PathBuf {
    root.unwrap_or_else(|| Path::new("")).join(path)
}

/// Counts what the sender reports, from whichever thread it does.
struct Watch {
    counts: Mutex<TransferReport>,
    warnings: Mutex<Vec<Warning>>,
    warned: Arc<Mutex<BTreeSet<String>>>,
    root: Option<PathBuf>,
    state: Arc<SessionState>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    fn counts(&self) -> TransferReport {
        *lock(&self.counts)
    }
}

impl Watch {
    /// Warns of a directory that tools fill and that is much of what was sent. What was sent is known anyway: nothing is
    /// looked at for this.
    fn filled(&self, source: &str, report: &SendReport, ignored: Option<&(PathBuf, Lines)>) {
        let is_filled = |share: &&Share| {
            let name = share.path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            FILLED.iter().any(|filled| filled.as_bytes() == name)
        };
        let Some(share) = report.largest_directories.iter().find(is_filled) else {
            return;
        };
        if source == DOCKERFILE || !is_much(share.bytes, report.bytes_sent) {
            return;
        }
        let path = String::from_utf8_lossy(&share.path).into_owned();
        let percent = share.bytes.saturating_mul(100) / report.bytes_sent.max(1);
        let name = path.rsplit('/').next().unwrap_or_default();
        let rooted = ignored.and_then(|(file, lines)| {
            let (_, line) = lines.iter().find(|(pattern, _)| pattern == name.as_bytes())?;
            Some(format!(
                "{}:{line} (`{name}`) holds in the root only, `**/{name}` everywhere",
                file.display()
            ))
        });
        let short = format!(
            "`{path}` is {percent} % of what was sent ({:.1} MB); {}",
            share.bytes as f64 / 1e6,
            rooted
                .as_deref()
                .unwrap_or("if no instruction needs it, add it to the ignore file")
        );
        let kind = WarningKind::FilledDirectory {
            path: path.clone(),
            bytes: share.bytes,
            of: report.bytes_sent,
        };
        self.warn_once(format!("filled {path}"), Warning::new(kind, short));
    }

    /// Keeps a warning to be told, unless there was one under that name.
    fn warn_once(&self, name: String, warning: Warning) {
        if lock(&self.warned).insert(name) {
            lock(&self.warnings).push(warning);
        }
    }
}

impl SendObserver for Watch {
    fn listed(&self, entries: u64, bytes: u64) {
        let mut counts = lock(&self.counts);
        counts.entries = entries;
        counts.offered_bytes = bytes;
    }

    fn requested(&self, _path: &[u8], _size: u64) {
        lock(&self.counts).requested_files += 1;
    }

    fn sent_bytes(&self, bytes: u64) {
        lock(&self.counts).sent_bytes += bytes;
    }

    fn file_sent(&self, _path: &[u8], _size: u64) {
        lock(&self.counts).sent_files += 1;
    }

    fn warning(&self, warning: &FileWarning<'_>) {
        let path = String::from_utf8_lossy(warning.path()).into_owned();
        let kind = match warning {
            FileWarning::NotUtf8 { path } => {
                // Most daemons take it; the one that does not will fail the build without saying which file it was.
                self.state.not_utf8(locate(self.root.as_deref(), &path_of(path)));
                return;
            }
            FileWarning::SocketSkipped { .. } => {
                lock(&self.counts).skipped += 1;
                WarningKind::SkippedFile(path.clone())
            }
            FileWarning::Changed { .. } => {
                lock(&self.counts).changed += 1;
                WarningKind::Client
            }
            _ => WarningKind::Client,
        };
        let mut warned = lock(&self.warned);
        if warned.len() < MAX_WARNINGS && warned.insert(path) {
            lock(&self.warnings).push(Warning::new(kind, warning.to_string()));
        }
    }
}
