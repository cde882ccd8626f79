//! The client against real daemons: the conformance suite on every route of every daemon, and what only a real daemon
//! can prove. Each test says loudly when its daemon is not there; `BK_LIVE_REQUIRED=1` makes that a failure.
//!
//! Tests are named by route first and daemon second: neighbours in libtest's order then run on different daemons, while
//! tests on one daemon take turns.
#![cfg(all(feature = "docker", feature = "buildkitd", unix))]

#[path = "live/access.rs"]
mod access;
#[path = "live/call.rs"]
mod call;
#[path = "live/exporters.rs"]
mod exporters;
#[path = "live/harness.rs"]
mod harness;
#[path = "live/health.rs"]
mod health;
#[path = "live/inspected.rs"]
mod inspected;
#[path = "live/many.rs"]
mod many;
#[path = "live/results.rs"]
mod results;
#[path = "live/set.rs"]
mod set;
#[path = "live/special.rs"]
mod special;
#[path = "live/suite.rs"]
mod suite;
#[path = "live/traced.rs"]
mod traced;

use std::time::Duration;

use bk_client::{Backend, Client, ConnectOptions, DockerRoute, Environment};
use bk_testkit::{
    front::Front,
    live::{Route, Target},
};

/// Nothing but the thousand builds takes longer on two cores, waiting for the daemon's turn not counted.
const LIMIT: Duration = Duration::from_secs(600);

/// Fails the test, instead of hanging it, when `work` does not end in time.
async fn bounded<T>(what: &str, limit: Duration, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| panic!("{what} did not end within {limit:?}"))
}

/// A client on a target, and what must live as long as it.
struct Connected {
    client: Client,
    _front: Option<Front>,
}

async fn connect(target: &Target) -> Connected {
    let front = (target.route == Route::H2c).then(|| Front::start(&target.docker).expect("front"));
    let address = front
        .as_ref()
        .map_or_else(|| target.address.clone(), Front::address);
    Connected {
        client: connect_to(&address, target.route).await,
        _front: front,
    }
}

/// Connects to an address that is reached by `route`, whatever stands before the daemon.
async fn connect_to(address: &str, route: Route) -> Client {
    let options = ConnectOptions::new()
        .environment(Environment::empty())
        .addr(address);
    let docker = |route| options.clone().backend(Backend::Docker).docker_route(route);
    let options = match route {
        Route::H2c => docker(DockerRoute::H2c),
        Route::Grpc => docker(DockerRoute::Grpc),
        Route::Build => docker(DockerRoute::Build),
        Route::Tar => docker(DockerRoute::Tar),
        Route::Direct => options.clone().backend(Backend::Buildkitd),
    };
    let connected = bounded(
        "connecting",
        Duration::from_secs(60),
        Box::pin(bk_client::connect_with(options)),
    )
    .await;
    connected.unwrap_or_else(|e| panic!("{address}: {}", bk_testkit::events::chain(&e)))
}
