//! What no real daemon does when it is asked to, from the fake one.

use bk_testkit::fake::{FakeDaemon, Fault, Moment, Script};

use super::{scene::Scene, snapshot::Snapshots};

const GOOD: &str = "FROM scratch\nCOPY unique /\nRUN echo one\n";

fn report(script: Script, dockerfile: &str, arguments: &[&str]) -> String {
    let daemon = FakeDaemon::start(script).expect("a fake daemon");
    let mut scene = Scene::new(dockerfile);
    scene.unique();
    scene.at("buildkitd", &daemon.address());
    scene.run(arguments)
}

fn fails(code: i32, message: &str) -> Script {
    Script::healthy().fault(Fault::FailSolve {
        code,
        message: message.to_owned(),
        details: Vec::new(),
    })
}

#[test]
fn failures_of_a_daemon_are_told_with_what_to_do() {
    let mut snapshots = Snapshots::default();
    for (name, code, message) in [
        (
            "daemon-internal",
            13,
            "failed to solve: panic: runtime error: index out of range",
        ),
        (
            "daemon-disk-full",
            2,
            "failed to solve: failed to copy: write /var/lib/buildkit/x: no space left on device",
        ),
        (
            "daemon-memory",
            8,
            "failed to solve: ResourceExhausted: cannot allocate memory",
        ),
        (
            "daemon-no-session",
            2,
            "failed to solve: no active session for 0p3vj0b6a8l5d9u4x2y7z1q3w: context deadline exceeded",
        ),
        (
            "daemon-goaway",
            14,
            "failed to solve: error reading from server: http2: server sent GOAWAY and closed the connection; LastStreamID=7, \
             ErrCode=ENHANCE_YOUR_CALM, debug=\"too_many_pings\"",
        ),
        (
            "daemon-rate-limit",
            2,
            "failed to solve: busybox:latest: failed to resolve source metadata for docker.io/library/busybox:latest: \
             failed to copy: httpReadSeeker: failed open: unexpected status code \
             https://registry-1.docker.io/v2/library/busybox/manifests/latest: 429 Too Many Requests - Server message: \
             toomanyrequests: You have reached your pull rate limit.",
        ),
        (
            "daemon-unavailable",
            14,
            "failed to solve: the daemon is shutting down",
        ),
        // Begun again once, and it fails in the same way.
        (
            "daemon-layer-removed",
            5,
            "failed to solve: failed to prepare extraction snapshot \"extract-541330980-oZZy sha256:ae0a\": parent snapshot \
             sha256:5368 does not exist: not found",
        ),
        ("daemon-cancelled", 1, "failed to solve: context canceled"),
        (
            "daemon-oom-killed",
            2,
            "failed to solve: process \"/bin/sh -c make\" did not complete successfully: exit code: 137: context \
             canceled: cannot allocate memory",
        ),
        (
            "daemon-unknown-platform",
            2,
            "failed to solve: process \"/dev/.buildkit_qemu_emulator /bin/sh -c true\" did not complete successfully: exit \
             code: 1",
        ),
    ] {
        let text = report(fails(code, message), GOOD, &["build", "-q", "."]);
        snapshots.check(name, "", &text);
    }
}

#[test]
fn a_daemon_that_goes_away_is_told() {
    let mut snapshots = Snapshots::default();
    for (name, fault) in [
        ("lost-connection", Fault::CutConnection(Moment::SessionAttached)),
        ("lost-session", Fault::CutSession(Moment::FirstEntry)),
    ] {
        let text = report(Script::healthy().fault(fault), GOOD, &["build", "-q", "."]);
        snapshots.check(name, "", &text);
    }
}

#[test]
fn a_daemon_that_breaks_the_rules_is_told() {
    let mut snapshots = Snapshots::default();
    for (name, fault) in [
        ("protocol-unknown-file", Fault::RequestUnknown),
        (
            "daemon-quota",
            Fault::ReceiverError("cannot write the file: disk quota exceeded".to_owned()),
        ),
    ] {
        let text = report(Script::healthy().fault(fault), GOOD, &["build", "-q", "."]);
        snapshots.check(name, "", &text);
    }
}

#[test]
fn a_file_that_vanishes_is_named() {
    let mut scene = Scene::new("FROM scratch\nCOPY . /\n");
    scene.file("z/late.txt", "x");
    let vanish = Fault::Vanish {
        entry: b"z/late.txt".to_vec(),
        file: scene.path("z/late.txt"),
    };
    let daemon = FakeDaemon::start(Script::healthy().fault(vanish)).expect("a fake daemon");
    scene.at("buildkitd", &daemon.address());
    Snapshots::default().check("local-vanished", "", &scene.run(&["build", "-q", "."]));
}

#[test]
fn a_failed_build_is_summed_up_and_a_filled_directory_is_named() {
    let daemon = FakeDaemon::start(Script::healthy()).expect("a fake daemon");
    let mut scene = Scene::new("FROM scratch\nCOPY . /\nRUN echo one\nRUN false\nRUN echo two\n");
    scene.at("buildkitd", &daemon.address());
    scene.file("web/node_modules/all.js", vec![b'x'; 3_000_000]);
    scene.file("web/index.html", "<html>");
    let text = scene.run(&["build", "--progress", "plain", "."]);
    let warning = "#0 WARN: `web/node_modules` is 99 % of what was sent (3.0 MB); if no instruction needs it, add it to the \
                   ignore file\n";
    assert_eq!(text.matches(warning).count(), 1, "{text}");
    let sum = "3 steps in <time>: 0 cached, 2 run, 1 failed; sent 3.00MB of 3.00MB\nDockerfile:4\n";
    assert!(text.contains(sum), "{text}");
    scene.file(".dockerignore", "# fetched\nnode_modules\n");
    // The daemon has what was there before.
    scene.file("web/node_modules/all.js", vec![b'y'; 3_000_000]);
    let text = scene.run(&["build", "--progress", "plain", "."]);
    let warning = "#0 WARN: `web/node_modules` is 100 % of what was sent (3.0 MB); <context>/.dockerignore:2 (`node_modules`) \
                   holds in the root only, `**/node_modules` everywhere\n";
    assert_eq!(text.matches(warning).count(), 1, "{text}");
    let quiet = scene.run(&["build", "-q", "."]);
    assert!(
        !quiet.contains("node_modules") && !quiet.contains(" steps in "),
        "{quiet}"
    );
    scene.file("docker-bake.json", "{\"target\": {\"default\": {}}}");
    let baked = scene.run(&["bake", "--progress", "plain"]);
    assert!(
        baked.contains(": 0 cached, 2 run, 1 failed; ") && baked.contains("\nDockerfile:4\n"),
        "{baked}"
    );
}
