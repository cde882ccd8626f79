//! What a request can ask for, on live daemons: each option does there what it says, or is refused by name before
//! anything is sent. The addresses come from the environment; a daemon that is not there is said loudly.
#![cfg(all(feature = "docker", feature = "buildkitd", unix))]

#[path = "request/caches.rs"]
mod caches;
#[path = "request/contexts.rs"]
mod contexts;
#[path = "request/images.rs"]
mod images;
#[path = "request/layouts.rs"]
mod layouts;
#[path = "request/registries.rs"]
mod registries;
#[path = "request/steps.rs"]
mod steps;

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bk_client::{
    Backend, BuildError, BuildEvent, BuildOutcome, BuildRequest, Client, ConnectOptions, DockerRoute,
    Environment, EventSink, ImageBuilder,
};
use bk_testkit::{
    conformance::{OneRegistry, fresh_tag},
    live::{Daemon, Engine, Route, Target},
};

/// How long one build may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A daemon in turn.
struct Place<'a> {
    target: &'a Target,
    client: Client,
    engine: Engine,
    tag: String,
}

/// What a build did.
struct Did {
    result: Result<BuildOutcome, BuildError>,
    /// What its steps wrote.
    output: String,
    /// Names of the steps that came from the cache.
    cached: Vec<String>,
}

/// Runs `test` on each place that is there, one after the other.
fn on(places: &[(Daemon, Route)], name: &str, test: impl AsyncFn(&Place<'_>)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    for (daemon, route) in places {
        let Some(target) = Target::find(*daemon, *route, name) else {
            continue;
        };
        runtime.block_on(async {
            let _turn = target.turn().await;
            let place = Place {
                client: connect(&target).await,
                engine: Engine::connect(&target.docker).await.expect("the engine behind"),
                tag: fresh_tag("request"),
                target: &target,
            };
            test(&place).await;
            place.engine.remove_image(&place.tag).await.expect("removable");
        });
        target.passed(name);
    }
}

async fn connect(target: &Target) -> Client {
    let options = options(target, &target.address).credentials(OneRegistry::new(target.base.clone()));
    Box::pin(bk_client::connect_with(options)).await.expect("connect")
}

/// How the daemon is reached by its route at `address`, with nothing from the environment.
fn options(target: &Target, address: &str) -> ConnectOptions {
    let options = ConnectOptions::new()
        .environment(Environment::empty())
        .addr(address);
    let docker = |route| options.clone().backend(Backend::Docker).docker_route(route);
    match target.route {
        Route::Grpc => docker(DockerRoute::Grpc),
        Route::Build => docker(DockerRoute::Build),
        Route::Tar => docker(DockerRoute::Tar),
        _ => options.clone().backend(Backend::Buildkitd),
    }
}

impl Place<'_> {
    async fn build(&self, request: BuildRequest) -> Did {
        let seen = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let keep = Arc::clone(&seen);
        let events = EventSink::from_fn(move |event| {
            let mut seen = keep.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                BuildEvent::Log(chunk) => seen.0.extend_from_slice(&chunk.data),
                BuildEvent::VertexCached(v) => seen.1.push(v.name.clone()),
                _ => {}
            }
        });
        let result = tokio::time::timeout(LIMIT, self.client.build(request, events)).await;
        let result = result.unwrap_or_else(|_| panic!("{}: no end within {LIMIT:?}", self.target.name()));
        let (output, cached) = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        Did {
            result,
            output: String::from_utf8_lossy(&output).into_owned(),
            cached,
        }
    }

    /// A build that must succeed.
    async fn built(&self, request: BuildRequest) -> (BuildOutcome, Did) {
        let mut did = self.build(request).await;
        let result = std::mem::replace(&mut did.result, Err(BuildError::Cancelled));
        let name = self.target.name();
        match result {
            Ok(outcome) => (outcome, did),
            Err(e) => panic!("{name}: {}\n{}", bk_testkit::events::chain(&e), did.output),
        }
    }

    /// A build that must fail, and how.
    async fn failed(&self, request: BuildRequest) -> BuildError {
        match self.build(request).await.result {
            Err(e) => e,
            Ok(_) => panic!("{}: it succeeded", self.target.name()),
        }
    }

    fn is_old(&self) -> bool {
        self.target.daemon == Daemon::Docker20_10
    }
}

/// A context with a busybox that is its own shell, and `rest` as the Dockerfile behind it.
fn context(target: &Target, rest: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::copy(&target.busybox, dir.path().join("busybox")).expect("a busybox");
    dockerfile(dir.path(), rest);
    dir
}

fn dockerfile(dir: &Path, rest: &str) {
    let text = format!("FROM scratch AS base\nCOPY busybox /bin/sh\nCOPY busybox /bin/busybox\n{rest}");
    fs::write(dir.join("Dockerfile"), text).expect("writable");
}
