//! Docker's config file with any content, asked for any host: an answer or an error, and no secret in the error.

#![no_main]

use std::sync::LazyLock;

use bk_build::CredentialProvider;
use bk_session::DockerConfig;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static PLACE: LazyLock<(tempfile::TempDir, Runtime)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    (tempfile::tempdir().expect("a directory"), runtime)
});

fuzz_target!(|data: &str| {
    // The host, a line feed, and the file; or, if that is no object, only the value of `auth` in it.
    let (host, text) = data.split_once('\n').unwrap_or(("localhost", data));
    let text = match text.starts_with('{') {
        true => text.to_owned(),
        false => serde_json::json!({ "auths": { host: { "auth": text } } }).to_string(),
    };
    let path = PLACE.0.path().join("config.json");
    std::fs::write(&path, &text).expect("writes");
    let config = DockerConfig::new(path);
    if let Err(error) = PLACE.1.block_on(config.credential(host)) {
        let shown = error.to_string();
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let secret = parsed["auths"][host]["auth"].as_str().unwrap_or_default();
        assert!(secret.len() < 12 || host.contains(secret) || !shown.contains(secret), "{shown}");
    }
});
