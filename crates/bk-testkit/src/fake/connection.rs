//! Connections to the fake daemon: HTTP/2 with prior knowledge, one task each, cut when told.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use bk_proto::{content::content_server::ContentServer, control::control_server::ControlServer};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::net::{UnixListener, UnixStream};
use tower_service::Service;

use super::{CallSeen, Fault, State, control::ControlApi, history::ContentApi, later, locked};

/// Messages up to this size are taken, as BuildKit does since 0.13.
const MAX_MESSAGE: usize = 16 << 20;

pub(crate) async fn accept(listener: UnixListener, state: Arc<State>) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => return,
            },
            () = state.stop.cancelled() => return,
        };
        tokio::spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(stream: UnixStream, state: Arc<State>) {
    let life = state.connection_life();
    state.connections.fetch_add(1, Ordering::SeqCst);
    locked(&state.seen).connections += 1;
    let control = ControlServer::new(ControlApi::new(Arc::clone(&state)))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let content = ContentServer::new(ContentApi::new(state.script.history.as_ref()));
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.max_header_list_size(1 << 20);
    let service = TowerToHyperService::new(Services {
        control,
        content,
        state: Arc::clone(&state),
    });
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    // However a connection ends, its clients see it: there is nobody here to tell.
    tokio::select! {
        _ = &mut connection => {}
        () = life.cancelled() => {}
        // It stays open, and nothing happens on it.
        () = state.frozen.cancelled() => life.cancelled().await,
    }
    state.connections.fetch_sub(1, Ordering::SeqCst);
    state.changed.notify_waiters();
}

/// Routes by service name; a service that is not here is `Unimplemented`.
#[derive(Clone)]
struct Services {
    control: ControlServer<ControlApi>,
    content: ContentServer<ContentApi>,
    state: Arc<State>,
}

/// What a call looks like from outside.
fn seen(request: &http::Request<Incoming>) -> CallSeen {
    let named = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let text = value.to_str().ok()?.to_owned();
        let session = name.as_str().starts_with("x-docker-expose-session-");
        (!session).then(|| (name.as_str().to_owned(), text))
    };
    CallSeen {
        path: request.uri().path().to_owned(),
        headers: request.headers().iter().filter_map(named).collect(),
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<tonic::body::Body>, Infallible>> + Send>>;

impl Service<http::Request<Incoming>> for Services {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Answer {
        let call = seen(&request);
        self.state.see(|all| all.calls.push(call));
        if request.uri().path().starts_with("/moby.buildkit.v1.Control/") {
            let answer = self.control.call(request);
            return match self.state.script.has(|f| *f == Fault::UnknownFields) {
                true => Box::pin(async { Ok(answer.await?.map(later::with_unknown_fields)) }),
                false => Box::pin(answer),
            };
        }
        if request
            .uri()
            .path()
            .starts_with("/containerd.services.content.v1.Content/")
        {
            return Box::pin(self.content.call(request));
        }
        let text = format!("unknown method {}", request.uri().path());
        Box::pin(async move { Ok(tonic::Status::unimplemented(text).into_http()) })
    }
}
