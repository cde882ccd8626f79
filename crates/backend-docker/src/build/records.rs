//! The records of a `/build` answer: JSON objects, each on a line of its own, cut anywhere by the transport.
//!
//! The rule: what the daemon sends is untrusted. A record is bounded, a broken one is an error that shows its beginning,
//! an unknown one is skipped.

use base64::Engine;
use bk_build::ProtocolFailure;
use bk_proto::control::StatusResponse;
use bytes::{Buf, BytesMut};
use prost::Message;
use serde::Deserialize;
use serde_json::Value;

use crate::limits::MAX_RECORD;

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// Progress.
    Status(StatusResponse),
    /// The id of the image that was made.
    ImageId(String),
    /// The build failed; the last record.
    Failure(String),
}

/// Cuts the bytes of an answer into records.
#[derive(Debug, Default)]
pub(crate) struct Records {
    buffer: BytesMut,
    /// Bytes at the front that hold no line end.
    searched: usize,
}

impl Records {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the answer. Call [`next`](Self::next) until it has no more before the next call.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, ProtocolFailure> {
        loop {
            let Some(end) = self.buffer.iter().skip(self.searched).position(|b| *b == b'\n') else {
                self.searched = self.buffer.len();
                if self.searched > MAX_RECORD {
                    return Err(ProtocolFailure::new(format!(
                        "a record of a build is longer than {MAX_RECORD} bytes"
                    )));
                }
                return Ok(None);
            };
            let line = self.buffer.split_to(self.searched + end);
            self.buffer.advance(1);
            self.searched = 0;
            if let Some(record) = decode(&line)? {
                return Ok(Some(record));
            }
        }
    }

    /// What follows the last line end, once the answer is over.
    pub(crate) fn finish(self) -> Result<Option<Record>, ProtocolFailure> {
        decode(&self.buffer)
    }
}

/// The members of a record that mean something here.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    id: String,
    #[serde(default)]
    aux: Value,
    #[serde(default)]
    error: Option<String>,
    #[serde(default, rename = "errorDetail")]
    detail: Option<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default)]
    message: String,
}

/// Progress travels under this id, the id of the image under the other.
const TRACE: &str = "moby.buildkit.trace";
const IMAGE_ID: &str = "moby.image.id";

fn decode(line: &[u8]) -> Result<Option<Record>, ProtocolFailure> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let broken =
        |what: &str| ProtocolFailure::new(format!("{what} in a record of a build: {}", beginning(line)));
    if line.first() != Some(&b'{') {
        return Err(broken("no JSON object"));
    }
    let raw: Raw = serde_json::from_slice(line).map_err(|e| broken("no JSON object").caused_by(e))?;
    if raw.error.is_some() || raw.detail.is_some() {
        let said = [raw.detail.map(|d| d.message), raw.error]
            .into_iter()
            .flatten()
            .find(|m| !m.is_empty());
        return Ok(Some(Record::Failure(
            said.unwrap_or_else(|| "the daemon gave no reason".to_owned()),
        )));
    }
    match (raw.id.as_str(), &raw.aux) {
        (TRACE, Value::String(text)) => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(text)
                .map_err(|e| broken("progress that is not base64").caused_by(e))?;
            let status = StatusResponse::decode(&bytes[..])
                .map_err(|e| broken("progress that is no Status message").caused_by(e))?;
            Ok(Some(Record::Status(status)))
        }
        (TRACE, _) => Err(broken("progress without a text")),
        (IMAGE_ID, aux) => match aux.get("ID").and_then(Value::as_str) {
            Some(id) => Ok(Some(Record::ImageId(id.to_owned()))),
            None => Err(broken("an image id without an id")),
        },
        _ => Ok(None),
    }
}

/// The beginning of a record, for a message.
fn beginning(line: &[u8]) -> String {
    /// Bytes shown.
    const SHOWN: usize = 80;
    let cut = line.get(..SHOWN).unwrap_or(line);
    format!(
        "{}{}",
        cut.escape_ascii(),
        if cut.len() < line.len() { "…" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use bk_proto::control::Vertex;

    use super::*;

    fn status(name: &str) -> StatusResponse {
        let vertex = Vertex {
            digest: "sha256:0".to_owned(),
            name: name.to_owned(),
            ..Vertex::default()
        };
        StatusResponse {
            vertexes: vec![vertex],
            ..StatusResponse::default()
        }
    }

    fn trace(name: &str) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(status(name).encode_to_vec());
        format!("{{\"id\":\"{TRACE}\",\"aux\":\"{text}\"}}\r\n")
    }

    fn read(parts: &[&[u8]]) -> Result<Vec<Record>, ProtocolFailure> {
        let mut records = Records::new();
        let mut all = Vec::new();
        for part in parts {
            records.push(part);
            while let Some(record) = records.next()? {
                all.push(record);
            }
        }
        all.extend(records.finish()?);
        Ok(all)
    }

    #[test]
    fn every_split_yields_the_same_records() {
        let text = format!(
            "{}{{\"id\":\"moby.image.id\",\"aux\":{{\"ID\":\"sha256:ab\"}}}}\r\n{{\"stream\":\"x\"}}\r\n\r\n{}{}",
            trace("one"),
            trace("two"),
            r#"{"errorDetail":{"code":7,"message":"boom"},"error":"boom"}"#,
        );
        let want = [
            Record::Status(status("one")),
            Record::ImageId("sha256:ab".to_owned()),
            Record::Status(status("two")),
            Record::Failure("boom".to_owned()),
        ];
        for at in 0..=text.len() {
            let (a, b) = text.as_bytes().split_at(at);
            assert_eq!(read(&[a, b]).expect("decodes"), want, "cut at {at}");
        }
        let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(read(&single).expect("decodes"), want);
    }

    #[test]
    fn failures_are_found_in_either_member() {
        for (text, want) in [
            (r#"{"error":"e"}"#, "e"),
            (r#"{"errorDetail":{"message":"d"}}"#, "d"),
            (r#"{"errorDetail":{},"error":"e"}"#, "e"),
            (r#"{"errorDetail":{}}"#, "the daemon gave no reason"),
        ] {
            assert_eq!(
                read(&[text.as_bytes()]).expect(text),
                [Record::Failure(want.to_owned())]
            );
        }
    }

    #[test]
    fn hostile_records_are_errors_or_skipped() {
        for text in [
            "not json",
            "[]",
            "7",
            "{",
            "\"x\"",
            "\u{0}",
            "{\"id\":7}",
            r#"{"id":"moby.buildkit.trace"}"#,
            r#"{"id":"moby.buildkit.trace","aux":{}}"#,
            r#"{"id":"moby.buildkit.trace","aux":"%%"}"#,
            r#"{"id":"moby.buildkit.trace","aux":"/////w=="}"#,
            r#"{"id":"moby.image.id","aux":"x"}"#,
            r#"{"id":"moby.image.id","aux":{"ID":7}}"#,
            r#"{"errorDetail":"x"}"#,
        ] {
            let e = read(&[text.as_bytes(), b"\n"]).expect_err(text);
            assert!(e.message.contains("record of a build"), "{e}");
        }
        for text in [
            "{}",
            r#"{"id":"other","aux":[1]}"#,
            r#"{"status":"Pulling"}"#,
            "",
            " \r\n \n",
        ] {
            assert_eq!(read(&[text.as_bytes()]).expect(text), []);
        }
        let deep = "[".repeat(100_000);
        assert!(read(&[format!("{{\"aux\":{deep}").as_bytes()]).is_err());
    }

    #[test]
    fn an_endless_record_is_cut_off() {
        let mut records = Records::new();
        let piece = vec![b'x'; 1024 * 1024];
        let result = (0..=MAX_RECORD / piece.len()).find_map(|_| {
            records.push(&piece);
            records.next().err()
        });
        assert!(result.is_some_and(|e| e.message.contains("longer than")));
    }
}
