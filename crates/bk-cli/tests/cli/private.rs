//! Private daemons: programs that write down how they were started, in front of the fake daemon; and a real dockerd.
//!
//! What stands for a buildkitd makes its socket a link to that of the fake daemon, and then sleeps.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bk_testkit::{
    fake::{FakeDaemon, Script},
    live::{Engine, dockerd_program},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};

use super::{Ran, begun, bk, context, fake::GOOD, run, text};

/// How long anything may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(120);
/// Somebody without any right.
const NOBODY: u32 = 65534;

/// A home of its own, and a directory with all programs that `bk` finds.
struct Place {
    dir: tempfile::TempDir,
    context: tempfile::TempDir,
}

impl Place {
    fn new(dockerfile: &str) -> Self {
        let place = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            context: context(dockerfile),
        };
        fs::create_dir(place.path("bin")).expect("a directory");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.path("home/.cache/bk/daemon")
    }

    fn program(&self, name: &str, script: &str) {
        let file = self.path("bin").join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("ours");
    }

    /// A program that writes down its arguments, each in a line, and leads to that daemon.
    fn recorder(&self, name: &str, daemon: &FakeDaemon) {
        let address = daemon.address();
        let socket = address.strip_prefix("unix://").expect("a socket");
        let script = format!(
            "printf '%s\\n' \"$0\" \"$@\" >> '{}'\nfor word; do case \"$word\" in unix://*) ln -s '{socket}' \
             \"${{word#unix://}}\";; esac; done\nexec sleep 1000",
            self.path("noted").display()
        );
        self.program(name, &script);
    }

    fn noted(&self) -> String {
        fs::read_to_string(self.path("noted")).unwrap_or_default()
    }

    /// How often the daemon was started.
    fn starts(&self) -> usize {
        self.noted()
            .lines()
            .filter(|line| line.ends_with("bin/buildkitd"))
            .count()
    }

    fn bk(&self, arguments: &[&str]) -> Command {
        let mut command = bk(arguments);
        command
            .env("HOME", self.path("home"))
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env_remove("XDG_RUNTIME_DIR");
        command
    }

    fn build(&self, flags: &[&str]) -> Command {
        let mut command = self.bk(&["build", "--progress", "plain", "-t", "private:1"]);
        command.args(flags).arg(self.context.path());
        command
    }

    fn builds(&self, flags: &[&str]) -> Ran {
        let ran = run(&mut self.build(flags));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran
    }

    fn status(&self) -> serde_json::Value {
        let ran = run(&mut self.bk(&["daemon", "status", "--json"]));
        assert_eq!((ran.code, &*ran.err), (Some(0), ""));
        serde_json::from_str(&ran.out).expect("JSON")
    }

    fn pid(&self, key: &str) -> u32 {
        let status = self.status();
        let pid = status[key].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.unwrap_or_else(|| panic!("{key} of {status}"))
    }

    fn is_running(&self) -> bool {
        self.status()["running"] == true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing may stay behind, whatever the test came to.
        drop(self.bk(&["daemon", "stop", "--force"]).output());
    }
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a process id")), signal).expect("it runs");
}

/// Whether a process is there and no zombie.
fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(20)); // sleep: processes that are not ours tell nobody that they end
    }
}

fn fake() -> FakeDaemon {
    super::fake::fake(Script::healthy())
}

/// What nothing else is reached with: on a machine with Docker its socket would answer.
const ALONE: [&str; 2] = ["--backend", "buildkitd"];
const ALWAYS: [&str; 1] = ["--daemonless"];

#[test]
fn a_buildkitd_is_started_once_with_exact_arguments_and_stopped() {
    if !geteuid().is_root() {
        return; // the other test has it then
    }
    let (daemon, place) = (fake(), Place::new(GOOD));
    place.recorder("buildkitd", &daemon);
    let stopped = format!(
        "no private daemon is running\nstate    {}\n",
        place.state().display()
    );
    assert_eq!(run(&mut place.bk(&["daemon", "status"])).out, stopped);
    place.builds(&["--daemonless", "--daemonless-idle", "1h"]);
    place.builds(&["--daemonless", "--daemonless-idle=2h"]);
    let state = place.state();
    let state = text(&state);
    let program = place.path("bin/buildkitd");
    assert_eq!(
        place.noted(),
        format!(
            "{}\n--root\n{state}/buildkit\n--addr\nunix://{state}/run/buildkitd.sock\n--containerd-worker=false\n",
            program.display()
        )
    );
    for dir in [place.state(), place.state().join("run")] {
        let mode = fs::metadata(dir).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
    // The leases of the builds end when the keeper sees that they closed.
    eventually("nobody uses it", || place.status()["leases"] == 0);
    let status = place.status();
    assert_eq!(
        (&status["kind"], &status["idleSeconds"]),
        (&"buildkitd".into(), &7200.into())
    );
    assert_eq!(status["program"], text(&program));
    let pid = place.pid("pid");
    let shown = run(&mut place.bk(&["daemon", "status"])).out;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("buildkitd is running for "), "{shown}");
    assert_eq!(lines[1], format!("program  {}", program.display()));
    assert_eq!(lines[2], format!("address  unix://{state}/run/buildkitd.sock"));
    assert!(lines[4].starts_with("used by  nobody; stops in "), "{shown}");
    let ran = run(&mut place.bk(&["daemon", "stop"]));
    assert_eq!(
        (ran.code, &*ran.out),
        (Some(0), "the private daemon was stopped\n")
    );
    assert!(!lives(pid));
    assert_eq!(run(&mut place.bk(&["daemon", "status"])).out, stopped);
    assert_eq!(
        run(&mut place.bk(&["daemon", "stop"])).out,
        "no private daemon is running\n"
    );
}

#[test]
fn who_is_not_root_gets_one_through_rootlesskit() {
    let (daemon, place) = (fake(), Place::new(GOOD));
    place.recorder("buildkitd", &daemon);
    let noted = place.path("noted");
    fs::write(&noted, "").expect("writable");
    place.program(
        "rootlesskit",
        &format!(
            "printf '%s\\n' \"$0\" \"$@\" >> '{}'\nshift 2\nexec \"$@\"",
            noted.display()
        ),
    );
    let build = |flags: &[&str]| {
        let mut command = place.build(flags);
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    if geteuid().is_root() {
        fs::create_dir(place.path("home")).expect("a directory");
        for path in [place.path("home"), noted.clone()] {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let address = daemon.address();
        let socket = Path::new(address.strip_prefix("unix://").expect("a socket"));
        let open =
            |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
        open(socket, 0o777);
        for dir in [
            socket.parent().expect("a directory"),
            place.dir.path(),
            place.context.path(),
        ] {
            open(dir, 0o755);
        }
        let own = Path::new(env!("CARGO_BIN_EXE_bk"));
        let reachable = own
            .ancestors()
            .skip(1)
            .all(|dir| fs::metadata(dir).is_ok_and(|found| found.permissions().mode() & 0o001 != 0));
        if !reachable {
            return; // a checkout that nobody else may look into
        }
    }
    let ran = run(&mut build(&["--daemonless"]));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let (state, bin) = (place.state(), place.path("bin"));
    let (state, bin) = (text(&state), text(&bin));
    let inner = format!(
        "{bin}/buildkitd\n--root\n{state}/buildkit\n--addr\nunix://{state}/run/buildkitd.sock\n--containerd-worker=false\n"
    );
    assert_eq!(
        place.noted(),
        format!("{bin}/rootlesskit\n--state-dir\n{state}/run/rootlesskit\n{inner}{inner}")
    );
    let mut stop = place.bk(&["daemon", "stop"]);
    if geteuid().is_root() {
        stop.uid(NOBODY).gid(NOBODY);
    }
    assert_eq!(run(&mut stop).out, "the private daemon was stopped\n");
    // Without it there is none.
    fs::remove_file(place.path("bin/rootlesskit")).expect("removable");
    let ran = run(&mut build(&["--daemonless"]));
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains(&format!(
            "{bin}/buildkitd needs `rootlesskit` when not started by root, which is not in PATH"
        )),
        "{}",
        ran.err
    );
}

#[test]
fn one_is_started_when_nothing_answers_and_that_is_said() {
    if !geteuid().is_root() {
        return; // rootlesskit would be needed
    }
    let (daemon, place) = (fake(), Place::new(GOOD));
    let ran = run(&mut place.build(&ALONE));
    assert_eq!(ran.code, Some(1), "no program, no daemon");
    let usual = ran.err;
    assert!(usual.contains("/run/buildkit/buildkitd.sock"), "{usual}");

    place.recorder("buildkitd", &daemon);
    let ran = run(place.build(&ALONE).arg("--daemonless=false"));
    assert_eq!((ran.code, ran.err), (Some(1), usual), "forbidden");
    let ran = run(place
        .build(&ALONE)
        .env("BUILDKIT_HOST", "unix:///nonexistent/b.sock"));
    assert_eq!(ran.code, Some(1), "a daemon was named");
    assert_eq!(place.starts(), 0);

    let said = format!(
        "no daemon answers: using a private buildkitd ({}); `bk daemon status` tells more, --daemonless=false \
         forbids it\n",
        place.path("bin/buildkitd").display()
    );
    for _ in 0..2 {
        let ran = place.builds(&ALONE);
        assert!(ran.err.starts_with(&said), "{}", ran.err);
    }
    // What builds nothing says what is true of it as well.
    for command in ["ping", "du"] {
        let ran = run(place.bk(&[command]).args(ALONE));
        assert!(ran.err.starts_with(&said), "{command}: {}", ran.err);
    }
    assert_eq!(place.starts(), 1);
}

#[test]
fn what_keeps_a_daemon_from_starting_is_told() {
    if !geteuid().is_root() {
        return;
    }
    let place = Place::new(GOOD);
    let fails = |flags: &[&str]| {
        let ran = run(&mut place.build(flags));
        (ran.code, ran.err)
    };
    assert_eq!(
        fails(&ALWAYS),
        (
            Some(1),
            "ERROR: --daemonless: there is no daemon to start: there is no `buildkitd` in PATH; there is no `dockerd` in \
             PATH\n  hint: install buildkitd (and rootlesskit, when not root) or dockerd, or name a daemon with --addr\n"
                .to_owned()
        )
    );
    assert_eq!(
        fails(&["--daemonless", "--daemonless-program", "podman"]),
        (
            Some(2),
            "ERROR: --daemonless-program: `podman`: its name says neither buildkitd nor dockerd\n  hint: \
             --daemonless-program takes the path of a buildkitd or dockerd, or its name in PATH\n"
                .to_owned()
        )
    );
    place.program("buildkitd", "echo one; echo 'cannot do that' >&2; exit 3");
    let text = format!(
        "ERROR: --daemonless: the private buildkitd ended with exit status: 3; its log ends with\n  one\n  cannot do that\n  \
         hint: its whole log is {}\n",
        place.state().join("daemon.log").display()
    );
    assert_eq!(fails(&ALWAYS), (Some(1), text));
    // Another program than the one that runs.
    let daemon = fake();
    place.recorder("buildkitd", &daemon);
    place.recorder("other-buildkitd", &daemon);
    place.builds(&ALWAYS);
    let (code, err) = fails(&["--daemonless", "--daemonless-program", "other-buildkitd"]);
    let bin = place.path("bin");
    assert_eq!(
        (code, err),
        (
            Some(1),
            format!(
                "ERROR: --daemonless: a private {0}/buildkitd is running already, and {0}/other-buildkitd was asked for\n  \
                 hint: stop it with `bk daemon stop`, or use it\n",
                bin.display()
            )
        )
    );
    // A state that is not ours to use.
    drop(run(&mut place.bk(&["daemon", "stop"])));
    fs::remove_dir_all(place.state()).expect("stopped");
    std::os::unix::fs::symlink("/tmp", place.state()).expect("a link");
    let (code, err) = fails(&ALWAYS);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("a private daemon needs a directory here that belongs to this user"),
        "{err}"
    );
    fs::remove_file(place.state()).expect("a link");
}

#[test]
fn several_at_once_get_the_same_daemon() {
    if !geteuid().is_root() {
        return;
    }
    let (daemon, place) = (fake(), Place::new(GOOD));
    place.recorder("buildkitd", &daemon);
    let start = |_| {
        let mut command = place.build(&ALWAYS);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bk starts")
    };
    let all: Vec<Child> = (0..4).map(start).collect();
    for child in all {
        let ran = super::ran(child.wait_with_output().expect("an end"));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    }
    assert_eq!(place.starts(), 1);
}

/// A build that goes on until it is ended.
fn endless(place: &Place, flags: &[&str]) -> Child {
    let (mut child, progress) = begun(&mut place.build(flags));
    // The rest is nobody's business, but must not fill the pipe.
    child.stderr = Some(progress.into_inner());
    child
}

const ENDLESS: &str = "FROM scratch\nCOPY sh /bin/sh\nRUN echo begun && sleep 100000\n";

#[test]
fn whoever_is_killed_blocks_nobody() {
    if !geteuid().is_root() {
        return;
    }
    let (daemon, place) = (fake(), Place::new(ENDLESS));
    place.recorder("buildkitd", &daemon);
    // A client: its lease is gone, the daemon stays, unless it was told to stay no longer.
    let mut client = endless(&place, &["--daemonless", "--daemonless-idle", "1h"]);
    assert_eq!(place.status()["leases"], 1);
    let ran = run(&mut place.bk(&["daemon", "stop"]));
    assert_eq!(
        (ran.code, &*ran.out),
        (Some(1), "1 command uses the private daemon; it goes on\n")
    );
    client.kill().expect("it runs");
    client.wait().expect("an end");
    eventually("the lease has ended", || place.status()["leases"] == 0);
    assert_eq!(place.starts(), 1);
    let mut client = endless(&place, &["--daemonless", "--daemonless-idle", "0s"]);
    assert_eq!(place.starts(), 1);
    client.kill().expect("it runs");
    client.wait().expect("an end");
    eventually("it has stopped", || !place.is_running());

    // The keeper: the daemon it leaves is ended by the next one.
    fs::write(place.context.path().join("Dockerfile"), GOOD).expect("writable");
    place.builds(&ALWAYS);
    assert_eq!(place.starts(), 2);
    let (keeper, left) = (place.pid("keeperPid"), place.pid("pid"));
    signal(keeper, Signal::SIGKILL);
    eventually("the keeper is gone", || !lives(keeper));
    assert!(lives(left));
    assert_eq!(place.status()["leftBehind"], left);
    place.builds(&ALWAYS);
    assert!(!lives(left));
    assert_eq!(place.starts(), 3);
    signal(place.pid("keeperPid"), Signal::SIGKILL);
    eventually("no keeper answers", || !place.is_running());
    let ran = run(&mut place.bk(&["daemon", "stop"]));
    assert_eq!(
        (ran.code, &*ran.out),
        (Some(0), "what a private daemon had left was ended\n")
    );

    // The daemon: its keeper goes as well.
    place.builds(&ALWAYS);
    assert_eq!(place.starts(), 4);
    signal(place.pid("pid"), Signal::SIGKILL);
    place.builds(&ALWAYS);
    assert_eq!(place.starts(), 5);
    // And SIGTERM to the keeper is a clean end.
    let (keeper, daemon) = (place.pid("keeperPid"), place.pid("pid"));
    signal(keeper, Signal::SIGTERM);
    eventually("both are gone", || !lives(keeper) && !lives(daemon));
    assert!(
        fs::read_dir(place.state().join("run"))
            .expect("there")
            .next()
            .is_none()
    );
}

/// The mounts below a directory.
fn mounts(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let below = |line: &&str| {
        line.split(' ')
            .nth(4)
            .is_some_and(|point| Path::new(point).starts_with(dir))
    };
    table.lines().filter(below).map(str::to_owned).collect()
}

#[test]
fn a_real_dockerd_builds_and_leaves_nothing() {
    let name = "cli::a_real_dockerd_builds_and_leaves_nothing";
    let Some(program) = dockerd_program(name) else {
        return;
    };
    let place = Place::new(
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY file /file\nRUN [\"/bin/busybox\", \"cp\", \"/file\", \"/copied\"]\n",
    );
    let busybox = std::env::var_os("BK_LIVE_BUSYBOX").expect("BK_LIVE_BUSYBOX");
    fs::copy(busybox, place.context.path().join("busybox")).expect("a busybox");
    let file = |content: &str| fs::write(place.context.path().join("file"), content).expect("writable");
    file("one");
    let program = text(&program);
    let flags = [
        "--daemonless",
        "--daemonless-program",
        program,
        "--daemonless-idle",
        "1h",
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let copied = || {
        let socket = place.state().join("run/docker.sock");
        runtime.block_on(async {
            let engine = Engine::connect(&socket).await.expect("the engine");
            let tree = engine.tree("private:1", "").await.expect("the image");
            assert!(tree.entries.contains_key(&b"copied"[..]));
        });
    };

    // Two at once: one daemon.
    let start = |_| {
        let mut command = place.build(&flags);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bk starts")
    };
    let both: Vec<Child> = (0..2).map(start).collect();
    for child in both {
        let ran = super::ran(child.wait_with_output().expect("an end"));
        let log = fs::read_to_string(place.state().join("daemon.log")).unwrap_or_default();
        assert_eq!(ran.code, Some(0), "{}\n{log}", ran.err);
    }
    copied();
    let first = place.pid("pid");
    file("two");
    let ran = place.builds(&flags);
    assert!(ran.err.contains("CACHED"), "its cache is warm: {}", ran.err);
    assert_eq!(place.pid("pid"), first);

    // Each of the two is killed, and the next build works.
    signal(place.pid("keeperPid"), Signal::SIGKILL);
    eventually("no keeper answers", || !place.is_running());
    file("three");
    place.builds(&flags);
    let second = place.pid("pid");
    assert!(second != first && !lives(first));
    signal(second, Signal::SIGKILL);
    file("four");
    let ran = place.builds(&flags);
    assert!(ran.err.contains("CACHED"), "the state has survived: {}", ran.err);
    copied();

    // Unused for long enough it stops, and nothing of it stays but its state.
    let (keeper, last) = (place.pid("keeperPid"), place.pid("pid"));
    let flags = [
        "--daemonless",
        "--daemonless-program",
        program,
        "--daemonless-idle",
        "0s",
    ];
    place.builds(&flags);
    eventually("it has stopped", || {
        !place.is_running() && !lives(keeper) && !lives(last)
    });
    assert_eq!(mounts(&place.state()), Vec::<String>::new());
    let mark = format!("BK_DAEMON_STATE={}", place.state().display());
    for process in fs::read_dir("/proc").expect("a proc file system").flatten() {
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        assert!(
            !environment
                .split(|b| *b == 0)
                .any(|variable| variable == mark.as_bytes()),
            "{} is left",
            process.path().display()
        );
    }
}
