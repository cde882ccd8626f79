//! What the process's environment says about daemons and credentials, read once and passed on as data.

use std::{ffi::OsString, path::PathBuf};

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
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// Docker's `config.json`: in `DOCKER_CONFIG`, else in `.docker` of the home directory.
    pub docker_config: Option<PathBuf>,
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

    fn from_lookup(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| get(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        // A value that is not UTF-8 is no address; it is kept lossily so that the error can show it.
        let text = |name| {
            get(name)
                .map(|v| v.to_string_lossy().into_owned())
                .filter(|v| !v.is_empty())
        };
        Self {
            bk_backend: text("BK_BACKEND"),
            buildkit_host: text("BUILDKIT_HOST"),
            docker_host: text("DOCKER_HOST"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            docker_config: path("DOCKER_CONFIG")
                .or_else(|| path("HOME").map(|home| home.join(".docker")))
                .map(|dir| dir.join("config.json")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_absent_and_docker_config_wins() {
        let env = Environment::from_lookup(|name| match name {
            "HOME" => Some("/home/me".into()),
            "DOCKER_HOST" => Some("".into()),
            "BUILDKIT_HOST" => Some("tcp://h:1".into()),
            _ => None,
        });
        assert_eq!(env.docker_config, Some("/home/me/.docker/config.json".into()));
        assert_eq!(env.docker_host, None);
        assert_eq!(env.buildkit_host.as_deref(), Some("tcp://h:1"));
        let env = Environment::from_lookup(|name| (name == "DOCKER_CONFIG").then(|| "/cfg".into()));
        assert_eq!(env.docker_config, Some("/cfg/config.json".into()));
        assert_eq!(Environment::from_lookup(|_| None), Environment::empty());
    }
}
