//! Makes an older Docker Engine look like one that takes gRPC on its own socket (API 1.53 and later).
//!
//! Connections that begin with HTTP/2 are joined to an upgraded `/grpc` connection of the engine behind, so that a real
//! BuildKit answers. Connections of HTTP/1 are passed on request by request; only the version that the engine tells is
//! raised, and the version segment of paths is taken away again.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::UnixStream,
};

use crate::socket::Socket;

/// The API version that is told.
pub const API: &str = "1.53";
/// How every HTTP/2 connection begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Enough of the preface to tell it from any HTTP/1 request.
const ENOUGH: usize = 16;
/// The longest answer to an upgrade request.
const MAX_HEAD: usize = 16 * 1024;

/// What arrived so far.
type Seen = Arc<Mutex<Vec<RequestSeen>>>;

/// A request of HTTP/1 that came to a front.
#[derive(Clone, Debug)]
pub struct RequestSeen {
    /// Method and path, without the version of the API and the query.
    pub line: String,
    /// Its headers that are text, by their names in small letters.
    pub headers: Vec<(String, String)>,
}

impl RequestSeen {
    fn of(request: &Request<Incoming>) -> Self {
        let text = |(name, value): (&http::HeaderName, &HeaderValue)| {
            let value = value.to_str().ok()?.to_owned();
            Some((name.as_str().to_owned(), value))
        };
        Self {
            line: format!("{} {}", request.method(), without_version(request.uri().path())),
            headers: request.headers().iter().filter_map(text).collect(),
        }
    }

    /// The values of a header.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let own = self.headers.iter().filter(|(own, _)| own == name);
        own.map(|(_, value)| value.as_str()).collect()
    }
}

/// A running front. Dropping it ends it and its connections.
#[derive(Debug)]
pub struct Front {
    socket: Socket,
    seen: Seen,
}

impl Front {
    /// Starts one before the engine at the socket `docker`.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn start(docker: &Path) -> io::Result<Self> {
        let docker = docker.to_owned();
        let seen = Seen::default();
        let arrived = Arc::clone(&seen);
        let serve = move |client| serve(client, docker.clone(), Arc::clone(&arrived));
        let socket = Socket::listen("bk-front-", "docker.sock", serve)?;
        Ok(Self { socket, seen })
    }

    /// Its address as a client takes it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.path().display())
    }

    /// Every request of HTTP/1, in order of arrival. What goes on in connections of HTTP/2 is not looked at.
    pub fn requests(&self) -> Vec<RequestSeen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(mut client: UnixStream, docker: PathBuf, seen: Seen) -> io::Result<()> {
    let mut first = vec![0u8; ENOUGH];
    let mut have = 0;
    while have < ENOUGH {
        let n = client.read(first.get_mut(have..).unwrap_or_default()).await?;
        if n == 0 {
            return Ok(());
        }
        have += n;
    }
    if PREFACE.starts_with(&first) {
        let (mut engine, early) = upgrade_grpc(&docker).await?;
        client.write_all(&early).await?;
        engine.write_all(&first).await?;
        return tokio::io::copy_bidirectional(&mut client, &mut engine)
            .await
            .map(drop);
    }
    let client = Rewound {
        first: Bytes::from(first),
        stream: client,
    };
    let service = hyper::service::service_fn(move |request| {
        let mut all = seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(RequestSeen::of(&request));
        drop(all);
        pass_on(request, docker.clone())
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(client), service)
        .with_upgrades()
        .await
        .map_err(io::Error::other)
}

/// An upgraded `/grpc` connection, and what the engine sent right behind its answer.
async fn upgrade_grpc(docker: &Path) -> io::Result<(UnixStream, Vec<u8>)> {
    let mut engine = UnixStream::connect(docker).await?;
    let request = b"POST /grpc HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    engine.write_all(request).await?;
    let mut head = Vec::new();
    let mut buffer = [0u8; 1024];
    loop {
        let n = engine.read(&mut buffer).await?;
        head.extend_from_slice(buffer.get(..n).unwrap_or_default());
        if let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            let early = head.split_off(end + 4);
            let upgraded = head.starts_with(b"HTTP/1.1 101 ");
            let refused = || io::Error::other(String::from_utf8_lossy(&head).into_owned());
            return if upgraded {
                Ok((engine, early))
            } else {
                Err(refused())
            };
        }
        if n == 0 || head.len() > MAX_HEAD {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
    }
}

type Answer = Response<Either<Incoming, Full<Bytes>>>;

async fn pass_on(mut request: Request<Incoming>, docker: PathBuf) -> io::Result<Answer> {
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let path = without_version(path).to_owned();
    *request.uri_mut() = path.parse::<Uri>().map_err(io::Error::other)?;
    let wants_upgrade = request.headers().contains_key(http::header::UPGRADE);
    let near = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
    let stream = TokioIo::new(UnixStream::connect(&docker).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    let mut answer = sender.send_request(request).await.map_err(io::Error::other)?;
    if answer.headers().contains_key("api-version") {
        answer
            .headers_mut()
            .insert("api-version", HeaderValue::from_static(API));
    }
    if let (Some(near), http::StatusCode::SWITCHING_PROTOCOLS) = (near, answer.status()) {
        let far = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            if let (Ok(near), Ok(far)) = tokio::join!(near, far) {
                let ends = (&mut TokioIo::new(near), &mut TokioIo::new(far));
                // Both ends see how it ended; nobody else needs to know.
                drop(tokio::io::copy_bidirectional(ends.0, ends.1).await);
            }
        });
    }
    if path != "/version" {
        return Ok(answer.map(Either::Left));
    }
    let (mut parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut version: serde_json::Value = serde_json::from_slice(&body).map_err(io::Error::other)?;
    if let Some(told) = version.get_mut("ApiVersion") {
        *told = API.into();
    }
    let body = Bytes::from(version.to_string());
    parts
        .headers
        .insert(http::header::CONTENT_LENGTH, body.len().into());
    Ok(Response::from_parts(parts, Either::Right(Full::new(body))))
}

/// The path without a leading version segment.
fn without_version(path: &str) -> &str {
    let versioned = path
        .strip_prefix("/v")
        .and_then(|rest| rest.find('/').map(|end| rest.split_at(end)));
    match versioned {
        Some((version, rest)) if version.bytes().all(|b| b.is_ascii_digit() || b == b'.') => rest,
        _ => path,
    }
}

/// A connection whose first bytes were read already.
struct Rewound {
    first: Bytes,
    stream: UnixStream,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = self.first.len().min(buf.remaining());
        buf.put_slice(self.first.get(..n).unwrap_or_default());
        self.first.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::without_version;

    #[test]
    fn version_segments_are_taken_away() {
        assert_eq!(without_version("/v1.53/build?version=2"), "/build?version=2");
        assert_eq!(without_version("/version"), "/version");
        assert_eq!(without_version("/volumes/create"), "/volumes/create");
        assert_eq!(without_version("/_ping"), "/_ping");
    }
}
