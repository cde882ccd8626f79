//! Daemons that are lost or stand still under the real program: what it says, what it tries again, how soon it ends. And the
//! program that is stopped itself.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bk_testkit::{
    fake::{Fault, Moment, Script},
    garbage::{Garbage, Manners},
    live::{Daemon, Route, Target},
    proxy::Proxy,
    tls::{Authority, TlsFront},
};
use nix::sys::signal::Signal;

use super::{
    bk, context,
    fake::{GOOD, build, fake, send},
    ran, run,
};

/// How long a program that was told to stop may take, whatever the daemon does.
const CANCEL: Duration = Duration::from_secs(2);
/// Nothing here takes longer, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_build_whose_daemon_was_lost_begins_again_and_says_so() {
    let lost = Script::healthy()
        .fault(Fault::CutConnection(Moment::FirstEntry))
        .only_first(1);
    let (daemon, dir) = (fake(lost), context(GOOD));
    let ran = run(&mut build(
        &daemon,
        dir.path(),
        &["-t", "again:1", "--progress", "plain"],
    ));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let told: Vec<_> = ran.err.lines().filter(|l| l.starts_with("#0 WARN: ")).collect();
    let [line] = told[..] else { panic!("{}", ran.err) };
    let begin = format!("#0 WARN: lost the daemon at {}: ", daemon.address());
    assert!(line.starts_with(&begin), "{line}");
    assert!(line.ends_with("; the build begins again (1 of 1)"), "{line}");
    assert!(daemon.image("again:1").is_some());
    assert_eq!(daemon.seen().solves.len(), 2);
}

#[test]
fn without_retries_and_after_the_last_the_loss_is_the_error() {
    for (retries, builds) in [("0", 1), ("2", 3)] {
        let lost = Script::healthy().fault(Fault::CutSession(Moment::SessionAttached));
        let (daemon, dir) = (fake(lost), context(GOOD));
        let ran = run(&mut build(&daemon, dir.path(), &["--retries", retries]));
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        let error = format!("\nERROR: lost the daemon at {}: ", daemon.address());
        assert!(ran.err.contains(&error), "{}", ran.err);
        assert_eq!(daemon.seen().solves.len(), builds);
    }
}

#[test]
fn an_archive_on_standard_input_is_not_sent_twice() {
    let lost = Script::healthy().fault(Fault::CutConnection(Moment::SessionAttached));
    let (daemon, dir) = (fake(lost), context(GOOD));
    let archive = tempfile::NamedTempFile::new().expect("a file");
    let mut tar = tar_of(archive.path(), dir.path());
    assert!(tar.status().expect("tar runs").success());
    let mut command = build(&daemon, Path::new("-"), &["--retries", "3"]);
    command.stdin(std::fs::File::open(archive.path()).expect("an archive"));
    let ran = run(&mut command);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(!ran.err.contains("begins again"), "{}", ran.err);
    assert_eq!(daemon.seen().solves.len(), 1);
}

fn tar_of(archive: &Path, dir: &Path) -> Command {
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(archive).arg("-C").arg(dir).arg(".");
    tar
}

#[test]
fn what_may_be_exported_is_not_built_twice() {
    let lost = Script::healthy().fault(Fault::CutConnection(Moment::BeforeExport));
    let (daemon, dir) = (fake(lost), context(GOOD));
    let ran = run(&mut build(&daemon, dir.path(), &["--retries", "3"]));
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let tries = daemon.seen().solves.len();
    let told = ran.err.contains("exporting to image");
    assert_eq!(tries == 1, told, "{tries} builds: {}", ran.err);
}

#[test]
fn a_daemon_that_stands_still_has_stalled() {
    let frozen = Script::healthy().fault(Fault::Freeze(Moment::FirstEntry));
    let (daemon, dir) = (fake(frozen), context(GOOD));
    let begun = Instant::now();
    let ran = run(&mut build(
        &daemon,
        dir.path(),
        &["--retries=0", "--stall-timeout=2s"],
    ));
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let error = format!(
        "ERROR: the daemon at {} has stalled: nothing came from it for 2 s\n  hint: its machine or the link may be \
         overloaded, or its process stopped; --stall-timeout sets how long to wait\n",
        daemon.address()
    );
    assert!(ran.err.ends_with(&error), "{}", ran.err);
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
}

#[test]
fn a_silent_step_is_no_stall() {
    // No health checks either: all that comes from the daemon are answers to pings.
    let quiet = Script::healthy().health_interval(Duration::from_secs(3600));
    let dockerfile = "FROM scratch\nCOPY sh /bin/sh\nRUN sleep 7\n";
    let (daemon, dir) = (fake(quiet), context(dockerfile));
    let ran = run(&mut build(
        &daemon,
        dir.path(),
        &["--retries=0", "--stall-timeout=3s"],
    ));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
}

/// Waits until the daemon builds, and stands still for that.
fn stopped(child: &mut Child, begun: Instant) -> (Option<i32>, String) {
    let ended = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        assert!(begun.elapsed() < LIMIT, "it does not end");
        // sleep: the pace of looking, and the accuracy of what is measured.
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut text = String::new();
    if let Some(err) = &mut child.stderr {
        err.read_to_string(&mut text).expect("readable");
    }
    (ended.code(), text)
}

#[test]
fn an_interrupt_ends_the_program_also_under_a_daemon_that_stands_still() {
    for moment in [
        Moment::SessionAttached,
        Moment::FirstEntry,
        Moment::FirstData,
        Moment::BeforeExport,
    ] {
        let (daemon, dir) = (
            fake(Script::healthy().fault(Fault::Freeze(moment))),
            context(GOOD),
        );
        let child = started(&mut build(&daemon, dir.path(), &["--progress", "plain"]));
        assert_eq!(
            runtime().block_on(daemon.wait_frozen(LIMIT)),
            Ok(()),
            "{moment:?}"
        );
        interrupted(child, &format!("{moment:?}"));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

#[test]
fn a_program_that_was_stopped_goes_on() {
    // All that comes from the daemon are answers to pings, and those are late.
    let quiet = Script::healthy().health_interval(Duration::from_secs(3600));
    let dockerfile = "FROM scratch\nCOPY sh /bin/sh\nRUN echo begun && sleep 12\n";
    let (daemon, dir) = (fake(quiet), context(dockerfile));
    let proxy = Proxy::start(&daemon.address()).expect("a proxy");
    let flags = ["--retries=0", "--stall-timeout=3s", "--progress", "plain"];
    let mut child = bk(&["--backend", "buildkitd", "--addr", &proxy.address(), "build"])
        .args(flags)
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bk starts");
    let mut progress = BufReader::new(child.stderr.take().expect("a pipe"));
    read_until(&mut progress, " begun\n");
    proxy.slow_down(Duration::ZERO, Duration::from_millis(600));
    send(&child, Signal::SIGSTOP);
    // sleep: how long the program stands still, which is longer than it bears silence
    std::thread::sleep(Duration::from_secs(5));
    send(&child, Signal::SIGCONT);
    let mut rest = String::new();
    progress.read_to_string(&mut rest).expect("readable");
    assert_eq!(child.wait().expect("an end").code(), Some(0), "{rest}");
}

/// Reads lines up to one with that end.
fn read_until(progress: &mut impl BufRead, end: &str) {
    let mut line = String::new();
    while !line.ends_with(end) {
        line.clear();
        let read = progress.read_line(&mut line).expect("readable");
        assert_ne!(read, 0, "the program ended before `{end}`");
    }
}

/// Sends SIGINT, and expects the end of a build that was cancelled within its time.
fn interrupted(mut child: Child, what: &str) {
    let asked = Instant::now();
    send(&child, Signal::SIGINT);
    let (code, text) = stopped(&mut child, asked);
    let took = asked.elapsed();
    assert_eq!(code, Some(130), "{what}: {text}");
    assert!(
        text.ends_with("ERROR: the build was cancelled\n"),
        "{what}: {text}"
    );
    assert!(took < CANCEL, "{what}: it took {took:?}");
}

fn started(command: &mut Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bk starts")
}

#[test]
fn an_interrupt_ends_the_program_while_it_connects() {
    let (silent, dir) = (
        Garbage::start(Manners::Silent).expect("a listener"),
        context(GOOD),
    );
    let proxy = Proxy::start(&silent.address()).expect("a proxy");
    for backend in ["buildkitd", "docker"] {
        let before = proxy.bytes_to_daemon();
        let flags = ["--backend", backend, "--addr", &proxy.address(), "build"];
        let child = started(bk(&flags).arg(dir.path()));
        runtime()
            .block_on(proxy.wait_to_daemon(before + 1, LIMIT))
            .expect("a question");
        interrupted(child, backend);
    }
}

#[test]
fn an_interrupt_ends_the_program_under_a_stopped_daemon_behind_tls() {
    let frozen = Script::healthy().fault(Fault::Freeze(Moment::FirstData));
    let (daemon, dir, keys) = (
        fake(frozen),
        context(GOOD),
        tempfile::tempdir().expect("a directory"),
    );
    let authority = Authority::new().expect("keys");
    let identity = authority
        .sign(keys.path(), "127.0.0.1", false)
        .expect("a certificate");
    let front = TlsFront::start(daemon.socket(), &identity, None).expect("a front");
    let ca = keys.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).expect("writable");
    let address = format!("tcp://{}", front.address());
    let mut command = bk(&["--addr", &address, "--tlscacert"]);
    let child = started(command.arg(&ca).arg("build").arg(dir.path()));
    runtime()
        .block_on(daemon.wait_frozen(LIMIT))
        .expect("a stopped daemon");
    interrupted(child, "TLS");
}

#[test]
fn an_interrupt_ends_the_programs_that_carry_bytes_too() {
    let (dir, bin) = (context(GOOD), tempfile::tempdir().expect("a directory"));
    for (program, address) in [("ssh", "ssh://far"), ("docker", "docker-container://near")] {
        let frozen = Script::healthy().fault(Fault::Freeze(Moment::FirstData));
        let daemon = fake(frozen);
        let ids = bin.path().join(format!("{program}-ids"));
        let script = format!(
            "#!/bin/sh\necho $$ >> '{}'\nexec '{}' --addr '{}' dial-stdio\n",
            ids.display(),
            env!("CARGO_BIN_EXE_bk"),
            daemon.address()
        );
        let path = bin.path().join(program);
        std::fs::write(&path, script).expect("writable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
        let mut command = bk(&["--backend", "buildkitd", "--addr", address, "build"]);
        command
            .env("PATH", format!("{}:/usr/bin:/bin", bin.path().display()))
            .arg(dir.path());
        let child = started(&mut command);
        runtime()
            .block_on(daemon.wait_frozen(LIMIT))
            .expect("a stopped daemon");
        interrupted(child, address);
        let ids = std::fs::read_to_string(&ids).expect("it ran");
        assert!(!ids.is_empty());
        for id in ids.lines() {
            let runs = || {
                let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
                line.windows(10).any(|word| word == b"dial-stdio")
            };
            let begun = Instant::now();
            while runs() {
                assert!(begun.elapsed() < CANCEL, "{address}: process {id} is still there");
                // sleep: the end of a process that is not our child cannot be waited for
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

#[test]
fn an_interrupt_in_the_middle_of_a_result_leaves_nothing() {
    const TEST: &str = "cli::an_interrupt_in_the_middle_of_a_result_leaves_nothing";
    for daemon in [Daemon::Docker28_5, Daemon::Docker20_10] {
        let Some(target) = Target::find(daemon, Route::Grpc, TEST) else {
            continue;
        };
        let (dir, out) = (
            context("FROM scratch\nCOPY large /\n"),
            tempfile::tempdir().expect("a directory"),
        );
        let mut large = format!("{:?} {}", Instant::now(), target.name()).into_bytes();
        large.resize(8 << 20, 7);
        std::fs::write(dir.path().join("large"), large).expect("writable");
        for kind in ["tar", "local"] {
            let proxy = Proxy::start(&target.address).expect("a proxy");
            let place = out.path().join(kind);
            let output = format!("type={kind},dest={}", place.display());
            proxy.slow_down(Duration::ZERO, Duration::from_millis(5));
            let mut command = bk(&["--backend", "docker", "--docker-route", "grpc", "--addr"]);
            command.args([&proxy.address(), "build", "--output", &output]);
            let mut child = started(command.arg(dir.path()));
            let begun = Instant::now();
            while proxy.bytes_to_client() < 1 << 20 {
                let ended = child.try_wait().expect("a child");
                assert!(
                    ended.is_none() && begun.elapsed() < LIMIT,
                    "{kind}: no result comes"
                );
                // sleep: the pace of looking
                std::thread::sleep(Duration::from_millis(5));
            }
            interrupted(child, &format!("{}, {kind}", target.name()));
            let names: Vec<_> = walk(out.path());
            let whole = place.join("large");
            assert!(
                names.iter().all(|name| *name == place && kind == "local"),
                "{kind}: {names:?}, {}",
                whole.exists()
            );
        }
        target.passed(TEST);
    }
}

/// Everything below a directory.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("readable").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

#[test]
fn health_answers_come_in_time_while_everything_is_sent() {
    let script = Script::healthy().health_interval(Duration::from_millis(50));
    let (daemon, dir) = (fake(script), context("FROM scratch\nCOPY . /\n"));
    for n in 0..3000 {
        std::fs::write(dir.path().join(format!("f{n}")), vec![n as u8; 4096]).expect("a file");
    }
    std::fs::write(dir.path().join("large"), vec![7; 64 << 20]).expect("a file");
    let ran = ran(build(&daemon, dir.path(), &[]).output().expect("bk runs"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let seen = daemon.seen();
    assert_eq!(seen.health_failures, 0);
    assert!(seen.health_checks > 3, "{seen:?}");
    // The oldest daemons give up after ten seconds, for good; on this machine others may run at the same time.
    assert!(
        seen.health_worst < Duration::from_secs(5),
        "{:?}",
        seen.health_worst
    );
}
