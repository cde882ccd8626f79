//! The builders that `docker buildx` keeps: which is meant, and where its nodes are.
//!
//! The rule: its files are only read. What one asks for that is not done here is an error that says so, never ignored.

use std::{collections::BTreeMap, fs, path::PathBuf};

use bk_build::InputError;
use bk_dial::{Pem, TlsOptions};
use serde::Deserialize;
use url::Url;

use crate::{
    Backend, Environment,
    contexts::{self, DEFAULT},
    host::DOCKER_SOCKET,
    places::Place,
    platforms::normal,
    tokens,
};

/// What `docker buildx` puts before the name of a node, for the container in which its daemon runs.
const CONTAINER_PREFIX: &str = "buildx_buildkit_";
/// The container of the daemon in a pod.
const POD_CONTAINER: &str = "buildkitd";
/// The drivers that are known.
const DRIVERS: &str = "a builder with the driver docker, docker-container, kubernetes or remote";

/// What a file of a builder says.
#[derive(Debug, Deserialize)]
struct Group {
    #[serde(rename = "Driver", default)]
    driver: String,
    #[serde(rename = "Nodes", default)]
    nodes: Option<Vec<Node>>,
}

#[derive(Debug, Deserialize)]
struct Node {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Endpoint", default)]
    endpoint: String,
    #[serde(rename = "Platforms", default)]
    platforms: Option<Vec<NodePlatform>>,
    #[serde(rename = "DriverOpts", default)]
    options: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct NodePlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl Node {
    fn option(&self, name: &str) -> Option<&String> {
        self.options.as_ref()?.get(name).filter(|value| !value.is_empty())
    }

    /// The platforms that somebody named for it.
    fn platforms(&self) -> Vec<String> {
        let all = self.platforms.iter().flatten();
        all.map(|p| normal(&format!("{}/{}/{}", p.os, p.architecture, p.variant)))
            .collect()
    }
}

/// The name of the builder that was chosen with `docker buildx use` for the engine in use; `None` when that engine itself was,
/// or nothing.
///
/// # Errors
/// An [`InputError`] names a file that cannot be read.
pub(crate) fn chosen(env: &Environment) -> Result<Option<String>, InputError> {
    #[derive(Deserialize)]
    struct Current {
        #[serde(rename = "Key", default)]
        key: String,
        #[serde(rename = "Name", default)]
        name: String,
        #[serde(rename = "Global", default)]
        global: bool,
    }
    let Some(store) = store(env) else {
        return Ok(None);
    };
    let (_, context) = contexts::current_name(env)?;
    let key = match &*context {
        DEFAULT => contexts::engine_host(env).unwrap_or_else(|| DOCKER_SOCKET.to_owned()),
        name => name.to_owned(),
    };
    let there = |name: &str| is_name(name) && store.join("instances").join(name.to_lowercase()).exists();
    if let Some(current) = contexts::json::<Current>(&store.join("current"))?
        && !current.name.is_empty()
        && (current.global || current.key == key)
        && there(&current.name)
    {
        return Ok(Some(current.name));
    }
    let default = contexts::read(&store.join("defaults").join(contexts::hex(&key)))?.unwrap_or_default();
    let default = String::from_utf8_lossy(&default).trim().to_owned();
    // A builder that was removed is no choice.
    Ok(there(&default).then_some(default))
}

/// Where the nodes of a builder are, in their order. `what` is who names it, and `origin` the same for errors of connecting.
///
/// # Errors
/// An [`InputError`] when there is no such builder, or none that can be used.
pub(crate) fn places(
    env: &Environment,
    what: &str,
    origin: &str,
    name: &str,
) -> Result<Vec<Place>, InputError> {
    let bad = |why: String, allowed: &str| InputError::new(what, why, allowed);
    let Some(store) = store(env) else {
        let why = format!("there is no builder `{name}`, because there is no home directory");
        return Err(bad(why, "the name of a builder"));
    };
    if !is_name(name) {
        return Err(bad(format!("a builder cannot be called `{name}`"), &known(env)));
    }
    // The engine of a Docker context goes by its name.
    let of_context = |name: &str| -> Result<Vec<Place>, InputError> {
        let engine = contexts::named(env, what, name)?;
        let place = Place::of_engine(engine);
        Ok(vec![Place {
            origin: origin.to_owned(),
            ..place
        }])
    };
    let path = store.join("instances").join(name.to_lowercase());
    let group: Group = match contexts::json(&path)? {
        Some(group) => group,
        None if name == DEFAULT => {
            let (what, name) = contexts::current_name(env)?;
            return Ok(vec![Place::of_engine(contexts::named(env, &what, &name)?)]);
        }
        None => {
            return of_context(name).map_err(|_| {
                bad(
                    format!("there is no builder `{name}` in {}", store.display()),
                    &known(env),
                )
            });
        }
    };
    let nodes = group.nodes.unwrap_or_default();
    if nodes.is_empty() {
        return Err(bad(format!("the builder `{name}` has no node"), &known(env)));
    }
    let each = nodes.iter().map(|node| {
        let place = match &*group.driver {
            "docker" => engine_of(env, what, &node.endpoint).map(Place::of_engine),
            "docker-container" => container(node).map(|address| Place::of_buildkit(address, None)),
            "kubernetes" => Ok(Place::of_buildkit(pod(node), None)),
            "remote" => Ok(remote(node, name)),
            other => Err(bad(
                format!("the builder `{name}` has the driver `{other}`, which is not supported"),
                DRIVERS,
            )),
        }?;
        let advice = match &*group.driver {
            "docker-container" | "kubernetes" => {
                format!("`docker buildx inspect --bootstrap {name}` starts it")
            }
            _ => String::new(),
        };
        Ok(Place {
            origin: origin.to_owned(),
            advice,
            node: Some(node.platforms()),
            ..place
        })
    });
    each.collect()
}

/// The kind of daemon that a driver has.
pub(crate) fn backend(places: &[Place]) -> Backend {
    places.first().map_or(Backend::Auto, |place| place.backend)
}

fn store(env: &Environment) -> Option<PathBuf> {
    match &env.buildx_config {
        Some(dir) => Some(dir.clone()),
        None => Some(env.docker_config.as_deref()?.parent()?.join("buildx")),
    }
}

/// What buildx lets be a name; it becomes one of a file.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// The names that may stand there, for errors.
fn known(env: &Environment) -> String {
    let dir = store(env).map(|store| store.join("instances"));
    let entries = dir.and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten();
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_name(name))
        .collect();
    names.push(DEFAULT.to_owned());
    names.sort();
    format!("a builder that `docker buildx ls` shows: {}", names.join(", "))
}

/// The engine that a node names: by its address, or as a context.
fn engine_of(env: &Environment, what: &str, endpoint: &str) -> Result<contexts::EngineAddress, InputError> {
    match endpoint {
        "" => contexts::current(env),
        address if address.contains("://") => Ok(contexts::EngineAddress {
            address: address.to_owned(),
            tls: None,
            origin: String::new(),
            named: true,
        }),
        name => contexts::named(env, what, name),
    }
}

/// The container of a node, through the Docker CLI and the engine or the context that the node names.
fn container(node: &Node) -> Result<String, InputError> {
    let address = format!("docker-container://{CONTAINER_PREFIX}{}", node.name);
    let key = match &*node.endpoint {
        "" => return Ok(address),
        endpoint if endpoint.contains("://") => "host",
        _ => "context",
    };
    Ok(format!("{address}?{}", query(&[(key, &node.endpoint)])))
}

/// The query of an address, written as a person would: what means nothing of its own in there stays as it is.
fn query(pairs: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    query
        .finish()
        .replace("%3A", ":")
        .replace("%2F", "/")
        .replace("%40", "@")
}

/// A pod of a node's deployment.
fn pod(node: &Node) -> String {
    let url = Url::parse(&node.endpoint)
        .ok()
        .filter(|url| url.scheme() == "kubernetes");
    let pair = |key: &str| {
        let pairs = url.as_ref()?.query_pairs();
        pairs
            .into_iter()
            .find(|(k, value)| k == key && !value.is_empty())
            .map(|(_, value)| value.into_owned())
    };
    // Kubernetes knows no underscore.
    let name = match &*node.name {
        "" => pair("deployment").unwrap_or_default(),
        name => name.replace('_', "-"),
    };
    let (namespace, config) = (node.option("namespace"), pair("kubeconfig"));
    let mut pairs = vec![("container", POD_CONTAINER)];
    pairs.extend(namespace.map(|namespace| ("namespace", namespace.as_str())));
    pairs.extend(config.as_deref().map(|config| ("kubeconfig", config)));
    format!("kube-pod://deployment/{name}?{}", query(&pairs))
}

/// A daemon that somebody else runs.
fn remote(node: &Node, name: &str) -> Place {
    let file = |key: &str| node.option(key).map(|path| Pem::File(path.into()));
    let (ca, cert, key) = (file("cacert"), file("cert"), file("key"));
    let server = node.option("servername");
    let tls = (ca.is_some() || cert.is_some() || key.is_some() || server.is_some()).then(|| {
        let mut tls = TlsOptions::new()
            .system_roots(tokens::system_roots)
            .origin(format!("the builder `{name}`"));
        (tls.ca, tls.cert, tls.key, tls.server_name) = (ca, cert, key, server.cloned());
        tls
    });
    Place::of_buildkit(node.endpoint.clone(), tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Environment) {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["instances", "defaults"] {
            fs::create_dir_all(dir.path().join("buildx").join(name)).expect("a directory");
        }
        let mut env = Environment::empty();
        env.docker_config = Some(dir.path().join("config.json"));
        (dir, env)
    }

    fn write(dir: &tempfile::TempDir, name: &str, text: &str) {
        fs::write(dir.path().join("buildx").join(name), text).expect("writable");
    }

    fn one(env: &Environment, name: &str) -> Vec<(String, Backend)> {
        let places = places(env, "--builder", "", name).expect(name);
        places.into_iter().map(|p| (p.address, p.backend)).collect()
    }

    #[test]
    fn each_driver_has_its_place() {
        let (dir, env) = home();
        for (name, text, address, backend) in [
            (
                "c",
                r#"{"Name":"c","Driver":"docker-container","Nodes":[{"Name":"c0","Endpoint":"unix:///var/run/docker.sock"}]}"#,
                "docker-container://buildx_buildkit_c0?host=unix:///var/run/docker.sock",
                Backend::Buildkitd,
            ),
            (
                "c2",
                r#"{"Name":"c2","Driver":"docker-container","Nodes":[{"Name":"c20","Endpoint":"far"}]}"#,
                "docker-container://buildx_buildkit_c20?context=far",
                Backend::Buildkitd,
            ),
            (
                "k",
                r#"{"Name":"k","Driver":"kubernetes","Nodes":[{"Name":"k_0","Endpoint":"kubernetes:///k?deployment=k_0&kubeconfig=%2Fhome%2Fme%2Fkube","DriverOpts":{"namespace":"builds"}}]}"#,
                "kube-pod://deployment/k-0?container=buildkitd&namespace=builds&kubeconfig=/home/me/kube",
                Backend::Buildkitd,
            ),
            (
                "k2",
                r#"{"Name":"k2","Driver":"kubernetes","Nodes":[{"Name":"k20","Endpoint":"kubernetes:///k2?kubeconfig=%2Fhome%2FJo+D%2Fa%26b"}]}"#,
                "kube-pod://deployment/k20?container=buildkitd&kubeconfig=/home/Jo+D/a%26b",
                Backend::Buildkitd,
            ),
            (
                "r",
                r#"{"Name":"r","Driver":"remote","Nodes":[{"Name":"r0","Endpoint":"tcp://h:1234","DriverOpts":{"cacert":"/ca"}}]}"#,
                "tcp://h:1234",
                Backend::Buildkitd,
            ),
            (
                "d",
                r#"{"Name":"d","Driver":"docker","Nodes":[{"Name":"d","Endpoint":"unix:///d.sock"}]}"#,
                "unix:///d.sock",
                Backend::Docker,
            ),
        ] {
            write(&dir, &format!("instances/{name}"), text);
            assert_eq!(one(&env, name), [(address.to_owned(), backend)]);
        }
        // Names are written in either case.
        assert_eq!(one(&env, "C2"), one(&env, "c2"));
        let tls = places(&env, "", "", "r")
            .expect("a place")
            .remove(0)
            .tls
            .expect("TLS");
        assert!(matches!(tls.ca, Some(Pem::File(path)) if path.as_os_str() == "/ca"));
        assert_eq!(one(&env, DEFAULT), [(DOCKER_SOCKET.to_owned(), Backend::Docker)]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let (dir, env) = home();
        write(
            &dir,
            "instances/cloud",
            r#"{"Name":"cloud","Driver":"cloud","Nodes":[{}]}"#,
        );
        write(
            &dir,
            "instances/none",
            r#"{"Name":"none","Driver":"remote","Nodes":null}"#,
        );
        write(&dir, "instances/torn", r#"{"Name":"#);
        for (name, why) in [
            (
                "cloud",
                "--builder: the builder `cloud` has the driver `cloud`, which is not supported",
            ),
            ("none", "--builder: the builder `none` has no node"),
            ("torn", "instances/torn: it is not what it should be: EOF"),
            ("away", "--builder: there is no builder `away` in "),
            ("../x", "--builder: a builder cannot be called `../x`"),
        ] {
            let error = places(&env, "--builder", "", name).expect_err(name);
            assert!(error.to_string().contains(why), "{error}");
        }
        let error = places(&env, "--builder", "", "away").expect_err("away");
        assert!(
            error.allowed.ends_with(": cloud, default, none, torn"),
            "{}",
            error.allowed
        );
    }

    #[test]
    fn a_choice_is_for_one_engine_or_for_all() {
        let (dir, mut env) = home();
        let current = |key: &str, global: bool| format!(r#"{{"Key":"{key}","Name":"b","Global":{global}}}"#);
        write(&dir, "current", &current(DOCKER_SOCKET, false));
        assert_eq!(chosen(&env).expect("read"), None, "it is not there");
        write(&dir, "instances/b", "{}");
        assert_eq!(chosen(&env).expect("read").as_deref(), Some("b"));
        env.docker_host = Some("tcp://h:1".to_owned());
        assert_eq!(chosen(&env).expect("read"), None);
        write(&dir, "current", &current(DOCKER_SOCKET, true));
        assert_eq!(chosen(&env).expect("read").as_deref(), Some("b"));
        write(&dir, "current", r#"{"Key":"tcp://h:1","Name":"","Global":false}"#);
        assert_eq!(chosen(&env).expect("read"), None);
        write(&dir, &format!("defaults/{}", contexts::hex("tcp://h:1")), "b");
        assert_eq!(chosen(&env).expect("read").as_deref(), Some("b"));
    }
}
