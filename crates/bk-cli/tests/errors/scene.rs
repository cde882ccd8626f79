//! A directory with a context in it, and one run of the program there.

use std::{
    ffi::OsString,
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use bk_testkit::live::{Daemon, Route, Target};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::snapshot::general;

/// A directory in which `app` is the context, and the program runs there.
pub(super) struct Scene {
    dir: tempfile::TempDir,
    known: Vec<(String, String)>,
    /// Arguments before the command.
    global: Vec<String>,
    env: Vec<(OsString, OsString)>,
    wrapper: Vec<String>,
}

impl Scene {
    /// A scene with this Dockerfile.
    pub(super) fn new(dockerfile: &str) -> Self {
        let scene = Self::empty();
        scene.file("Dockerfile", dockerfile);
        scene
    }

    /// A scene without a Dockerfile.
    pub(super) fn empty() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("app")).expect("a directory");
        let text = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
        let known = vec![
            (text(dir.path().join("app")), "<context>".to_owned()),
            (text(dir.path().to_owned()), "<dir>".to_owned()),
        ];
        Self {
            dir,
            known,
            global: Vec::new(),
            env: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// A scene whose image has a shell and something that no other build has, so that no step of it is known to a daemon.
    pub(super) fn with_shell(target: &Target, rest: &str) -> Self {
        let scene = Self::new(&format!("FROM scratch\nCOPY sh unique /bin/\n{rest}"));
        fs::copy(&target.busybox, scene.path("sh")).expect("a busybox");
        scene.unique();
        scene
    }

    /// Puts a file into the context that no other build has.
    pub(super) fn unique(&self) {
        let content = format!("{:?}\n{:?}\n", self.dir.path(), std::time::UNIX_EPOCH.elapsed());
        self.file("unique", content);
    }

    /// A place in the context.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("app").join(name)
    }

    /// Writes a file of the context, with the directories above it.
    pub(super) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory above")).expect("a directory");
        fs::write(path, content).expect("writable");
        self
    }

    /// Makes a directory of the context.
    pub(super) fn directory(&self, name: &str) -> &Self {
        fs::create_dir_all(self.path(name)).expect("a directory");
        self
    }

    /// Makes a symbolic link in the context.
    pub(super) fn link(&self, name: &str, target: &str) -> &Self {
        std::os::unix::fs::symlink(target, self.path(name)).expect("a link");
        self
    }

    /// Makes something in the context that is no file: a named pipe, or the device that swallows everything.
    pub(super) fn node(&self, name: &str, kind: SFlag) -> &Self {
        let mode = Mode::from_bits_truncate(0o644);
        mknod(&self.path(name), kind, mode, makedev(1, 3)).expect("allowed");
        self
    }

    /// Makes a socket in the context.
    pub(super) fn socket(&self, name: &str) -> &Self {
        UnixListener::bind(self.path(name)).expect("a socket");
        self
    }

    /// A text that differs from run to run, and the word that stands for it.
    pub(super) fn known(&mut self, text: impl Into<String>, word: &str) -> &mut Self {
        self.known.push((text.into(), word.to_owned()));
        self
    }

    /// Sets a variable of the program's environment.
    pub(super) fn env(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs the program through another one.
    pub(super) fn through(&mut self, program: &[&str]) -> &mut Self {
        self.wrapper = program.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Builds on this daemon.
    pub(super) fn on(&mut self, target: &Target) -> &mut Self {
        let way: [&str; 2] = match target.route {
            Route::Direct => ["--backend", "buildkitd"],
            route => ["--docker-route", route.name()],
        };
        self.global = way.iter().map(|&word| word.to_owned()).collect();
        self.known(&target.address, "<daemon>");
        self.known(target.docker.to_string_lossy(), "<daemon>");
        self.known(&target.base.host, "<registry>");
        self.global.extend(["--addr".to_owned(), target.address.clone()]);
        self
    }

    /// Builds on the BuildKit endpoint at `address`.
    pub(super) fn at(&mut self, backend: &str, address: &str) -> &mut Self {
        self.known(address, "<daemon>");
        self.global = ["--backend", backend, "--addr", address]
            .map(str::to_owned)
            .to_vec();
        self
    }

    /// The program with these arguments, to be run in the context.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_bk");
        let mut command = match &self.wrapper[..] {
            [] => Command::new(program),
            [wrapper, rest @ ..] => {
                let mut command = Command::new(wrapper);
                command.args(rest).arg(program);
                command
            }
        };
        command
            .args(&self.global)
            .args(arguments)
            .current_dir(self.path(""))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.dir.path())
            .env("XDG_CACHE_HOME", self.dir.path().join("cache"))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What the terminal shows of a run, with the command before it and the exit code behind it.
    pub(super) fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("bk starts");
        self.report(arguments, &output)
    }

    /// The same of a run that has ended.
    pub(super) fn report(&self, arguments: &[&str], output: &Output) -> String {
        let err = String::from_utf8(output.stderr.clone()).expect("bk writes UTF-8");
        let out = String::from_utf8(output.stdout.clone()).expect("bk writes UTF-8");
        let code = output
            .status
            .code()
            .map_or("none".to_owned(), |code| code.to_string());
        let shown = arguments.iter().copied().filter(|word| *word != "-q");
        let shown: Vec<&str> = shown
            .map(|word| if word.is_empty() { "''" } else { word })
            .collect();
        general(
            &format!("$ bk {}\n{out}{err}exit code {code}\n", shown.join(" ")),
            &self.known,
        )
    }

    /// The directory around the context.
    pub(super) fn around(&self) -> &Path {
        self.dir.path()
    }
}

/// The newest engine, and the oldest with the name of its variants.
pub(super) const ENGINES: [(Daemon, Route, &str); 2] = [
    (Daemon::Docker28_5, Route::Grpc, ""),
    (Daemon::Docker20_10, Route::Grpc, "20.10"),
];

/// The same with the ways on which less is said.
pub(super) const ROUTES: [(Daemon, Route, &str); 5] = [
    (Daemon::Docker28_5, Route::Grpc, ""),
    (Daemon::Docker28_5, Route::Tar, "tar"),
    (Daemon::Docker20_10, Route::Grpc, "20.10"),
    (Daemon::Docker20_10, Route::Build, "20.10-build"),
    (Daemon::Docker20_10, Route::Tar, "20.10-tar"),
];

/// The targets of this test that are there.
pub(super) fn targets(places: &[(Daemon, Route, &'static str)], test: &str) -> Vec<(Target, &'static str)> {
    let there = places
        .iter()
        .filter_map(|(daemon, route, variant)| Some((Target::find(*daemon, *route, test)?, *variant)));
    there.collect()
}
