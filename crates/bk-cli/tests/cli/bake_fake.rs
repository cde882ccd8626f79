//! `bk bake` against the fake daemon: several builds, their names in the display, their metadata, and how failures end.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bk_testkit::fake::{FakeDaemon, Script};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    bake::{dir, said},
    bk, ran, run, text,
};

const GOOD: &str = "FROM scratch\nCOPY sh /bin/sh\nRUN echo one\n";
const BAD: &str = "FROM scratch\nCOPY sh /bin/sh\nRUN echo oh && exit 3\n";

const FILE: &str = r#"{
  "group": {"default": {"targets": ["web", "worker"]}},
  "target": {
    "web": {"tags": ["web:1"], "output": ["type=image"]},
    "worker": {"inherits": ["web"], "tags": ["worker:1"], "dockerfile-inline": "FROM scratch\nCOPY sh /bin/sh\nRUN echo two\n"},
    "broken": {"dockerfile": "broken/Dockerfile"}
  }
}"#;

fn bake(daemon: &FakeDaemon, dir: &Path, arguments: &[&str]) -> Command {
    let mut command = bk(&["--backend", "buildkitd", "--addr", &daemon.address(), "bake"]);
    command.args(arguments).current_dir(dir);
    command
}

fn project() -> tempfile::TempDir {
    dir(&[
        ("docker-bake.json", FILE),
        ("Dockerfile", GOOD),
        ("broken/Dockerfile", BAD),
        ("sh", "not a shell\n"),
    ])
}

#[test]
fn targets_are_built_and_named() {
    let (daemon, dir) = (FakeDaemon::start(Script::healthy()).expect("a daemon"), project());
    let metadata = dir.path().join("metadata.json");
    let ran = run(&mut bake(
        &daemon,
        dir.path(),
        &["--metadata-file", text(&metadata)],
    ));
    assert_eq!((ran.code, &*ran.out), (Some(0), ""), "{}", ran.err);
    for step in [" RUN echo one\n", " RUN echo two\n"] {
        let line = ran
            .err
            .lines()
            .find(|l| l.ends_with(step.trim_end()))
            .expect(step);
        let target = if step.contains("one") { "[web " } else { "[worker " };
        assert!(line.contains(target), "{line}");
    }
    assert_eq!(ran.err.matches("#0 building with").count(), 1, "{}", ran.err);
    assert!(daemon.image("web:1").is_some() && daemon.image("worker:1").is_some());
    let metadata = fs::read_to_string(&metadata).expect("the metadata");
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("JSON");
    for name in ["web", "worker"] {
        assert_eq!(metadata[name]["image.name"], format!("{name}:1"), "{metadata}");
        assert!(metadata[name]["containerimage.digest"].is_string(), "{metadata}");
    }
    assert_eq!(metadata.as_object().expect("an object").len(), 2);
}

#[test]
fn files_that_made_targets_run_again_are_told() {
    let (daemon, dir) = (FakeDaemon::start(Script::healthy()).expect("a daemon"), project());
    let explained = |targets: &[&str]| -> String {
        let ran = run(bake(&daemon, dir.path(), &["--explain"])
            .args(targets)
            .env("XDG_CACHE_HOME", dir.path().join("cache")));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let lines = ran
            .err
            .lines()
            .filter(|l| l.starts_with("explain: ") || l.starts_with("  "));
        lines.map(|line| format!("{line}\n")).collect()
    };
    fs::write(dir.path().join(".dockerignore"), "cache\n").expect("writable");
    let first = "no earlier build of this context is known; the next one is compared with this one\n";
    assert_eq!(
        explained(&[]),
        format!("explain: web: {first}explain: worker: {first}")
    );
    fs::write(dir.path().join("sh"), "another shell\n").expect("writable");
    assert_eq!(
        explained(&[]),
        "explain: [web 1/2] COPY sh /bin/sh: 1 changed\n  C sh\nexplain: [worker 1/2] COPY sh /bin/sh: 1 changed\n  C sh\n"
    );
    fs::write(dir.path().join("sh"), "a third one\n").expect("writable");
    assert_eq!(
        explained(&["web"]),
        "explain: [1/2] COPY sh /bin/sh: 1 changed\n  C sh\n"
    );
}

#[test]
fn one_target_has_no_name_before_its_steps() {
    let (daemon, dir) = (FakeDaemon::start(Script::healthy()).expect("a daemon"), project());
    let ran = run(&mut bake(&daemon, dir.path(), &["web", "--progress=rawjson"]));
    assert_eq!((ran.code, &*ran.out), (Some(0), ""), "{}", ran.err);
    assert!(!ran.err.contains("[web "), "{}", ran.err);
    let ran = run(&mut bake(&daemon, dir.path(), &["web", "--progress=quiet"]));
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
}

#[test]
fn a_failure_names_its_target_and_stops_the_others() {
    let (daemon, dir) = (FakeDaemon::start(Script::healthy()).expect("a daemon"), project());
    let metadata = dir.path().join("metadata.json");
    let flags = ["broken", "web", "--jobs=1", "--metadata-file", text(&metadata)];
    let ran = run(&mut bake(&daemon, dir.path(), &flags));
    assert_eq!((ran.code, &*ran.out), (Some(1), ""), "{}", ran.err);
    assert!(ran.err.contains("ERROR: target broken: "), "{}", ran.err);
    assert!(
        ran.err
            .ends_with("not begun, because another target failed: web\n"),
        "{}",
        ran.err
    );
    assert!(daemon.image("web:1").is_none() && !metadata.exists());
    let ran = run(bake(&daemon, dir.path(), &flags).arg("--keep-going"));
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(daemon.image("web:1").is_some(), "{}", said(&ran));
    let metadata: serde_json::Value =
        serde_json::from_slice(&fs::read(&metadata).expect("the metadata")).expect("JSON");
    let names: Vec<_> = metadata.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["web"]);
}

#[test]
fn an_interrupt_stops_every_build() {
    let endless = |n: u32| {
        let text = format!("FROM scratch\nCOPY sh /bin/sh\nRUN echo begun {n} && sleep 100000\n");
        serde_json::json!({ "dockerfile-inline": text })
    };
    let file = serde_json::json!({"target": {"a": endless(1), "b": endless(2)}}).to_string();
    let dir = dir(&[("docker-bake.json", &file), ("sh", "not a shell\n")]);
    let daemon = FakeDaemon::start(Script::healthy()).expect("a daemon");
    let mut child = bake(&daemon, dir.path(), &["a", "b", "--progress=plain"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bk starts");
    let mut progress = BufReader::new(child.stderr.take().expect("a pipe"));
    let (mut line, mut begun) = (String::new(), 0);
    while begun < 2 {
        line.clear();
        let read = progress.read_line(&mut line).expect("readable");
        assert_ne!(read, 0, "it ended before both steps began");
        begun += usize::from(line.contains(" begun ") && !line.contains("RUN"));
    }
    assert_eq!(daemon.running_builds(), 2);
    let id = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(id), Signal::SIGINT).expect("it runs");
    let mut rest = String::new();
    progress.read_to_string(&mut rest).expect("readable");
    let ran = ran(child.wait_with_output().expect("an end"));
    assert_eq!((ran.code, &*ran.out), (Some(130), ""), "{rest}");
    assert!(rest.ends_with("ERROR: the build was cancelled\n"), "{rest}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let idle = runtime
        .expect("a runtime")
        .block_on(daemon.wait_idle(0, Duration::from_secs(30)));
    assert_eq!(idle, Ok(()));
}
