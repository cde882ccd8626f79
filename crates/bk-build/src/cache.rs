//! Caches outside of the daemon: where steps are looked up, and where they are kept.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use crate::{BuildRequest, InputError, parse_bytes};

/// A cache outside of the daemon, to be read or written. Which kinds there are is up to the daemon; Docker Engine on
/// graph drivers writes none but [`inline`](Self::inline).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cache {
    /// Its kind, for instance `registry`.
    pub kind: String,
    /// Its attributes as the daemon takes them. They may hold keys: `Debug` shows their names only.
    pub attrs: BTreeMap<String, String>,
}

impl Cache {
    /// A cache of any kind without attributes.
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            attrs: BTreeMap::new(),
        }
    }

    /// A cache in a registry, under an image reference.
    pub fn registry(reference: impl Into<String>) -> Self {
        Self::new("registry").attr("ref", reference)
    }

    /// A cache inside of the image that is built. Only to be written; it is read as a [`registry`](Self::registry)
    /// cache with the name of the image.
    pub fn inline() -> Self {
        Self::new("inline")
    }

    /// A cache in a directory on this machine, in OCI layout. `tag` is an attribute, `latest` by default; one directory can
    /// hold several. When it is read, `digest` can stand in for the tag. Docker Engine with graph drivers
    /// reads it only.
    pub fn local(dir: impl Into<PathBuf>) -> Self {
        let dir: PathBuf = dir.into();
        // One word for both directions; each is sent under the name that it has on the wire.
        Self::new("local").attr("dir", dir.to_string_lossy())
    }

    /// Sets how many bytes a local cache that is written may have; the default is no limit, and then nothing is ever
    /// removed. When the build has succeeded, blobs that no tag needs go, then the tags that were written longest ago; what
    /// this build wrote stays in any case. Never sent to the daemon.
    #[must_use]
    pub fn max_size(self, bytes: u64) -> Self {
        self.attr("max-size", bytes.to_string())
    }

    /// The cache of GitHub Actions. Address and token are not taken from the environment: the caller gives them.
    pub fn github_actions(url: impl Into<String>, token: impl Into<String>) -> Self {
        Self::new("gha").attr("url", url).attr("token", token)
    }

    /// A cache in an S3 bucket. Credentials are attributes (`access_key_id`, `secret_access_key`, `session_token`);
    /// without them the daemon uses its own.
    pub fn s3(bucket: impl Into<String>, region: impl Into<String>) -> Self {
        Self::new("s3").attr("bucket", bucket).attr("region", region)
    }

    /// A cache in Azure Blob Storage. `secret_access_key` is an attribute; without it the daemon uses its own.
    pub fn azure_blob(account_url: impl Into<String>) -> Self {
        Self::new("azblob").attr("account_url", account_url)
    }

    /// Sets one attribute; the default is none. `mode=max` keeps every step, not only those of the result;
    /// `ignore-error=false` makes a cache that cannot be written fail the build, which by default it does not.
    #[must_use]
    pub fn attr(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attrs.insert(key.into(), value.into());
        self
    }

    fn check(&self, flag: &str, dir_key: &str) -> Result<(), InputError> {
        let lacks = |key: &str| self.attrs.get(key).is_none_or(String::is_empty);
        let garbled = |key: &str| self.attrs.get(key).filter(|dir| dir.contains('\u{fffd}'));
        if self.kind == "local"
            && let Some(dir) = garbled("dir").or_else(|| garbled(dir_key))
        {
            let why = format!("`{dir}` is not UTF-8, as the daemon needs it");
            return Err(InputError::new(flag, why, "a directory whose name is UTF-8"));
        }
        let missing = match self.kind.as_str() {
            "" => Some("type"),
            "registry" if lacks("ref") => Some("ref"),
            "local" if lacks("dir") && lacks(dir_key) => Some(dir_key),
            _ => None,
        };
        if let Some(text) = self.attrs.get("max-size") {
            if self.kind != "local" || flag != "--cache-to" {
                let why = format!(
                    "`max-size` has no meaning for a cache of type `{}` here",
                    self.kind
                );
                return Err(InputError::new(flag, why, "max-size with --cache-to type=local"));
            }
            parse_bytes(flag, text)?;
        }
        match missing {
            None => Ok(()),
            Some(key) => Err(InputError::new(
                flag,
                format!("a cache of type `{}` lacks `{key}`", self.kind),
                format!("{key}=…"),
            )),
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("kind", &self.kind)
            .field("attrs", &self.attrs.keys())
            .finish()
    }
}

/// Caches that lack what their kind needs are turned away.
pub(crate) fn check(from: &[Cache], to: &[Cache]) -> Result<(), InputError> {
    from.iter().try_for_each(|c| {
        if c.kind == "inline" {
            let why = "an inline cache is read as `type=registry` with the name of its image";
            return Err(InputError::new("--cache-from", why, ""));
        }
        c.check("--cache-from", "src")
    })?;
    to.iter().try_for_each(|c| c.check("--cache-to", "dest"))
}

impl BuildRequest {
    /// Adds a cache in which steps are looked up; the default is none but the daemon's own. One that cannot be read is
    /// no error.
    #[must_use]
    pub fn cache_from(mut self, cache: Cache) -> Self {
        self.cache_from.push(cache);
        self
    }

    /// Adds a cache to which steps are written when the build has succeeded; the default is none but the daemon's own.
    #[must_use]
    pub fn cache_to(mut self, cache: Cache) -> Self {
        self.cache_to.push(cache);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_need_what_their_kind_needs() {
        let ok = BuildRequest::new(".")
            .cache_from(Cache::registry("h/a:c"))
            .cache_from(Cache::local("d"))
            .cache_from(Cache::new("local").attr("src", "d"))
            .cache_to(Cache::inline())
            .cache_to(Cache::s3("b", "r"))
            .cache_to(Cache::local("d").max_size(1 << 20))
            .cache_to(Cache::local("d").attr("max-size", "1.5GB"))
            .cache_to(Cache::new("new-kind"));
        assert!(ok.validate().is_ok());
        for (bad, key) in [
            (BuildRequest::new(".").cache_to(Cache::new("registry")), "`ref`"),
            (
                BuildRequest::new(".").cache_to(Cache::new("local").attr("src", "d")),
                "`dest`",
            ),
            (
                BuildRequest::new(".").cache_from(Cache::inline()),
                "type=registry",
            ),
            (
                BuildRequest::new(".").cache_to(Cache::local("d").attr("max-size", "big")),
                "`big`",
            ),
            (
                BuildRequest::new(".").cache_from(Cache::local("d").max_size(1)),
                "`max-size`",
            ),
            (
                BuildRequest::new(".").cache_to(Cache::local("d\u{fffd}")),
                "is not UTF-8",
            ),
            (
                BuildRequest::new(".").cache_to(Cache::registry("r").max_size(1)),
                "`max-size`",
            ),
        ] {
            let e = bad.validate().expect_err(key);
            assert!(e.message.contains(key), "{e}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let cache = Cache::s3("b", "r").attr("secret_access_key", "hunter2");
        let text = format!("{:?}", BuildRequest::new(".").cache_to(cache));
        assert!(
            text.contains("secret_access_key") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
