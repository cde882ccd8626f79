//! The daemon's side of a session: an HTTP/2 client on an in-memory pipe.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bk_session::{RunningSession, Session, SessionConfig};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::body::Body;

/// Bytes in the pipe between both sides.
const PIPE: usize = 256 * 1024;

/// A gRPC transport that leads to the session.
#[derive(Clone)]
pub(crate) struct Daemon(http2::SendRequest<Body>);

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

/// The authority that daemons give.
pub(crate) fn origin() -> http::Uri {
    http::Uri::from_static("http://localhost")
}

/// Serves `config` and attaches to it.
pub(crate) async fn attach(config: SessionConfig) -> (Daemon, RunningSession) {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let session = Session::new(config).serve(ours);
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(theirs))
        .await
        .expect("handshake");
    tokio::spawn(connection);
    (Daemon(sender), session)
}
