//! `--call` on real daemons: what is printed and the exit code are those of `docker buildx`; what a daemon or a route
//! lacks is refused by name.

use std::{env, fs, path::Path, process::Command};

use bk_testkit::live::{Daemon, Route, Support, Target};

use super::{Ran, bk, run, text};

const FEATURE: &str = "Questions to the frontend (`--call check|outline|targets`)";

const CLEAN: &str = "# what it is\nARG TOP=1\nFROM scratch AS base\n# the kind\nARG KIND=plain\nCOPY Dockerfile /\n\
                     # last words\nFROM base AS last\nARG KIND\nRUN --mount=type=secret,id=key,required=true true\n";
const QUESTIONABLE: &str = "FROM scratch AS Base\nMAINTAINER me\nfrom base\nCOPY Dockerfile /\n";
const BROKEN: &str = "from scratch AS a\nFROM a\nCOPPY x /\n";

fn ask(target: &Target, dir: &Path, file: &str, flags: &[&str]) -> Ran {
    let mut command = match target.route {
        Route::Direct => bk(&["--backend", "buildkitd"]),
        route => bk(&["--docker-route", route.name()]),
    };
    command.args([
        "--addr",
        &target.address,
        "build",
        "-q",
        "-f",
        text(&dir.join(file)),
    ]);
    run(command.args(flags).arg(dir))
}

/// The same by Docker's own client; `None` when there is none.
fn buildx(target: &Target, dir: &Path, file: &str, flags: &[&str]) -> Option<Ran> {
    let variable = |name| env::var_os(name).filter(|v| !v.is_empty());
    let (program, config) = (
        variable("BK_LIVE_DOCKER_CLI")?,
        variable("BK_LIVE_DOCKER_CLI_CONFIG")?,
    );
    let mut command = Command::new(program);
    command
        .env("DOCKER_CONFIG", config)
        .env("DOCKER_HOST", format!("unix://{}", target.docker.display()))
        .args(["buildx", "build", "--progress=plain", "-f", text(&dir.join(file))])
        .args(flags)
        .arg(dir);
    Some(run(&mut command))
}

fn files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, content) in [
        ("Dockerfile", CLEAN),
        ("questionable", QUESTIONABLE),
        ("broken", BROKEN),
    ] {
        fs::write(dir.path().join(name), content).expect("writable");
    }
    dir
}

fn compare(name: &str, daemon: Daemon, route: Route, calls: &[(&str, &str, i32)]) {
    let Some(target) = Target::find(daemon, route, name) else {
        return;
    };
    let dir = files();
    for (file, call, code) in calls {
        let flags = [&format!("--call={call}")[..]];
        let ours = ask(&target, dir.path(), file, &flags);
        let what = format!("{}: {call} of {file}: {}", target.name(), ours.err);
        assert_eq!(ours.code, Some(*code), "{what}");
        let Some(mut theirs) = buildx(&target, dir.path(), file, &flags) else {
            continue;
        };
        // It tells the frontend the whole path of a file, where others tell its name.
        theirs.out = theirs.out.replace(&format!("{}/", text(dir.path())), "");
        assert_eq!(ours.code, theirs.code, "{what}");
        if call.starts_with("check,format=json") {
            // The graph that fetched the Dockerfile is in it, and that names the session.
            let shown = |out: &str| {
                let mut value: serde_json::Value = serde_json::from_str(out).expect("JSON");
                let sources = value["sources"].as_array_mut().expect("sources");
                for source in sources {
                    source["definition"].take();
                }
                value
            };
            assert_eq!(shown(&ours.out), shown(&theirs.out), "{what}");
        } else {
            assert_eq!(ours.out, theirs.out, "{what}");
        }
    }
    if calls.contains(&CHECKS[0]) {
        target.supports(FEATURE);
    } else if calls.contains(&TARGETS[0]) {
        target.record(FEATURE, &Support::But("`outline` and `targets` only".to_owned()));
    }
    target.passed(name);
}

const TARGETS: [(&str, &str, i32); 7] = [
    ("Dockerfile", "outline", 0),
    ("Dockerfile", "outline,format=json", 0),
    ("Dockerfile", "targets", 0),
    ("questionable", "targets,format=json", 0),
    ("broken", "targets", 1),
    ("Dockerfile", "subrequests.describe", 0),
    ("Dockerfile", "no-such-thing", 1),
];

const CHECKS: [(&str, &str, i32); 6] = [
    ("Dockerfile", "check", 0),
    ("questionable", "check", 1),
    ("questionable", "check,format=json", 1),
    ("questionable", "check,ignorestatus=true", 0),
    ("broken", "check", 1),
    ("broken", "check,format=json", 1),
];

#[test]
fn answers_are_those_of_buildx() {
    const TEST: &str = "cli::answers_are_those_of_buildx";
    compare(TEST, Daemon::Docker26_1, Route::Grpc, &TARGETS);
    let all = [&TARGETS[..], &CHECKS].concat();
    compare(TEST, Daemon::Docker28_5, Route::Grpc, &all);
    compare(TEST, Daemon::BuildkitUnix, Route::Direct, &all);
}

#[test]
fn the_oldest_daemon_can_be_asked_what_it_knows() {
    let calls = [
        ("Dockerfile", "subrequests.describe,format=json", 0),
        ("Dockerfile", "no-such-thing", 1),
    ];
    let test = "cli::the_oldest_daemon_can_be_asked_what_it_knows";
    compare(test, Daemon::Docker20_10, Route::Grpc, &calls);
}

#[test]
fn what_cannot_be_asked_is_refused_by_name() {
    const TEST: &str = "cli::what_cannot_be_asked_is_refused_by_name";
    for (daemon, route, flags, code, said) in [
        (
            Daemon::Docker20_10,
            Route::Grpc,
            "--call=targets",
            1,
            "ERROR: --call targets needs BuildKit 0.11 (Docker Engine 24.0); docker 20.10",
        ),
        (
            Daemon::Docker26_1,
            Route::Grpc,
            "--check",
            1,
            "ERROR: --call check needs BuildKit 0.14 (Docker Engine 27.0); docker 26.1",
        ),
        (
            Daemon::Docker28_5,
            Route::Build,
            "--check",
            2,
            "ERROR: --call: `check` cannot be asked on the Docker route build; the routes grpc and h2c can\n",
        ),
        (
            Daemon::Docker28_5,
            Route::Tar,
            "--call=outline",
            2,
            "ERROR: --call: `outline` cannot be asked on the Docker route tar; the routes grpc and h2c can\n",
        ),
    ] {
        let Some(target) = Target::find(daemon, route, TEST) else {
            continue;
        };
        let ran = ask(&target, files().path(), "Dockerfile", &[flags]);
        assert_eq!(
            (ran.code, &*ran.out),
            (Some(code), ""),
            "{}: {}",
            target.name(),
            ran.err
        );
        assert!(ran.err.starts_with(said), "{}: {}", target.name(), ran.err);
        if daemon != Daemon::Docker26_1 {
            target.refuses(FEATURE, ran.err.lines().next().unwrap_or_default());
        }
        target.passed(TEST);
    }
}

#[test]
fn a_question_leaves_no_files_and_no_image() {
    const TEST: &str = "cli::a_question_leaves_no_files_and_no_image";
    let Some(target) = Target::find(Daemon::Docker28_5, Route::Grpc, TEST) else {
        return;
    };
    let (dir, out) = (files(), tempfile::tempdir().expect("a temporary directory"));
    let (iid, metadata) = (out.path().join("iid"), out.path().join("metadata"));
    let flags = [
        "--check",
        "--iidfile",
        text(&iid),
        "--metadata-file",
        text(&metadata),
        "-t",
        "bk-asked:1",
    ];
    let ran = ask(&target, dir.path(), "Dockerfile", &flags);
    assert_eq!(
        (ran.code, &*ran.out, &*ran.err),
        (Some(0), "Check complete, no warnings found.\n", "")
    );
    assert!(!iid.exists() && !metadata.exists());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let found = runtime.block_on(async {
        let engine = bk_testkit::live::Engine::connect(&target.docker)
            .await
            .expect("the engine");
        engine.image_id("bk-asked:1").await
    });
    assert!(found.is_err(), "{found:?}");
    target.passed(TEST);
}
