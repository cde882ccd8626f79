//! A client's session as the daemon sees it: an HTTP/2 connection inside a stream of messages, on which the daemon is
//! the client.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bk_proto::{
    control::BytesMessage,
    headers,
    health::{HealthCheckRequest, health_client::HealthClient},
    metadata,
};
use bytes::Bytes;
use http::Uri;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use super::{Fault, SessionSeen, State, later, locked};

/// The oldest daemons give a health check ten seconds and kill the session at the first failure.
const HEALTH_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);
/// Room of the pipe between the tunnel's messages and its HTTP/2 connection, in bytes.
const PIPE: usize = 64 * 1024;
/// Messages of the tunnel that wait to be sent.
const MESSAGES: usize = 8;

/// An attached session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) shared_key: String,
    pub(crate) methods: Vec<String>,
    pub(crate) tunnel: Tunnel,
    pub(crate) life: CancellationToken,
}

impl Session {
    /// Whether the session lists this method; the case of letters does not matter.
    pub(crate) fn lists(&self, method: &str) -> bool {
        self.methods.iter().any(|m| m.eq_ignore_ascii_case(method))
    }
}

/// Attaches to the session that `request` opens and serves until either side ends it. What comes back are the bytes for
/// the client.
pub(crate) async fn attach(
    state: Arc<State>,
    request: Request<Streaming<BytesMessage>>,
) -> Result<mpsc::Receiver<Result<BytesMessage, Status>>, Status> {
    let text = |key: &str| {
        let value = metadata::first(request.metadata(), key).unwrap_or_default();
        String::from_utf8_lossy(&value).into_owned()
    };
    let id = text(headers::SESSION_ID);
    if id.is_empty() {
        return Err(Status::invalid_argument("a session needs an id"));
    }
    let shared_key = text(headers::SESSION_SHARED_KEY);
    let methods: Vec<String> = metadata::values(request.metadata(), headers::SESSION_METHOD)
        .into_iter()
        .map(|m| String::from_utf8_lossy(&m).into_owned())
        .collect();
    if let Some(joined) = methods.iter().find(|m| m.contains(',')) {
        return Err(Status::invalid_argument(format!(
            "methods joined into one value: {joined}"
        )));
    }
    let seen = SessionSeen {
        id: id.clone(),
        shared_key: shared_key.clone(),
        methods: methods.clone(),
    };
    state.see(|s| s.sessions.push(seen));

    if let Some(streams) = state.script.faults().iter().find_map(|f| match f {
        Fault::ManyStreams(streams) => Some(*streams),
        _ => None,
    }) {
        let (messages, outbound) = mpsc::channel(MESSAGES);
        tokio::spawn(super::hostile::many_streams(
            request.into_inner(),
            messages,
            streams,
        ));
        return Ok(outbound);
    }
    let (near, far) = tokio::io::duplex(PIPE);
    let (from_http, to_http) = tokio::io::split(far);
    let (messages, outbound) = mpsc::channel(MESSAGES);
    let life = state.stop.child_token();
    let http = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(1 << 20)
        .handshake(TokioIo::new(near))
        .await;
    let (sender, connection) = http.map_err(|e| Status::internal(format!("session: {e}")))?;
    let session = Arc::new(Session {
        shared_key,
        methods,
        tunnel: Tunnel {
            sender,
            later: state.script.has(|f| *f == Fault::UnknownFields),
        },
        life: life.clone(),
    });
    locked(&state.sessions).insert(id.clone(), Arc::clone(&session));
    state.changed.notify_waiters();
    tokio::spawn(async move {
        let inbound = request.into_inner();
        tokio::select! {
            _ = connection => {}
            () = pump_in(inbound, to_http) => {}
            () = pump_out(from_http, messages) => {}
            () = watch_health(&state, session.tunnel.clone()) => {}
            () = life.cancelled() => {}
        }
        life.cancel();
        let mut sessions = locked(&state.sessions);
        if sessions.get(&id).is_some_and(|s| Arc::ptr_eq(s, &session)) {
            sessions.remove(&id);
        }
        drop(sessions);
        state.changed.notify_waiters();
    });
    Ok(outbound)
}

/// Ends when the client half-closes or is gone: the real daemon then drops the session too.
async fn pump_in(mut from: Streaming<BytesMessage>, mut to: WriteHalf<DuplexStream>) {
    while let Ok(Some(message)) = from.message().await {
        if to.write_all(&message.data).await.is_err() {
            return;
        }
    }
}

async fn pump_out(mut from: ReadHalf<DuplexStream>, to: mpsc::Sender<Result<BytesMessage, Status>>) {
    let mut buffer = vec![0u8; 32 * 1024];
    while let Ok(n) = from.read(&mut buffer).await {
        let data = Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default());
        if n == 0 || to.send(Ok(BytesMessage { data })).await.is_err() {
            return;
        }
    }
}

/// Checks the session's health for as long as it lives; returns when a check fails.
async fn watch_health(state: &State, tunnel: Tunnel) {
    let mut client = HealthClient::with_origin(tunnel, origin());
    let mut ticks = tokio::time::interval(state.script.health_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let begun = Instant::now();
        let check = client.check(HealthCheckRequest {
            service: String::new(),
        });
        let good = match tokio::time::timeout(HEALTH_LIMIT, check).await {
            Ok(Ok(answer)) => answer.into_inner().status == 1,
            // The session ended meanwhile, which its connection tells too.
            Ok(Err(_)) => return,
            Err(_) => false,
        };
        let took = begun.elapsed();
        state.see(|seen| {
            if good {
                seen.health_checks += 1;
                seen.health_worst = seen.health_worst.max(took);
            } else {
                seen.health_failures += 1;
            }
        });
        state.changed.notify_waiters();
        if !good {
            return;
        }
    }
}

/// The authority that the daemon gives on a session.
pub(crate) fn origin() -> Uri {
    Uri::from_static("http://localhost")
}

/// The HTTP/2 connection inside a session, as a gRPC transport.
#[derive(Clone, Debug)]
pub(crate) struct Tunnel {
    sender: hyper::client::conn::http2::SendRequest<tonic::body::Body>,
    /// Messages have more fields than anybody knows.
    later: bool,
}

type Answer = Pin<Box<dyn Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>> + Send>>;

impl tower_service::Service<http::Request<tonic::body::Body>> for Tunnel {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Answer {
        let request = match self.later {
            true => request.map(later::with_unknown_fields),
            false => request,
        };
        Box::pin(self.sender.send_request(request))
    }
}
