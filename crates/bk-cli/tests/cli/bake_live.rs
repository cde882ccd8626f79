//! `bk bake` on real daemons: two targets over one context, both loaded, both in the metadata file.

use std::{env, fs, process::Command};

use bk_testkit::live::{Daemon, Engine, Route, Target};

use super::{
    bake::{dir, said},
    bk, run, text,
};

const TEST: &str = "bake::two_targets_share_a_context";

fn bake(target: &Target) -> Command {
    let mut command = bk(&["--docker-route", target.route.name()]);
    command.args(["--addr", &target.address, "bake"]);
    command
}

#[test]
fn two_targets_share_a_context() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    for daemon in [Daemon::Docker20_10, Daemon::Docker28_5] {
        let Some(target) = Target::find(daemon, Route::Grpc, TEST) else {
            continue;
        };
        runtime.block_on(async {
            let _turn = target.turn().await;
            both(&target).await;
        });
        target.passed(TEST);
    }
}

async fn both(target: &Target) {
    let engine = Engine::connect(&target.docker).await.expect("the engine behind");
    let unique = format!(
        "{}-{}",
        target.name().replace(['/', '.'], "-"),
        std::process::id()
    );
    let tag = |name: &str| format!("bk-bake-{name}-{unique}");
    let services = format!(
        "services:\n  web: {{image: '{}', build: {{target: web, args: {{WHO: \"${{WHO:-you}}\"}}}}}}\n  db.main: {{image: '{}', \
         build: {{target: db}}}}\n",
        tag("web"),
        tag("db"),
    );
    let dockerfile = "FROM scratch AS base\nCOPY busybox /bin/sh\nCOPY busybox /bin/\nCOPY said /said\nFROM base AS web\nARG WHO\n\
                      RUN echo \"hello $WHO\" >> /said\nFROM base AS db\nRUN echo db >> /said\n";
    let dir = dir(&[
        ("compose.yaml", &services),
        ("Dockerfile", dockerfile),
        ("said", &format!("{unique}\n")),
    ]);
    fs::copy(&target.busybox, dir.path().join("busybox")).expect("a busybox");
    let metadata = dir.path().join("metadata.json");
    let mut command = bake(target);
    command.args(["--load", "--metadata-file", text(&metadata)]);
    let ran = run(command.current_dir(dir.path()));
    assert_eq!(
        (ran.code, &*ran.out),
        (Some(0), ""),
        "{}: {}",
        target.name(),
        ran.err
    );
    assert!(
        ran.err.contains("[web ") && ran.err.contains("[db_main "),
        "{}",
        said(&ran)
    );
    let metadata = fs::read(&metadata).expect("the metadata");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).expect("JSON");
    for (name, service, last) in [("web", "web", "hello you\n"), ("db", "db_main", "db\n")] {
        let tag = tag(name);
        let id = engine.image_id(&tag).await.expect("the image");
        let seen = engine.run(&tag, &["/bin/busybox", "cat", "/said"]).await;
        engine.remove_image(&tag).await.expect("removable");
        assert_eq!(
            seen.expect("it runs").stdout,
            format!("{unique}\n{last}"),
            "{}",
            target.name()
        );
        assert_eq!(
            metadata[service]["containerimage.digest"],
            id.as_str(),
            "{}: {metadata}",
            target.name()
        );
    }
}

/// Of every target, by both programs.
const ASKED: &str = "bake::questions_are_answered_as_by_buildx";

#[test]
fn questions_are_answered_as_by_buildx() {
    let Some(target) = Target::find(Daemon::Docker28_5, Route::Grpc, ASKED) else {
        return;
    };
    let file = r#"{"target": {"clean": {"description": "A clean one"}, "odd": {"dockerfile": "odd"}}}"#;
    let clean = "# what it is\nARG TOP=1\nFROM scratch AS base\nCOPY Dockerfile /\n";
    let odd = "FROM scratch AS Base\nMAINTAINER me\nfrom base\nCOPY Dockerfile /\n";
    let dir = dir(&[("docker-bake.json", file), ("Dockerfile", clean), ("odd", odd)]);
    let variable = |name| env::var_os(name).filter(|v| !v.is_empty());
    let (program, config) = (
        variable("BK_LIVE_DOCKER_CLI"),
        variable("BK_LIVE_DOCKER_CLI_CONFIG"),
    );
    for (flags, code) in [
        (&["clean", "odd", "--check"][..], 1),
        (&["clean", "--check"], 0),
        (&["clean", "odd", "--call=targets"], 0),
        (&["clean", "odd", "--call=outline,format=json"], 0),
    ] {
        let ours = run(bake(&target)
            .args(flags)
            .arg("--progress=quiet")
            .current_dir(dir.path()));
        assert_eq!(ours.code, Some(code), "{flags:?}: {}", ours.err);
        let (Some(program), Some(config)) = (&program, &config) else {
            continue;
        };
        let theirs = run(Command::new(program)
            .args(["buildx", "bake", "--progress=quiet"])
            .args(flags)
            .env("DOCKER_CONFIG", config)
            .env("DOCKER_HOST", format!("unix://{}", target.docker.display()))
            .current_dir(dir.path()));
        assert_eq!(theirs.code, Some(code), "{flags:?}: {}", theirs.err);
        match flags.iter().any(|f| f.contains("json")) {
            true => {
                let value = |out: &str| serde_json::from_str::<serde_json::Value>(out).expect("JSON");
                assert_eq!(value(&ours.out), value(&theirs.out), "{flags:?}");
            }
            false => assert_eq!(ours.out, theirs.out, "{flags:?}"),
        }
    }
    target.passed(ASKED);
}
