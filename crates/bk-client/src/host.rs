//! Where the systems that a client runs on keep things: daemons' addresses, and a user's files.

use std::{ffi::OsString, path::PathBuf};

/// The variable that names the home directory, as the Docker CLI has it.
pub const HOME: &str = if cfg!(windows) { "USERPROFILE" } else { "HOME" };

/// Docker's default address.
pub(crate) const DOCKER_SOCKET: &str = if cfg!(windows) {
    "npipe:////./pipe/docker_engine"
} else {
    "unix:///var/run/docker.sock"
};

/// The host of an engine for which Docker's address names none.
pub(crate) const DOCKER_HOST_NAME: &str = if cfg!(windows) { "127.0.0.1" } else { "localhost" };

/// The default address of a system-wide buildkitd.
pub(crate) const BUILDKIT_SOCKET: &str = if cfg!(windows) {
    "npipe:////./pipe/buildkitd"
} else {
    "unix:///run/buildkit/buildkitd.sock"
};

/// The directory for what can be made again: `XDG_CACHE_HOME`, else `.cache` of the home directory (`LOCALAPPDATA` on
/// Windows). Relative ones do not count, says the XDG Base Directory Specification. `get` looks variables up.
pub fn user_cache_dir(get: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| get(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    absolute("XDG_CACHE_HOME").or_else(|| match cfg!(windows) {
        true => absolute("LOCALAPPDATA"),
        false => absolute(HOME).map(|home| home.join(".cache")),
    })
}

/// Where the machine keeps certificates for single registries.
pub(crate) fn machine_certs_dir(get: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    match cfg!(windows) {
        true => get("ProgramData").map(|data| PathBuf::from(data).join("docker").join("certs.d")),
        false => Some("/etc/docker/certs.d".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_where_the_system_has_them() {
        let (home, cache) = match cfg!(windows) {
            true => (r"C:\Users\me", r"C:\Users\me\AppData\Local"),
            false => ("/home/me", "/home/me/.cache"),
        };
        let get = |xdg: &'static str| {
            move |name: &str| match name {
                "XDG_CACHE_HOME" => Some(xdg.into()),
                "LOCALAPPDATA" => Some(cache.into()),
                HOME => Some(home.into()),
                _ => None,
            }
        };
        assert_eq!(user_cache_dir(get("")), Some(cache.into()));
        assert_eq!(user_cache_dir(get("relative")), Some(cache.into()));
        let other = std::env::temp_dir();
        let xdg = |name: &str| (name == "XDG_CACHE_HOME").then(|| other.clone().into_os_string());
        assert_eq!(user_cache_dir(xdg), Some(other.clone()));
        assert_eq!(user_cache_dir(|_| None), None);
    }
}
