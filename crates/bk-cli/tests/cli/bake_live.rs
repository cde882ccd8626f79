//! `bk bake` on real daemons: two targets over one context, both loaded, both in the metadata file.

use std::{env, fs, process::Command};

use bk_testkit::live::{Daemon, Engine, Route, Target};

use super::{
    bake::{dir, said},
    bk, run, text,
};

const TEST: &str = "bake::two_targets_share_a_context";

fn bake(target: &Target) -> Command {
    let mut command = match target.route {
        Route::Direct => bk(&["--backend", "buildkitd"]),
        route => bk(&["--docker-route", route.name()]),
    };
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

const USED: &str = "bake::a_target_uses_the_result_of_another";

#[test]
fn a_target_uses_the_result_of_another() {
    let file = r#"{"target": {
        "base": {"dockerfile-inline": "FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/\nENV WHO=base\nRUN echo $WHO > /said\n"},
        "middle": {"contexts": {"from": "target:base"}, "output": ["type=local,dest=middle"],
                   "dockerfile-inline": "FROM from\nRUN echo \"$WHO again\" >> /said\n"},
        "default": {"contexts": {"one": "target:base", "two": "target:middle"}, "output": ["type=local,dest=out"],
                    "dockerfile-inline": "FROM scratch\nCOPY --from=one /said /one\nCOPY --from=two /said /two\n"}
    }}"#;
    for (daemon, route) in [
        (Daemon::Docker28_5Containerd, Route::Grpc),
        (Daemon::BuildkitUnix, Route::Direct),
        (Daemon::Docker28_5, Route::Grpc),
        (Daemon::Docker20_10, Route::Grpc),
    ] {
        let Some(target) = Target::find(daemon, route, USED) else {
            continue;
        };
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let dir = dir(&[("docker-bake.json", file)]);
        fs::copy(&target.busybox, dir.path().join("busybox")).expect("a busybox");
        let ran = run(bake(&target)
            .args(["default", "middle"])
            .env("TMPDIR", temporary.path())
            .current_dir(dir.path()));
        let left = fs::read_dir(temporary.path()).expect("the directory").count();
        assert_eq!(left, 0, "{}: results are left behind", target.name());
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap_or_default();
        match daemon {
            Daemon::Docker28_5Containerd | Daemon::BuildkitUnix => {
                assert_eq!(
                    (ran.code, &*ran.out),
                    (Some(0), ""),
                    "{}: {}",
                    target.name(),
                    ran.err
                );
                let twice = "base\nbase again\n";
                assert_eq!(
                    (&*read("out/one"), &*read("out/two"), &*read("middle/said")),
                    ("base\n", twice, twice)
                );
            }
            _ => {
                assert_eq!(ran.code, Some(1), "{}", target.name());
                assert!(ran.err.contains("ERROR: target base: "), "{}", ran.err);
                let why = "target base comes out as an OCI layout too, because other targets use its result: default, middle\n";
                assert!(ran.err.contains(why), "{}", ran.err);
                let known = ["containerd image store", "BuildKit 0.1"];
                assert!(known.iter().any(|k| ran.err.contains(k)), "{}", ran.err);
            }
        }
        target.passed(USED);
    }
}
