//! One build: session, Solve and Status side by side.
//!
//! The session is attached before Solve is sent, because daemons wait only five seconds for it. Status is drained all
//! the time and may end before or after Solve; after Solve it may stay silent for a bounded time only. Everything that
//! a build opens is owned by its future: dropping that closes the connection, which cancels the build on the daemon.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bk_build::{
    BuildError, BuildEvent, BuildOutcome, BuildRequest, BuilderInfo, ConnectError, CredentialProvider,
    EventSink, ImageLoader, LastSeen, LossKind, Obstacle, SessionLost, Stalled,
};
use bk_proto::{
    control::{ListWorkersRequest, SolveResponse, StatusRequest, control_client::ControlClient},
    id::Id,
};
use bk_session::{Pings, RunningSession, explain_failure};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, timeout},
};
use tonic::{Code, Response, Status};
use tracing::{Instrument as _, Span, field::Empty, info_span};

use crate::{
    begin::{Begun, prepare},
    channel::{CLOSED, Channel, chain},
    classify,
    dial::Dialer,
    fold::StatusFold,
    inspect::inspect,
    limits::{
        CLOSE_GRACE, MAX_MESSAGE, SESSION_END_GRACE, SESSION_LOST_GRACE, STATUS_AFTER_SOLVE,
        STATUS_INACTIVITY, STATUS_NEVER_SEEN,
    },
    lower::ImageExporter,
    outputs, places, requires,
    retry::with_retries,
};

/// What stays the same for all builds on one daemon.
#[derive(Clone)]
#[non_exhaustive]
pub struct SolveOptions {
    /// Which exporter makes an image in the daemon's own store.
    pub exporter: ImageExporter,
    /// Who answers for registry credentials when the request does not say.
    pub credentials: Arc<dyn CredentialProvider>,
    /// The Docker Engine that images are loaded into when the request names none. Default: none, and such a request is
    /// refused. Without a meaning for [`ImageExporter::Moby`], whose engine has the image anyway.
    pub loader: Option<Arc<dyn ImageLoader>>,
    /// Whether the daemon can push. Default: yes; an engine with graph drivers cannot and would not say so.
    pub pushes: bool,
}

impl SolveOptions {
    /// Images by `exporter`, credentials from `credentials`.
    pub fn new(exporter: ImageExporter, credentials: Arc<dyn CredentialProvider>) -> Self {
        Self {
            exporter,
            credentials,
            loader: None,
            pushes: true,
        }
    }

    /// Sets the Docker Engine that images are loaded into; the default is none.
    #[must_use]
    pub fn loader(mut self, loader: Arc<dyn ImageLoader>) -> Self {
        self.loader = Some(loader);
        self
    }

    /// Sets whether the daemon can push; the default is yes.
    #[must_use]
    pub fn pushes(mut self, yes: bool) -> Self {
        self.pushes = yes;
        self
    }
}

/// Runs one build on the daemon that `dialer` reaches.
///
/// Dropping the future cancels the build.
///
/// # Errors
/// See [`BuildError`].
pub async fn build(
    dialer: &dyn Dialer,
    options: &SolveOptions,
    request: BuildRequest,
    events: EventSink,
) -> Result<BuildOutcome, BuildError> {
    let build_ref = Id::random().to_string();
    with_start_and_end(
        dialer.info(),
        &build_ref,
        &events,
        // On the heap: the requests and both streams make a future too large to be moved about.
        Box::pin(with_retries(
            request,
            &build_ref,
            &events,
            |request, build_ref, events| {
                Box::pin(async move { run(dialer, options, request, &build_ref, &events).await })
            },
        )),
    )
    .await
}

/// Frames a build with its first and its last event.
///
/// # Errors
/// Those of `build`.
pub async fn with_start_and_end<T>(
    builder: BuilderInfo,
    build_ref: &str,
    events: &EventSink,
    build: impl Future<Output = Result<T, BuildError>>,
) -> Result<T, BuildError> {
    let span = info_span!(
        "bk.build",
        build_ref,
        backend = &*builder.backend,
        address = &*builder.address,
        route = builder.route.as_deref(),
        version = builder.version.as_deref(),
        fault = Empty,
    );
    let started = BuildEvent::Started {
        build_ref: build_ref.to_owned(),
        builder,
        at: SystemTime::now(),
    };
    events.emit(started).await;
    let result = build.instrument(span.clone()).await;
    if let Err(error) = &result {
        span.record("fault", tracing::field::debug(error.fault()));
    }
    let error = result.as_ref().err().map(ToString::to_string);
    events
        .emit(BuildEvent::Completed {
            at: SystemTime::now(),
            error,
        })
        .await;
    result
}

/// Refuses what the daemon of that builder is known not to do, without asking it anything.
///
/// # Errors
/// [`BuildError::Input`] and [`BuildError::TooOld`], as [`build`] has them.
pub async fn check(
    info: &BuilderInfo,
    options: &SolveOptions,
    request: &BuildRequest,
) -> Result<(), BuildError> {
    request.validate()?;
    requires::check(request, info).await?;
    places::possible(request, options, info)?;
    Ok(())
}

/// Runs one attempt at a build, without its first and its last event, for those who do more before the last one.
/// `build_ref` must be fresh.
///
/// # Errors
/// As [`build`].
pub async fn run(
    dialer: &dyn Dialer,
    options: &SolveOptions,
    mut request: BuildRequest,
    build_ref: &str,
    events: &EventSink,
) -> Result<BuildOutcome, BuildError> {
    request.validate()?;
    requires::check(&request, &dialer.info()).await?;
    let mut prepared = prepare(&mut request, options, events).await?;
    let contents = prepared.config.contents.clone();
    let exports = places::exports(&request, options, &dialer.info()).await?;
    prepared.config = prepared.config.exports(exports.clone());
    if let Some(later) = places::later(&request, options) {
        prepared.config = prepared.config.later(later);
    }
    let extras = prepared.config.extras.clone();
    let address = dialer.info().address;
    let Begun {
        channel,
        session,
        solve,
        filename,
        watch,
    } = prepared.begin(dialer, options, &mut request, build_ref).await?;
    let failures = session.failures();
    let stall = request.patience.stall;

    let mut fold = StatusFold::new();
    let (solved, when_solved) = watch::channel(false);
    let (gone, when_gone) = oneshot::channel::<()>();
    let solving = async {
        let asking = async {
            let result = client(&channel).solve(solve).await;
            tell_span(&result);
            result
        };
        let asking = asking.instrument(info_span!("bk.solve", code = Empty));
        let result = tokio::select! {
            biased;
            result = asking => Ended::Answered(Box::new(result)),
            reason = lost_session(&session) => Ended::Session(reason),
            () = watch.silence(stall) => Ended::Stalled,
        };
        let mut seen = watch.seen(session.health_age());
        // A session that ends by itself and the failure of what needed it arrive in either order.
        let lost = match &result {
            Ended::Answered(result) if result.is_err() => {
                timeout(SESSION_END_GRACE, session.ended()).await.ok()
            }
            _ => None,
        };
        if matches!(&result, Ended::Answered(result) if result.is_ok()) {
            exports.settle(CLOSE_GRACE).await;
        } else if !matches!(result, Ended::Answered(_)) {
            // Nothing more will be told.
            gone.send(()).ok();
        }
        seen.exporting = exports.any_begun();
        // The daemon needs the session no longer, whatever the result.
        let report = session.close(CLOSE_GRACE).await;
        solved.send_replace(true);
        (result, lost, seen, report)
    };
    let following = async {
        tokio::select! {
            biased;
            // An error is the drop of the other side: the build goes on to its end.
            Ok(()) = when_gone => {}
            () = follow_status(&channel, build_ref, &mut fold, events, when_solved).instrument(info_span!("bk.status")) => {}
        }
    };
    let ((result, lost, seen, report), ()) = tokio::join!(solving, following);
    let result = match result {
        Ended::Answered(result) => *result,
        Ended::Session(reason) => {
            contents.abandon().await;
            let lost = SessionLost::new(&address, reason.to_string()).kind(LossKind::Session);
            return Err(with_seen(failures.explain(lost.into()), seen));
        }
        Ended::Stalled => {
            contents.abandon().await;
            let stalled = Stalled::new(&address, stall.unwrap_or_default());
            return Err(with_seen(stalled.into(), seen));
        }
    };
    match result {
        Ok(response) => {
            let ignored = extras.verifier_was_ignored();
            if let Err(e) = places::check_asked(&exports, ignored, &dialer.info()) {
                contents.abandon().await;
                return Err(e);
            }
            let answer = response.into_inner().exporter_response.into_iter().collect();
            let mut outcome = outputs::outcome(answer, &request, options.exporter);
            // The daemon may have been done before this machine failed.
            outcome.exports = exports.commit().await.map_err(|e| failures.explain(e))?;
            let layouts = contents.finish(&outcome, events).await;
            outcome.exports.extend(layouts.map_err(|e| failures.explain(e))?);
            outcome.exports.sort_by_key(|report| report.output);
            outcome.build_ref = build_ref.to_owned();
            outcome.transfer = report.total;
            outcome.transfers = report.transfers;
            let inspecting = inspect(&channel, request.inspect, build_ref, &outcome);
            outcome.inspected = inspecting.instrument(info_span!("bk.inspect")).await;
            Ok(outcome)
        }
        Err(status) => {
            contents.abandon().await;
            let name = filename.as_deref().unwrap_or("Dockerfile");
            let error = failures.explain(classify::solve_failure(&status, &fold, &address, name));
            let error = explain_failure(&request, error).await;
            let error = match (error, lost) {
                // The daemon's own words tell at best that something was cancelled or unavailable.
                (BuildError::Refused(refusal), Some(reason)) => {
                    SessionLost::new(&address, reason.to_string())
                        .kind(LossKind::Session)
                        .caused_by(refusal)
                        .into()
                }
                (BuildError::SessionLost(e), _) if e.kind == LossKind::Closed => {
                    let kind = channel.end_kind().unwrap_or_default();
                    e.kind(kind).into()
                }
                (error, _) => error,
            };
            Err(with_seen(error, seen))
        }
    }
}

/// How the daemon answered, as a gRPC code: its words may hold what is nobody else's.
fn tell_span<T>(result: &Result<T, Status>) {
    let code = result.as_ref().err().map_or(Code::Ok, Status::code);
    Span::current().record("code", tracing::field::debug(code));
}

/// How the wait for the answer to Solve ended.
enum Ended {
    Answered(Box<Result<Response<SolveResponse>, Status>>),
    /// The session has ended by itself.
    Session(Arc<str>),
    /// Nothing came for too long.
    Stalled,
}

/// Waits until a session has ended by itself, and a moment longer for the daemon to say more. Returns why it has ended.
pub async fn lost_session(session: &RunningSession) -> Arc<str> {
    let reason = session.ended().await;
    // sleep: bounds the wait for an answer that may never come.
    tokio::time::sleep(SESSION_LOST_GRACE).await;
    reason
}

/// Puts what was known of a daemon to its loss; other errors stay as they are.
pub fn with_seen(mut error: BuildError, seen: LastSeen) -> BuildError {
    if let Some(place) = error.last_seen_mut() {
        *place = seen;
    }
    error
}

/// Opens the control connection, with a deadline. The dialer's headers go with every call on it.
///
/// # Errors
/// [`BuildError::Connect`] or [`BuildError::Timeout`]; [`BuildError::Input`] when a header is not allowed.
pub async fn open(dialer: &dyn Dialer) -> Result<Channel, BuildError> {
    open_with(dialer, Pings::default()).await
}

pub(crate) async fn open_with(dialer: &dyn Dialer, pings: Pings) -> Result<Channel, BuildError> {
    let address = dialer.info().address;
    let opening = async {
        let dial = info_span!("bk.dial", address = &*address);
        let io = dialer.control().instrument(dial).await?;
        let channel = Channel::open_with(io, pings)
            .await
            .map_err(|e| ConnectError::single(&address, chain(&e)).obstacle(Obstacle::of(&e)))?;
        Ok(channel.with_headers(&dialer.headers(), None)?)
    };
    let what = format!("a connection to {address}");
    deadline(&what, dialer.connect_timeout(), opening).await
}

/// What a daemon said when it was asked who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DaemonFacts {
    /// BuildKit's version, for instance `v0.25.2`; daemons before 0.11 and some builds inside Docker Engine do not say.
    pub buildkit_version: Option<String>,
    /// Whether this BuildKit lives inside Docker Engine.
    pub is_docker: bool,
    /// Whether its images are in a store that keeps manifests, as a standalone one's are. Docker Engine with graph drivers
    /// keeps none: it cannot push by itself or make archives of images.
    pub keeps_manifests: bool,
    /// The platforms of its first worker, as `os/arch[/variant]`.
    pub platforms: Vec<String>,
}

/// The label that Docker Engine gives to its worker.
pub(crate) const MOBY_LABEL: &str = "org.mobyproject.buildkit.worker.moby.host-gateway-ip";

/// How it calls that worker before it gives it labels (Docker 20.10); others have random names.
const MOBY_ID: &str = "moby";

/// A label that workers on containerd have.
pub(crate) const SNAPSHOTTER_LABEL: &str = "org.mobyproject.buildkit.worker.snapshotter";

/// Whether a worker of that id, which has some labels, is that of a Docker Engine.
pub(crate) fn is_of_engine(id: &str, has: impl Fn(&str) -> bool) -> bool {
    has(MOBY_LABEL) || id == MOBY_ID
}

/// Whether its images are in a store that keeps manifests.
pub(crate) fn keeps_manifests(engine: bool, has: impl Fn(&str) -> bool) -> bool {
    !engine || has(SNAPSHOTTER_LABEL)
}

/// Asks the daemon who it is: the first call on a new endpoint, which also proves that BuildKit answers there.
///
/// # Errors
/// [`BuildError::Connect`] when something else answers, [`BuildError::Timeout`] when nothing does.
pub async fn probe(dialer: &dyn Dialer) -> Result<DaemonFacts, BuildError> {
    let address = dialer.info().address;
    let channel = open(dialer).await?;
    let asking = async {
        match client(&channel).list_workers(ListWorkersRequest::default()).await {
            Ok(workers) => Ok(workers),
            Err(status) => {
                // Either way the connection is gone, or is about to be; only its own task knows why.
                let gone = std::error::Error::source(&status).is_some()
                    || status.message().starts_with(classify::NOT_READY);
                let ended = match gone {
                    true => channel.end_reason_soon().await,
                    false => channel.end_reason(),
                };
                let error = not_buildkit(&address, &status, ended.as_deref());
                Err(error.obstacle(channel.pulse().obstacle()).into())
            }
        }
    };
    let what = format!("an answer from {address}");
    let workers = deadline(&what, dialer.connect_timeout(), asking)
        .await?
        .into_inner();
    let mut facts = DaemonFacts::default();
    if let Some(worker) = workers.record.into_iter().next() {
        let has = |label: &str| worker.labels.contains_key(label);
        facts.is_docker = is_of_engine(&worker.id, has);
        facts.keeps_manifests = keeps_manifests(facts.is_docker, has);
        facts.buildkit_version = worker
            .buildkit_version
            .map(|v| v.version)
            .filter(|v| !v.is_empty());
        facts.platforms = worker.platforms.into_iter().map(|p| platform(&p)).collect();
    }
    Ok(facts)
}

/// A platform as `os/arch[/variant]`.
pub(crate) fn platform(p: &bk_proto::ops::Platform) -> String {
    let mut text = format!("{}/{}", p.os, p.architecture);
    if !p.variant.is_empty() {
        text.push('/');
        text.push_str(&p.variant);
    }
    text
}

/// What libraries say in their own words, in ours.
fn plain(reason: &str) -> String {
    // The first frame of HTTP/2 was something else.
    if reason.starts_with("http2 error: connection error detected") {
        return "what is there does not speak HTTP/2; if it speaks TLS, name its authority with --tlscacert"
            .to_owned();
    }
    // It calls each end that comes too early a broken pipe.
    match reason.ends_with("connection closed because of a broken pipe") {
        true => "the connection was closed without an answer".to_owned(),
        false => reason
            .strip_prefix("connection error: ")
            .unwrap_or(reason)
            .to_owned(),
    }
}

fn not_buildkit(address: &str, status: &Status, ended: Option<&str>) -> ConnectError {
    let source = std::error::Error::source(status).map(chain);
    // What became of the connection says more than what became of the question.
    let why = ended.filter(|reason| *reason != CLOSED).map(str::to_owned);
    let reason = match why.or(source).or_else(|| ended.map(str::to_owned)) {
        Some(reason) => format!("no BuildKit answers there: {}", plain(&reason)),
        None if status.message().starts_with(classify::NOT_READY) => {
            "this is not a BuildKit endpoint: it closed the connection".to_owned()
        }
        None if status.code() == Code::Unimplemented => {
            "something answers there, but it is neither BuildKit nor Docker".to_owned()
        }
        None => format!("{} ({})", status.message(), status.code()),
    };
    ConnectError::single(address, reason)
}

/// Gives `work`, of which `what` is awaited, that long.
///
/// # Errors
/// Those of `work`, and [`BuildError::Timeout`].
pub async fn deadline<T>(
    what: &str,
    after: Duration,
    work: impl Future<Output = Result<T, BuildError>>,
) -> Result<T, BuildError> {
    // On the heap: connecting goes through several of these, each of which would hold the next twice.
    timeout(after, Box::pin(work)).await.unwrap_or_else(|_| {
        Err(BuildError::Timeout {
            what: what.to_owned(),
            after,
        })
    })
}

pub(crate) fn client(channel: &Channel) -> ControlClient<Channel> {
    // The daemon's side ignores the authority; an empty one is not legal.
    ControlClient::with_origin(channel.clone(), http::Uri::from_static("http://localhost"))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(usize::MAX)
}

/// Turns Status into events until it ends, or until it has been silent for too long after Solve.
///
/// A failure of Status is no failure of the build: Solve says what happened.
pub(crate) async fn follow_status(
    channel: &Channel,
    build_ref: &str,
    fold: &mut StatusFold,
    events: &EventSink,
    solved: watch::Receiver<bool>,
) {
    let mut client = client(channel);
    let request = StatusRequest {
        r#ref: build_ref.to_owned(),
    };
    let mut batch = Vec::new();
    // Solve can fail before there is a job, and then Status would wait for one in vain.
    let mut patience = STATUS_NEVER_SEEN;
    let Some(Ok(stream)) = unless_silent(&solved, patience, client.status(request)).await else {
        return;
    };
    let mut stream = stream.into_inner();
    let too_long = async {
        // The sender lives as long as this build's future, as below.
        let _ = solved.clone().wait_for(|done| *done).await;
        tokio::time::sleep(STATUS_AFTER_SOLVE).await; // sleep: the bound itself
    };
    let following = async {
        while let Some(Ok(Some(message))) = unless_silent(&solved, patience, stream.message()).await {
            patience = STATUS_INACTIVITY;
            fold.apply(message, &mut batch);
            for event in batch.drain(..) {
                events.emit(event).await;
            }
            // A daemon that tells more than can be taken must not keep the end of the build from being seen.
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { biased; () = following => {}, () = too_long => {} }
}

/// Waits for `work`; gives up when Solve has returned and nothing came since for `patience`.
async fn unless_silent<T>(
    solved: &watch::Receiver<bool>,
    patience: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut solved = solved.clone();
    let silent = async move {
        // The sender lives as long as this build's future, so an error cannot occur before the value is true.
        let _ = solved.wait_for(|done| *done).await;
        tokio::time::sleep_until(Instant::now() + patience).await; // sleep: the inactivity rule itself
    };
    tokio::select! {
        biased;
        value = work => Some(value),
        () = silent => None,
    }
}
