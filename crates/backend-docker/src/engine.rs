//! Calls of Docker's API that carry images: each on a connection of its own, without a deadline for the whole.
//!
//! The rule: the engine's words are untrusted. A line of an answer is bounded, and an error in it fails the call.

use bk_build::{BuildError, ProtocolFailure, Refusal};
use bytes::{Buf, BytesMut};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::{
    http1::{Body, Connection, SendError, empty, error_message, grpc_code, lost},
    limits::MAX_LINE,
    site::Site,
};

/// Sends one request; the answer's head tells whether it was taken. The connection must live as long as the answer.
pub(crate) async fn call(
    site: &Site,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> Result<(Connection, Response<Incoming>), BuildError> {
    let mut connection = Connection::open(site).await?;
    match connection.send(method, path, headers, body).await {
        Ok(response) => Ok((connection, response)),
        Err(e) => Err(lost(&site.to_string(), e)),
    }
}

/// Sends a request without a body whose answer is a success or an error. `None` when there is no such thing.
pub(crate) async fn plain(site: &Site, method: Method, path: &str) -> Result<Option<()>, BuildError> {
    let (_connection, response) = call(site, method, path, &[], empty()).await?;
    match response.status() {
        StatusCode::NOT_FOUND => Ok(None),
        status if status.is_success() => Ok(Some(())),
        _ => Err(refused(path, response).await),
    }
}

/// Sends a request without a body and returns the JSON of its answer.
pub(crate) async fn json(site: &Site, path: &str) -> Result<Value, BuildError> {
    json_of(site, Method::GET, path, MAX_LINE).await
}

/// Sends a request without a body and returns the JSON of its answer, which may take so many bytes.
pub(crate) async fn json_of(
    site: &Site,
    method: Method,
    path: &str,
    limit: usize,
) -> Result<Value, BuildError> {
    let (_connection, response) = call(site, method, path, &[], empty()).await?;
    if response.status() != StatusCode::OK {
        return Err(refused(path, response).await);
    }
    let path = path.split('?').next().unwrap_or(path);
    let body = http_body_util::Limited::new(response.into_body(), limit);
    let body = body.collect().await.map_err(|e| {
        let text = format!("the answer to {path} cannot be read");
        ProtocolFailure::new(text).caused_by(e)
    })?;
    let value = serde_json::from_slice(&body.to_bytes())
        .map_err(|e| ProtocolFailure::new(format!("the answer to {path} is no JSON")).caused_by(e))?;
    Ok(value)
}

async fn refused(path: &str, response: Response<Incoming>) -> BuildError {
    let code = grpc_code(response.status());
    let said = error_message(response).await;
    let path = path.split('?').next().unwrap_or(path);
    Refusal::new(code, format!("{path}: {said}")).into()
}

/// Reads an answer of JSON objects, a line each, to its end. An object that tells an error ends it.
pub(crate) async fn lines(
    site: &Site,
    path: &str,
    response: Response<Incoming>,
    mut each: impl FnMut(&Value),
) -> Result<(), BuildError> {
    if response.status() != StatusCode::OK {
        return Err(refused(path, response).await);
    }
    let mut body = response.into_body();
    let mut buffer = BytesMut::new();
    let mut ended = false;
    while !ended {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    buffer.extend_from_slice(data);
                }
            }
            Some(Err(e)) => return Err(lost(&site.to_string(), SendError::Transport(e))),
            None => ended = true,
        }
        loop {
            let end = match buffer.iter().position(|b| *b == b'\n') {
                Some(end) => end,
                None if ended => buffer.len(),
                None if buffer.len() > MAX_LINE => {
                    let text = format!("a line of the answer to {path} is longer than {MAX_LINE} bytes");
                    return Err(ProtocolFailure::new(text).into());
                }
                None => break,
            };
            let line = buffer.split_to(end);
            if !buffer.is_empty() {
                buffer.advance(1);
            }
            let line = line.trim_ascii();
            if !line.is_empty() {
                take(path, line, &mut each)?;
            }
            if buffer.is_empty() {
                break;
            }
        }
    }
    Ok(())
}

fn take(path: &str, line: &[u8], each: &mut impl FnMut(&Value)) -> Result<(), BuildError> {
    let value: Value = serde_json::from_slice(line).map_err(|e| {
        ProtocolFailure::new(format!("a line of the answer to {path} is no JSON")).caused_by(e)
    })?;
    let detail = value.pointer("/errorDetail/message").and_then(Value::as_str);
    match detail.or_else(|| value.get("error").and_then(Value::as_str)) {
        Some(said) => Err(Refusal::new(UNKNOWN, said).into()),
        None => {
            each(&value);
            Ok(())
        }
    }
}

/// gRPC `UNKNOWN`: a line says no code.
const UNKNOWN: i32 = 2;
