//! Bad input and everything else that needs no daemon.

use std::{ffi::OsStr, fs};

use super::{bk, context, run, text};

const SCRATCH: &str = "FROM scratch\n";

#[test]
fn help_and_version_are_answers() {
    let ran = run(&mut bk(&["--version"]));
    assert_eq!(
        (ran.code, &*ran.out, &*ran.err),
        (Some(0), concat!("bk ", env!("CARGO_PKG_VERSION"), "\n"), "")
    );
    let ran = run(&mut bk(&["build", "--help"]));
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    for part in [
        "--build-arg <KEY[=VALUE]>",
        "Examples:",
        "Exit codes:",
        "130  the build was cancelled",
        "--addr",
    ] {
        assert!(ran.out.contains(part), "{part} in {}", ran.out);
    }
}

#[test]
fn wrong_command_lines_name_the_flag_and_what_is_allowed() {
    for (arguments, parts) in [
        (
            &["build", "--progress", "fancy", "."][..],
            &[
                "'fancy'",
                "--progress <MODE>",
                "auto, tty, plain, ordered, grouped, json, rawjson, quiet",
            ][..],
        ),
        (
            &["--backend", "podman", "build", "."],
            &["'podman'", "--backend <KIND>", "auto, docker, buildkitd"],
        ),
        (
            &["build", "--docker-route", "x", "."],
            &["--docker-route <ROUTE>", "auto, h2c, grpc, build, tar"],
        ),
        (&["build"], &["<PATH>"]),
        (&["build", "--nope", "."], &["'--nope'"]),
        (&[], &["Usage: bk"]),
    ] {
        let ran = run(&mut bk(arguments));
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{arguments:?}");
        for part in parts {
            assert!(ran.err.contains(part), "{part} in {}", ran.err);
        }
    }
}

#[test]
fn wrong_values_are_told_before_any_daemon_is_asked() {
    let dir = context(SCRATCH);
    for (arguments, told) in [
        (
            ["-t", "UPPER"],
            "ERROR: --tag: `UPPER`: a name must be lower case\n  hint: --tag takes [HOST[:PORT]/]NAME[:TAG], lower case, \
             for instance registry.example.com/team/app:1.0\n",
        ),
        (
            ["--platform", "a b"],
            "ERROR: --platform: `a b` is not a platform\n  hint: --platform takes OS/ARCH[/VARIANT], for instance \
             linux/amd64 or linux/arm/v7\n",
        ),
        (
            ["--iidfile", "/nonexistent/iid"],
            "ERROR: --iidfile: `/nonexistent/iid`: the directory `/nonexistent` does not exist\n  hint: --iidfile takes \
             a file to be written\n",
        ),
    ] {
        let ran = run(bk(&["--addr", "unix:///nonexistent.sock", "build"])
            .args(arguments)
            .arg(text(dir.path())));
        assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(2), "", told));
    }
}

#[test]
fn a_missing_context_is_named() {
    let ran = run(&mut bk(&["build", "/nonexistent/context"]));
    assert_eq!((ran.code, &*ran.out), (Some(2), ""));
    assert_eq!(
        ran.err,
        "ERROR: PATH: `/nonexistent/context` does not exist\n  hint: PATH takes a directory on this machine, or a Git or HTTP \
         address\n"
    );
}

#[test]
fn an_unreachable_daemon_is_named_with_what_to_start() {
    let dir = context(SCRATCH);
    let ran = run(&mut bk(&[
        "--addr",
        "unix:///nonexistent/bk.sock",
        "build",
        text(dir.path()),
    ]));
    assert_eq!((ran.code, &*ran.out), (Some(1), ""));
    assert!(ran.err.starts_with("ERROR: cannot reach a daemon"), "{}", ran.err);
    assert!(ran.err.contains("unix:///nonexistent/bk.sock"), "{}", ran.err);
    assert!(
        ran.err.contains("hint: start Docker (dockerd) or buildkitd"),
        "{}",
        ran.err
    );
}

#[test]
fn an_address_of_no_known_kind_is_refused() {
    let dir = context(SCRATCH);
    let ran = run(&mut bk(&["--addr", "gopher://x", "build", text(dir.path())]));
    assert!(matches!(ran.code, Some(1 | 2)), "{:?}: {}", ran.code, ran.err);
    assert!(
        ran.err.starts_with("ERROR: ") && ran.err.contains("gopher://x"),
        "{}",
        ran.err
    );
}

#[test]
fn a_failed_build_leaves_no_image_id_of_an_earlier_one() {
    let dir = context(SCRATCH);
    let iid = dir.path().join("iid");
    fs::write(&iid, "sha256:old").expect("writable");
    let flags: [&OsStr; 2] = ["--iidfile".as_ref(), iid.as_os_str()];
    let ran = run(bk(&["--addr", "unix:///nonexistent.sock", "build"])
        .args(flags)
        .arg(text(dir.path())));
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(!iid.exists());
}

#[test]
fn progress_of_the_environment_is_checked() {
    let dir = context(SCRATCH);
    let ran = run(bk(&["build", text(dir.path())]).env("BUILDKIT_PROGRESS", "fancy"));
    assert_eq!(ran.code, Some(2));
    assert_eq!(
        ran.err,
        "ERROR: BUILDKIT_PROGRESS: `fancy` is not a progress mode\n  hint: BUILDKIT_PROGRESS takes one of auto, tty, plain, \
         ordered, grouped, json, rawjson, quiet\n"
    );
}

#[cfg(unix)]
#[test]
fn a_reader_that_went_away_is_a_success() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = bk(&["build", "--help"])
        .stdout(writer)
        .status()
        .expect("bk starts");
    assert_eq!(status.code(), Some(0));
}
