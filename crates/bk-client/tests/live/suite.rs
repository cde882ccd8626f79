//! The conformance suite on every target.

use bk_testkit::{
    conformance::{self, Case, Table, Verdict},
    live::{Daemon, Route, Target, say},
};

use crate::{LIMIT, bounded, connect, harness::LiveHarness};

async fn conforms(daemon: Daemon, route: Route) {
    let Some(target) = Target::find(daemon, route, "conformance") else {
        return;
    };
    let _turn = target.turn().await;
    let connected = connect(&target).await;
    let harness = LiveHarness::new(&target).await;
    let suite = conformance::run(&connected.client, &harness, &Case::ALL);
    let report = bounded("the suite", LIMIT, suite).await;
    let failures = report.failures();
    for (case, verdict) in report.verdicts() {
        if !matches!(verdict, Verdict::Failed(_)) {
            target.record(case.feature(), &verdict.support());
        }
    }
    say(&Table::add_to_process(report).to_string());
    if let Some(failures) = failures {
        panic!("{failures}");
    }
    target.passed("conformance");
}

/// One test for each daemon of a route, in a module named like the route.
macro_rules! route {
    ($module:ident, $route:expr, $($test:ident => $daemon:expr),+ $(,)?) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    conforms($daemon, $route).await;
                }
            )+
        }
    };
}

route!(grpc, Route::Grpc,
    docker_20_10 => Daemon::Docker20_10,
    docker_26_1 => Daemon::Docker26_1,
    docker_28_5 => Daemon::Docker28_5,
    docker_28_5_containerd => Daemon::Docker28_5Containerd,
);
route!(build, Route::Build,
    docker_20_10 => Daemon::Docker20_10,
    docker_26_1 => Daemon::Docker26_1,
    docker_28_5 => Daemon::Docker28_5,
    docker_28_5_containerd => Daemon::Docker28_5Containerd,
);
route!(tar, Route::Tar,
    docker_20_10 => Daemon::Docker20_10,
    docker_26_1 => Daemon::Docker26_1,
    docker_28_5 => Daemon::Docker28_5,
    docker_28_5_containerd => Daemon::Docker28_5Containerd,
);
// No packaged engine is new enough for this route by itself: a front raises the version that these tell and joins the
// HTTP/2 connections to their `/grpc`, so that a real BuildKit answers.
route!(h2c, Route::H2c,
    docker_20_10 => Daemon::Docker20_10,
    docker_26_1 => Daemon::Docker26_1,
    docker_28_5 => Daemon::Docker28_5,
    docker_28_5_containerd => Daemon::Docker28_5Containerd,
);
route!(direct, Route::Direct,
    buildkit_tcp => Daemon::BuildkitTcp,
    buildkit_tcp_26_1 => Daemon::BuildkitTcp26_1,
    buildkit_unix => Daemon::BuildkitUnix,
);
