//! Failures with typed details, as BuildKit sends them.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bk_proto::rpc_status;
use prost::Message;
use tonic::{Code, Status};

use super::frontend::Source;

/// The detail that names a line of the Dockerfile.
pub(super) fn place(source: &Source, line: i32) -> (String, String) {
    let data = BASE64_STANDARD.encode(&source.text);
    let name = &source.name;
    let json = format!(
        "{{\"info\":{{\"filename\":\"{name}\",\"data\":\"{data}\",\"language\":\"Dockerfile\"}},\
         \"ranges\":[{{\"start\":{{\"line\":{line}}},\"end\":{{\"line\":{line}}}}}]}}"
    );
    ("errdefs.Source+json".to_owned(), json)
}

/// A failure with typed details, as BuildKit sends them: JSON text in the value of each.
pub(crate) fn failure(code: Code, message: &str, details: Vec<(String, String)>) -> Status {
    let any = |(kind, json): (String, String)| prost_types::Any {
        type_url: if kind.contains('/') {
            kind
        } else {
            format!("github.com/moby/buildkit/{kind}")
        },
        value: json.into_bytes(),
    };
    let status = rpc_status::Status {
        code: code.into(),
        message: message.to_owned(),
        details: details.into_iter().map(any).collect(),
    };
    Status::with_details(code, message, status.encode_to_vec().into())
}
