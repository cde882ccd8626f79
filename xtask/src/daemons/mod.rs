//! `cargo xtask daemons`: the real daemons that live tests talk to.
//!
//! Everything comes from Debian packages, unpacked and never installed; a daemon of the system is never touched. The
//! daemons outlive this program until `down`, which also works after any of them crashed. `up` may be called again at
//! any time: it starts what is missing.

mod docker;
mod endpoint;
mod http;
mod layout;
mod packages;
mod process;
mod registry;

use crate::run::Result;
use docker::{ENGINES, Engine};
use endpoint::{ENDPOINTS, Endpoint};
use layout::Layout;
use std::fs;
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

/// The job itself: `up`, `down` or `status`, and the names of services, none for all.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let usage = "usage: cargo xtask daemons up|down|status [NAME...]";
    let (verb, names) = arguments.split_first().ok_or(usage)?;
    let layout = Layout::new();
    match verb.as_str() {
        "up" => {
            let _lock = Lock::take(&layout)?;
            up(&layout, names)?;
            for (name, value) in variables(&layout) {
                println!("export {name}={value}");
            }
        }
        "down" => {
            let _lock = Lock::take(&layout)?;
            down(&layout, names)?;
        }
        "status" => status(&layout, names)?,
        _ => return Err(usage.into()),
    }
    Ok(())
}

/// One thing that can be up or down.
enum Service {
    Engine(&'static Engine),
    Registry,
    Endpoint(&'static Endpoint),
}

impl Service {
    /// All services; each needs only those before it.
    fn all() -> Vec<Service> {
        let mut all: Vec<Service> = ENGINES.iter().map(Service::Engine).collect();
        all.push(Service::Registry);
        all.extend(ENDPOINTS.iter().map(Service::Endpoint));
        all
    }

    fn name(&self) -> &'static str {
        match self {
            Service::Engine(engine) => engine.name,
            Service::Registry => registry::NAME,
            Service::Endpoint(endpoint) => endpoint.name,
        }
    }

    /// The service that must run for this one to be of use. The registry needs an engine to push the base image.
    fn needs(&self) -> Option<&'static str> {
        match self {
            Service::Engine(_) => None,
            Service::Registry => Some(ENGINES[2].name),
            Service::Endpoint(endpoint) => Some(endpoint.engine.name),
        }
    }
}

/// The services called `names` with all they need, or all of them, in the order in which they start.
fn select(names: &[String], with_needs: bool) -> Result<Vec<Service>> {
    let all = Service::all();
    let known: Vec<&str> = all.iter().map(Service::name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("there is no daemon {unknown:?}; there are {}", known.join(", ")).into());
    }
    let named = |service: &&Service| names.iter().any(|name| name == service.name());
    let mut wanted: Vec<&str> = all.iter().filter(named).map(Service::name).collect();
    if with_needs {
        wanted.extend(all.iter().filter(named).filter_map(Service::needs));
    }
    Ok(all
        .into_iter()
        .filter(|service| names.is_empty() || wanted.contains(&service.name()))
        .collect())
}

/// Starts what is not running of `names` and waits until all of it answers.
fn up(layout: &Layout, names: &[String]) -> Result<()> {
    let services = select(names, true)?;
    require_root()?;
    for dir in ["state", "log", "data", "bin", "cli/cli-plugins"] {
        fs::create_dir_all(layout.base().join(dir))?;
    }
    let mut suites = vec![packages::BOOKWORM, packages::FORKY];
    suites.extend(services.iter().filter_map(|service| match service {
        Service::Engine(engine) => Some(engine.suite),
        _ => None,
    }));
    packages::ensure(layout, &suites)?;
    let bookworm = layout.packages(packages::BOOKWORM);
    link(
        &bookworm.join("usr/bin/tini-static"),
        &layout.base().join("bin/docker-init"),
    )?;
    link(&bookworm.join("usr/sbin/runc"), &layout.base().join("bin/runc"))?;
    let plugin = layout
        .packages(packages::FORKY)
        .join("usr/libexec/docker/cli-plugins/docker-buildx");
    link(&plugin, &layout.cli_config().join("cli-plugins/docker-buildx"))?;

    let missing = |service: &&Service| process::running(layout, service.name()).is_none();
    let engines = services.iter().filter_map(|s| match s {
        Service::Engine(engine) => Some(*engine),
        _ => None,
    });
    for service in services.iter().filter(missing) {
        if let Service::Engine(engine) = service {
            eprintln!("starting dockerd {} ...", engine.name);
            engine.start(layout)?;
        }
    }
    let mut pusher = None;
    for engine in engines {
        engine.wait(layout)?;
        // The newest with graph drivers; any other would do.
        pusher = if engine.name == ENGINES[2].name {
            Some(engine)
        } else {
            pusher.or(Some(engine))
        };
    }
    for service in services.iter() {
        match service {
            Service::Engine(_) => {}
            Service::Registry => {
                if missing(&service) {
                    eprintln!("starting the registry ...");
                    registry::start(layout)?;
                }
                registry::push_base(layout, pusher.ok_or("no engine can push the base image")?)?;
            }
            Service::Endpoint(endpoint) => {
                if missing(&service) {
                    eprintln!(
                        "starting {} in front of dockerd {} ...",
                        endpoint.name, endpoint.engine.name
                    );
                    endpoint.start(layout)?;
                }
            }
        }
    }
    write_env(layout)
}

/// Stops `names`, or everything; goes on after a failure and reports the first.
fn down(layout: &Layout, names: &[String]) -> Result<()> {
    let mut first = Ok(());
    for service in select(names, false)?.iter().rev() {
        let outcome = match service {
            Service::Engine(engine) => engine.remove(layout),
            Service::Registry => registry::remove(layout),
            Service::Endpoint(endpoint) => endpoint.remove(layout),
        };
        if let Err(error) = outcome {
            eprintln!("{}: {error}", service.name());
            first = first.and(Err(error));
        }
    }
    write_env(layout)?;
    if names.is_empty() && first.is_ok() {
        remove_dir(layout.run())?;
    }
    first
}

/// One line for each service; fails when one of those named is not up.
fn status(layout: &Layout, names: &[String]) -> Result<()> {
    let mut down = Vec::new();
    for service in select(names, false)? {
        let name = service.name();
        let state = match process::running(layout, name) {
            Some(pid) => format!("up    pid {pid}  {}", describe(layout, &service)),
            None => "down".to_owned(),
        };
        if state == "down" {
            down.push(name);
        }
        println!("{name:<18} {state}");
    }
    if names.is_empty() || down.is_empty() {
        Ok(())
    } else {
        Err(format!("down: {}", down.join(", ")).into())
    }
}

fn describe(layout: &Layout, service: &Service) -> String {
    match service {
        Service::Engine(engine) => {
            let socket = engine.socket(layout);
            let part = |key| http::version(&socket, key).unwrap_or_else(|| "?".into());
            format!(
                "Docker {} (API {})  unix://{}",
                part("Version"),
                part("ApiVersion"),
                socket.display()
            )
        }
        Service::Registry => registry::address(layout).unwrap_or_default(),
        Service::Endpoint(endpoint) => endpoint.address(layout).unwrap_or_default(),
    }
}

/// The variables of all running services, which is what live tests read.
pub(crate) fn variables(layout: &Layout) -> Vec<(String, String)> {
    let mut list: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: String| list.push((name.to_owned(), value));
    let url = |engine: &Engine| format!("unix://{}", engine.socket(layout).display());
    let mut any = false;
    for service in Service::all() {
        if process::running(layout, service.name()).is_none() {
            continue;
        }
        any = true;
        match service {
            Service::Engine(engine) => add(&engine.variable(), url(engine)),
            Service::Registry => {
                let Some(address) = registry::address(layout) else {
                    continue;
                };
                add("BK_LIVE_REGISTRY_BASE", registry::base_image(&address));
                add("BK_LIVE_REGISTRY", address);
                add("BK_LIVE_REGISTRY_USER", registry::USER.into());
                add("BK_LIVE_REGISTRY_PASSWORD", registry::PASSWORD.into());
            }
            Service::Endpoint(endpoint) => {
                let Some(address) = endpoint.address(layout) else {
                    continue;
                };
                add(endpoint.variable, address);
                add(&format!("{}_DOCKER", endpoint.variable), url(endpoint.engine));
            }
        }
    }
    if any {
        add(
            "BK_LIVE_BUSYBOX",
            docker::busybox_path(layout).display().to_string(),
        );
        let docker = layout.packages(packages::FORKY).join("usr/bin/docker");
        add("BK_LIVE_DOCKER_CLI", docker.display().to_string());
        add(
            "BK_LIVE_DOCKER_CLI_CONFIG",
            layout.cli_config().display().to_string(),
        );
    }
    list
}

fn write_env(layout: &Layout) -> Result<()> {
    if layout.base().exists() {
        let lines: String = variables(layout)
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        fs::write(layout.env_file(), lines)?;
    }
    Ok(())
}

fn require_root() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|l| l.split_whitespace().nth(1));
    if effective == Some("0") {
        Ok(())
    } else {
        Err("the daemons need root".into())
    }
}

/// Removes a directory tree in which nothing is mounted; one that is not there is fine.
fn remove_dir(dir: &Path) -> Result<()> {
    process::unmount_below(&[dir.to_path_buf()])?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", dir.display()).into())
        }
        _ => Ok(()),
    }
}

fn link(target: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(std::os::unix::fs::symlink(target, link)?)
}

/// One `up` or `down` at a time for each workspace: a listener with an abstract name, which the kernel takes back
/// however this program ends. Whoever waits is connected to it and learns of the end by the connection's.
struct Lock {
    _listener: UnixListener,
}

impl Lock {
    fn take(layout: &Layout) -> Result<Lock> {
        let address = SocketAddr::from_abstract_name(layout.run().as_os_str().as_encoded_bytes())?;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Ok(Lock { _listener: listener }),
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    if let Ok(mut holder) = UnixStream::connect_addr(&address) {
                        eprintln!("waiting for another `cargo xtask daemons` ...");
                        // Nothing is ever sent: any outcome means that the holder is gone.
                        let _ = holder.read(&mut [0]);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_brings_what_it_needs() {
        let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let of = |list: &[&str], needs| -> Vec<&str> {
            select(&names(list), needs)
                .unwrap()
                .iter()
                .map(Service::name)
                .collect()
        };
        assert_eq!(of(&["buildkit-unix"], true), ["28.5-containerd", "buildkit-unix"]);
        assert_eq!(of(&["registry", "20.10"], true), ["20.10", "28.5", "registry"]);
        assert_eq!(of(&["registry"], false), ["registry"]);
        assert_eq!(of(&[], true).len(), Service::all().len());
        assert!(select(&names(&["19.03"]), true).is_err());
    }

    #[test]
    fn the_variables_of_the_engines_have_their_documented_names() {
        let names: Vec<String> = ENGINES.iter().map(Engine::variable).collect();
        let expected = ["20_10", "26_1", "28_5", "28_5_CONTAINERD"].map(|v| format!("BK_LIVE_DOCKER_{v}"));
        assert_eq!(names, expected);
    }
}
