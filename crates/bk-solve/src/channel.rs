//! A gRPC channel over one HTTP/2 connection on any byte stream.
//!
//! One connection a build, never re-dialled in secret: when the last clone is dropped, the connection and its tasks end.
//! What a caller adds to the headers of calls is added here and nowhere else, so that no call can lack it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bk_build::{CallHeaders, InputError, LossKind, TraceContext};
use bk_session::{Pings, exec::TaskOwner};
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tonic::body::Body;

use crate::{
    dial::BoxedIo,
    limits,
    loss::loss_kind,
    pulse::{Pulse, watched},
};

/// The headers of a trace context.
const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";

/// The reason of an end that has none.
pub(crate) const CLOSED: &str = "the daemon closed the connection";

/// A gRPC channel. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Channel {
    sender: http2::SendRequest<Body>,
    ended: watch::Receiver<Option<(Arc<str>, LossKind)>>,
    pulse: Arc<Pulse>,
    /// What goes with every call, beside what the call itself brings.
    headers: Arc<HeaderMap>,
    _owner: Arc<TaskOwner>,
}

impl Channel {
    /// Speaks HTTP/2 with prior knowledge on `io`. Returns before the daemon has said anything.
    ///
    /// # Errors
    /// The transport's own error, when the preface cannot be written.
    pub async fn open(io: BoxedIo) -> Result<Self, hyper::Error> {
        Self::open_with(io, Pings::default()).await
    }

    /// [`open`](Self::open), with the daemon asked whether it is there as `pings` say, as long as a call is open.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(io: BoxedIo, pings: Pings) -> Result<Self, hyper::Error> {
        let (io, pulse) = watched(io);
        let owner = TaskOwner::new();
        let (sender, connection) = http2::Builder::new(owner.executor())
            .timer(TokioTimer::new())
            .keep_alive_interval(pings.interval())
            .keep_alive_timeout(pings.deadline())
            .initial_stream_window_size(limits::STREAM_WINDOW)
            .initial_connection_window_size(limits::CONNECTION_WINDOW)
            .max_header_list_size(limits::MAX_HEADER_LIST)
            .max_send_buf_size(limits::MAX_SEND_BUFFER)
            .handshake(TokioIo::new(io))
            .await?;
        let (end, ended) = watch::channel(None);
        owner.executor().spawn(async move {
            let reason = match connection.await {
                Ok(()) => (CLOSED.into(), LossKind::Closed),
                Err(e) => (chain(&e).into(), loss_kind(&e)),
            };
            end.send_replace(Some(reason));
        });
        Ok(Self {
            sender,
            ended,
            headers: Arc::default(),
            pulse,
            _owner: Arc::new(owner),
        })
    }

    /// The same channel, with `headers` and the trace context `trace` on every call from now on. Earlier values of the
    /// same names are replaced.
    ///
    /// # Errors
    /// An [`InputError`] when a header is not allowed.
    pub fn with_headers(
        mut self,
        headers: &CallHeaders,
        trace: Option<&TraceContext>,
    ) -> Result<Self, InputError> {
        headers.check()?;
        let parent = trace.map(|t| (TRACE_PARENT, t.traceparent()));
        let state = trace.and_then(|t| Some((TRACE_STATE, t.tracestate()?)));
        let mut all = HeaderMap::clone(&self.headers);
        if parent.is_some() {
            // A state belongs to its parent.
            all.remove(TRACE_STATE);
        }
        for (name, value) in headers.iter().chain(parent).chain(state) {
            let unsendable = || InputError::new("headers", format!("`{name}` cannot be sent"), "");
            let mut text = HeaderValue::from_str(value).map_err(|_| unsendable())?;
            // Not to be remembered by the compression, which would let others guess at it, nor shown by anybody.
            text.set_sensitive(!name.starts_with("trace"));
            all.insert(
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| unsendable())?,
                text,
            );
        }
        self.headers = Arc::new(all);
        Ok(self)
    }

    /// Why the connection ended, when it has.
    pub fn end_reason(&self) -> Option<Arc<str>> {
        self.ended.borrow().as_ref().map(|(reason, _)| reason.clone())
    }

    /// The class of that end, when it has ended.
    pub fn end_kind(&self) -> Option<LossKind> {
        self.ended.borrow().as_ref().map(|(_, kind)| *kind)
    }

    /// What was heard from the daemon.
    pub fn pulse(&self) -> Arc<Pulse> {
        self.pulse.clone()
    }

    /// The same, for a caller who has seen that it ends: waits a moment for the reason.
    pub(crate) async fn end_reason_soon(&self) -> Option<Arc<str>> {
        let mut ended = self.ended.clone();
        // The reason is set by another task than the one that told of the end.
        let known = tokio::time::timeout(limits::END_REASON, ended.wait_for(Option::is_some)).await;
        let end = known.ok()?.ok()?;
        end.as_ref().map(|(reason, _)| reason.clone())
    }
}

/// An error with its causes on one line, without those that its text already holds.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        let part = e.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = e.source();
    }
    text
}

impl tower_service::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        for (name, value) in self.headers.iter() {
            request.headers_mut().insert(name, value.clone());
        }
        Box::pin(self.sender.send_request(request))
    }
}
