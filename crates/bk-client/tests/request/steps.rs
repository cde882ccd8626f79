//! What steps see.

use bk_client::{BuildError, BuildRequest, Entitlement, HostAddress, Network, SourcePolicy};
use bk_testkit::live::{Daemon, Route};

use crate::{context, dockerfile, on};

const PLACES: [(Daemon, Route); 6] = [
    (Daemon::Docker20_10, Route::Grpc),
    (Daemon::Docker20_10, Route::Build),
    (Daemon::Docker28_5, Route::Grpc),
    (Daemon::Docker28_5, Route::Build),
    (Daemon::Docker28_5, Route::Tar),
    (Daemon::BuildkitUnix, Route::Direct),
];

/// Rows of the table of what works where.
const SHM: &str = "`--shm-size`, `--ulimit`";
const GATEWAY: &str = "`--add-host NAME:host-gateway`";
const CGROUP: &str = "`--cgroup-parent`";
const POLICY: &str = "Source policies (`--source-policy-file`)";

#[test]
fn hosts_and_networks_are_as_asked() {
    on(
        &PLACES,
        "request::hosts_and_networks_are_as_asked",
        async |place| {
            let rest = "RUN busybox cat /etc/hosts; echo \"devices: $(busybox ls /sys/class/net)\"\n";
            let dir = context(place.target, rest);
            let address = "192.0.2.7".parse().expect("an address");
            let request = BuildRequest::new(dir.path())
                .tag(&place.tag)
                .no_cache(true)
                .add_host("added.example", HostAddress::Ip(address))
                .network(Network::None);
            let (_, did) = place.built(request).await;
            let name = place.target.name();
            let host = did
                .output
                .lines()
                .any(|l| l.split_whitespace().eq(["192.0.2.7", "added.example"]));
            assert!(host, "{name}: {}", did.output);
            assert!(did.output.contains("devices: lo\n"), "{name}: {}", did.output);
            place.target.supports("`--add-host`, `--network`");
        },
    );
}

#[test]
fn shared_memory_and_limits_are_as_asked() {
    on(
        &PLACES,
        "request::shared_memory_and_limits_are_as_asked",
        async |place| {
            let dir = context(
                place.target,
                "RUN echo \"shm: $(busybox df -k /dev/shm | busybox tail -n 1)\"; echo \"files: $(ulimit -n)\"\n",
            );
            let request = BuildRequest::new(dir.path())
                .tag(&place.tag)
                .no_cache(true)
                .shm_size(8 << 20)
                .ulimit("nofile=321:400".parse().expect("a limit"));
            if place.is_old() {
                let error = place.failed(request).await;
                assert!(matches!(error, BuildError::TooOld(_)), "{error:?}");
                let text = error.to_string();
                assert!(text.starts_with("--shm-size needs BuildKit 0.10"), "{text}");
                assert!(
                    text.contains("docker 20.10") && text.ends_with("BuildKit 0.8"),
                    "{text}"
                );
                place.target.refuses(SHM, &text);
                return;
            }
            let (_, did) = place.built(request).await;
            let shm = did
                .output
                .lines()
                .any(|l| l.starts_with("shm:") && l.split_whitespace().any(|w| w == "8192"));
            assert!(shm, "{}: {}", place.target.name(), did.output);
            assert!(
                did.output.contains("files: 321\n"),
                "{}: {}",
                place.target.name(),
                did.output
            );
            place.target.supports(SHM);
        },
    );
}

#[test]
fn the_machine_of_the_engine_has_a_name() {
    on(
        &PLACES,
        "request::the_machine_of_the_engine_has_a_name",
        async |place| {
            let dir = context(place.target, "RUN busybox grep engine.example /etc/hosts\n");
            let request = BuildRequest::new(dir.path())
                .tag(&place.tag)
                .no_cache(true)
                .add_host("engine.example", HostAddress::Gateway);
            if place.is_old() && place.target.route == Route::Grpc {
                let error = place.failed(request).await.to_string();
                assert!(error.starts_with("--add-host: `host-gateway`"), "{error}");
                place.target.refuses(GATEWAY, &error);
                return;
            }
            let (_, did) = place.built(request).await;
            let line = did.output.lines().find(|l| l.contains("engine.example"));
            let address = line.and_then(|l| l.split_whitespace().next()).unwrap_or_default();
            assert!(
                address.parse::<std::net::IpAddr>().is_ok(),
                "{}: {}",
                place.target.name(),
                did.output
            );
            place.target.supports(GATEWAY);
        },
    );
}

#[test]
fn one_stage_runs_again() {
    let places = [
        (Daemon::Docker20_10, Route::Grpc),
        (Daemon::Docker28_5, Route::Grpc),
        (Daemon::BuildkitUnix, Route::Direct),
    ];
    on(&places, "request::one_stage_runs_again", async |place| {
        let dir = context(place.target, "");
        dockerfile(
            dir.path(),
            &format!(
                "FROM base AS one\nRUN echo one {0} > /one\nFROM base AS two\nRUN echo two {0} > /two\n\
                 FROM base\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
                place.tag
            ),
        );
        let request = BuildRequest::new(dir.path()).tag(&place.tag);
        place.built(request.clone()).await;
        let (_, did) = place.built(request.no_cache_filter("two")).await;
        let cached = |word: &str| did.cached.iter().any(|n| n.contains(&format!("RUN echo {word}")));
        assert!(
            cached("one") && !cached("two"),
            "{}: {:?}",
            place.target.name(),
            did.cached
        );
        place.target.supports("`--no-cache-filter`");
    });
}

#[test]
fn rules_for_sources_hold() {
    let places = [
        (Daemon::Docker20_10, Route::Grpc),
        (Daemon::Docker26_1, Route::Grpc),
        (Daemon::Docker28_5, Route::Grpc),
        (Daemon::BuildkitUnix, Route::Direct),
    ];
    on(&places, "request::rules_for_sources_hold", async |place| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(
            dir.path().join("Dockerfile"),
            format!("FROM {}\n", place.target.base.image),
        )
        .expect("writable");
        let policy = br#"{"rules": [{"action": "DENY", "selector": {"identifier": "docker-image://*"}}]}"#;
        let policy = SourcePolicy::from_json(policy).expect("a policy");
        let request = BuildRequest::new(dir.path())
            .tag(&place.tag)
            .source_policy(policy);
        let error = place.failed(request).await;
        let text = bk_testkit::events::chain(&error);
        if place.is_old() {
            assert!(matches!(error, BuildError::TooOld(_)), "{text}");
            place.target.refuses(POLICY, &text);
        } else {
            assert!(
                text.contains("denied by policy"),
                "{}: {text}",
                place.target.name()
            );
            place.target.supports(POLICY);
        }
    });
}

#[test]
fn what_the_daemon_does_not_permit_is_refused() {
    let places = [
        (Daemon::Docker20_10, Route::Grpc),
        (Daemon::Docker28_5, Route::Grpc),
        (Daemon::BuildkitUnix, Route::Direct),
    ];
    on(
        &places,
        "request::what_the_daemon_does_not_permit_is_refused",
        async |place| {
            let dir = context(place.target, "");
            let request = BuildRequest::new(dir.path())
                .tag(&place.tag)
                .allow(Entitlement::SecurityInsecure);
            let error = bk_testkit::events::chain(&place.failed(request).await);
            assert!(
                error.contains("security.insecure"),
                "{}: {error}",
                place.target.name()
            );
            // The daemon's own network is permitted everywhere.
            let host = BuildRequest::new(dir.path())
                .tag(&place.tag)
                .network(Network::Host);
            place.built(host).await;
            place
                .target
                .supports("`--allow`: what is not permitted is refused");
        },
    );
}

#[test]
fn steps_run_in_the_group_that_was_asked_for() {
    let places = [
        (Daemon::Docker20_10, Route::Grpc),
        (Daemon::Docker28_5, Route::Grpc),
        (Daemon::Docker28_5, Route::Build),
        (Daemon::BuildkitUnix, Route::Direct),
    ];
    on(
        &places,
        "request::steps_run_in_the_group_that_was_asked_for",
        async |place| {
            let dir = context(
                place.target,
                "RUN echo \"group: $(busybox grep . /proc/self/cgroup)\"; busybox cat /proc/self/mountinfo\n",
            );
            let mut request = BuildRequest::new(dir.path()).tag(&place.tag).no_cache(true);
            request.steps.cgroup_parent = Some("/bk-asked-for".to_owned());
            if place.is_old() {
                let error = place.failed(request).await;
                assert!(matches!(error, BuildError::TooOld(_)), "{error:?}");
                place.target.refuses(CGROUP, &error.to_string());
                return;
            }
            if place.target.route == Route::Build {
                let text = place.failed(request).await.to_string();
                assert!(text.starts_with("--cgroup-parent: "), "{text}");
                place.target.refuses(CGROUP, &text);
                return;
            }
            let (_, did) = place.built(request).await;
            let name = place.target.name();
            assert!(did.output.contains("bk-asked-for"), "{name}: {}", did.output);
            place.target.supports(CGROUP);
        },
    );
}

#[test]
fn steps_see_the_proxies() {
    on(&PLACES, "request::steps_see_the_proxies", async |place| {
        let dir = context(
            place.target,
            "RUN echo \"proxy: $HTTP_PROXY $no_proxy\"; busybox env\n",
        );
        let request = BuildRequest::new(dir.path())
            .tag(&place.tag)
            .no_cache(true)
            .build_arg("HTTP_PROXY", "http://proxy.example:3128")
            .build_arg("no_proxy", "localhost");
        let (outcome, did) = place.built(request).await;
        let name = place.target.name();
        let wanted = "proxy: http://proxy.example:3128 localhost\n";
        assert!(did.output.contains(wanted), "{name}: {}", did.output);
        // They are known to the steps and leave no trace in the image.
        assert!(outcome.image_id.is_some() || place.target.route == Route::Direct);
        let ran = place
            .engine
            .run(&place.tag, &["/bin/busybox", "env"])
            .await
            .expect("it runs");
        assert!(!ran.stdout.contains("proxy.example"), "{name}: {}", ran.stdout);
        place.target.supports("Proxies for steps");
    });
}
