//! Errors of a daemon with any message and details: sorted and drawn without a panic, and never more lines drawn than
//! the daemon sent.

#![no_main]

use bk_fuzz::Detail;
use bk_proto::rpc_status::Status;
use bk_solve::{ErrorDetails, StatusFold, message_failure};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use prost_types::Any;

const KINDS: [&str; 4] = ["errdefs.Vertex", "errdefs.Source", "gatewayapi.ExitMessage", "errdefs.Solve"];

fuzz_target!(|input: (i32, &str, Option<&[u8]>, Vec<Detail>)| {
    let (code, message, raw, parts) = input;
    let details = parts.into_iter().map(|(kind, value)| {
        let kind = KINDS[usize::from(kind) % KINDS.len()];
        Any { type_url: format!("github.com/moby/buildkit/{kind}+json"), value }
    });
    let status = Status { details: details.collect(), ..Status::default() };
    let details = ErrorDetails::decode(raw.unwrap_or(&status.encode_to_vec()));
    assert_ne!(details.exit_code, Some(255));
    for snippet in &details.snippets {
        let newlines = |bytes: &[u8]| bytes.iter().filter(|b| **b == b'\n').count();
        let most = newlines(&snippet.data) + newlines(snippet.filename.as_bytes()) + 4;
        assert!(newlines(snippet.to_string().as_bytes()) <= most);
    }
    let error = message_failure(code, message, details, &StatusFold::new(), "unix:///x", "Dockerfile");
    bk_fuzz::draw(&error);
    let _ = (error.hint(), error.fault());
});
