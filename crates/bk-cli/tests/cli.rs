//! The binary from outside: exit codes, what goes to which stream, bad input, signals; without a daemon, against the fake
//! one, and against live ones.

#[cfg(unix)]
#[path = "cli/admin.rs"]
mod admin;
#[path = "cli/bake.rs"]
mod bake;
#[cfg(unix)]
#[path = "cli/bake_fake.rs"]
mod bake_fake;
#[cfg(unix)]
#[path = "cli/bake_live.rs"]
mod bake_live;
#[cfg(unix)]
#[path = "cli/builders.rs"]
mod builders;
#[path = "cli/buildx.rs"]
mod buildx;
#[cfg(unix)]
#[path = "cli/call.rs"]
mod call;
#[cfg(unix)]
#[path = "cli/ctx.rs"]
mod ctx;
#[cfg(unix)]
#[path = "cli/ctx_live.rs"]
mod ctx_live;
#[path = "cli/endpoints.rs"]
mod endpoints;
#[cfg(unix)]
#[path = "cli/engines.rs"]
mod engines;
#[cfg(unix)]
#[path = "cli/export.rs"]
mod export;
#[cfg(unix)]
#[path = "cli/fake.rs"]
mod fake;
#[path = "cli/faults.rs"]
mod faults;
#[cfg(unix)]
#[path = "cli/guide.rs"]
mod guide;
#[path = "cli/input.rs"]
mod input;
#[cfg(unix)]
#[path = "cli/live.rs"]
mod live;
#[cfg(unix)]
#[path = "cli/look.rs"]
mod look;
#[cfg(unix)]
#[path = "cli/nodes.rs"]
mod nodes;
#[cfg(unix)]
#[path = "cli/own.rs"]
mod own;
#[cfg(unix)]
#[path = "cli/pass.rs"]
mod pass;
#[cfg(unix)]
#[path = "cli/podman.rs"]
mod podman;
#[cfg(unix)]
#[path = "cli/private.rs"]
mod private;
#[path = "cli/readme.rs"]
mod readme;
#[cfg(unix)]
#[path = "cli/settings.rs"]
mod settings;
#[cfg(unix)]
#[path = "cli/several.rs"]
mod several;
#[cfg(unix)]
#[path = "cli/terminal.rs"]
mod terminal;
#[cfg(unix)]
#[path = "cli/unreachable.rs"]
mod unreachable;
#[cfg(unix)]
#[path = "cli/versus.rs"]
mod versus;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};
#[cfg(unix)]
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStderr},
};

/// `bk` with an environment that names no daemon.
fn bk(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bk"));
    command.args(arguments).stdin(Stdio::null());
    for name in [
        "BUILDKIT_HOST",
        "DOCKER_HOST",
        "BUILDKIT_PROGRESS",
        "BUILDX_BAKE_FILE",
        "BUILDX_BAKE_ENTITLEMENTS_FS",
        "BUILDKIT_COLORS",
        "NO_COLOR",
        "CLICOLOR_FORCE",
        "XDG_CONFIG_HOME",
        "GITHUB_ACTIONS",
        "GITLAB_CI",
        "BUILDKITE",
        "DOCKER_CONFIG",
        "DOCKER_CONTEXT",
        "DOCKER_TLS",
        "DOCKER_TLS_VERIFY",
        "DOCKER_CERT_PATH",
        "BUILDX_BUILDER",
        "BUILDX_CONFIG",
        "HOME",
        "XDG_CACHE_HOME",
    ] {
        command.env_remove(name);
    }
    // Settings of whoever runs the tests.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BK_") {
            command.env_remove(name);
        }
    }
    command
}

/// What a run of the binary came to.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(command: &mut Command) -> Ran {
    ran(command.output().expect("bk starts"))
}

fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).expect("bk writes UTF-8");
    Ran {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Starts a build, which writes its progress to a pipe, and reads that until a step says `begun`.
#[cfg(unix)]
fn begun(build: &mut Command) -> (Child, BufReader<ChildStderr>) {
    let mut child = build
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bk starts");
    let mut progress = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.ends_with(" begun\n") {
        line.clear();
        let read = progress.read_line(&mut line).expect("readable");
        assert_ne!(read, 0, "the build ended before its step began");
    }
    (child, progress)
}

/// A context with this Dockerfile and a file that stands for a shell.
fn context(dockerfile: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("Dockerfile"), dockerfile).expect("writable");
    fs::write(dir.path().join("sh"), "not a shell\n").expect("writable");
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have UTF-8 names")
}
