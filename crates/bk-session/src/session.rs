//! A session: what is announced to the daemon, and the server that answers it.
//!
//! The roles flip here: on the session's byte stream we are the HTTP/2 and gRPC server, the daemon is the client. The
//! task that runs the connection does nothing else; files are read on other threads, so the health answer never waits.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bk_build::{
    BuildError, CredentialError, CredentialProvider, EventSink, LocalFailure, TransferDetails, TransferReport,
};
use bk_proto::{headers, id::Id};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tonic::metadata::MetadataMap;

use crate::{
    coalesce::coalescing,
    content::Contents,
    exec::TaskOwner,
    exports::Exports,
    extras::Extras,
    limits,
    pings::Pings,
    service::{
        auth, content,
        dispatch::{Dispatch, Services},
        exporter::{self, LaterOutputs},
        file_send, file_sync, health, policy, secrets, ssh, upload,
    },
    sources::Sources,
};

/// What a session serves.
#[non_exhaustive]
pub struct SessionConfig {
    /// The local sources.
    pub sources: Sources,
    /// Who answers for registry credentials.
    pub credentials: Arc<dyn CredentialProvider>,
    /// Where transfer progress and warnings go. Default: nowhere.
    pub events: EventSink,
    /// What else the request wants served. Default: nothing.
    pub extras: Extras,
    /// The results that are taken. Default: none, and the method for them is not announced.
    pub exports: Exports,
    /// The layouts on disk that are read and written. Default: none, and the methods for them are not announced.
    pub contents: Contents,
    /// Who adds results when the build is done. Default: nobody.
    pub later: Option<LaterOutputs>,
    /// How the daemon is asked whether it is still there. Default: [`Pings::default`].
    pub pings: Pings,
}

impl SessionConfig {
    /// Serves `sources`, and credentials from `credentials`.
    pub fn new(sources: Sources, credentials: Arc<dyn CredentialProvider>) -> Self {
        Self {
            sources,
            credentials,
            events: EventSink::discard(),
            extras: Extras::default(),
            exports: Exports::default(),
            contents: Contents::default(),
            later: None,
            pings: Pings::default(),
        }
    }

    /// Sets how the daemon is asked whether it is still there; the default is [`Pings::default`].
    #[must_use]
    pub fn pings(mut self, pings: Pings) -> Self {
        self.pings = pings;
        self
    }

    /// Sets the results that are taken; the default is none.
    #[must_use]
    pub fn exports(mut self, exports: Exports) -> Self {
        self.exports = exports;
        self
    }

    /// Sets the layouts on disk that are read and written; the default is none.
    #[must_use]
    pub fn contents(mut self, contents: Contents) -> Self {
        self.contents = contents;
        self
    }

    /// Sets who adds results when the build is done; the default is nobody. The [`exports`](Self::exports) must be
    /// [open to more](Exports::open_to_more).
    #[must_use]
    pub fn later(mut self, later: LaterOutputs) -> Self {
        self.later = Some(later);
        self
    }

    /// Sets where transfer progress and warnings go; the default is nowhere.
    #[must_use]
    pub fn events(mut self, events: EventSink) -> Self {
        self.events = events;
        self
    }

    /// Sets what is served beside files and credentials; the default is nothing.
    #[must_use]
    pub fn extras(mut self, extras: Extras) -> Self {
        self.extras = extras;
        self
    }
}

/// What the daemon is told when a session attaches, in HTTP's spelling; gRPC lower-cases it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionHeaders(Vec<(&'static str, String)>);

impl SessionHeaders {
    /// Names and values. The method list is one entry per method: daemons do not split joined values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(n, v)| (*n, v.as_str()))
    }

    /// As gRPC metadata for `Control/Session`.
    pub fn to_metadata(&self) -> MetadataMap {
        let mut map = http::HeaderMap::new();
        for (name, value) in self.iter() {
            // Values that cannot be a header value were replaced when the session was made.
            if let (Ok(name), Ok(value)) = (
                http::HeaderName::from_bytes(name.as_bytes()),
                http::HeaderValue::from_str(value),
            ) {
                map.append(name, value);
            }
        }
        MetadataMap::from_headers(map)
    }
}

/// A session that is not attached yet. Its id is fresh and never used twice.
pub struct Session {
    id: Id,
    shared_key: String,
    dispatch: Dispatch,
    state: Arc<SessionState>,
    owner: TaskOwner,
    pings: Pings,
}

/// What a session has seen, shared by its services.
#[derive(Default)]
pub(crate) struct SessionState {
    health: Arc<health::LastAsked>,
    local_failure: Mutex<Option<BuildError>>,
    not_utf8: Mutex<Option<PathBuf>>,
    report: Mutex<SessionReport>,
    /// Blobs that a daemon asked for in vain, and where it did.
    missing: Mutex<Vec<MissingBlob>>,
    /// What was last found out about the credentials of a registry.
    registries: Mutex<BTreeMap<String, Registry>>,
}

/// A blob that is not in the layout where a daemon looked for it.
struct MissingBlob {
    digest: String,
    failure: LocalFailure,
}

/// What a session knows of a registry.
struct Registry {
    /// Where its credential came from.
    source: String,
    /// What went wrong here, if it did.
    failure: Option<CredentialError>,
}

/// What went over the wire in the transfers of a session.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SessionReport {
    /// The counts of all that have ended, however they did.
    pub total: TransferReport,
    /// The details of those that came to a good end, in that order; a daemon that asks for a great many gets no more
    /// than a few dozen written down.
    pub transfers: Vec<TransferDetails>,
}

impl SessionState {
    /// Keeps whose credential was given for `host`, or why none was.
    pub(crate) fn registry(&self, host: &str, source: &str, failure: Option<CredentialError>) {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        if registries.len() < limits::MAX_REGISTRIES || registries.contains_key(host) {
            let source = source.to_owned();
            registries.insert(host.to_owned(), Registry { source, failure });
        }
    }

    /// What this side knows of the registry that `message` is about.
    fn blame(&self, message: &str) -> Option<CredentialError> {
        let registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = |host: &str| match host {
            "registry-1.docker.io" => "docker.io".to_owned(),
            _ => host.to_owned(),
        };
        let (host, found) = registries
            .iter()
            .find(|(host, _)| message.contains(&shown(host)))?;
        Some(found.failure.clone().unwrap_or_else(|| {
            CredentialError::refused(
                host,
                format!("the registry did not accept what was found: {}", found.source),
            )
        }))
    }

    /// Keeps the first failure: later ones are usually its consequences.
    pub(crate) fn fail(&self, failure: BuildError) {
        self.local_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(failure);
    }

    /// Keeps that a daemon looked for a blob in vain. It may do without; if not, its error names the digest.
    #[cfg_attr(windows, expect(dead_code, reason = "no blob is asked for there"))]
    pub(crate) fn missing(&self, digest: String, failure: LocalFailure) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if missing.len() < limits::MAX_MISSING_BLOBS {
            missing.push(MissingBlob { digest, failure });
        }
    }

    /// The blob whose lack `text` is about.
    fn lacks(&self, text: &str) -> Option<LocalFailure> {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let at = missing.iter().position(|m| text.contains(&m.digest))?;
        Some(missing.swap_remove(at).failure)
    }

    /// Keeps the first name that a strict daemon would refuse.
    pub(crate) fn not_utf8(&self, path: PathBuf) {
        self.not_utf8
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(path);
    }

    /// Adds up a transfer that has ended; its details if it came to a good end.
    pub(crate) fn add(&self, report: &TransferReport, details: Option<TransferDetails>) {
        let mut own = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        own.total.add(report);
        if own.transfers.len() < limits::MAX_TRANSFER_DETAILS {
            own.transfers.extend(details);
        }
    }
}

impl Session {
    /// A session with a fresh id.
    pub fn new(config: SessionConfig) -> Self {
        let state = Arc::new(SessionState::default());
        let shared_key = config
            .sources
            .shared_key()
            .chars()
            .filter(|c| (' '..='~').contains(c))
            .collect();
        let owner = TaskOwner::in_span(tracing::Span::current());
        let mut services = Services::default();
        health::serve(&mut services, state.health.clone());
        auth::serve(
            &mut services,
            config.credentials,
            config.events.clone(),
            state.clone(),
        );
        exporter::serve(&mut services, config.later, config.exports.clone(), state.clone());
        policy::serve(&mut services, config.extras.verifier, state.clone());
        file_send::serve(
            &mut services,
            config.exports,
            config.events.clone(),
            state.clone(),
            owner.executor(),
        );
        if let Some(offered) = config.sources.archive.clone() {
            upload::serve(&mut services, offered, config.events.clone(), state.clone());
        }
        file_sync::serve(&mut services, config.sources, config.events, state.clone());
        secrets::serve(&mut services, config.extras.secrets, state.clone());
        ssh::serve(&mut services, config.extras.agents, state.clone());
        content::serve(&mut services, config.contents, state.clone());
        Self {
            id: Id::random(),
            shared_key,
            dispatch: services.finish(),
            state,
            owner,
            pings: config.pings,
        }
    }

    /// The id by which Solve names this session.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// What to announce when attaching.
    pub fn headers(&self) -> SessionHeaders {
        let mut list = vec![
            (headers::SESSION_ID_CANONICAL, self.id().to_owned()),
            (headers::SESSION_SHARED_KEY_CANONICAL, self.shared_key.clone()),
        ];
        list.extend(
            self.dispatch
                .methods()
                .map(|m| (headers::SESSION_METHOD_CANONICAL, m)),
        );
        SessionHeaders(list)
    }

    /// Serves the daemon on `io` until it closes the stream or the returned handle is dropped or closed.
    pub fn serve<IO>(self, io: IO) -> RunningSession
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let owner = self.owner;
        let mut server = http2::Builder::new(owner.executor());
        server
            .timer(TokioTimer::new())
            .keep_alive_interval(self.pings.interval)
            .keep_alive_timeout(self.pings.deadline)
            .initial_stream_window_size(limits::STREAM_WINDOW)
            .initial_connection_window_size(limits::CONNECTION_WINDOW)
            .max_concurrent_streams(limits::MAX_CONCURRENT_STREAMS)
            .max_header_list_size(limits::MAX_HEADER_LIST)
            .max_send_buf_size(limits::MAX_SEND_BUFFER);
        let connection = coalescing(io, |io| server.serve_connection(TokioIo::new(io), self.dispatch));
        let (end, ended) = watch::channel(None);
        owner.executor().spawn(async move {
            let reason = match connection.await {
                Ok(()) => "the daemon closed the session".to_owned(),
                Err(e) => e.source().map_or_else(|| e.to_string(), |s| format!("{e}: {s}")),
            };
            end.send_replace(Some(Arc::from(reason)));
        });
        RunningSession {
            owner,
            ended,
            state: self.state,
        }
    }
}

/// What a session saw fail on this machine. Cheap to clone.
#[derive(Clone)]
pub struct Failures(Arc<SessionState>);

impl Failures {
    /// The cause on this machine (a file, a pattern, a look-up of credentials) when there is one, else `error`: the daemon only reports that a
    /// transfer broke, and some refuse a name without saying which.
    pub fn explain(&self, error: BuildError) -> BuildError {
        if let Some(local) = self
            .0
            .local_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            return local;
        }
        if let BuildError::Auth {
            message,
            source: None,
        } = error
        {
            let source = self.0.blame(&message);
            return BuildError::Auth { message, source };
        }
        if let Some(failure) = self.0.lacks(&error.to_string()) {
            return failure.caused_by(error).into();
        }
        let refused = error.to_string().contains("invalid UTF-8");
        match self
            .0
            .not_utf8
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            Some(path) if refused => LocalFailure::new(
                path,
                "the name or link target is not valid UTF-8, which this daemon does not accept",
            )
            .hint("rename the file, or leave it out with an ignore pattern")
            .caused_by(error)
            .into(),
            _ => error,
        }
    }
}

/// A session that the daemon can call. Dropping it closes the connection and ends every task and transfer.
pub struct RunningSession {
    owner: TaskOwner,
    ended: watch::Receiver<Option<Arc<str>>>,
    state: Arc<SessionState>,
}

impl RunningSession {
    /// Waits until the connection ends by itself, and says why.
    pub async fn ended(&self) -> Arc<str> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(|| Arc::from("the session ended")),
            Err(_) => Arc::from("the session was stopped"),
        }
    }

    /// Why the connection ended, when it has ended by itself.
    pub fn end_reason(&self) -> Option<Arc<str>> {
        self.ended.borrow().clone()
    }

    /// How long ago the daemon last asked for the health of this session; `None` when it never did.
    pub fn health_age(&self) -> Option<Duration> {
        self.state.health.age()
    }

    /// What explains failures of this session's build, also after the session was closed.
    pub fn failures(&self) -> Failures {
        Failures(self.state.clone())
    }

    /// What went over the wire in all transfers that have ended.
    pub fn report(&self) -> TransferReport {
        let report = self.state.report.lock();
        report.unwrap_or_else(PoisonError::into_inner).total
    }

    /// Tasks of this session that have not ended.
    pub fn alive_tasks(&self) -> usize {
        self.owner.alive()
    }

    /// Closes the connection and waits, at most `grace`, until every task has ended; returns what was sent.
    pub async fn close(self, grace: Duration) -> SessionReport {
        let Self { owner, state, .. } = self;
        owner.stop(grace).await;
        std::mem::take(&mut *state.report.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
