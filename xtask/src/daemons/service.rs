//! The table of everything that can be up or down, and what each needs.

use super::Place;
use super::docker::{ENGINES, Engine};
use super::endpoint::{ENDPOINTS, Endpoint};
use super::layout::Layout;
use super::{api, process, registry};
use crate::run::Result;

/// One thing that can be up or down.
pub(crate) enum Service {
    /// A dockerd.
    Engine(&'static Engine),
    /// The password-protected registry.
    Registry,
    /// A BuildKit endpoint in front of an engine.
    Endpoint(&'static Endpoint),
}

impl Service {
    /// All services; each needs only those before it.
    pub(crate) fn all() -> Vec<Service> {
        let mut all: Vec<Service> = ENGINES.iter().map(Service::Engine).collect();
        all.push(Service::Registry);
        all.extend(ENDPOINTS.iter().map(Service::Endpoint));
        all
    }

    /// The name on the command line.
    pub(crate) fn name(&self) -> &'static str {
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
            Service::Registry => Some(registry::PUSHER.name),
            Service::Endpoint(endpoint) => Some(endpoint.engine.name),
        }
    }

    /// Whether its process runs.
    pub(crate) fn is_running(&self, layout: &Layout) -> bool {
        process::running(layout, self.name()).is_some()
    }

    /// Starts it; does not wait for an engine, so that several start at once.
    pub(crate) fn start(&self, layout: &Layout) -> Result<()> {
        eprintln!("starting {} ...", self.label());
        match self {
            Service::Engine(engine) => engine.start(layout),
            Service::Registry => registry::start(layout),
            Service::Endpoint(endpoint) => endpoint.start(layout),
        }
    }

    /// Stops it and removes what it kept.
    pub(crate) fn remove(&self, layout: &Layout) -> Result<()> {
        match self {
            Service::Engine(engine) => engine.remove(layout),
            Service::Registry => registry::remove(layout),
            Service::Endpoint(endpoint) => endpoint.remove(layout),
        }
    }

    /// What the running service is and where it listens.
    pub(crate) fn describe(&self, layout: &Layout) -> String {
        match self {
            Service::Engine(engine) => format!("{}  {}", engine.version(layout), engine.address(layout)),
            Service::Registry => registry::address(layout).unwrap_or_default(),
            Service::Endpoint(endpoint) => endpoint.address(layout).unwrap_or_default(),
        }
    }

    /// The version of the daemon that does the work, for what tests run on.
    pub(crate) fn version(&self, layout: &Layout) -> Option<String> {
        match self {
            Service::Engine(engine) => Some(engine.version(layout)),
            Service::Registry => None,
            Service::Endpoint(endpoint) => Some(format!("in front of {}", endpoint.engine.version(layout))),
        }
    }

    /// Where it builds, if it does.
    pub(crate) fn place(&self, layout: &Layout) -> Option<Place> {
        match self {
            Service::Engine(engine) => Some(self.place_at(engine.address(layout), engine.address(layout))),
            Service::Registry => None,
            Service::Endpoint(endpoint) => {
                Some(self.place_at(endpoint.address(layout)?, endpoint.engine.address(layout)))
            }
        }
    }

    /// Where it builds, if the variables of live tests say that it does.
    pub(crate) fn named_place(&self) -> Option<Place> {
        let address = |name: &str| std::env::var(name).ok().filter(|address| !address.is_empty());
        match self {
            Service::Engine(engine) => {
                let found = address(&engine.variable())?;
                Some(self.place_at(found.clone(), found))
            }
            Service::Registry => None,
            Service::Endpoint(endpoint) => {
                let engine = address(&behind(endpoint))?;
                Some(self.place_at(address(endpoint.variable)?, engine))
            }
        }
    }

    fn place_at(&self, address: String, engine: String) -> Place {
        let version = version_at(&engine);
        let (backend, version) = match self {
            Service::Endpoint(_) => ("buildkitd", format!("in front of {version}")),
            _ => ("docker", version),
        };
        Place {
            name: self.name(),
            version,
            backend,
            address,
            engine,
        }
    }

    /// The variables that tell live tests of the running service.
    pub(crate) fn variables(&self, layout: &Layout) -> Vec<(String, String)> {
        match self {
            Service::Engine(engine) => vec![(engine.variable(), engine.address(layout))],
            Service::Registry => registry::address(layout)
                .map(registry::variables)
                .unwrap_or_default(),
            Service::Endpoint(endpoint) => endpoint
                .address(layout)
                .map(|address| {
                    vec![
                        (endpoint.variable.to_owned(), address),
                        (behind(endpoint), endpoint.engine.address(layout)),
                    ]
                })
                .unwrap_or_default(),
        }
    }

    fn label(&self) -> String {
        match self {
            Service::Engine(engine) => format!("dockerd {}", engine.name),
            Service::Registry => "the registry".into(),
            Service::Endpoint(endpoint) => {
                format!("{} in front of dockerd {}", endpoint.name, endpoint.engine.name)
            }
        }
    }
}

impl Engine {
    /// The version that the running engine states.
    pub(crate) fn version(&self, layout: &Layout) -> String {
        version_at(&self.address(layout))
    }
}

/// The version that the engine at `address` states.
fn version_at(address: &str) -> String {
    let part = |key| api::version(address, key).unwrap_or_else(|| "?".into());
    format!("Docker {}, API {}", part("Version"), part("ApiVersion"))
}

/// The variable that names the engine behind an endpoint.
fn behind(endpoint: &Endpoint) -> String {
    format!("{}_DOCKER", endpoint.variable)
}

/// The services called `names`, with all that they need if asked, or all of them, in the order in which they start.
pub(crate) fn select(names: &[String], with_needs: bool) -> Result<Vec<Service>> {
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
    fn the_variables_have_their_documented_names() {
        let layout = Layout::new();
        let names: Vec<String> = ENGINES.iter().map(Engine::variable).collect();
        let expected = ["20_10", "26_1", "28_5", "28_5_CONTAINERD"].map(|v| format!("BK_LIVE_DOCKER_{v}"));
        assert_eq!(names, expected);
        let endpoint: Vec<String> = Service::Endpoint(&ENDPOINTS[0])
            .variables(&layout)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(
            endpoint,
            ["BK_LIVE_BUILDKIT_UNIX", "BK_LIVE_BUILDKIT_UNIX_DOCKER"]
        );
    }
}
