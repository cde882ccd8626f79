//! The binary on real daemons: an image that runs, a step that fails, a build that is cancelled.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bk_testkit::live::{Daemon, Engine, Route, Target, until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{begun, bk, ran, run, text};

/// How long a daemon may take to stop the step of a cancelled build.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

const PLACES: [(Daemon, Route); 6] = [
    (Daemon::Docker20_10, Route::Grpc),
    (Daemon::Docker26_1, Route::Build),
    (Daemon::Docker28_5, Route::Tar),
    (Daemon::Docker28_5Containerd, Route::Grpc),
    (Daemon::BuildkitUnix, Route::Direct),
    (Daemon::BuildkitTcp, Route::Direct),
];

/// A context with a busybox as its shell.
fn context(target: &Target, rest: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::copy(&target.busybox, dir.path().join("busybox")).expect("a busybox");
    fs::write(
        dir.path().join("Dockerfile"),
        format!("FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/\n{rest}"),
    )
    .expect("writable");
    dir
}

pub(super) fn build(target: &Target, context: &Path, flags: &[&str]) -> Command {
    let mut command = match target.route {
        Route::Direct => bk(&["--backend", "buildkitd"]),
        route => bk(&["--docker-route", route.name()]),
    };
    command
        .args(["--addr", &target.address, "build"])
        .args(flags)
        .arg(context);
    command
}

/// Runs `test` on every place that is there, one after the other.
fn everywhere(name: &str, test: impl AsyncFn(&Target)) {
    on(&PLACES, name, test);
}

/// The same on some places.
pub(super) fn on(places: &[(Daemon, Route)], name: &str, test: impl AsyncFn(&Target)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    for (daemon, route) in places {
        if let Some(target) = Target::find(*daemon, *route, name) {
            runtime.block_on(async {
                let _turn = target.turn().await;
                test(&target).await;
            });
            target.passed(name);
        }
    }
}

#[test]
fn an_image_is_built_and_runs() {
    everywhere("cli::an_image_is_built_and_runs", async |target| {
        let engine = Engine::connect(&target.docker).await.expect("the engine behind");
        let tag = format!("bk-cli-{}", target.name().replace('/', "-").to_lowercase());
        let dir = context(target, "ARG WHO\nRUN echo \"hello $WHO\" > /said\n");
        let iid = dir.path().with_extension("iid");
        let flags = [
            "-q",
            "-t",
            &tag,
            "--build-arg",
            "WHO=you",
            "--iidfile",
            text(&iid),
        ];
        let ran = run(&mut build(target, dir.path(), &flags));
        assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{}", target.name());
        let id = fs::read_to_string(&iid).expect("the image id");
        fs::remove_file(&iid).expect("removable");
        assert_eq!(ran.out, format!("{id}\n"));
        assert_eq!(
            engine.image_id(&tag).await.expect("the image"),
            id,
            "{}",
            target.name()
        );
        let said = engine
            .run(
                &tag,
                &[
                    "/bin/sh",
                    "-c",
                    "while read line; do echo \"$line\"; done < /said",
                ],
            )
            .await;
        engine.remove_image(&tag).await.expect("removable");
        assert_eq!(said.expect("it runs").stdout, "hello you\n", "{}", target.name());
    });
}

#[test]
fn a_context_goes_through_a_pipe() {
    everywhere("cli::a_context_goes_through_a_pipe", async |target| {
        let engine = Engine::connect(&target.docker).await.expect("the engine behind");
        let tag = format!("bk-cli-pipe-{}", target.name().replace('/', "-").to_lowercase());
        let said = format!("{} {:?}", std::process::id(), std::time::UNIX_EPOCH.elapsed());
        let dir = context(
            target,
            "COPY . /all\nRUN [\"/bin/busybox\", \"test\", \"!\", \"-e\", \"/all/ignored\"]\n",
        );
        for (name, content) in [(".dockerignore", "ignored\n"), ("ignored", "x"), ("said", &said)] {
            fs::write(dir.path().join(name), content).expect("writable");
        }
        let mut packing = bk(&["ctx", "tar", text(dir.path())])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bk starts");
        let archive = packing.stdout.take().expect("piped");
        let mut build = build(target, Path::new("-"), &["-q", "-t", &tag]);
        let built = run(build.stdin(archive));
        let packed = ran(packing.wait_with_output().expect("it ends"));
        assert_eq!((packed.code, &*packed.err), (Some(0), ""), "{}", target.name());
        assert_eq!((built.code, &*built.err), (Some(0), ""), "{}", target.name());
        let seen = engine.run(&tag, &["/bin/busybox", "cat", "/all/said"]).await;
        engine.remove_image(&tag).await.expect("removable");
        assert_eq!(
            seen.expect("it runs").stdout.trim_end(),
            said,
            "{}",
            target.name()
        );
    });
}

#[test]
fn a_failing_step_is_reported() {
    everywhere("cli::a_failing_step_is_reported", async |target| {
        let dir = context(target, "RUN echo oh; exit 3\n");
        let ran = run(&mut build(target, dir.path(), &["--no-cache"]));
        assert_eq!((ran.code, &*ran.out), (Some(1), ""), "{}", target.name());
        let (_, report) = ran
            .err
            .split_once("------\n > [3/3] RUN echo oh; exit 3:\n")
            .expect("the last output");
        let (log, report) = report.split_once("------\n").expect("its end");
        assert!(log.ends_with(" oh\n"), "{log}");
        assert!(report.contains("exit code: 3"), "{}: {report}", target.name());
        // Where the daemon names no place, the step is looked for in the Dockerfile that was sent.
        assert!(
            report.contains("   4 | >>> RUN echo oh; exit 3\n"),
            "{}: {report}",
            target.name()
        );
    });
}

#[test]
fn an_interrupt_stops_the_step_on_the_daemon() {
    everywhere("cli::an_interrupt_stops_the_step_on_the_daemon", async |target| {
        // A number that no other process has among its arguments.
        let seconds = format!("{}1{}", std::process::id(), target.name().len());
        let dir = context(
            target,
            &format!("RUN echo begun; exec /bin/busybox sleep {seconds}\n"),
        );
        let mut command = build(target, dir.path(), &["--no-cache", "--progress", "plain"]);
        let (child, mut progress) = begun(&mut command);
        let running = || step_is_running(&seconds);
        assert!(
            until(LIMIT, PAUSE, async || running()).await,
            "the step began on {}",
            target.name()
        );
        kill(
            Pid::from_raw(i32::try_from(child.id()).expect("a process id")),
            Signal::SIGINT,
        )
        .expect("it runs");
        let mut rest = String::new();
        progress.read_to_string(&mut rest).expect("readable");
        let ran = ran(child.wait_with_output().expect("an end"));
        assert_eq!(ran.code, Some(130), "{}: {rest}", target.name());
        assert!(
            until(LIMIT, PAUSE, async || !running()).await,
            "the step still runs on {}",
            target.name()
        );
    });
}

/// Whether a process of this machine has `argument` as its last one.
pub(super) fn step_is_running(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("a proc file system");
    // Processes that end meanwhile cannot be read: they do not run.
    processes
        .flatten()
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .any(|line| {
            line.strip_suffix(b"\0")
                .is_some_and(|l| l.ends_with(format!("\0{argument}").as_bytes()))
        })
}
