//! Docker's config file with any content, asked for any host: an answer or an error, and no secret in the error.

#![no_main]

use std::sync::LazyLock;

use bk_build::CredentialProvider;
use bk_session::DockerConfig;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static PLACE: LazyLock<(tempfile::TempDir, Runtime)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    (tempfile::tempdir().expect("a directory"), runtime)
});

fuzz_target!(|data: &str| {
    // The host, a line feed, and the file; or, if that is no object, only the value of `auth` in it.
    let (host, text) = data.split_once('\n').unwrap_or(("localhost", data));
    let text = match text.starts_with('{') {
        true => text.to_owned(),
        false => serde_json::json!({ "auths": { host: { "auth": text } } }).to_string(),
    };
    if let Some(shown) = error(host, &text) {
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let secret = parsed["auths"][host]["auth"].as_str().unwrap_or_default();
        // The search finds the words of the error itself, and offers them as a secret.
        let other = serde_json::json!({ "auths": { host: { "auth": "?" } } }).to_string();
        let words = error(host, &other).unwrap_or_default();
        assert!(secret.len() < 12 || words.contains(secret) || !shown.contains(secret), "{shown}");
    }
});

/// What is said of a file with this text when it is asked for a host.
fn error(host: &str, text: &str) -> Option<String> {
    let path = PLACE.0.path().join("config.json");
    std::fs::write(&path, text).expect("writes");
    // No helper is there, whatever its name.
    let config = DockerConfig::new(path).search_path(PLACE.0.path());
    let answer = PLACE.1.block_on(config.credential(host));
    answer.err().map(|e| e.to_string())
}
