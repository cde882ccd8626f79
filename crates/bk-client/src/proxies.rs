//! BuildProxies for steps, from Docker's config file, as build arguments.
//!
//! The rule: only what the file says. The environment of this process is that of another machine than the daemon's.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    io::{self, Read as _},
    path::Path,
};

use bk_build::{BuildRequest, LocalFailure};
use serde::Deserialize;

/// The longest config file that is read, in bytes.
const CONFIG_BYTES: u64 = 1 << 20;

/// The `proxies` of Docker's config file. The default knows none.
#[derive(Clone, Default)]
pub struct BuildProxies {
    by_daemon: HashMap<String, Proxy>,
}

#[derive(Deserialize, Default)]
struct File {
    #[serde(default)]
    proxies: HashMap<String, Proxy>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Proxy {
    http_proxy: String,
    https_proxy: String,
    ftp_proxy: String,
    no_proxy: String,
    all_proxy: String,
}

impl BuildProxies {
    /// Reads a Docker `config.json`; a missing file knows no proxy. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or is not such a file. Nothing of its content is told.
    pub fn read(config: &Path) -> Result<Self, LocalFailure> {
        let failed = |what: String| LocalFailure::new(config, what);
        let mut text = Vec::new();
        match fs::File::open(config) {
            Ok(file) => file
                .take(CONFIG_BYTES)
                .read_to_end(&mut text)
                .map_err(|e| failed("cannot read Docker's config file".to_owned()).caused_by(e))?,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(e) => return Err(failed("cannot open Docker's config file".to_owned()).caused_by(e)),
        };
        let file: File = serde_json::from_slice(&text).map_err(|e| {
            // The parser's own text may quote a value, and the file holds passwords.
            failed(format!(
                "Docker's config file is not valid at line {} column {}",
                e.line(),
                e.column()
            ))
        })?;
        Ok(Self {
            by_daemon: file.proxies,
        })
    }

    /// The build arguments for a daemon: those of its own entry, by its address, else those of the entry `default`. Each
    /// is there in capital and in small letters.
    pub fn build_args(&self, address: &str) -> BTreeMap<String, String> {
        let mut args = BTreeMap::new();
        if let Some(proxy) = self
            .by_daemon
            .get(address)
            .or_else(|| self.by_daemon.get("default"))
        {
            for (name, value) in [
                ("HTTP_PROXY", &proxy.http_proxy),
                ("HTTPS_PROXY", &proxy.https_proxy),
                ("FTP_PROXY", &proxy.ftp_proxy),
                ("NO_PROXY", &proxy.no_proxy),
                ("ALL_PROXY", &proxy.all_proxy),
            ] {
                if !value.is_empty() {
                    args.insert(name.to_owned(), value.clone());
                    args.insert(name.to_lowercase(), value.clone());
                }
            }
        }
        args
    }

    /// Adds the build arguments for a daemon to a request. What the request has already stays.
    pub fn apply(&self, address: &str, request: &mut BuildRequest) {
        for (key, value) in self.build_args(address) {
            request.build_args.entry(key).or_insert(value);
        }
    }
}

impl fmt::Debug for BuildProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses of proxies may hold passwords.
        f.debug_struct("BuildProxies")
            .field("daemons", &self.by_daemon.keys())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_of_the_daemon_wins_and_the_request_over_both() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let text = r#"{"auths": {}, "proxies": {
            "default": {"httpProxy": "http://u:hunter2@p:1", "noProxy": "n"},
            "tcp://h:1": {"httpsProxy": "q"}}}"#;
        fs::write(file.path(), text).expect("writable");
        let proxies = BuildProxies::read(file.path()).expect("a config");
        let mut request = BuildRequest::new(".").build_arg("no_proxy", "mine");
        proxies.apply("unix:///d", &mut request);
        let args: Vec<_> = request
            .build_args
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(
            args,
            [
                "HTTP_PROXY=http://u:hunter2@p:1",
                "NO_PROXY=n",
                "http_proxy=http://u:hunter2@p:1",
                "no_proxy=mine"
            ]
        );
        let other: Vec<_> = proxies.build_args("tcp://h:1").into_keys().collect();
        assert_eq!(other, ["HTTPS_PROXY", "https_proxy"]);
        assert!(!format!("{proxies:?}").contains("hunter2"));
    }

    #[test]
    fn a_file_that_is_not_there_or_broken() {
        let none = BuildProxies::read(Path::new("/no/such/config.json")).expect("nothing");
        assert!(none.build_args("x").is_empty());
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), r#"{"proxies": "hunter2"}"#).expect("writable");
        let error = BuildProxies::read(file.path())
            .expect_err("no object")
            .to_string();
        assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
    }
}
