//! What is wrong with the request itself: nothing is sent, and no daemon is needed.

use bk_testkit::fake::{FakeDaemon, Script};

use super::{scene::Scene, snapshot::Snapshots};

#[test]
fn a_wrong_request_names_the_flag_and_what_it_takes() {
    let mut snapshots = Snapshots::default();
    let mut check = |name: &str, arguments: &[&str], arrange: &dyn Fn(&Scene)| {
        let mut scene = Scene::new("FROM scratch\nCOPY Dockerfile /\n");
        // Nothing there: what gets as far as this would say so.
        scene.at("buildkitd", "unix:///nowhere/buildkitd.sock");
        arrange(&scene);
        let arguments = [&["build"][..], arguments].concat();
        snapshots.check(name, "", &scene.run(&arguments));
    };
    let nothing = |_: &Scene| {};
    check("input-no-context", &[], &nothing);
    check("input-unknown-flag", &["--no-cahce", "."], &nothing);
    check("input-context-missing", &["nowhere"], &nothing);
    check("input-context-file", &["Dockerfile"], &nothing);
    check("input-tag", &["-t", "Example/App", "."], &nothing);
    check(
        "input-platform",
        &["--platform", "linux/amd64/v2/x", "."],
        &nothing,
    );
    check("input-build-arg", &["--build-arg", "=1", "."], &nothing);
    check("input-label", &["--label", "", "."], &nothing);
    check("input-progress", &["--progress", "fancy", "."], &nothing);
    check("input-progress-tty", &["--progress", "tty", "."], &nothing);
    check("input-output", &["-o", "type=zip,dest=x", "."], &nothing);
    check("input-output-no-dest", &["-o", "type=local", "."], &nothing);
    check("input-secret", &["--secret", "src=token", "."], &nothing);
    check("input-secret-field", &["--secret", "id=a,sorce=b", "."], &nothing);
    check("input-ssh", &["--ssh", "default,raw=perhaps", "."], &nothing);
    check("input-add-host", &["--add-host", "db", "."], &nothing);
    check("input-ulimit", &["--ulimit", "nofile", "."], &nothing);
    check("input-shm-size", &["--shm-size", "much", "."], &nothing);
    check("input-network", &["--network", "bridge", "."], &nothing);
    check("input-allow", &["--allow", "everything", "."], &nothing);
    check("input-annotation", &["--annotation", "planet:a=b", "."], &nothing);
    check("input-attest", &["--attest", "type=seal", "."], &nothing);
    check("input-push-without-name", &["--push", "."], &nothing);
}

#[test]
fn missing_files_of_a_request_are_named() {
    let daemon = FakeDaemon::start(Script::healthy()).expect("a fake daemon");
    let mut snapshots = Snapshots::default();
    let mut check = |name: &str, arguments: &[&str], arrange: &dyn Fn(&Scene)| {
        let mut scene = Scene::empty();
        scene.at("buildkitd", &daemon.address());
        arrange(&scene);
        let arguments = [&["build", "-q"][..], arguments].concat();
        snapshots.check(name, "", &scene.run(&arguments));
    };
    let good = |scene: &Scene| {
        scene.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    };
    check("dockerfile-missing", &["."], &|_| {});
    check(
        "dockerfile-missing-named",
        &["-f", "docker/Dockerfile", "."],
        &good,
    );
    check("dockerfile-directory", &["-f", "docker", "."], &|scene| {
        scene.directory("docker");
    });
    check(
        "input-build-context",
        &["--build-context", "lib=nowhere", "."],
        &good,
    );
    check(
        "secret-missing",
        &["--secret", "id=token,src=token.txt", "."],
        &good,
    );
    check(
        "secret-variable-missing",
        &["--secret", "id=token,env=TOKEN", "."],
        &good,
    );
    check("ssh-no-agent", &["--ssh", "default", "."], &good);
    check("ssh-missing", &["--ssh", "default=id_ed25519", "."], &good);
    check(
        "source-policy-missing",
        &["--source-policy-file", "policy.json", "."],
        &good,
    );
}
