//! The few questions asked of a daemon without any client: HTTP over a unix or TCP socket, whole answer in memory.

use crate::run::Result;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long the daemon may be silent; a daemon that is still starting does not answer at all.
const SILENCE_DEADLINE: Duration = Duration::from_secs(30);

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// The body of the answer to `GET path` of the daemon at `address` (`unix://…` or `tcp://…`).
pub(crate) fn get(address: &str, path: &str) -> Result<String> {
    request(address, "GET", path, "")
}

/// The body of the answer to `POST path`; no body is sent for `null`.
pub(crate) fn post(address: &str, path: &str, body: &Value) -> Result<String> {
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    request(address, "POST", path, &text)
}

/// Removes what `path` names.
pub(crate) fn delete(address: &str, path: &str) -> Result<()> {
    request(address, "DELETE", path, "").map(drop)
}

/// The value under `key` of the daemon's `GET /version`.
pub(crate) fn version(address: &str, key: &str) -> Option<String> {
    let value: Value = serde_json::from_str(&get(address, "/version").ok()?).ok()?;
    Some(value.get(key)?.as_str()?.to_owned())
}

/// One request; an answer other than 2xx is an error with the daemon's words.
///
/// HTTP/1.0, so that the answer is neither chunked nor followed by anything.
fn request(address: &str, method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = connect(address)?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| format!("{address} does not speak HTTP"))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') {
        Ok(body.to_owned())
    } else {
        Err(format!("{method} {path}: {status} {}", body.trim()).into())
    }
}

fn connect(address: &str) -> Result<Box<dyn Stream>> {
    if let Some(path) = address.strip_prefix("unix://") {
        let stream = UnixStream::connect(path).map_err(|e| format!("{path}: {e}"))?;
        stream.set_read_timeout(Some(SILENCE_DEADLINE))?;
        stream.set_write_timeout(Some(SILENCE_DEADLINE))?;
        Ok(Box::new(stream))
    } else if let Some(host) = address.strip_prefix("tcp://") {
        let stream = TcpStream::connect(host).map_err(|e| format!("{host}: {e}"))?;
        stream.set_read_timeout(Some(SILENCE_DEADLINE))?;
        stream.set_write_timeout(Some(SILENCE_DEADLINE))?;
        Ok(Box::new(stream))
    } else {
        Err(format!("{address} is neither unix:// nor tcp://").into())
    }
}
