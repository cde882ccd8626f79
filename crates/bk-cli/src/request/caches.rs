//! `--cache-from` and `--cache-to`: from words to caches, with what their kind takes from the environment.
//!
//! The rule: the variables are those that other clients read, and an attribute that is given wins over each.

use bk_client::{Cache, InputError};

use super::Surroundings;
use crate::csv;

/// The caches that the values of `flag` name. Those of GitHub Actions are left out where there are none, so that one
/// command line serves everywhere; `missing` hears of it.
///
/// # Errors
/// A value that names no cache.
pub(super) fn caches(
    flag: &str,
    values: &[String],
    around: &impl Surroundings,
    missing: &mut Vec<String>,
) -> Result<Vec<Cache>, InputError> {
    let mut all = Vec::new();
    for text in values {
        let mut cache = parse(flag, text)?;
        match cache.kind.as_str() {
            "gha" => {
                github(&mut cache, around);
                let has = |key: &str| cache.attrs.get(key).is_some_and(|v| !v.is_empty());
                if !has("token") || !(has("url") || has("url_v2")) {
                    missing.push(format!(
                        "{flag}: the cache of GitHub Actions is left out, because ACTIONS_RUNTIME_TOKEN or its address \
                         is not set"
                    ));
                    continue;
                }
            }
            "s3" => aws(&mut cache, around),
            _ => {}
        }
        all.push(cache);
    }
    Ok(all)
}

fn parse(flag: &str, text: &str) -> Result<Cache, InputError> {
    const ALLOWED: &str =
        "an image reference, or type=registry|local|inline|gha|s3|azblob with fields behind a comma";
    if !text.is_empty() && !text.contains(['=', ',']) {
        return Ok(Cache::registry(text));
    }
    let mut cache = Cache::new("");
    for (key, value) in csv::pairs(flag, text)? {
        match &*key {
            "type" => cache.kind = value,
            _ => cache = cache.attr(key, value),
        }
    }
    if cache.kind.is_empty() {
        return Err(InputError::new(flag, "the cache has no type", ALLOWED));
    }
    Ok(cache)
}

fn fill(cache: &mut Cache, key: &str, variables: &[&str], around: &impl Surroundings) {
    if cache.attrs.contains_key(key) {
        return;
    }
    let found = variables
        .iter()
        .find_map(|name| around.var(name)?.into_string().ok().filter(|v| !v.is_empty()));
    if let Some(value) = found {
        cache.attrs.insert(key.to_owned(), value);
    }
}

fn github(cache: &mut Cache, around: &impl Surroundings) {
    let on = |v: std::ffi::OsString| matches!(v.to_str(), Some("1" | "t" | "T" | "true" | "TRUE" | "True"));
    let second = match cache.attrs.get("version") {
        Some(version) => version == "2",
        None => around.var("ACTIONS_CACHE_SERVICE_V2").is_some_and(on),
    };
    fill(cache, "token", &["ACTIONS_RUNTIME_TOKEN"], around);
    if second {
        fill(cache, "url_v2", &["ACTIONS_RESULTS_URL"], around);
    }
    fill(
        cache,
        "url",
        &["ACTIONS_CACHE_URL", "ACTIONS_RESULTS_URL"],
        around,
    );
}

fn aws(cache: &mut Cache, around: &impl Surroundings) {
    let given = |key| cache.attrs.contains_key(key);
    // A key that is given must not be mixed with another one's secret.
    if given("access_key_id") || given("secret_access_key") || given("session_token") {
        return;
    }
    fill(cache, "access_key_id", &["AWS_ACCESS_KEY_ID"], around);
    fill(cache, "secret_access_key", &["AWS_SECRET_ACCESS_KEY"], around);
    fill(cache, "session_token", &["AWS_SESSION_TOKEN"], around);
}
