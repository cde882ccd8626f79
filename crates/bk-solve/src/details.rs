//! What a failed call says beyond its message: the typed details in `grpc-status-details-bin`.
//!
//! Each detail is an `Any` whose value is JSON text, not protobuf. Unknown ones are skipped; hostile ones decode to
//! nothing, never to an error: the message itself is always shown.

use base64::Engine;
use bk_build::{LineRange, SourceSnippet};
use bk_proto::rpc_status::Status as RpcStatus;
use prost::Message;
use serde::Deserialize;
use serde_json::Value;

/// Places kept of one failure: a Dockerfile inside a few others is the most that is real.
const MAX_SNIPPETS: usize = 16;

/// What every detail's type URL starts with.
const PREFIX: &str = "github.com/moby/buildkit/";

/// The details of a failed Solve that this client understands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorDetails {
    /// The vertex that failed.
    pub vertex: Option<String>,
    /// Places in source files, innermost first.
    pub snippets: Vec<SourceSnippet>,
    /// The exit code of the failed process; `None` when not said or unknown (255 on the wire).
    pub exit_code: Option<i32>,
    /// Whether the daemon says that an operation (a step) failed.
    pub has_op: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Source {
    info: Info,
    ranges: Vec<Range>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Info {
    filename: String,
    data: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Position {
    line: i32,
}

impl ErrorDetails {
    /// Decodes the value of the `grpc-status-details-bin` trailer. Empty or broken bytes yield no details.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut this = Self::default();
        let Ok(status) = RpcStatus::decode(bytes) else {
            return this;
        };
        for any in status.details {
            let Some(kind) = any.type_url.strip_prefix(PREFIX) else {
                continue;
            };
            let Ok(value) = serde_json::from_slice::<Value>(&any.value) else {
                continue;
            };
            match kind {
                "errdefs.Vertex+json" => {
                    if let Some(digest) = value.get("digest").and_then(Value::as_str) {
                        this.vertex = Some(digest.to_owned());
                    }
                }
                "errdefs.Source+json" => {
                    let Ok(source) = serde_json::from_value::<Source>(value) else {
                        continue;
                    };
                    let Ok(data) = base64::engine::general_purpose::STANDARD.decode(&source.info.data) else {
                        continue;
                    };
                    let ranges = source
                        .ranges
                        .iter()
                        .map(|r| LineRange {
                            start: r.start.line,
                            end: r.end.line.max(r.start.line),
                        })
                        .collect();
                    if this.snippets.len() < MAX_SNIPPETS {
                        this.snippets
                            .push(SourceSnippet::new(source.info.filename, data, ranges));
                    }
                }
                "gatewayapi.ExitMessage+json" => {
                    let code = value.get("Code").and_then(Value::as_i64).unwrap_or(0);
                    this.exit_code = i32::try_from(code).ok().filter(|c| *c != 255);
                }
                "errdefs.Solve+json" => this.has_op = true,
                _ => {}
            }
        }
        // The chain is walked outermost first; the innermost place is the one that says most.
        this.snippets.reverse();
        this
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Any;

    use super::*;

    fn any(kind: &str, json: &str) -> Any {
        Any {
            type_url: format!("{PREFIX}{kind}"),
            value: json.as_bytes().to_vec(),
        }
    }

    fn encode(details: Vec<Any>) -> Vec<u8> {
        RpcStatus {
            code: 2,
            message: "m".to_owned(),
            details,
        }
        .encode_to_vec()
    }

    #[test]
    fn understands_a_failed_run() {
        let bytes = encode(vec![
            any("stack.Stack+json", r#"{"frames":[]}"#),
            any("errdefs.Solve+json", r#"{"inputIDs":["a"],"op":{"exec":{}}}"#),
            any("errdefs.Vertex+json", r#"{"digest":"sha256:abc"}"#),
            any(
                "errdefs.Source+json",
                r#"{"info":{"filename":"Dockerfile","data":"RlJPTSBzY3JhdGNoClJVTiBmYWxzZQo="},"ranges":[{"start":{"line":2},"end":{"line":2}}]}"#,
            ),
            any("gatewayapi.ExitMessage+json", r#"{"Code":7}"#),
        ]);
        let d = ErrorDetails::decode(&bytes);
        assert_eq!(d.vertex.as_deref(), Some("sha256:abc"));
        assert_eq!(d.exit_code, Some(7));
        assert!(d.has_op);
        assert_eq!(d.snippets.len(), 1);
        assert_eq!(d.snippets[0].data.as_ref(), b"FROM scratch\nRUN false\n");
        assert_eq!(d.snippets[0].first_line(), Some(2));
    }

    #[test]
    fn a_flood_of_places_is_cut() {
        let d = ErrorDetails::decode(&encode(vec![any("errdefs.Source+json", "{}"); 80_000]));
        assert_eq!(d.snippets.len(), MAX_SNIPPETS);
    }

    #[test]
    fn broken_details_are_skipped() {
        assert_eq!(ErrorDetails::decode(b"\xff\xff\xff"), ErrorDetails::default());
        let bytes = encode(vec![
            any("errdefs.Vertex+json", "not json"),
            any("errdefs.Source+json", r#"{"info":{"data":"%%%"}}"#),
            any("errdefs.Source+json", r#"{"info":7}"#),
            any("gatewayapi.ExitMessage+json", r#"{"Code":99999999999}"#),
            any("errdefs.Unheard+json", "{}"),
            Any {
                type_url: "type.googleapis.com/x".to_owned(),
                value: vec![1, 2],
            },
        ]);
        assert_eq!(ErrorDetails::decode(&bytes), ErrorDetails::default());
    }
}
