//! The few questions asked of a daemon before any client exists: `GET` over a unix socket, whole answer in memory.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long one answer may take; a daemon that is still starting does not answer at all.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// The body of the answer to `GET path`, when the status is 200.
///
/// HTTP/1.0, so that the body is neither chunked nor followed by anything.
pub(crate) fn get(socket: &Path, path: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE)).ok()?;
    stream.set_write_timeout(Some(ANSWER_DEADLINE)).ok()?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    (head.split(' ').nth(1) == Some("200")).then(|| body.to_owned())
}

/// The value of the daemon's `GET /version` under `key`.
pub(crate) fn version(socket: &Path, key: &str) -> Option<String> {
    let body = get(socket, "/version")?;
    let value: serde_json::Value = serde_json::from_str(&body).ok()?;
    Some(value.get(key)?.as_str()?.to_owned())
}
