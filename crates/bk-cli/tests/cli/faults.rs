//! Daemons that are lost or stand still under the real program: what it says, what it tries again, how soon it ends.

use std::{
    io::Read,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use bk_testkit::fake::{Fault, Moment, Script};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    context,
    fake::{GOOD, build, fake},
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
    let mut command = build(&daemon, std::path::Path::new("-"), &["--retries", "3"]);
    command.stdin(std::fs::File::open(archive.path()).expect("an archive"));
    let ran = run(&mut command);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(!ran.err.contains("begins again"), "{}", ran.err);
    assert_eq!(daemon.seen().solves.len(), 1);
}

fn tar_of(archive: &std::path::Path, dir: &std::path::Path) -> std::process::Command {
    let mut tar = std::process::Command::new("tar");
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
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
        let mut child = build(&daemon, dir.path(), &["--progress", "plain"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bk starts");
        assert_eq!(runtime.block_on(daemon.wait_frozen(LIMIT)), Ok(()), "{moment:?}");
        let asked = Instant::now();
        let id = i32::try_from(child.id()).expect("a process id");
        kill(Pid::from_raw(id), Signal::SIGINT).expect("a running process");
        let (code, text) = stopped(&mut child, asked);
        let took = asked.elapsed();
        assert_eq!(code, Some(130), "{moment:?}: {text}");
        assert!(
            text.ends_with("ERROR: the build was cancelled\n"),
            "{moment:?}: {text}"
        );
        assert!(took < CANCEL, "{moment:?}: it took {took:?}");
    }
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
