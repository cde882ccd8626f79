//! `POST /build`: Docker's own dialect of a build, with and without a session.
//!
//! The rule: everything that a build opens is owned by its future. Dropping it closes the connection of the request,
//! which cancels the build on the daemon.

mod answer;
mod query;
mod records;

use bk_build::{BuildError, BuildOutcome, BuildRequest, EventSink, ImageBuilder};
use bk_proto::Id;
use bk_session::{Session, SessionConfig, Sources};
use bk_solve::{limits::CLOSE_GRACE, with_start_and_end};
use http::Method;
use tokio::sync::mpsc;

use crate::{
    backend::DockerBackend,
    dialer,
    http1::{Connection, empty},
};
use answer::Follow;
use query::Source;

/// What is built when a request names no Dockerfile.
const DEFAULT_DOCKERFILE: &str = "Dockerfile";

/// Builds with a session: the daemon fetches files and credentials from it.
pub(crate) async fn by_session(
    backend: &DockerBackend,
    request: BuildRequest,
    events: EventSink,
) -> Result<BuildOutcome, BuildError> {
    let build_id = Id::random().to_string();
    let build = session_build(backend, request, &build_id, &events);
    with_start_and_end(backend.info(), &build_id, &events, build).await
}

async fn session_build(
    backend: &DockerBackend,
    request: BuildRequest,
    build_id: &str,
    events: &EventSink,
) -> Result<BuildOutcome, BuildError> {
    request.validate()?;
    query::check(&request, "build")?;
    let sources = Sources::of(&request).await?;
    let filename = sources.dockerfile_name().map(str::to_owned);
    let credentials = request
        .credentials
        .clone()
        .unwrap_or_else(|| backend.credentials.clone());
    let session = Session::new(SessionConfig::new(sources, credentials).events(events.clone()));
    let source = Source::Session(session.id());
    let path = query::path(
        &request,
        backend.daemon.used_api,
        build_id,
        source,
        filename.as_deref(),
    );

    // Attached before the build is asked for: the daemon waits five seconds for it and no longer.
    let io = dialer::session(&backend.endpoint, &session.headers()).await?;
    let session = session.serve(io);
    let mut connection = Connection::open(&backend.endpoint).await?;
    let result = match connection.send(Method::POST, &path, &[], empty()).await {
        Err(e) => Err(connection.lost(e)),
        Ok(response) => {
            // Closed from the start: the session tells its own events.
            let (_, mut beside) = mpsc::channel(1);
            let follow = Follow {
                connection: &connection,
                address: &backend.endpoint.to_string(),
                filename: filename.as_deref().unwrap_or(DEFAULT_DOCKERFILE),
                events,
            };
            follow.run(response, &mut beside).await
        }
    };
    drop(connection);
    let local = session.local_failure();
    let report = session.close(CLOSE_GRACE).await;
    match result {
        Ok(image_id) => {
            let mut outcome = BuildOutcome::default();
            outcome.build_ref = build_id.to_owned();
            outcome.image_id = image_id;
            outcome.transfer = report;
            Ok(outcome)
        }
        Err(failure) => Err(local.map_or(failure, BuildError::from)),
    }
}

pub(crate) async fn by_upload(
    _b: &DockerBackend,
    _r: BuildRequest,
    _e: EventSink,
) -> Result<BuildOutcome, BuildError> {
    Err(BuildError::Cancelled)
}
