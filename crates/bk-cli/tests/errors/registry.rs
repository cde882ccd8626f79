//! Registries that refuse, do not answer, or lack what is asked for.

use std::fs;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bk_testkit::live::{Daemon, Route, Target};

use super::{
    scene::{ENGINES, Scene, targets},
    snapshot::Snapshots,
};

fn log_in(scene: &mut Scene, target: &Target, password: &str) {
    let base = &target.base;
    let auth = BASE64_STANDARD.encode(format!("{}:{password}", base.user));
    let dir = scene.around().join("docker");
    fs::create_dir_all(&dir).expect("a directory");
    let config = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}", base.host);
    fs::write(dir.join("config.json"), config).expect("writable");
    scene.env("DOCKER_CONFIG", dir);
}

#[test]
fn a_registry_that_refuses_is_told_with_its_name() {
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&ENGINES, "errors::a_registry_that_refuses_is_told_with_its_name") {
        let mut check = |name: &str, from: &str, password: Option<&str>, flags: &[&str]| {
            let mut scene = Scene::new(&format!("FROM {from}\nCOPY unique /\n"));
            scene.on(&target);
            scene.unique();
            if let Some(password) = password {
                log_in(&mut scene, &target, password);
            }
            let arguments = [&["build", "-q", "--pull"][..], flags, &["."]].concat();
            snapshots.check(name, variant, &scene.run(&arguments));
        };
        let base = &target.base;
        let other = format!("{}/base/nothing:1", base.host);
        check("registry-no-credentials", &base.image, None, &[]);
        check("registry-wrong-password", &base.image, Some("wrong"), &[]);
        check("registry-no-image", &other, Some(&base.password), &[]);
        check("registry-not-there", "127.0.0.1:1/team/app:1", None, &[]);
        check(
            "registry-no-frontend",
            "scratch",
            None,
            &["--build-arg", "BUILDKIT_SYNTAX=127.0.0.1:1/team/frontend:1"],
        );
        target.passed("errors::a_registry_that_refuses_is_told_with_its_name");
    }
}

#[test]
fn an_image_without_the_platform_is_told() {
    const TEST: &str = "errors::an_image_without_the_platform_is_told";
    let Some(pusher) = Target::find(Daemon::Docker28_5Containerd, Route::Grpc, TEST) else {
        return;
    };
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&ENGINES, TEST) {
        let image = format!("{}/errors/platforms:{}", target.base.host, std::process::id());
        let mut pushing = Scene::new("FROM scratch\nCOPY unique /\n");
        pushing.on(&pusher);
        pushing.unique();
        log_in(&mut pushing, &pusher, &pusher.base.password);
        let said = pushing.run(&[
            "build",
            "-q",
            "--platform=linux/amd64,linux/arm64",
            "--push",
            "-t",
            &image,
            ".",
        ]);
        assert!(said.ends_with("exit code 0\n"), "{said}");

        let mut scene = Scene::new(&format!("FROM {image}\nCOPY unique /\n"));
        scene.on(&target);
        scene.unique();
        scene.known(&image, "<registry>/errors/platforms:1");
        log_in(&mut scene, &target, &target.base.password);
        let arguments = ["build", "-q", "--platform", "linux/s390x", "."];
        snapshots.check("registry-no-platform", variant, &scene.run(&arguments));
        target.passed(TEST);
    }
}

#[test]
fn a_helper_that_fails_is_told_with_its_words() {
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&ENGINES, "errors::a_helper_that_fails_is_told_with_its_words") {
        let mut scene = Scene::new(&format!("FROM {}\nCOPY unique /\n", target.base.image));
        scene.on(&target);
        scene.unique();
        let dir = scene.around().join("docker");
        fs::create_dir(&dir).expect("a directory");
        let config = format!("{{\"credHelpers\":{{\"{}\":\"bk-none\"}}}}", target.base.host);
        fs::write(dir.join("config.json"), config).expect("writable");
        scene.env("DOCKER_CONFIG", dir);
        snapshots.check(
            "registry-helper-missing",
            variant,
            &scene.run(&["build", "-q", "--pull", "."]),
        );
        target.passed("errors::a_helper_that_fails_is_told_with_its_words");
    }
}
