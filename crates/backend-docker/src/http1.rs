//! Requests on connections of their own, and the upgrade to a raw byte stream.
//!
//! The rule: one connection a request, owned by whoever asked; dropping it closes the connection, which is how Docker
//! learns that a build is no longer wanted. Bytes that arrive together with the `101` belong to the upgraded stream.

use std::{io, time::Duration};

use bk_build::{BuildError, CallHeaders, ConnectError, Obstacle, Refusal, SessionLost};
use bk_session::exec::TaskOwner;
use bk_solve::{BoxedIo, chain, deadline};
use bollard::BollardRequest;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::sync::oneshot;

use crate::{limits::MAX_ERROR_BODY, site::Site};

/// Why a request's body ended early.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// The protocol that Docker's upgrades name.
const PROTOCOL: &str = "h2c";

/// No body.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// An HTTP/1.1 connection for one request. Dropping it closes the connection.
pub(crate) struct Connection {
    sender: http1::SendRequest<Body>,
    host: String,
    headers: CallHeaders,
    owner: TaskOwner,
    /// Why the connection failed, if it did.
    ended: oneshot::Receiver<hyper::Error>,
}

impl Connection {
    /// Dials the engine.
    pub(crate) async fn open(site: &Site) -> Result<Self, BuildError> {
        let io = site.endpoint.dial().await?;
        let (sender, connection) = http1::handshake(TokioIo::new(io))
            .await
            .map_err(|e| failed(site, "", &e))?;
        let owner = TaskOwner::new();
        let (tell, ended) = oneshot::channel();
        owner.executor().spawn(async move {
            if let Err(e) = connection.with_upgrades().await {
                // A request that was answered has nobody left who wants to know.
                drop(tell.send(e));
            }
        });
        Ok(Self {
            sender,
            host: site.endpoint.host_header(),
            headers: site.headers.clone(),
            owner,
            ended,
        })
    }

    /// Closes the connection and waits, at most `grace`, until its task has ended.
    pub(crate) async fn close(self, grace: Duration) {
        self.owner.stop(grace).await;
    }

    /// Sends one request and returns the head of the answer. There is no deadline: some answers take a whole build.
    ///
    /// `path` starts with `/` and may hold a query.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Response<Incoming>, SendError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host);
        // What Docker's API itself needs goes before.
        let is_taken = |name: &str| headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let added = self.headers.iter().filter(|(name, _)| !is_taken(name));
        for (name, value) in headers.iter().copied().chain(added) {
            // Repeated names stay repeated lines.
            request = request.header(
                HeaderName::from_bytes(name.as_bytes())?,
                HeaderValue::from_str(value)?,
            );
        }
        match self.sender.send_request(request.body(body)?).await {
            Ok(response) => Ok(response),
            // The connection failed before the request was on it, and knows why.
            Err(e) if e.is_canceled() => Err(SendError::Transport((&mut self.ended).await.unwrap_or(e))),
            Err(e) => Err(e.into()),
        }
    }
}

/// Sends a request of Docker's own client on a connection of its own, which ends with the answer.
///
/// # Errors
/// [`bollard::errors::Error`] with what dialling says, or what went wrong on the way.
pub(crate) async fn forward(
    site: &Site,
    request: BollardRequest,
) -> Result<Response<Incoming>, bollard::errors::Error> {
    let io = site.endpoint.dial().await.map_err(io::Error::other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(io))
        .await
        .map_err(io::Error::other)?;
    // It ends when the answer was read or dropped: nobody keeps the sender, and nothing else is sent.
    tokio::spawn(connection.with_upgrades());
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path
        .parse()
        .map_err(|e: http::uri::InvalidUri| io::Error::other(e))?;
    let host = HeaderValue::from_str(&site.endpoint.host_header()).map_err(io::Error::other)?;
    parts.headers.insert(header::HOST, host);
    for (name, value) in site.headers.iter() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
        let value = HeaderValue::from_str(value).map_err(io::Error::other)?;
        parts.headers.entry(name).or_insert(value);
    }
    sender
        .send_request(Request::from_parts(parts, body))
        .await
        .map_err(|e| io::Error::other(e).into())
}

/// What a failed request means once a build is under way on the daemon at `address`.
pub(crate) fn lost(address: &str, error: SendError) -> BuildError {
    match error {
        SendError::Invalid(e) => BuildError::Misuse(format!("the request cannot be sent: {e}")),
        SendError::Transport(e) => {
            let kind = bk_solve::loss_kind(&e);
            SessionLost::new(address, chain(&e))
                .kind(kind)
                .caused_by(e)
                .into()
        }
    }
}

/// A request could not be sent, or its answer not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// A header or path that HTTP cannot carry.
    #[error(transparent)]
    Invalid(#[from] http::Error),
    /// The connection failed, or what came back is no HTTP.
    #[error(transparent)]
    Transport(#[from] hyper::Error),
}

impl From<header::InvalidHeaderName> for SendError {
    fn from(e: header::InvalidHeaderName) -> Self {
        Self::Invalid(e.into())
    }
}

impl From<header::InvalidHeaderValue> for SendError {
    fn from(e: header::InvalidHeaderValue) -> Self {
        Self::Invalid(e.into())
    }
}

/// What `error` means for the way to `site`, with `what` was being done in front.
fn failed(site: &Site, what: &str, error: &hyper::Error) -> ConnectError {
    ConnectError::single(site.to_string(), format!("{what}{}", chain(error))).obstacle(Obstacle::of(error))
}

/// Upgrades a connection of its own to a raw byte stream by `POST path`, with a deadline.
///
/// # Errors
/// [`BuildError::Connect`] or [`BuildError::Timeout`] when nothing or something else answers, [`BuildError::Refused`]
/// with Docker's message when it answers anything but `101`.
pub(crate) async fn upgrade(
    site: &Site,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<BoxedIo, BuildError> {
    let upgrading = async {
        let mut connection = Connection::open(site).await?;
        let mut all = vec![("connection", "Upgrade"), ("upgrade", PROTOCOL)];
        all.extend_from_slice(headers);
        let response = match connection.send(Method::POST, path, &all, empty()).await {
            Ok(response) => response,
            Err(SendError::Invalid(e)) => {
                return Err(BuildError::Misuse(format!(
                    "the upgrade cannot be asked for: {e}"
                )));
            }
            Err(SendError::Transport(e)) => {
                return Err(failed(site, &format!("POST {path}: "), &e).into());
            }
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            let message = error_message(response).await;
            return Err(Refusal::new(
                grpc_code(status),
                format!("POST {path} was not upgraded: {message}"),
            )
            .into());
        }
        let stream = hyper::upgrade::on(response)
            .await
            .map_err(|e| failed(site, &format!("POST {path}: "), &e))?;
        Ok(Box::new(TokioIo::new(stream)) as BoxedIo)
    };
    let what = format!("an answer to POST {path} from {site}");
    deadline(&what, site.endpoint.connect_timeout(), upgrading).await
}

/// What Docker says in an answer that is an error: the `message` of its JSON, else the beginning of the text.
pub(crate) async fn error_message(response: Response<Incoming>) -> String {
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    let status = response.status();
    let bytes = match Limited::new(response.into_body(), MAX_ERROR_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        // The status is all that can be said.
        Err(_) => Bytes::new(),
    };
    match serde_json::from_slice::<Message>(&bytes) {
        Ok(m) if !m.message.is_empty() => m.message,
        _ => {
            let text = String::from_utf8_lossy(&bytes);
            let line = text.trim().lines().next().unwrap_or_default();
            let line: String = line.chars().take(200).collect();
            if line.is_empty() {
                format!("HTTP {status}")
            } else {
                format!("HTTP {status}: {line}")
            }
        }
    }
}

/// The gRPC code nearest to an HTTP status.
pub(crate) fn grpc_code(status: StatusCode) -> i32 {
    match status.as_u16() {
        400 => 3,
        401 => 16,
        403 => 7,
        404 | 405 | 501 => 12,
        409 => 6,
        429 => Refusal::RESOURCE_EXHAUSTED,
        502..=504 => Refusal::UNAVAILABLE,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{
        endpoint::Endpoint,
        testing::{Engine, Reply},
    };

    fn site(engine: &Engine) -> Site {
        let endpoint: Endpoint = engine.address().parse().expect("endpoint");
        endpoint.into()
    }

    #[tokio::test]
    async fn bytes_behind_the_101_are_kept_and_headers_stay_repeated() {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04";
        let engine = Engine::start(|_| Reply::Echo(Reply::switch(PREFACE)));
        let headers = [
            ("X-Docker-Expose-Session-Grpc-Method", "/a/B"),
            ("X-Docker-Expose-Session-Grpc-Method", "/c/D"),
        ];
        let mut stream = upgrade(&site(&engine), "/session", &headers)
            .await
            .expect("upgraded");
        let mut got = [0; PREFACE.len()];
        stream.read_exact(&mut got).await.expect("reads");
        assert_eq!(got, PREFACE);
        stream.write_all(b"ping").await.expect("writes");
        let mut got = [0; 4];
        stream.read_exact(&mut got).await.expect("reads");
        assert_eq!(&got, b"ping");
        stream.shutdown().await.expect("shuts down");
        assert_eq!(stream.read(&mut got).await.expect("reads"), 0);
        drop(stream);
        let seen = loop {
            tokio::task::yield_now().await;
            if let Some(seen) = engine.seen("POST /session HTTP/1.1").pop() {
                break seen;
            }
        };
        let head = seen.head.to_ascii_lowercase();
        assert!(head.contains("\r\nhost: localhost\r\n"), "{head}");
        assert!(
            head.contains("\r\nconnection: upgrade\r\nupgrade: h2c\r\n"),
            "{head}"
        );
        assert_eq!(
            head.matches("\r\nx-docker-expose-session-grpc-method: /").count(),
            2,
            "{head}"
        );
    }

    #[tokio::test]
    async fn what_the_api_needs_goes_before_what_a_program_adds() {
        let engine = Engine::start(|_| Reply::Hold(Reply::switch(b"")));
        let mut added = CallHeaders::new();
        added.set("x-key", "k");
        added.set("x-registry-auth", "added");
        let site = site(&engine).and(&added);
        let upgraded = upgrade(&site, "/session", &[("X-Registry-Auth", "own")]).await;
        upgraded.map(drop).expect("upgraded");
        let head = engine.heads().concat().to_ascii_lowercase();
        assert!(head.contains("\r\nx-registry-auth: own\r\n"), "{head}");
        assert!(head.contains("\r\nx-key: k\r\n"), "{head}");
        assert!(!head.contains("added"), "{head}");
    }

    async fn refused(reply: Reply) -> BuildError {
        let engine = Engine::start(move |_| reply.clone());
        upgrade(&site(&engine), "/session", &[])
            .await
            .err()
            .expect("must fail")
    }

    #[tokio::test]
    async fn answers_other_than_101_carry_dockers_message() {
        let e = refused(Reply::http(
            "400 Bad Request",
            "",
            r#"{"message":"session x already exists"}"#,
        ))
        .await;
        assert!(matches!(&e, BuildError::Refused(r) if r.code == 3), "{e:?}");
        assert_eq!(
            e.to_string(),
            "POST /session was not upgraded: session x already exists"
        );
        let e = refused(Reply::http("404 Not Found", "", "404 page not found\n")).await;
        assert!(matches!(&e, BuildError::Refused(r) if r.code == 12), "{e:?}");
        assert!(
            e.to_string().ends_with("HTTP 404 Not Found: 404 page not found"),
            "{e}"
        );
        let e = refused(Reply::http("200 OK", "", "")).await;
        assert!(e.to_string().ends_with("HTTP 200 OK"), "{e}");
        // A message without end is not read to its end.
        let endless = format!(
            "HTTP/1.1 500 No\r\nContent-Length: 99999999\r\n\r\n{}",
            "x".repeat(2 * MAX_ERROR_BODY)
        );
        let e = refused(Reply::Hold(endless.into_bytes())).await;
        assert!(e.to_string().ends_with("HTTP 500 Internal Server Error"), "{e}");
    }

    #[tokio::test]
    async fn what_is_no_http_is_a_failure_to_connect() {
        for garbage in [
            &b"\0\0\x12\x04\0\0\0\0\0"[..],
            b"SSH-2.0-x\r\n",
            b"",
            b"HTTP/1.1 ",
        ] {
            let e = refused(Reply::Pieces(vec![garbage.to_vec()])).await;
            assert!(
                matches!(&e, BuildError::Connect(_)),
                "{} {e:?}",
                garbage.escape_ascii()
            );
            assert!(e.to_string().contains("POST /session"), "{e}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_has_a_deadline() {
        let e = refused(Reply::Hold(Vec::new())).await;
        assert!(
            matches!(&e, BuildError::Timeout { after, .. } if *after == crate::limits::CONNECT_TIMEOUT),
            "{e:?}"
        );
    }
}
