//! What the process's environment says about daemons and credentials, read once and passed on as data.

use std::{ffi::OsString, path::PathBuf};

use bk_build::{InputError, SecretSource, TraceContext};

use bk_session::Proxies;

use crate::host::{HOME, machine_certs_dir, user_cache_dir};

/// The variables that choose a daemon, and where Docker's config file is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Environment {
    /// `BK_BACKEND`: `auto`, `docker` or `buildkitd`.
    pub bk_backend: Option<String>,
    /// `BUILDKIT_HOST`.
    pub buildkit_host: Option<String>,
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`: the name of an entry of the Docker CLI's store. `DOCKER_HOST` wins over it.
    pub docker_context: Option<String>,
    /// Whether `DOCKER_TLS_VERIFY` says that Docker Engine at `tcp://` is spoken to in TLS. Any text means so, even `0`, as
    /// it does for the Docker CLI.
    pub docker_tls_verify: bool,
    /// Whether `DOCKER_TLS` says the same without the engine's certificate being checked.
    pub docker_tls: bool,
    /// `DOCKER_CERT_PATH`: the directory of `ca.pem`, `cert.pem` and `key.pem` for it. Default: that of
    /// [`docker_config`](Self::docker_config).
    pub docker_cert_path: Option<PathBuf>,
    /// `BUILDX_BUILDER`: the name of a builder that `docker buildx` keeps.
    pub buildx_builder: Option<String>,
    /// `BUILDX_CONFIG`: the directory in which it keeps them. Default: `buildx` beside
    /// [`docker_config`](Self::docker_config).
    pub buildx_config: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `XDG_CACHE_HOME`, else `.cache` of the home directory (`LOCALAPPDATA` on Windows).
    pub cache_dir: Option<PathBuf>,
    /// `PATH`.
    pub search_path: Option<OsString>,
    /// Docker's `config.json`: in `DOCKER_CONFIG`, else in `.docker` of the home directory.
    pub docker_config: Option<PathBuf>,
    /// Directories of certificates for single registries: `/etc/docker/certs.d` (on Windows that of `ProgramData`), and `docker/certs.d` in
    /// `XDG_CONFIG_HOME` or `.config` of the home directory.
    pub certs_dirs: Vec<PathBuf>,
    /// `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, or the same in lower case: for registries' token servers.
    pub proxies: Proxies,
    /// Whether `BUILDKIT_NO_CLIENT_TOKEN` says that daemons fetch registry tokens themselves.
    pub no_client_token: bool,
    /// `TRACEPARENT`: the trace and the span that the process belongs to. See [`trace`](Self::trace).
    pub traceparent: Option<String>,
    /// `TRACESTATE`: what belongs to `TRACEPARENT`.
    pub tracestate: Option<String>,
}

impl Environment {
    /// An environment that says nothing: no address, no credentials.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads the process's environment. Empty variables count as absent.
    pub fn from_process() -> Self {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    /// The trace that `TRACEPARENT` and `TRACESTATE` name, if they do. A state without a parent means nothing.
    ///
    /// # Errors
    /// An [`InputError`] names the variable that makes no sense. [`connect_with`](crate::connect_with) goes on without
    /// what is wrong, as the recommendation wants it, and says so to `tracing` only.
    pub fn trace(&self) -> Result<Option<TraceContext>, InputError> {
        let Some(parent) = &self.traceparent else {
            return Ok(None);
        };
        let named = |name: &'static str| move |e: InputError| InputError::new(name, e.message, e.allowed);
        let context = TraceContext::parse(parent).map_err(named("TRACEPARENT"))?;
        match &self.tracestate {
            Some(state) => context.state(state).map_err(named("TRACESTATE")).map(Some),
            None => Ok(Some(context)),
        }
    }

    fn from_lookup(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| get(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        // A value that is not UTF-8 is no address; it is kept lossily so that the error can show it.
        let text = |name| {
            get(name)
                .map(|v| v.to_string_lossy().into_owned())
                .filter(|v| !v.is_empty())
        };
        let either = |upper: &'static str, lower: &'static str| text(upper).or_else(|| text(lower));
        let mut proxies = Proxies::new();
        proxies.http = either("HTTP_PROXY", "http_proxy");
        proxies.https = either("HTTPS_PROXY", "https_proxy");
        proxies.none = either("NO_PROXY", "no_proxy").unwrap_or_default();
        let own = path("XDG_CONFIG_HOME").or_else(|| path(HOME).map(|home| home.join(".config")));
        let mut certs_dirs: Vec<_> = machine_certs_dir(&get).into_iter().collect();
        certs_dirs.extend(own.map(|dir| dir.join("docker/certs.d")));
        Self {
            cache_dir: user_cache_dir(&get),
            search_path: get("PATH").filter(|v| !v.is_empty()),
            certs_dirs,
            proxies,
            // The spellings that Go takes for true.
            no_client_token: text("BUILDKIT_NO_CLIENT_TOKEN")
                .is_some_and(|v| matches!(&*v, "1" | "t" | "T" | "true" | "TRUE" | "True")),
            bk_backend: text("BK_BACKEND"),
            buildkit_host: text("BUILDKIT_HOST"),
            docker_host: text("DOCKER_HOST"),
            traceparent: text("TRACEPARENT"),
            tracestate: text("TRACESTATE"),
            docker_context: text("DOCKER_CONTEXT"),
            docker_tls_verify: text("DOCKER_TLS_VERIFY").is_some(),
            docker_tls: text("DOCKER_TLS").is_some(),
            docker_cert_path: path("DOCKER_CERT_PATH"),
            buildx_builder: text("BUILDX_BUILDER"),
            buildx_config: path("BUILDX_CONFIG"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            docker_config: path("DOCKER_CONFIG")
                .or_else(|| path(HOME).map(|home| home.join(".docker")))
                .map(|dir| dir.join("config.json")),
        }
    }
}

/// The value of a variable of the process's environment, taken now, as the source of a secret.
///
/// # Errors
/// An [`InputError`] when the variable is not set.
pub fn secret_from_environment(name: &str) -> Result<SecretSource, InputError> {
    match std::env::var_os(name) {
        Some(value) => Ok(SecretSource::bytes(value.into_encoded_bytes())),
        None => {
            let text = format!("the environment variable `{name}` is not set");
            Err(InputError::new("secret", text, ""))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_absent_and_docker_config_wins() {
        let env = Environment::from_lookup(|name| match name {
            HOME => Some("/home/me".into()),
            "DOCKER_HOST" => Some("".into()),
            "BUILDKIT_HOST" => Some("tcp://h:1".into()),
            _ => None,
        });
        assert_eq!(env.docker_config, Some("/home/me/.docker/config.json".into()));
        assert_eq!(env.docker_host, None);
        assert_eq!(env.cache_dir, Some("/home/me/.cache".into()));
        assert_eq!(env.buildkit_host.as_deref(), Some("tcp://h:1"));
        let env = Environment::from_lookup(|name| (name == "DOCKER_CONFIG").then(|| "/cfg".into()));
        assert_eq!(env.docker_config, Some("/cfg/config.json".into()));
        let mut nothing = Environment::empty();
        nothing.certs_dirs.push("/etc/docker/certs.d".into());
        assert_eq!(Environment::from_lookup(|_| None), nothing);
    }

    #[test]
    fn the_trace_of_the_process_is_read_and_checked() {
        let env = |parent: &'static str, state: &'static str| {
            Environment::from_lookup(|name| match name {
                "TRACEPARENT" => Some(parent.into()),
                "TRACESTATE" => Some(state.into()),
                _ => None,
            })
        };
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = env(parent, "a=1").trace().expect("good").expect("a trace");
        assert_eq!((trace.traceparent(), trace.tracestate()), (parent, Some("a=1")));
        assert_eq!(env("", "a=1").trace(), Ok(None));
        let e = env("00-x", "").trace().expect_err("no trace");
        assert_eq!(e.to_string(), "TRACEPARENT: `00-x`: this is not a trace context");
        let e = env(parent, "a").trace().expect_err("no state");
        assert_eq!(e.to_string(), "TRACESTATE: `a` is no entry");
    }

    #[test]
    fn what_token_servers_need_is_read() {
        let env = Environment::from_lookup(|name| match name {
            HOME => Some("/home/me".into()),
            "HTTPS_PROXY" => Some("http://u:hunter2@p:1".into()),
            "https_proxy" => Some("http://other:1".into()),
            "no_proxy" => Some("localhost,.example.com".into()),
            "BUILDKIT_NO_CLIENT_TOKEN" => Some("true".into()),
            _ => None,
        });
        assert_eq!(env.proxies.https.as_deref(), Some("http://u:hunter2@p:1"));
        assert_eq!(
            (env.proxies.http.as_deref(), &*env.proxies.none),
            (None, "localhost,.example.com")
        );
        assert!(env.no_client_token);
        assert_eq!(
            env.certs_dirs[1],
            PathBuf::from("/home/me/.config/docker/certs.d")
        );
        assert!(!format!("{env:?}").contains("hunter2"), "{env:?}");
        let env = Environment::from_lookup(|name| (name == "BUILDKIT_NO_CLIENT_TOKEN").then(|| "0".into()));
        assert!(!env.no_client_token);
    }
}
