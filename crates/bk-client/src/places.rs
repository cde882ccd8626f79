//! Where to look for a daemon, in order: what was said, what the environment says, the usual sockets.
//!
//! The rule: what somebody named is the only thing that is tried.

use bk_build::{BuildError, InputError};
use bk_dial::TlsOptions;

use crate::{
    Backend, Environment, builders,
    contexts::{self, EngineAddress},
    host::BUILDKIT_SOCKET,
};

/// The socket of a rootless buildkitd, below `XDG_RUNTIME_DIR`.
const ROOTLESS_SOCKET: &str = "buildkit/buildkitd.sock";

/// An endpoint to try.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Where it is.
    pub(crate) address: String,
    /// Who says so, for errors; empty when it was said outright.
    pub(crate) origin: String,
    /// What kind of daemon it is.
    pub(crate) backend: Backend,
    /// TLS, as who says so wants it.
    pub(crate) tls: Option<TlsOptions>,
    /// What may help when it cannot be reached; empty for what always may.
    pub(crate) advice: String,
    /// Whether nobody named it: it is one of those where daemons usually are.
    pub(crate) usual: bool,
    /// For a node of a builder, the platforms that the builder's file names for it.
    pub(crate) node: Option<Vec<String>>,
}

impl Place {
    fn new(address: impl Into<String>, origin: impl Into<String>, backend: Backend) -> Self {
        Self {
            address: address.into(),
            origin: origin.into(),
            backend,
            tls: None,
            advice: String::new(),
            usual: false,
            node: None,
        }
    }

    pub(crate) fn of_engine(engine: EngineAddress) -> Self {
        Self {
            tls: engine.tls,
            usual: !engine.named,
            ..Self::new(engine.address, engine.origin, Backend::Docker)
        }
    }

    fn usual(address: impl Into<String>, origin: &str) -> Self {
        Self {
            usual: true,
            ..Self::new(address, origin, Backend::Buildkitd)
        }
    }

    pub(crate) fn of_buildkit(address: String, tls: Option<TlsOptions>) -> Self {
        Self {
            tls,
            ..Self::new(address, "", Backend::Buildkitd)
        }
    }
}

/// What was said of the daemon.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Addresses, in the order in which they are tried.
    pub(crate) addrs: Vec<String>,
    /// The name of a builder of `docker buildx`.
    pub(crate) builder: Option<String>,
    /// Its kind.
    pub(crate) backend: Backend,
}

/// What to try, in order. Reads files.
///
/// # Errors
/// [`BuildError::Input`] when something is named that is not there or makes no sense.
pub(crate) fn find(wanted: &Wanted, env: &Environment) -> Result<Vec<Place>, BuildError> {
    let backend = wanted.backend;
    let (not_docker, not_buildkitd) = (backend == Backend::Buildkitd, backend == Backend::Docker);
    if !wanted.addrs.is_empty() {
        return wanted
            .addrs
            .iter()
            .map(|address| named(address, backend, env))
            .collect();
    }
    if let Some(name) = &wanted.builder {
        let places = builders::places(env, "--builder", &format!("builder `{name}`"), name)?;
        let kind = builders::backend(&places);
        if (not_docker && kind == Backend::Docker) || (not_buildkitd && kind == Backend::Buildkitd) {
            let why = format!("the builder `{name}` is another kind of daemon");
            return Err(InputError::new("--backend", why, "auto beside --builder").into());
        }
        return Ok(places);
    }
    if let (Some(address), false) = (&env.buildkit_host, not_buildkitd) {
        return Ok(vec![Place::new(address, "BUILDKIT_HOST", Backend::Buildkitd)]);
    }
    if let (Some(name), Backend::Auto) = (&env.buildx_builder, backend) {
        let origin = format!("builder `{name}` of BUILDX_BUILDER");
        return Ok(builders::places(env, "BUILDX_BUILDER", &origin, name)?);
    }
    let said = env.docker_host.is_some() || env.docker_context.is_some();
    if backend == Backend::Auto
        && !said
        && let Some(name) = builders::chosen(env)?
    {
        let origin = format!("builder `{name}`, chosen with `docker buildx use`");
        return Ok(builders::places(env, "docker buildx use", &origin, &name)?);
    }
    let mut list = Vec::new();
    if !not_docker && cfg!(feature = "docker") {
        let engine = contexts::current(env)?;
        let named = engine.named;
        list.push(Place::of_engine(engine));
        if named {
            return Ok(list);
        }
    }
    if !not_buildkitd && cfg!(feature = "buildkitd") {
        list.push(Place::usual(BUILDKIT_SOCKET, "default buildkitd socket"));
        if let Some(dir) = &env.runtime_dir {
            let socket = format!("unix://{}", dir.join(ROOTLESS_SOCKET).display());
            list.push(Place::usual(socket, "rootless buildkitd socket"));
        }
    }
    Ok(list)
}

/// The endpoint at an address that somebody said.
fn named(address: &str, backend: Backend, env: &Environment) -> Result<Place, BuildError> {
    let Some(context) = address.strip_prefix("docker://") else {
        return Ok(Place::new(address, "", backend));
    };
    let engine = match context.trim_end_matches('/') {
        "" => contexts::current(env)?,
        name => contexts::named(env, "the address", name)?,
    };
    Ok(Place::of_engine(engine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(feature = "docker", feature = "buildkitd"))]
    #[test]
    fn the_order_is_as_documented() {
        let addresses = |env: &Environment, backend: Backend| -> Vec<(String, Backend)> {
            let wanted = Wanted {
                backend,
                ..Wanted::default()
            };
            let places = find(&wanted, env).expect("places");
            places.into_iter().map(|p| (p.address, p.backend)).collect()
        };
        let docker = (crate::host::DOCKER_SOCKET.to_owned(), Backend::Docker);
        let mut env = Environment::empty();
        env.runtime_dir = Some("/run/user/7".into());
        assert_eq!(
            addresses(&env, Backend::Auto),
            [
                docker.clone(),
                (BUILDKIT_SOCKET.to_owned(), Backend::Buildkitd),
                (
                    "unix:///run/user/7/buildkit/buildkitd.sock".to_owned(),
                    Backend::Buildkitd
                )
            ]
        );
        assert_eq!(addresses(&env, Backend::Docker), [docker]);
        env.docker_host = Some("tcp://d:1".to_owned());
        let d = [("tcp://d:1".to_owned(), Backend::Docker)];
        assert_eq!(addresses(&env, Backend::Auto), d);
        assert_eq!(addresses(&env, Backend::Buildkitd)[0].0, BUILDKIT_SOCKET);
        env.buildkit_host = Some("tcp://b:1".to_owned());
        let b = [("tcp://b:1".to_owned(), Backend::Buildkitd)];
        assert_eq!(addresses(&env, Backend::Auto), b);
        assert_eq!(addresses(&env, Backend::Docker), d);
    }

    #[test]
    fn builders_stand_between_what_is_said_and_the_engine() {
        let dir = tempfile::tempdir().expect("a directory");
        let instances = dir.path().join("instances");
        std::fs::create_dir_all(&instances).expect("a directory");
        std::fs::write(
            instances.join("r"),
            r#"{"Name":"r","Driver":"remote","Nodes":[{"Name":"r0","Endpoint":"tcp://r:1"}]}"#,
        )
        .expect("writable");
        std::fs::write(
            dir.path().join("current"),
            r#"{"Key":"","Name":"r","Global":true}"#,
        )
        .expect("writable");
        let mut env = Environment::empty();
        env.buildx_config = Some(dir.path().into());
        let first = |env: &Environment, wanted: &Wanted| {
            let place = find(wanted, env).expect("places").remove(0);
            (place.address, place.origin)
        };
        let mut wanted = Wanted::default();
        assert_eq!(
            first(&env, &wanted),
            (
                "tcp://r:1".to_owned(),
                "builder `r`, chosen with `docker buildx use`".to_owned()
            )
        );
        env.docker_host = Some("tcp://d:1".to_owned());
        assert_eq!(
            first(&env, &wanted),
            ("tcp://d:1".to_owned(), "DOCKER_HOST".to_owned())
        );
        env.buildx_builder = Some("r".to_owned());
        assert_eq!(first(&env, &wanted).1, "builder `r` of BUILDX_BUILDER");
        env.buildkit_host = Some("tcp://b:1".to_owned());
        assert_eq!(first(&env, &wanted).1, "BUILDKIT_HOST");
        wanted.builder = Some("r".to_owned());
        assert_eq!(first(&env, &wanted).1, "builder `r`");
        wanted.backend = Backend::Docker;
        let error = find(&wanted, &env).expect_err("another kind").to_string();
        assert_eq!(error, "--backend: the builder `r` is another kind of daemon");
        wanted.addrs = vec!["docker://".to_owned()];
        assert_eq!(
            first(&env, &wanted),
            ("tcp://d:1".to_owned(), "DOCKER_HOST".to_owned())
        );
    }
}
