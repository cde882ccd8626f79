//! `POST /build`: Docker's own dialect of a build, with and without a session.
//!
//! The rule: everything that a build opens is owned by its future. Dropping it closes the connection of the request,
//! which cancels the build on the daemon.

mod answer;
mod archive;
mod query;
mod records;
#[cfg(test)]
mod tests;
mod upload;

use bk_build::{
    BuildError, BuildEvent, BuildOutcome, BuildRequest, EventSink, ImageBuilder, LossKind, SessionLost,
    Stalled, TransferReport,
};
use bk_session::{
    ArchiveStream, ContextTar, Exports, Extras, Pings, Session, SessionConfig, Sources, explain_failure,
};
use bk_solve::{ImageExporter, Watch, exporters, limits::CLOSE_GRACE, lost_session, watched, with_seen};
use http::Method;
use tokio::sync::mpsc;

use crate::{
    backend::DockerBackend,
    dialer,
    http1::{Body, Connection, empty, lost},
    limits::UPLOAD_EVENTS,
    route::DockerRoute,
};
use answer::Follow;
use archive::Sending;
use query::Source;
use upload::Upload;

/// What is built when a request names no Dockerfile.
const DEFAULT_DOCKERFILE: &str = "Dockerfile";
/// What a body is.
const TAR_BODY: (&str, &str) = ("content-type", "application/x-tar");

/// `headers`, and the trace that the build belongs to: engines take it from there as from gRPC.
fn traced<'a>(request: &'a BuildRequest, headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = headers.to_vec();
    if let Some(trace) = &request.trace {
        all.push(("traceparent", trace.traceparent()));
        all.extend(trace.tracestate().map(|state| ("tracestate", state)));
    }
    all
}

/// Refuses what the engine is known not to do on this route.
pub(crate) async fn check(backend: &DockerBackend, request: &BuildRequest) -> Result<(), BuildError> {
    request.validate()?;
    query::check(request, backend.route().name(), backend.daemon.api)?;
    bk_solve::check_version(request, &backend.info()).await?;
    match backend.route() {
        DockerRoute::Tar => Ok(query::check_sessionless(request)?),
        _ => Ok(()),
    }
}

/// Builds with a session: the daemon fetches files and credentials from it.
pub(crate) async fn by_session(
    backend: &DockerBackend,
    request: BuildRequest,
    build_id: &str,
    events: &EventSink,
) -> Result<BuildOutcome, BuildError> {
    check(backend, &request).await?;
    let mut sources = Sources::of(&request).await?;
    let filename = sources.dockerfile_name().map(str::to_owned);
    let archive = sources.take_archive();
    let credentials = request
        .credentials
        .clone()
        .unwrap_or_else(|| backend.credentials.clone());
    let extras = Extras::of(&request).await?;
    let lowered = exporters(&request, ImageExporter::Moby);
    let exports = Exports::new(lowered.into_iter().map(|l| (l.output, l.sink)).collect()).await?;
    let stall = request.patience.stall;
    let config = SessionConfig::new(sources, credentials)
        .events(events.clone())
        .pings(Pings::within(stall))
        .exports(exports.clone());
    let session = Session::new(config.extras(extras));
    let source = Source::Session(session.id());
    let path = query::path(
        &request,
        backend.daemon.used_api,
        build_id,
        source,
        filename.as_deref(),
    );

    // Attached before the build is asked for: the daemon waits five seconds for it and no longer.
    let io = dialer::session(&backend.site, &session.headers()).await?;
    let (io, pulse) = watched(io);
    // The answer to the build itself cannot be asked for a sign of life: it is HTTP/1.1.
    let watch = Watch::new([pulse]);
    let session = session.serve(io);
    let address = backend.site.to_string();
    let filename = filename.as_deref().unwrap_or(DEFAULT_DOCKERFILE);
    let follow = Follow {
        address: &address,
        filename,
        events,
    };
    // Closed from the start: the session tells its own events.
    let (_, mut beside) = mpsc::channel(1);
    let sending = Sending::default();
    let (headers, body) = match archive {
        Some(stream) => (&[TAR_BODY][..], sending.body(stream)),
        None => (&[][..], empty()),
    };
    let headers = traced(&request, headers);
    let result = tokio::select! {
        biased;
        result = ask(backend, &path, &headers, body, &follow, &mut beside) => result,
        reason = lost_session(&session) => {
            Err(SessionLost::new(&address, reason.to_string()).kind(LossKind::Session).into())
        }
        () = watch.silence(stall) => Err(Stalled::new(&address, stall.unwrap_or_default()).into()),
    };
    let mut seen = watch.seen(session.health_age());
    seen.exporting = exports.any_begun();
    let result = result.map_err(|e| with_seen(e, seen));
    let failures = session.failures();
    if result.is_ok() {
        exports.settle(CLOSE_GRACE).await;
    }
    let mut report = session.close(CLOSE_GRACE).await;
    let (sent, local) = sending.end();
    report.total.add(&sent);
    let result = result.map_err(|e| local.unwrap_or_else(|| failures.explain(e)));
    let result = explained(&request, result).await;
    let mut outcome = finish(build_id, result, report.total)?;
    outcome.transfers = report.transfers;
    outcome.exports = exports.commit().await.map_err(|e| failures.explain(e))?;
    Ok(outcome)
}

/// Builds without a session: the context is uploaded.
pub(crate) async fn by_upload(
    backend: &DockerBackend,
    request: BuildRequest,
    build_id: &str,
    events: &EventSink,
) -> Result<BuildOutcome, BuildError> {
    check(backend, &request).await?;
    let mut sources = Sources::of(&request).await?;
    if let Some(stream) = sources.take_archive() {
        return archive_build(backend, &request, build_id, &sources, stream, events).await;
    }
    let dockerfile = request.dockerfile.clone();
    // Messages name the file as the user knows it, wherever it stands in the upload.
    let shown = sources.dockerfile_name().unwrap_or(DEFAULT_DOCKERFILE).to_owned();
    let plan = tokio::task::spawn_blocking(move || ContextTar::make(&sources, &dockerfile))
        .await
        .unwrap_or_else(|e| Err(BuildError::Misuse(format!("the runtime was shut down: {e}"))))?;
    let path = query::path(
        &request,
        backend.daemon.used_api,
        build_id,
        Source::Body,
        Some(plan.dockerfile()),
    );

    let (sender, mut beside) = mpsc::channel(UPLOAD_EVENTS);
    let (upload, body) = Upload::start(plan, sender);
    let address = backend.site.to_string();
    let follow = Follow {
        address: &address,
        filename: &shown,
        events,
    };
    let headers = traced(&request, &[TAR_BODY]);
    let result = ask(backend, &path, &headers, body, &follow, &mut beside).await;
    let (report, local) = follow.beside(&mut beside, upload.end()).await;
    while let Some(event) = beside.recv().await {
        events.emit(event).await;
    }
    // A failure of this machine is the cause of whatever the daemon said then.
    let result = result.map_err(|e| local.unwrap_or(e));
    finish(build_id, explained(&request, result).await, report)
}

/// Uploads an archive as it is.
async fn archive_build(
    backend: &DockerBackend,
    request: &BuildRequest,
    build_id: &str,
    sources: &Sources,
    stream: ArchiveStream,
    events: &EventSink,
) -> Result<BuildOutcome, BuildError> {
    let api = backend.daemon.used_api;
    let path = query::path(request, api, build_id, Source::Body, sources.dockerfile_name());
    let address = backend.site.to_string();
    let follow = Follow {
        address: &address,
        filename: sources.dockerfile_name().unwrap_or(DEFAULT_DOCKERFILE),
        events,
    };
    let sending = Sending::default();
    let (_, mut beside) = mpsc::channel(1);
    let body = sending.body(stream);
    let headers = traced(request, &[TAR_BODY]);
    let result = ask(backend, &path, &headers, body, &follow, &mut beside).await;
    let (report, local) = sending.end();
    finish(build_id, result.map_err(|e| local.unwrap_or(e)), report)
}

/// Sends the request and follows its answer to the end; the connection is closed then.
async fn ask(
    backend: &DockerBackend,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
    follow: &Follow<'_>,
    beside: &mut mpsc::Receiver<BuildEvent>,
) -> Result<Option<String>, BuildError> {
    let mut connection = Connection::open(&backend.site).await?;
    let response = follow
        .beside(beside, connection.send(Method::POST, path, headers, body))
        .await;
    let result = match response {
        Ok(response) => follow.run(response, beside).await,
        Err(e) => Err(lost(follow.address, e)),
    };
    connection.close(CLOSE_GRACE).await;
    result
}

/// A failure with what the context has to say to it.
async fn explained<T>(request: &BuildRequest, result: Result<T, BuildError>) -> Result<T, BuildError> {
    match result {
        Ok(done) => Ok(done),
        Err(e) => Err(explain_failure(request, e).await),
    }
}

/// What a build by this route yields.
fn finish(
    build_id: &str,
    result: Result<Option<String>, BuildError>,
    report: TransferReport,
) -> Result<BuildOutcome, BuildError> {
    let mut outcome = BuildOutcome::default();
    outcome.image_id = result?;
    outcome.build_ref = build_id.to_owned();
    outcome.transfer = report;
    Ok(outcome)
}
