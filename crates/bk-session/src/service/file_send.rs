//! Results from the daemon: from a request's metadata to a file, a writer, an engine or a directory.
//!
//! One method carries two protocols. A directory is sent as the packets of a file transfer, with the daemon as the sender;
//! everything else as slices of one byte stream. Which of them it is follows from what was asked for, never from what
//! arrives.

use std::{collections::BTreeMap, convert::Infallible, io, path::Path, pin::Pin, sync::Arc};

use bk_build::{
    BuildError, BuildEvent, EventSink, ImageLoader, Loaded, LocalFailure, ProtocolFailure, ResultInfo,
    ResultStream, Warning, WarningKind, WriterFactory,
};
use bk_fsync::{
    Destination, ReceiveError, ReceiveOptions,
    receive::{Change, ReceiveMode, ReceiveObserver, ReceiveReport, ReceiveWarning},
    write::WriteError,
};
use bk_proto::{
    filesync::{BytesMessage, file_send_server::SERVICE_NAME},
    fsutil::Packet,
    headers, metadata,
};
use futures_util::StreamExt;
use hyper::body::Incoming;
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, oneshot},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    metadata::MetadataMap,
    server::{Grpc, StreamingService},
};
use tonic_prost::ProstCodec;
use tower_service::Service;
use tracing::{Instrument as _, Span, field::Empty, info_span};

use super::{
    dispatch::Services,
    stream::{TaskStream, chain},
};
use crate::{
    exec::OwnedExecutor,
    exports::{Exports, ResultFile, Slot, Target},
    limits::{EXPORT_WARNINGS, MAX_EXPORT_METADATA, MAX_MESSAGE, OUTBOUND_PACKETS},
    session::SessionState,
};

/// The only method.
const DIFF_COPY: &str = "DiffCopy";

/// Adds the service that takes results, if there is anything to take.
///
/// `executor` runs the transfers of directories: the daemon resets their streams as soon as it has sent the last packet.
pub(crate) fn serve(
    services: &mut Services,
    exports: Exports,
    events: EventSink,
    state: Arc<SessionState>,
    executor: OwnedExecutor,
) {
    if exports.takes_any() {
        let server = FileSendServer {
            exports,
            events,
            state,
            executor,
        };
        services.add(SERVICE_NAME, &[DIFF_COPY], server);
    }
}

#[derive(Clone)]
struct FileSendServer {
    exports: Exports,
    events: EventSink,
    state: Arc<SessionState>,
    executor: OwnedExecutor,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Incoming>> for FileSendServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let path = request.uri().path();
            if path.rsplit('/').next() != Some(DIFF_COPY) {
                let status = Status::unimplemented(format!("{path} is not served by this session"));
                return Ok(status.into_http());
            }
            let metadata = MetadataMap::from_headers(request.headers().clone());
            let call = match server.accept(&metadata) {
                Ok(call) => call,
                Err(status) => return Ok(status.into_http()),
            };
            Ok(if call.is_dir() {
                let codec = ProstCodec::<Packet, Packet>::default();
                limited(Grpc::new(codec)).streaming(call, request).await
            } else {
                let codec = ProstCodec::<BytesMessage, BytesMessage>::default();
                limited(Grpc::new(codec)).streaming(call, request).await
            })
        })
    }
}

fn limited<C: tonic::codec::Codec>(grpc: Grpc<C>) -> Grpc<C> {
    grpc.max_decoding_message_size(MAX_MESSAGE)
}

impl FileSendServer {
    /// Finds out what a call is for, and refuses what was not asked for.
    fn accept(self, metadata: &MetadataMap) -> Result<Call, Status> {
        let id = exporter_id(metadata)?;
        let Some(slot) = self.exports.get(id) else {
            return Err(Status::not_found(format!(
                "no result of exporter {id} is wanted here"
            )));
        };
        let mut info = ResultInfo::new(slot.output);
        match &slot.target {
            Target::Dir { options, .. } => {
                let whole = metadata.get(headers::EXPORTER_MULTI_PLATFORM).is_some();
                if options.mode == ReceiveMode::Delete && !whole {
                    let why = "this daemon does not say that one stream holds the whole result, so files that are \
                               not in it cannot be removed";
                    self.state.fail(refusal(why));
                    return Err(Status::failed_precondition(why));
                }
            }
            _ => {
                info.metadata = exporter_metadata(metadata)?;
                if !slot.begin() {
                    let why = format!("exporter {id} has sent its result already");
                    return Err(Status::failed_precondition(why));
                }
            }
        }
        Ok(Call {
            id,
            info,
            server: self,
        })
    }
}

fn refusal(why: &str) -> BuildError {
    const FAILED_PRECONDITION: i32 = 9;
    bk_build::Refusal::new(FAILED_PRECONDITION, why)
        .hint("export without deleting, or use BuildKit 0.31 or newer")
        .into()
}

/// Which exporter sends. Daemons before 0.13 have one and do not say.
fn exporter_id(metadata: &MetadataMap) -> Result<usize, Status> {
    let mut values = metadata.get_all(headers::EXPORTER_ID).iter();
    let Some(value) = values.next() else {
        return Ok(0);
    };
    let id = value
        .to_str()
        .ok()
        .filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
    match (id.and_then(|v| v.parse().ok()), values.next()) {
        (Some(id), None) => Ok(id),
        _ => Err(Status::invalid_argument(format!(
            "{} must be one number",
            headers::EXPORTER_ID
        ))),
    }
}

/// What the exporter has answered so far.
fn exporter_metadata(metadata: &MetadataMap) -> Result<BTreeMap<String, String>, Status> {
    let mut all = BTreeMap::new();
    let mut size = 0;
    for name in metadata.as_ref().keys() {
        let Some(key) = name.as_str().strip_prefix(headers::EXPORTER_METADATA_PREFIX) else {
            continue;
        };
        let values: Vec<_> = metadata::values(metadata, name.as_str())
            .iter()
            .map(|v| String::from_utf8_lossy(v).into_owned())
            .collect();
        let value = values.join(",");
        size += key.len() + value.len();
        if size > MAX_EXPORT_METADATA {
            let why = format!(
                "more than {MAX_EXPORT_METADATA} bytes of {}*",
                headers::EXPORTER_METADATA_PREFIX
            );
            return Err(Status::resource_exhausted(why));
        }
        all.insert(key.to_owned(), value);
    }
    Ok(all)
}

/// One call that was accepted.
struct Call {
    id: usize,
    info: ResultInfo,
    server: FileSendServer,
}

impl Call {
    fn slot(&self) -> Option<&Slot> {
        self.server.exports.get(self.id)
    }

    fn is_dir(&self) -> bool {
        self.slot()
            .is_some_and(|slot| matches!(slot.target, Target::Dir { .. }))
    }

    /// Keeps the first cause on this machine; the daemon is told it in words.
    fn failed(&self, error: BuildError) -> Status {
        let status = Status::unknown(chain(&error));
        self.server.state.fail(error);
        status
    }
}

/// A directory.
impl StreamingService<Packet> for Call {
    type Response = Packet;
    type ResponseStream = TaskStream<Packet>;
    type Future = BoxFuture<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Packet>>) -> Self::Future {
        let (outbound, packets) = mpsc::channel(OUTBOUND_PACKETS);
        let (told, result) = oneshot::channel();
        let call = self.take();
        let executor = self.server.executor.clone();
        let span = self.span();
        executor.spawn(
            async move {
                let _running = call.server.exports.running();
                let result = call.receive_dir(request.into_inner(), outbound).await;
                // Nobody may be there to hear it any more.
                drop(told.send(result));
            }
            .instrument(span),
        );
        let end = async move {
            result
                .await
                .unwrap_or_else(|_| Err(Status::internal("the transfer ended early")))
        };
        Box::pin(async move { Ok(Response::new(TaskStream::ending(packets, end))) })
    }
}

/// One stream of bytes.
impl StreamingService<BytesMessage> for Call {
    type Response = BytesMessage;
    type ResponseStream = TaskStream<BytesMessage>;
    type Future = BoxFuture<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<BytesMessage>>) -> Self::Future {
        // Nothing is ever sent back but the status.
        let (_, nothing) = mpsc::channel(1);
        let call = self.take();
        let span = self.span();
        let receiving = async move { call.receive_bytes(request.into_inner()).await };
        let task = AbortOnDropHandle::new(tokio::spawn(receiving.instrument(span)));
        Box::pin(async move { Ok(Response::new(TaskStream::new(nothing, task))) })
    }
}

impl Call {
    /// What is received, in numbers: where it goes is the user's own.
    fn span(&self) -> Span {
        let kind = self.slot().map_or("none", |slot| slot.target.name());
        info_span!(
            "bk.export",
            output = self.info.output,
            kind,
            bytes = Empty,
            error = Empty
        )
    }

    /// Says in the span how it ended. A result that was there already is no error.
    fn tell_span(&self, result: &Result<(), Status>) {
        let span = Span::current();
        let failed = result
            .as_ref()
            .is_err_and(|status| status.code() != tonic::Code::AlreadyExists);
        span.record("error", failed);
        if let Some(slot) = self.slot() {
            span.record("bytes", slot.bytes());
        }
    }

    fn take(&self) -> Self {
        Self {
            id: self.id,
            info: self.info.clone(),
            server: self.server.clone(),
        }
    }

    async fn receive_bytes(self, inbound: Streaming<BytesMessage>) -> Result<(), Status> {
        let Some(slot) = self.slot() else {
            return Err(Status::not_found("nothing is wanted here"));
        };
        let result = match &slot.target {
            Target::File(path) => self.to_file(slot, path, inbound).await,
            Target::Writer(make) => self.to_writer(slot, &**make, inbound).await,
            Target::Engine(loader) => self.to_engine(slot, &**loader, inbound).await,
            _ => Err(Status::internal("a directory is not sent as bytes")),
        };
        self.tell_span(&result);
        result
    }

    async fn to_file(
        &self,
        slot: &Slot,
        path: &Path,
        mut inbound: Streaming<BytesMessage>,
    ) -> Result<(), Status> {
        let mut file = ResultFile::open(path);
        let mut bytes = 0;
        // When the stream fails nothing is kept: the file is dropped.
        while let Some(message) = inbound.message().await? {
            bytes += message.data.len() as u64;
            file.write(message.data).await.map_err(|e| self.failed(e))?;
        }
        slot.stage(file.stage().await.map_err(|e| self.failed(e))?);
        slot.arrived(|report| report.bytes += bytes);
        Ok(())
    }

    async fn to_writer(
        &self,
        slot: &Slot,
        make: &WriterFactory,
        mut inbound: Streaming<BytesMessage>,
    ) -> Result<(), Status> {
        let failed = |e: io::Error| {
            let error = LocalFailure::new("-", "cannot write the result").caused_by(e);
            self.failed(error.into())
        };
        let mut writer = make(&self.info).map_err(failed)?;
        let mut bytes = 0;
        while let Some(message) = inbound.message().await? {
            bytes += message.data.len() as u64;
            writer.write_all(&message.data).await.map_err(failed)?;
        }
        writer.shutdown().await.map_err(failed)?;
        slot.arrived(|report| report.bytes += bytes);
        Ok(())
    }

    async fn to_engine(
        &self,
        slot: &Slot,
        loader: &dyn ImageLoader,
        inbound: Streaming<BytesMessage>,
    ) -> Result<(), Status> {
        let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let archive = ResultStream::new(inbound.map(move |message| match message {
            Ok(message) => {
                counted.fetch_add(message.data.len() as u64, std::sync::atomic::Ordering::Relaxed);
                Ok(message.data)
            }
            Err(status) => Err(io::Error::other(status)),
        }));
        match loader.load(&self.info, archive).await {
            Ok(Loaded::AlreadyThere) => {
                slot.arrived(|report| report.already_there = true);
                // Exporters of images take this for "not needed", which is a success.
                Err(Status::already_exists("the engine has this image"))
            }
            Ok(_) => {
                let bytes = count.load(std::sync::atomic::Ordering::Relaxed);
                slot.arrived(|report| report.bytes += bytes);
                Ok(())
            }
            Err(e) => Err(self.failed(e)),
        }
    }

    async fn receive_dir(
        self,
        inbound: Streaming<Packet>,
        outbound: mpsc::Sender<Packet>,
    ) -> Result<(), Status> {
        let result = self.to_dir(inbound, outbound).await;
        if let (Err(_), Some(slot)) = (&result, self.slot()) {
            slot.failed();
        }
        self.tell_span(&result);
        result
    }

    async fn to_dir(&self, inbound: Streaming<Packet>, outbound: mpsc::Sender<Packet>) -> Result<(), Status> {
        let Some(slot) = self.slot() else {
            return Err(Status::not_found("nothing is wanted here"));
        };
        let Target::Dir {
            path,
            options,
            opened,
        } = &slot.target
        else {
            return Err(Status::internal("bytes are not sent as a directory"));
        };
        let create = || async {
            let path = path.clone();
            match tokio::task::spawn_blocking(move || Destination::create(&path)).await {
                Ok(Ok(dest)) => Ok(dest),
                Ok(Err(e)) => {
                    let text = format!("cannot {} the directory for the result", e.action);
                    Err(BuildError::from(
                        LocalFailure::new(&e.path, text).caused_by(e.source),
                    ))
                }
                Err(e) => Err(BuildError::Misuse(format!("the runtime was shut down: {e}"))),
            }
        };
        let dest = opened.get_or_try_init(create).await.map_err(|e| self.failed(e))?;
        let (warnings, mut warned) = mpsc::channel(EXPORT_WARNINGS);
        let watch = Watch {
            inner: options.observer.clone(),
            warnings,
        };
        let options: ReceiveOptions = options.clone().observer(Arc::new(watch));
        let mut receiving = std::pin::pin!(bk_fsync::receive(Arc::clone(dest), options, inbound, outbound));
        let result = loop {
            tokio::select! {
                biased;
                Some(text) = warned.recv() => self.warn(text).await,
                result = &mut receiving => break result,
            }
        };
        while let Ok(text) = warned.try_recv() {
            self.warn(text).await;
        }
        match result {
            Ok(report) => {
                in_place(Arc::clone(dest)).await.map_err(|e| self.failed(e))?;
                slot.arrived(|all| add(all, &report));
                Ok(())
            }
            Err(error) => {
                let text = chain(&error);
                if let Some(cause) = blame(error, dest.path()) {
                    self.server.state.fail(cause);
                }
                Err(Status::unknown(text))
            }
        }
    }

    async fn warn(&self, text: String) {
        let warning = Warning::new(WarningKind::Client, text);
        self.server.events.emit(BuildEvent::Warning(warning)).await;
    }
}

/// Nothing leaves the directory that was opened, but what was asked for is a result at its path.
async fn in_place(dest: Arc<Destination>) -> Result<(), BuildError> {
    tokio::task::spawn_blocking(move || {
        let failed = |text: &str| LocalFailure::new(dest.path(), text);
        match dest.is_in_place() {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed("was moved or replaced while the result was written to it").into()),
            Err(e) => Err(failed("cannot look at the directory with the result")
                .caused_by(e)
                .into()),
        }
    })
    .await
    .unwrap_or_else(|e| Err(BuildError::Misuse(format!("the runtime was shut down: {e}"))))
}

fn add(all: &mut bk_build::ExportReport, report: &ReceiveReport) {
    all.bytes += report.bytes;
    all.entries += report.entries;
    all.created += report.created;
    all.replaced += report.replaced;
    all.unchanged += report.unchanged;
    all.deleted += report.deleted;
    all.skipped += report.skipped;
}

/// The cause when it is not only a consequence of what the daemon knows already.
fn blame(error: ReceiveError, dest: &Path) -> Option<BuildError> {
    match error {
        ReceiveError::Write(e) => {
            let path = match &e {
                WriteError::Io { path, .. }
                | WriteError::DirectoryInTheWay { path }
                | WriteError::DeviceRefused { path } => dest.join(path),
                _ => dest.to_owned(),
            };
            let failure = LocalFailure::new(path, "cannot write the result");
            let failure = match &e {
                WriteError::DeviceRefused { .. } => {
                    failure.hint("let devices be left out, or be made, by an option")
                }
                WriteError::DirectoryInTheWay { .. } => {
                    failure.hint("remove it, or export to another directory")
                }
                _ => failure,
            };
            Some(failure.caused_by(e).into())
        }
        ReceiveError::Protocol(e) => Some(
            ProtocolFailure::new("the files of the result")
                .caused_by(e)
                .into(),
        ),
        ReceiveError::Busy(_) | ReceiveError::TaskLost => Some(BuildError::Misuse(chain(&error))),
        _ => None,
    }
}

/// Passes everything on to the observer of the request, and keeps warnings for the build's events.
struct Watch {
    inner: Arc<dyn ReceiveObserver>,
    warnings: mpsc::Sender<String>,
}

impl ReceiveObserver for Watch {
    fn changed(&self, path: &[u8], change: Change) {
        self.inner.changed(path, change);
    }

    fn received_bytes(&self, bytes: u64) {
        self.inner.received_bytes(bytes);
    }

    fn warning(&self, warning: &ReceiveWarning<'_>) {
        self.inner.warning(warning);
        // On a blocking thread, and the build's own task takes them. Gone only when the build is.
        drop(self.warnings.blocking_send(warning.to_string()));
    }
}
