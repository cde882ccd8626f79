//! Whole builds against the fake daemon: streams, files, failures, signals.

use std::{
    fs::{self, File},
    io::{BufReader, Read},
    path::Path,
    process::{Child, ChildStderr, Command},
    time::{Duration, Instant},
};

use bk_testkit::fake::{FakeDaemon, Fault, Script};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{begun, bk, context, ran, run, text};

pub(super) const GOOD: &str = "FROM scratch\nCOPY sh /bin/sh\nRUN echo one\n";
const ENDLESS: &str = "FROM scratch\nCOPY sh /bin/sh\nRUN echo begun && sleep 100000\n";
/// How long the fake daemon may take to notice that a client is gone.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn fake(script: Script) -> FakeDaemon {
    FakeDaemon::start(script).expect("a fake daemon")
}

/// `bk build` on that daemon.
pub(super) fn build(daemon: &FakeDaemon, context: &Path, arguments: &[&str]) -> Command {
    let mut command = bk(&["--backend", "buildkitd", "--addr", &daemon.address(), "build"]);
    command.args(arguments).arg(context);
    command
}

#[test]
fn a_quiet_build_prints_the_image_id_and_writes_its_files() {
    let (daemon, dir) = (fake(Script::healthy()), context(GOOD));
    let out = tempfile::tempdir().expect("a temporary directory");
    let (iid, metadata) = (out.path().join("iid"), out.path().join("metadata.json"));
    let flags = [
        "-q",
        "-t",
        "app:1",
        "--iidfile",
        text(&iid),
        "--metadata-file",
        text(&metadata),
    ];
    let ran = run(&mut build(&daemon, dir.path(), &flags));
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    let id = fs::read_to_string(&iid).expect("the image id");
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(ran.out, format!("{id}\n"));
    let metadata = fs::read_to_string(&metadata).expect("the metadata");
    assert!(
        metadata.starts_with("{\n  \"buildx.build.ref\": ") && metadata.ends_with("\n}"),
        "{metadata}"
    );
    assert!(metadata.contains(&id), "{metadata}");
    assert!(daemon.image("app:1").is_some());
}

#[test]
fn progress_goes_to_standard_error_only() {
    let (daemon, dir) = (fake(Script::healthy()), context(GOOD));
    let ran = run(&mut build(&daemon, dir.path(), &[]));
    assert_eq!((ran.code, &*ran.out), (Some(0), ""));
    let first = format!(
        "#0 building with buildkitd v0.32.0 at {}\n\n#1 ",
        daemon.address()
    );
    assert!(ran.err.starts_with(&first), "{}", ran.err);
    assert!(
        ran.err.contains("] RUN echo one\n") && ran.err.contains(" DONE "),
        "{}",
        ran.err
    );
}

#[test]
fn timings_follow_the_build() {
    let (daemon, dir) = (fake(Script::healthy()), context(GOOD));
    let ran = run(&mut build(&daemon, dir.path(), &["--timings"]));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let (_, end) = ran.err.split_once("critical path: ").expect("the critical path");
    assert!(end.contains("  exporting to image\n"), "{end}");
    let last = end.lines().last().unwrap_or_default();
    assert!(
        last.contains(" steps in ") && last.contains(" cached, "),
        "{last}"
    );
    let quiet = run(&mut build(&daemon, dir.path(), &["--progress", "quiet"]));
    assert_eq!((quiet.code, &*quiet.err), (Some(0), ""));
}

#[test]
fn files_that_changed_are_explained() {
    let dockerfile = "FROM scratch\nCOPY sh /bin/sh\nCOPY src /src\n";
    let (daemon, dir) = (fake(Script::healthy()), context(dockerfile));
    let cache = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("src")).expect("a directory");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("writable");
    write("src/a", "a");
    write("src/b", "b");
    let explained = |flags: &[&str]| {
        let ran = run(build(&daemon, dir.path(), flags).env("XDG_CACHE_HOME", cache.path()));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let at = ran.err.find("explain: ").unwrap_or(ran.err.len());
        ran.err[at..].to_owned()
    };
    let diff = || run(bk(&["ctx", "diff", "-C", text(dir.path())]).env("XDG_CACHE_HOME", cache.path()));
    let none = diff();
    assert_eq!(none.code, Some(2), "{}", none.err);
    assert!(
        none.err.contains("no build of this context is remembered"),
        "{}",
        none.err
    );
    let first = explained(&["--explain"]);
    assert!(
        first.starts_with("explain: no earlier build of this context is known"),
        "{first}"
    );
    assert_eq!((diff().code, &*diff().out), (Some(0), ""));
    write("src/a", "changed");
    write("src/c\u{1b}[2J", "new");
    fs::remove_file(dir.path().join("src/b")).expect("it was there");
    let diff = diff();
    assert_eq!(
        (diff.code, &*diff.out),
        (Some(1), "C src/a\n- src/b\n+ src/c\u{1b}[2J\n")
    );
    // The fake daemon knows no cache of steps: the other instruction runs as well.
    let second = explained(&["--explain"]);
    assert_eq!(
        second.lines().take(5).collect::<Vec<_>>(),
        [
            "explain: [1/2] COPY sh /bin/sh: nothing that it takes has changed since the last build: a step before it has, or \
             the daemon's cache lost it",
            "explain: [2/2] COPY src /src: 1 changed, 1 added, 1 removed",
            "  C src/a",
            "  - src/b",
            "  + src/c",
        ],
        "{second}"
    );
    assert_eq!(explained(&[]), "");
}

#[test]
fn our_own_json_begins_with_its_version() {
    let (daemon, dir) = (fake(Script::healthy()), context(GOOD));
    let ran = run(&mut build(&daemon, dir.path(), &["--progress", "json"]));
    assert_eq!((ran.code, &*ran.out), (Some(0), ""));
    let mut lines = ran.err.lines();
    assert_eq!(lines.next(), Some(r#"{"event":"schema","version":1}"#));
    let events: Vec<bk_client::BuildEvent> = lines
        .map(|line| serde_json::from_str(line).expect("an event"))
        .collect();
    assert!(matches!(
        events.first(),
        Some(bk_client::BuildEvent::Started { .. })
    ));
    assert!(matches!(
        events.last(),
        Some(bk_client::BuildEvent::Completed { error: None, .. })
    ));
}

#[test]
fn the_output_of_steps_goes_to_files_of_their_own() {
    let (daemon, dir) = (
        fake(Script::healthy()),
        context("FROM scratch\nCOPY sh /bin/sh\nRUN echo oh && exit 3\n"),
    );
    let logs = tempfile::tempdir().expect("a directory");
    let flags = ["-q", "--log-dir", text(logs.path())];
    let ran = run(&mut build(&daemon, dir.path(), &flags));
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let files: Vec<_> = fs::read_dir(logs.path())
        .expect("a directory")
        .map(|entry| entry.expect("readable").path())
        .collect();
    let [file] = &files[..] else {
        panic!("{files:?}");
    };
    let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    assert!(name.ends_with("-RUN-echo-oh-exit-3.log"), "{name}");
    assert!(fs::read_to_string(file).expect("readable").ends_with("oh\n"));
    let flags = ["--log-dir", text(file)];
    let ran = run(&mut build(&daemon, dir.path(), &flags));
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(
        ran.err.starts_with("ERROR: ") && ran.err.contains(name),
        "{}",
        ran.err
    );
}

#[test]
fn a_terminal_is_asked_for() {
    let dir = context(GOOD);
    let ran = run(&mut bk(&["build", "--progress", "tty", text(dir.path())]));
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.err
            .starts_with("ERROR: --progress: `tty` needs a terminal as standard error\n"),
        "{}",
        ran.err
    );
}

#[test]
fn raw_json_is_one_object_a_line() {
    let (daemon, dir) = (fake(Script::healthy()), context(GOOD));
    let ran = run(&mut build(&daemon, dir.path(), &["--progress", "rawjson"]));
    assert_eq!((ran.code, &*ran.out), (Some(0), ""));
    assert!(ran.err.lines().count() > 3, "{}", ran.err);
    for line in ran.err.lines() {
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(line).expect("a JSON object");
        assert!(
            object
                .keys()
                .all(|k| ["vertexes", "statuses", "logs", "warnings"].contains(&&**k)),
            "{line}"
        );
    }
}

#[test]
fn a_failing_step_shows_its_output_its_place_and_its_exit_code() {
    let (daemon, dir) = (
        fake(Script::healthy()),
        context("FROM scratch\nCOPY sh /bin/sh\nRUN echo oh && exit 3\n"),
    );
    for flags in [&["-q"][..], &[]] {
        let ran = run(&mut build(&daemon, dir.path(), flags));
        assert_eq!((ran.code, &*ran.out), (Some(1), ""), "{}", ran.err);
        let (_, end) = ran.err.split_once("------\n > ").expect("the last output");
        let (name, end) = end.split_once(":\n").expect("the name of the step");
        assert!(name.ends_with("RUN echo oh && exit 3"), "{name}");
        let (log, place) = end.split_once("------\n").expect("the end of the output");
        assert!(log.ends_with("oh\n"), "{log}");
        let (sum, place) = place.split_at(place.find("Dockerfile:3").expect("the place"));
        // Quiet is quiet; the context, the Dockerfile and its neighbours were sent.
        match flags {
            [] => {
                assert!(sum.contains(": 0 cached, 1 run, 1 failed; sent "), "{sum}");
                assert_eq!(sum.lines().count(), 1, "{sum}");
            }
            _ => assert_eq!(sum, ""),
        }
        assert!(
            place.starts_with("Dockerfile:3\n--------------------\n   1 |     FROM scratch\n"),
            "{place}"
        );
        assert!(place.contains("   3 | >>> RUN echo oh && exit 3\n"), "{place}");
        assert!(
            place.ends_with(" did not complete successfully: exit code: 3\n"),
            "{place}"
        );
    }
}

#[test]
fn a_syntax_error_names_file_and_line() {
    let (daemon, dir) = (fake(Script::healthy()), context("FROM scratch\nBAD x\n"));
    let ran = run(&mut build(&daemon, dir.path(), &["-q"]));
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains("Dockerfile:2\n") && ran.err.contains("   2 | >>> BAD x\n"),
        "{}",
        ran.err
    );
}

#[test]
fn codes_of_the_daemon_become_exit_codes() {
    let dir = context(GOOD);
    for (code, exit) in [(13, 100), (8, 102), (2, 1)] {
        let fault = Fault::FailSolve {
            code,
            message: "it\u{1b}[2J broke".to_owned(),
            details: Vec::new(),
        };
        let daemon = fake(Script::healthy().fault(fault));
        let ran = run(&mut build(&daemon, dir.path(), &["-q"]));
        assert_eq!(ran.code, Some(exit), "{}", ran.err);
        assert!(ran.err.starts_with("ERROR: it broke"), "{}", ran.err);
    }
}

#[test]
fn hostile_progress_reaches_no_terminal() {
    let (daemon, dir) = (fake(Script::healthy().fault(Fault::OddProgress)), context(GOOD));
    for mode in ["plain", "ordered", "grouped", "json", "rawjson"] {
        let ran = run(&mut build(&daemon, dir.path(), &["--progress", mode]));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let harmless = |c: char| c == '\n' || c == '\t' || !c.is_control();
        assert!(ran.err.chars().all(harmless), "{:?}", ran.err);
    }
}

#[test]
fn a_reader_of_progress_that_goes_away_does_not_stop_the_build() {
    let (daemon, dir) = (fake(Script::healthy()), context(GOOD));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = build(&daemon, dir.path(), &["-t", "kept"])
        .stderr(writer)
        .status()
        .expect("bk starts");
    assert_eq!(status.code(), Some(0));
    assert!(daemon.image("kept").is_some());
}

#[test]
fn a_dockerfile_comes_from_standard_input_or_from_outside() {
    let (daemon, dir) = (fake(Script::healthy()), context("nonsense\n"));
    let outside = context(GOOD);
    let file = outside.path().join("Dockerfile");
    let stdin = File::open(&file).expect("readable");
    let ran = run(build(&daemon, dir.path(), &["-f", "-", "-t", "stdin"]).stdin(stdin));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let ran = run(&mut build(
        &daemon,
        dir.path(),
        &["-f", text(&file), "-t", "outside"],
    ));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    // Relative to the current directory, not to the context.
    let mut relative = build(&daemon, dir.path(), &["-f", "Dockerfile", "-t", "relative"]);
    let ran = run(relative.current_dir(outside.path()));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ["stdin", "outside", "relative"]
            .iter()
            .all(|tag| daemon.image(tag).is_some())
    );
}

/// Starts an endless build and reads its progress until its step writes.
fn begin(daemon: &FakeDaemon, context: &Path) -> (Child, BufReader<ChildStderr>) {
    begun(&mut build(daemon, context, &["--progress", "plain"]))
}

pub(super) fn send(child: &Child, signal: Signal) {
    kill(
        Pid::from_raw(i32::try_from(child.id()).expect("a process id")),
        signal,
    )
    .expect("a running process");
}

#[test]
fn signals_cancel_the_build_on_the_daemon() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (daemon, dir) = (fake(Script::healthy()), context(ENDLESS));
        let (child, mut progress) = begin(&daemon, dir.path());
        assert_eq!(daemon.running_builds(), 1);
        send(&child, signal);
        let mut rest = String::new();
        progress.read_to_string(&mut rest).expect("readable");
        let ran = ran(child.wait_with_output().expect("an end"));
        assert_eq!((ran.code, &*ran.out), (Some(130), ""), "{rest}");
        assert!(rest.ends_with("ERROR: the build was cancelled\n"), "{rest}");
        assert_eq!(runtime.block_on(daemon.wait_idle(0, LIMIT)), Ok(()));
    }
}

/// Ctrl-C goes to every program that a terminal has in front, thus not to those that carry bytes for one of them.
#[test]
fn an_interrupt_does_not_reach_what_carries_the_bytes() {
    use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (daemon, dir) = (fake(Script::healthy()), context(ENDLESS));
    let bin = tempfile::tempdir().expect("a temporary directory");
    let (program, noted) = (bin.path().join("docker"), bin.path().join("noted"));
    let script = format!(
        "#!/bin/sh\ncut -d ' ' -f 5 /proc/self/stat > {}\nexec '{}' --backend buildkitd --addr '{}' dial-stdio\n",
        noted.display(),
        env!("CARGO_BIN_EXE_bk"),
        daemon.address()
    );
    fs::write(&program, script).expect("writable");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
    let mut command = bk(&["--addr", "docker-container://b0", "build", "--progress", "plain"]);
    command
        .arg(dir.path())
        .env("PATH", format!("{}:/usr/bin:/bin", bin.path().display()))
        .process_group(0);
    let (child, mut progress) = begun(&mut command);
    let group = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    let other = fs::read_to_string(noted).expect("its group");
    assert_ne!(other.trim(), group.to_string());
    nix::sys::signal::killpg(group, Signal::SIGINT).expect("a group");
    let mut rest = String::new();
    progress.read_to_string(&mut rest).expect("readable");
    let ran = ran(child.wait_with_output().expect("an end"));
    assert_eq!((ran.code, &*ran.out), (Some(130), ""), "{rest}");
    assert!(rest.ends_with("ERROR: the build was cancelled\n"), "{rest}");
    assert_eq!(runtime.block_on(daemon.wait_idle(0, LIMIT)), Ok(()));
}

#[test]
fn a_second_interrupt_ends_a_program_that_nobody_listens_to() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    // Far more than a pipe and a reader's buffer hold: the display gets stuck, as in a pager that waits.
    let much = format!("ARG MUCH={}\n", "x".repeat(40_000));
    let dockerfile = format!(
        "FROM scratch\nCOPY sh /bin/sh\n{much}RUN echo begun && {}sleep 100000\n",
        "echo $MUCH && ".repeat(10)
    );
    let (daemon, dir) = (fake(Script::healthy()), context(&dockerfile));
    let (mut child, _unread) = begin(&daemon, dir.path());
    send(&child, Signal::SIGINT);
    // The first was heard: the build is gone, although the display still is stuck.
    assert_eq!(runtime.block_on(daemon.wait_idle(0, LIMIT)), Ok(()));
    let asked = Instant::now();
    send(&child, Signal::SIGINT);
    assert_eq!(child.wait().expect("an end").code(), Some(130));
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "it waited for its display: {:?}",
        asked.elapsed()
    );
}

#[test]
fn a_trace_that_makes_no_sense_is_warned_of_once() {
    let (daemon, dir) = (fake(Script::healthy()), context(GOOD));
    fs::write(
        dir.path().join("docker-bake.json"),
        r#"{"target": {"default": {}, "other": {}}}"#,
    )
    .expect("writable");
    let said = |command: &mut Command, parent: &str, state: &str| {
        let ran = run(command
            .current_dir(dir.path())
            .env("TRACEPARENT", parent)
            .env("TRACESTATE", state));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let warnings = ran.err.lines().filter(|line| line.contains("TRACE"));
        warnings.map(str::to_owned).collect::<Vec<_>>()
    };
    let bad = "warning: TRACEPARENT: `00-x`: this is not a trace context; the build belongs to no trace";
    assert_eq!(said(&mut build(&daemon, dir.path(), &["-q"]), "00-x", ""), [bad]);
    let mut bake = bk(&["--backend", "buildkitd", "--addr", &daemon.address(), "bake"]);
    bake.args(["default", "other"]);
    assert_eq!(said(&mut bake, "00-x", ""), [bad]);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(
        said(&mut build(&daemon, dir.path(), &["-q"]), parent, "a"),
        ["warning: TRACESTATE: `a` is no entry; the build belongs to no trace"]
    );
    assert!(said(&mut build(&daemon, dir.path(), &["-q"]), parent, "a=1").is_empty());
}
