//! Which Docker Engine the environment means: `DOCKER_HOST` and its TLS variables, or an entry of the Docker CLI's store of
//! contexts.
//!
//! The rules are the Docker CLI's, so that what works for it works here. Files are only read, each up to a limit.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use bk_build::InputError;
use bk_dial::{Pem, TlsOptions};
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use crate::{
    Environment, docker_host,
    host::{DOCKER_HOST_NAME, DOCKER_SOCKET},
    tokens,
};

/// The port that the Docker CLI uses when TLS is wanted and no address is given.
const DOCKER_TLS_PORT: u16 = 2376;
/// The name of the context that stands for the variables.
pub(crate) const DEFAULT: &str = "default";
/// Files of the Docker CLI and of buildx that are larger are refused; real ones are a few KiB.
const MAX_FILE: u64 = 4 << 20;

/// A Docker Engine as something on this machine describes it.
#[derive(Clone, Debug)]
pub(crate) struct EngineAddress {
    /// Where it listens.
    pub(crate) address: String,
    /// TLS, if it is spoken there.
    pub(crate) tls: Option<TlsOptions>,
    /// Who says so, for errors.
    pub(crate) origin: String,
    /// Whether somebody named it: then nothing else is tried.
    pub(crate) named: bool,
}

/// The name of the context in use; [`DEFAULT`] stands for the variables.
///
/// # Errors
/// An [`InputError`] when Docker's `config.json` cannot be read. What is said of the name is in front.
pub(crate) fn current_name(env: &Environment) -> Result<(String, String), InputError> {
    if env.docker_host.is_some() {
        return Ok(("DOCKER_HOST".to_owned(), DEFAULT.to_owned()));
    }
    if let Some(name) = &env.docker_context {
        return Ok(("DOCKER_CONTEXT".to_owned(), name.clone()));
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Config {
        #[serde(rename = "currentContext")]
        current: Option<String>,
    }
    let Some(path) = &env.docker_config else {
        return Ok((String::new(), DEFAULT.to_owned()));
    };
    let config: Config = json(path)?.unwrap_or_default();
    let name = config.current.filter(|name| !name.is_empty());
    let what = format!("currentContext of {}", path.display());
    Ok((what, name.unwrap_or_else(|| DEFAULT.to_owned())))
}

/// The engine that the environment means.
///
/// # Errors
/// An [`InputError`] when a context is named that is not there or makes no sense.
pub(crate) fn current(env: &Environment) -> Result<EngineAddress, InputError> {
    let (what, name) = current_name(env)?;
    named(env, &what, &name)
}

/// The engine of a context. `what` is who names it.
///
/// # Errors
/// As [`current`].
pub(crate) fn named(env: &Environment, what: &str, name: &str) -> Result<EngineAddress, InputError> {
    match name {
        DEFAULT => Ok(by_variables(env)),
        name => by_store(env, what, name),
    }
}

/// The address that `DOCKER_HOST` means, with what the Docker CLI adds to it.
pub(crate) fn engine_host(env: &Environment) -> Option<String> {
    docker_host::address(env.docker_host.as_deref()?)
}

fn docker_tls_address() -> String {
    format!("tcp://{DOCKER_HOST_NAME}:{DOCKER_TLS_PORT}")
}

fn by_variables(env: &Environment) -> EngineAddress {
    let verify = env.docker_tls_verify;
    let tls = (verify || env.docker_tls).then(|| {
        let config = env.docker_config.as_deref().and_then(Path::parent);
        let dir = env.docker_cert_path.as_deref().or(config);
        let origin = dir.map_or("Docker's TLS variables".to_owned(), |dir| {
            format!("`{}` (DOCKER_CERT_PATH)", dir.display())
        });
        let tls = dir.map_or_else(TlsOptions::new, |dir| files(dir, verify));
        tls.unchecked(!verify).origin(origin)
    });
    let (address, origin) = match (engine_host(env), &tls) {
        (Some(address), _) => (address, "DOCKER_HOST"),
        (None, Some(_)) => (docker_tls_address(), "DOCKER_TLS_VERIFY"),
        (None, None) => (DOCKER_SOCKET.to_owned(), "default Docker socket"),
    };
    EngineAddress {
        named: origin != "default Docker socket",
        origin: origin.to_owned(),
        tls: tls.filter(|_| may_speak_tls(&address)),
        address,
    }
}

/// A socket needs none, whatever is said.
fn may_speak_tls(address: &str) -> bool {
    address.starts_with("tcp://") || address.starts_with("https://")
}

/// The files of a directory as the Docker CLI takes them: those that are not there are left out, but for the authorities,
/// whose absence is an error where they are needed.
fn files(dir: &Path, needs_ca: bool) -> TlsOptions {
    let file = |name: &str| Some(dir.join(name)).filter(|path| path.exists()).map(Pem::File);
    let mut tls = TlsOptions::new().system_roots(tokens::system_roots);
    tls.ca = match needs_ca {
        true => Some(Pem::File(dir.join("ca.pem"))),
        false => file("ca.pem"),
    };
    (tls.cert, tls.key) = (file("cert.pem"), file("key.pem"));
    tls
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Endpoints", default)]
    endpoints: BTreeMap<String, MetaEndpoint>,
}

#[derive(Deserialize)]
struct MetaEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_verify: bool,
}

fn by_store(env: &Environment, what: &str, name: &str) -> Result<EngineAddress, InputError> {
    let Some(store) = store(env) else {
        let why = format!("there is no Docker context `{name}`, because there is no home directory");
        return Err(InputError::new(what, why, "the name of a Docker context"));
    };
    let id = hex(name);
    let path = store.join("meta").join(&id).join("meta.json");
    let Some(meta) = json::<Meta>(&path)? else {
        let why = format!("there is no Docker context `{name}` in {}", store.display());
        return Err(InputError::new(what, why, known(&store)));
    };
    let origin = format!("the Docker context `{name}`");
    let endpoint = meta.endpoints.get("docker").filter(|e| !e.host.is_empty());
    let Some(endpoint) = endpoint else {
        let why = format!("{origin} names no Docker Engine: {}", path.display());
        return Err(InputError::new(what, why, known(&store)));
    };
    let dir = store.join("tls").join(&id).join("docker");
    let tls = files(&dir, false);
    let speaks = tls.ca.is_some() || tls.cert.is_some() || tls.key.is_some() || endpoint.skip_verify;
    Ok(EngineAddress {
        tls: (speaks && may_speak_tls(&endpoint.host))
            .then(|| tls.unchecked(endpoint.skip_verify).origin(origin)),
        address: endpoint.host.clone(),
        origin: format!("Docker context `{name}`"),
        named: true,
    })
}

fn store(env: &Environment) -> Option<PathBuf> {
    Some(env.docker_config.as_deref()?.parent()?.join("contexts"))
}

/// The names that may stand there, for errors.
fn known(store: &Path) -> String {
    let mut names = vec![DEFAULT.to_owned()];
    for entry in fs::read_dir(store.join("meta")).into_iter().flatten().flatten() {
        // What cannot be read has no name to tell.
        if let Ok(Some(meta)) = json::<Meta>(&entry.path().join("meta.json")) {
            names.push(meta.name);
        }
    }
    names.sort();
    format!("the name of a Docker context: {}", names.join(", "))
}

/// The name of a file that the Docker CLI and buildx make of a text.
pub(crate) fn hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads a file up to a limit; `None` when there is none.
///
/// # Errors
/// An [`InputError`] that names it.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, InputError> {
    let wrong = |why: String| InputError::new(path.display().to_string(), why, "");
    let mut text = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text));
    match read {
        Ok(_) if text.len() as u64 > MAX_FILE => {
            Err(wrong(format!("it is larger than {} MiB", MAX_FILE >> 20)))
        }
        Ok(_) => Ok(Some(text)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(wrong(format!("cannot read it: {e}"))),
    }
}

/// Reads a file of JSON; `None` when there is none.
///
/// # Errors
/// As [`read`].
pub(crate) fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, InputError> {
    let Some(text) = read(path)? else {
        return Ok(None);
    };
    match serde_json::from_slice(&text) {
        Ok(value) => Ok(Some(value)),
        Err(e) => {
            let why = format!("it is not what it should be: {e}");
            Err(InputError::new(path.display().to_string(), why, ""))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Environment) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut env = Environment::empty();
        env.docker_config = Some(dir.path().join("config.json"));
        (dir, env)
    }

    fn add(dir: &Path, name: &str, meta: &str, tls: &[&str]) {
        let id = hex(name);
        let place = dir.join("contexts/meta").join(&id);
        fs::create_dir_all(&place).expect("a directory");
        fs::write(place.join("meta.json"), meta).expect("writable");
        let place = dir.join("contexts/tls").join(&id).join("docker");
        fs::create_dir_all(&place).expect("a directory");
        for name in tls {
            fs::write(place.join(name), "").expect("writable");
        }
    }

    fn found(env: &Environment) -> (String, String, bool) {
        let engine = current(env).expect("an engine");
        (engine.address, engine.origin, engine.tls.is_some())
    }

    #[test]
    fn names_of_files_are_those_of_the_docker_cli() {
        assert_eq!(
            hex("far"),
            "512eea46ceb3921dff4363c7069d89d4964d1d9fccaa0f411851a7aa60a5c868"
        );
    }

    #[test]
    fn the_order_is_that_of_the_docker_cli() {
        let (dir, mut env) = home();
        let default = (
            DOCKER_SOCKET.to_owned(),
            "default Docker socket".to_owned(),
            false,
        );
        assert_eq!(found(&env), default);
        let meta = |host: &str| format!(r#"{{"Name":"x","Endpoints":{{"docker":{{"Host":"{host}"}}}}}}"#);
        add(dir.path(), "far", &meta("tcp://far:2376"), &["ca.pem"]);
        add(dir.path(), "near", &meta("unix:///n.sock"), &["ca.pem"]);
        fs::write(
            env.docker_config.as_ref().expect("set"),
            r#"{"currentContext":"far"}"#,
        )
        .expect("writable");
        assert_eq!(
            found(&env),
            (
                "tcp://far:2376".to_owned(),
                "Docker context `far`".to_owned(),
                true
            )
        );
        env.docker_context = Some("near".to_owned());
        assert_eq!(
            found(&env),
            (
                "unix:///n.sock".to_owned(),
                "Docker context `near`".to_owned(),
                false
            )
        );
        add(dir.path(), "web", &meta("https://w"), &["ca.pem"]);
        env.docker_context = Some("web".to_owned());
        assert!(found(&env).2);
        env.docker_context = Some("default".to_owned());
        assert_eq!(found(&env), default);
        env.docker_context = Some("near".to_owned());
        env.docker_host = Some("tcp://h:1".to_owned());
        assert_eq!(
            found(&env),
            ("tcp://h:1".to_owned(), "DOCKER_HOST".to_owned(), false)
        );
    }

    #[test]
    fn docker_host_is_short_for_what_the_docker_cli_makes_of_it() {
        let mut env = Environment::empty();
        env.docker_host = Some("h:1".to_owned());
        assert_eq!(
            found(&env),
            ("tcp://h:1".to_owned(), "DOCKER_HOST".to_owned(), false)
        );
        env.docker_host = Some("h".to_owned());
        env.docker_tls = true;
        // The port is that without TLS all the same.
        assert_eq!(
            found(&env),
            ("tcp://h:2375".to_owned(), "DOCKER_HOST".to_owned(), true)
        );
        env.docker_host = Some(" ".to_owned());
        assert_eq!(found(&env).0, docker_tls_address());
    }

    #[test]
    fn the_variables_of_tls_mean_what_they_mean_to_the_docker_cli() {
        let (dir, mut env) = home();
        env.docker_tls_verify = true;
        assert_eq!(
            found(&env),
            (
                "tcp://localhost:2376".to_owned(),
                "DOCKER_TLS_VERIFY".to_owned(),
                true
            )
        );
        env.docker_host = Some("unix:///d.sock".to_owned());
        assert!(!found(&env).2);
        env.docker_host = Some("tcp://h".to_owned());
        env.docker_cert_path = Some(dir.path().join("certs"));
        let tls = current(&env).expect("an engine").tls.expect("TLS");
        assert!(!tls.unchecked && tls.cert.is_none());
        let ca = dir.path().join("certs/ca.pem");
        assert!(matches!(tls.ca, Some(Pem::File(path)) if path == ca));
        env.docker_tls_verify = false;
        env.docker_tls = true;
        let tls = current(&env).expect("an engine").tls.expect("TLS");
        assert!(tls.unchecked && tls.ca.is_none());
    }

    #[test]
    fn a_context_may_say_that_nobody_is_checked() {
        let (dir, mut env) = home();
        let meta =
            r#"{"Name":"x","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://h:1","SkipTLSVerify":true}}}"#;
        add(dir.path(), "x", meta, &[]);
        env.docker_context = Some("x".to_owned());
        let tls = current(&env).expect("an engine").tls.expect("TLS");
        assert!(tls.unchecked);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (dir, mut env) = home();
        add(
            dir.path(),
            "kube",
            r#"{"Name":"kube","Endpoints":{"kubernetes":{}}}"#,
            &[],
        );
        add(dir.path(), "torn", r#"{"Name":"torn","#, &[]);
        for (name, why, allowed) in [
            (
                "away",
                "DOCKER_CONTEXT: there is no Docker context `away` in ",
                "default, kube",
            ),
            ("kube", "names no Docker Engine: ", "default, kube"),
            ("torn", "meta.json: it is not what it should be: EOF", ""),
        ] {
            env.docker_context = Some(name.to_owned());
            let error = current(&env).expect_err(name);
            assert!(error.to_string().contains(why), "{error}");
            assert!(error.allowed.ends_with(allowed), "{}", error.allowed);
        }
        env.docker_context = None;
        fs::write(env.docker_config.as_ref().expect("set"), "7").expect("writable");
        let error = current(&env).expect_err("no object").to_string();
        assert!(
            error.contains("config.json: it is not what it should be"),
            "{error}"
        );
    }
}
