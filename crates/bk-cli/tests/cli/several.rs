//! Several addresses: which daemon a build goes to, what is said of those that do not answer, and the header for balancers.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bk_client::rendezvous;
use bk_testkit::{
    fake::{FakeDaemon, Script},
    front::Front,
    live::{Daemon, Route, Target},
};

use super::{bk, context, fake::GOOD, run};

fn daemons(count: usize) -> Vec<FakeDaemon> {
    (0..count).map(|_| super::fake::fake(Script::healthy())).collect()
}

/// `bk build` on these addresses.
fn build(addresses: &[String], flags: &[&str], context: &Path) -> Command {
    let mut command = bk(&["--backend", "buildkitd", "--addr", &addresses.join(",")]);
    command
        .args(["build", "--progress", "plain"])
        .args(flags)
        .arg(context);
    command
}

fn at<'a>(daemons: &'a [FakeDaemon], address: &str) -> &'a FakeDaemon {
    daemons
        .iter()
        .find(|daemon| daemon.address() == address)
        .expect("one of them")
}

#[test]
fn builds_with_one_key_go_to_one_daemon() {
    let (daemons, dir) = (daemons(3), context(GOOD));
    let mut addresses: Vec<String> = daemons.iter().map(FakeDaemon::address).collect();
    for key in ["one", "two", "three", "four"] {
        let chosen = rendezvous(key, &addresses)[0].clone();
        let before: Vec<usize> = daemons.iter().map(|daemon| daemon.seen().connections).collect();
        for _ in 0..2 {
            let ran = run(&mut build(&addresses, &["--affinity", key], dir.path()));
            assert_eq!(ran.code, Some(0), "{}", ran.err);
            addresses.reverse();
        }
        for (daemon, before) in daemons.iter().zip(before) {
            // One connection to see who answers and one for the build.
            let more = if daemon.address() == chosen { 4 } else { 0 };
            assert_eq!(daemon.seen().connections, before + more, "{key}");
        }
    }
    // The context chooses when nothing else is said, whatever way leads to it.
    let solves = || -> Vec<usize> { daemons.iter().map(|daemon| daemon.seen().solves.len()).collect() };
    let before = solves();
    for path in [
        dir.path().to_owned(),
        dir.path().join("."),
        dir.path()
            .join("../")
            .join(dir.path().file_name().expect("a name")),
    ] {
        assert_eq!(run(&mut build(&addresses, &[], &path)).code, Some(0));
    }
    let mut more: Vec<usize> = solves()
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    more.sort_unstable();
    assert_eq!(more, [0, 0, 3]);
}

#[test]
fn what_does_not_answer_is_passed_over_and_told() {
    let (daemons, dir) = (daemons(3), context(GOOD));
    let addresses: Vec<String> = daemons.iter().map(FakeDaemon::address).collect();
    let order = rendezvous("key", &addresses);
    let remove = |address: &str| fs::remove_file(at(&daemons, address).socket()).expect("a socket");
    let said = |address: &str| {
        format!("passing over {address}: there is no such socket; is buildkitd running there?\n")
    };
    remove(&order[0]);
    let ran = run(&mut build(&addresses, &["--affinity", "key"], dir.path()));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.starts_with(&said(&order[0])), "{}", ran.err);
    assert_eq!(ran.err.matches("passing over").count(), 1);
    assert_eq!(at(&daemons, &order[1]).seen().solves.len(), 1);
    assert_eq!(at(&daemons, &order[2]).seen().connections, 0);

    remove(&order[1]);
    remove(&order[2]);
    let ran = run(&mut build(&addresses, &["--affinity", "key"], dir.path()));
    assert_eq!(ran.code, Some(1));
    let all: String = order.iter().map(|address| said(address)).collect();
    assert!(ran.err.starts_with(&all), "in their order: {}", ran.err);
    assert!(
        ran.err.contains("ERROR: cannot reach a daemon; tried\n"),
        "{}",
        ran.err
    );
}

#[test]
fn deadlines_of_silent_endpoints_run_side_by_side() {
    let (daemons, dir) = (daemons(1), context(GOOD));
    let place = tempfile::tempdir().expect("a temporary directory");
    // They take connections and never say a word.
    let silent: Vec<_> = (0..3)
        .map(|n| UnixListener::bind(place.path().join(format!("{n}.sock"))).expect("a socket"))
        .collect();
    let mut addresses: Vec<String> = (0..silent.len())
        .map(|n| format!("unix://{}", place.path().join(format!("{n}.sock")).display()))
        .collect();
    addresses.push(daemons[0].address());
    let last = |key: &str| rendezvous(key, &addresses)[3] == daemons[0].address();
    let key = (0..).map(|n| n.to_string()).find(|key| last(key)).expect("a key");
    let begun = Instant::now();
    let ran = run(&mut build(&addresses, &["--affinity", &key], dir.path()));
    let took = begun.elapsed();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    // In their order, although their ends come together.
    let told: Vec<String> = rendezvous(&key, &addresses)[..3]
        .iter()
        .map(|address| format!("passing over {address}: no answer"))
        .collect();
    let lines: Vec<&str> = ran.err.lines().take(3).collect();
    for (line, told) in lines.iter().zip(&told) {
        assert!(line.starts_with("passing over unix://"), "{line}: {told}");
    }
    let order: Vec<_> = lines.iter().map(|line| line.split(": ").next()).collect();
    let expected: Vec<_> = told.iter().map(|line| line.split(": ").next()).collect();
    assert_eq!(order, expected);
    // One deadline is ten seconds.
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(daemons[0].seen().solves.len(), 1);
}

#[test]
fn what_is_no_build_has_the_header_too() {
    let daemons = daemons(1);
    let address = daemons[0].address();
    let words = [
        "--backend",
        "buildkitd",
        "--addr",
        &address,
        "--affinity-header",
        "x-key",
        "--affinity",
        "k",
    ];
    for command in ["workers", "du", "ping"] {
        let before = daemons[0].seen().calls.len();
        // What the daemon answers plays no part.
        run(&mut bk(&[&words[..], &[command]].concat()));
        let calls = daemons[0].seen().calls;
        assert!(calls.len() > before + 1, "{command}");
        for call in &calls[before..] {
            assert_eq!(
                call.headers.get("x-key").map(String::as_str),
                Some("k"),
                "{command}: {}",
                call.path
            );
        }
    }
}

#[test]
fn every_request_to_an_engine_has_the_header_too() {
    let test = "cli::every_request_to_an_engine_has_the_header_too";
    let Some(target) = Target::find(Daemon::Docker28_5, Route::Grpc, test) else {
        return;
    };
    let (front, dir) = (
        Front::start(&target.docker).expect("a front"),
        context("FROM scratch\nCOPY sh /bin/sh\n"),
    );
    let address = front.address();
    // What HTTP/2 carries, the daemons in this process look at.
    for (route, build, other) in [
        ("auto", &[][..], &[][..]),
        ("h2c", &[], &[]),
        ("grpc", &["POST /grpc", "POST /session"], &["POST /grpc"]),
        ("build", &["POST /session", "POST /build"], &["GET /system/df"]),
        ("tar", &["POST /build"], &["GET /system/df"]),
    ] {
        let words = |more: &[&str]| {
            let flags = [
                "--affinity-header",
                "x-key",
                "--affinity",
                "k",
                "--docker-route",
                route,
            ];
            let mut command = bk(&["--backend", "docker", "--addr", &address]);
            command.args(flags).args(more);
            command
        };
        let check = |before: usize, wanted: &[&str], what: &str| {
            let seen = front.requests().split_off(before);
            let lines: Vec<&str> = seen.iter().map(|request| &*request.line).collect();
            for wanted in [&["GET /_ping", "GET /version"], wanted].concat() {
                assert!(lines.contains(&wanted), "{route} {what}: {wanted} of {lines:?}");
            }
            for request in &seen {
                assert_eq!(request.values("x-key"), ["k"], "{route} {what}: {}", request.line);
            }
        };
        let before = front.requests().len();
        let flags = ["build", "--progress", "plain", "-t", "bk-several"];
        let ran = run(words(&flags).arg(dir.path()));
        assert_eq!(ran.code, Some(0), "{route}: {}", ran.err);
        check(before, build, "build");
        let before = front.requests().len();
        let ran = run(&mut words(&["du"]));
        assert_eq!(ran.code, Some(0), "{route}: {}", ran.err);
        check(before, other, "du");
    }
    target.passed(test);
}

#[test]
fn each_call_of_a_build_has_the_header_for_balancers() {
    let (daemons, dir) = (daemons(1), context(GOOD));
    let addresses = [daemons[0].address()];
    let flags = ["--affinity-header", "X-Build-Key", "--affinity", "team a"];
    let ran = run(&mut build(&addresses, &flags, dir.path()));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let seen = daemons[0].seen();
    let paths: Vec<&str> = seen.calls.iter().map(|call| &*call.path).collect();
    for method in ["ListWorkers", "Session", "Solve", "Status"] {
        assert!(
            paths.iter().any(|path| path.ends_with(method)),
            "{method} of {paths:?}"
        );
    }
    for call in &seen.calls {
        assert_eq!(
            call.headers.get("x-build-key").map(String::as_str),
            Some("team a"),
            "{}",
            call.path
        );
    }
    assert_eq!(seen.connections, 2);
    // Without a key it is that of the context, the same for each build.
    let mut keys = Vec::new();
    for _ in 0..2 {
        let before = daemons[0].seen().calls.len();
        run(&mut build(
            &addresses,
            &["--affinity-header", "x-build-key"],
            dir.path(),
        ));
        let calls = daemons[0].seen().calls;
        keys.extend(
            calls[before..]
                .iter()
                .map(|call| call.headers.get("x-build-key").cloned()),
        );
    }
    keys.dedup();
    assert!(
        keys.len() == 1 && keys[0].as_ref().is_some_and(|key| key.len() == 32),
        "{keys:?}"
    );
    let ran = run(&mut build(&addresses, &["--affinity-header", "te"], dir.path()));
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(
        ran.err
            .contains("`te`: HTTP, gRPC or BuildKit use this name themselves"),
        "{}",
        ran.err
    );
}

#[test]
fn real_endpoints_are_chosen_and_passed_over() {
    let name = "cli::real_endpoints_are_chosen_and_passed_over";
    let found = [Daemon::BuildkitUnix, Daemon::BuildkitTcp26_1]
        .map(|daemon| Target::find(daemon, Route::Direct, name));
    let [Some(unix), Some(tcp)] = found else {
        return;
    };
    let dir = context("FROM scratch\nCOPY sh /bin/sh\n");
    let nobody = "unix:///nonexistent/buildkitd.sock".to_owned();
    let addresses = [unix.address.clone(), nobody.clone(), tcp.address.clone()];
    for key in (0..6).map(|n| format!("key {n}")) {
        let order = rendezvous(&key, &addresses);
        let chosen = order
            .iter()
            .find(|address| **address != nobody)
            .expect("two answer");
        let mut command = bk(&[
            "-v",
            "--addr",
            &addresses[0],
            "--addr",
            &addresses[1],
            "--addr",
            &addresses[2],
        ]);
        command.args([
            "build",
            "--progress",
            "plain",
            "--output",
            "type=cacheonly",
            "--affinity",
            &key,
        ]);
        let ran = run(command.arg(dir.path()));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.err.contains(&format!(" at {chosen}\n")), "{key}: {}", ran.err);
        assert_eq!(
            ran.err.contains("passing over"),
            order[0] == nobody,
            "{key}: {}",
            ran.err
        );
    }
    for target in [unix, tcp] {
        target.passed(name);
    }
}
