//! A transfer as a daemon gets it: gRPC over HTTP/2 on a Unix socket, served by a session of this workspace.
//!
//! The limit is the bare reading of the same files, written to a Unix socket; for `unchanged`, their bare listing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bk_benches::{Received, Wanted, receive, sizes, transfers};
use bk_build::NoCredentials;
use bk_fsync::tree::Tree;
use bk_proto::filesync::file_sync_client::FileSyncClient;
use bk_proto::{headers, metadata};
use bk_session::{Session, SessionConfig, Sources};
use criterion::Criterion;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, body::Body};

/// What a daemon grants one stream before it reads, in bytes.
const DAEMON_WINDOW: u32 = 64 * 1024;
/// Requests that wait for the connection.
const REQUESTS: usize = 64;

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

/// Attaches a session that serves `tree`, and fetches it once.
async fn fetch(tree: Arc<dyn Tree>, wanted: Wanted) -> Received {
    let (ours, theirs) = UnixStream::pair().expect("a socket");
    let sources = Sources::none().with("context", tree, None);
    let session = Session::new(SessionConfig::new(sources, Arc::new(NoCredentials))).serve(ours);
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(DAEMON_WINDOW)
        .adaptive_window(true)
        .handshake(TokioIo::new(theirs))
        .await
        .expect("handshake");
    let connection = tokio::spawn(connection);
    let (to_sender, requests) = mpsc::channel(REQUESTS);
    let mut request = Request::new(ReceiverStream::new(requests));
    metadata::set(request.metadata_mut(), headers::DIR_NAME, &["context"]).expect("metadata");
    let packets = FileSyncClient::with_origin(Daemon(sender), http::Uri::from_static("http://localhost"))
        .max_decoding_message_size(usize::MAX)
        .diff_copy(request)
        .await
        .expect("starts")
        .into_inner();
    let got = receive(packets, to_sender, wanted).await.expect("arrives");
    drop(session);
    connection.abort();
    got
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    transfers(&mut criterion, "session", sizes(), |tree, wanted| {
        runtime.block_on(fetch(tree, wanted))
    });
    criterion.final_summary();
}
