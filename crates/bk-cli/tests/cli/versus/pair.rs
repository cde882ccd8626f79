//! Both clients on one daemon, with the same configuration.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bk_testkit::live::{Daemon, Route, Target, say};

use crate::{Ran, bk, run, text};

const PLACES: [(Daemon, Route); 4] = [
    (Daemon::Docker20_10, Route::Grpc),
    (Daemon::Docker28_5, Route::Grpc),
    (Daemon::Docker28_5Containerd, Route::Grpc),
    (Daemon::BuildkitUnix, Route::Direct),
];

/// The name under which `docker buildx` knows a BuildKit endpoint.
const BUILDER: &str = "bk-versus";

/// A daemon, and both clients for it.
pub(super) struct Versus {
    pub(super) target: Target,
    program: String,
    /// Docker's configuration: the credentials of the registry, and the builder of the endpoint.
    config: tempfile::TempDir,
}

impl Versus {
    fn new(target: Target) -> Option<Self> {
        let variable = |name| env::var(name).ok().filter(|v| !v.is_empty());
        let (program, plugins) = (
            variable("BK_LIVE_DOCKER_CLI")?,
            variable("BK_LIVE_DOCKER_CLI_CONFIG")?,
        );
        let config = tempfile::tempdir().expect("a temporary directory");
        let plugins = Path::new(&plugins).join("cli-plugins");
        std::os::unix::fs::symlink(plugins, config.path().join("cli-plugins")).expect("a link");
        let base = &target.base;
        let auth = STANDARD.encode(format!("{}:{}", base.user, base.password));
        let auths = serde_json::json!({"auths": {&base.host: {"auth": auth}}});
        fs::write(config.path().join("config.json"), auths.to_string()).expect("writable");
        let versus = Self {
            target,
            program,
            config,
        };
        if versus.target.route == Route::Direct {
            let create = [
                "create",
                "--name",
                BUILDER,
                "--driver",
                "remote",
                &versus.target.address,
            ];
            let ran = run(versus.docker().arg("buildx").args(create));
            assert_eq!(ran.code, Some(0), "{}", ran.err);
        }
        Some(versus)
    }

    fn docker(&self) -> Command {
        let mut command = Command::new(&self.program);
        self.surround(&mut command);
        command
    }

    fn surround(&self, command: &mut Command) {
        command
            .env("DOCKER_CONFIG", self.config.path())
            .env("DOCKER_HOST", format!("unix://{}", self.target.docker.display()));
    }

    pub(super) fn ours(&self, context: &Path, vars: &[(&str, &str)], flags: &[&str]) -> Ran {
        let mut command = match self.target.route {
            Route::Direct => bk(&["--backend", "buildkitd"]),
            route => bk(&["--docker-route", route.name()]),
        };
        self.surround(&mut command);
        command.args(["--addr", &self.target.address, "build", "--progress=plain"]);
        run(command.envs(vars.iter().copied()).args(flags).arg(context))
    }

    pub(super) fn theirs(&self, context: &Path, vars: &[(&str, &str)], flags: &[&str]) -> Ran {
        let mut command = self.docker();
        command.arg("buildx");
        if self.target.route == Route::Direct {
            command.args(["--builder", BUILDER]);
        }
        command.args(["build", "--progress=plain"]);
        run(command.envs(vars.iter().copied()).args(flags).arg(context))
    }

    /// `bk` on the daemon, with these words.
    pub(super) fn bk(&self, words: &[&str]) -> Command {
        let mut command = match self.target.route {
            Route::Direct => bk(&["--backend", "buildkitd"]),
            route => bk(&["--docker-route", route.name()]),
        };
        self.surround(&mut command);
        command.args(["--addr", &self.target.address]).args(words);
        command
    }

    /// `docker buildx` on the daemon, with these words.
    pub(super) fn buildx(&self, words: &[&str]) -> Command {
        let mut command = self.docker();
        command.arg("buildx");
        if self.target.route == Route::Direct {
            command.args(["--builder", BUILDER]);
        }
        command.args(words);
        command
    }

    /// Both clients with the flags that `flags` makes for a directory of each, which both must take.
    pub(super) fn both(
        &self,
        place: &Path,
        context: &Path,
        vars: &[(&str, &str)],
        flags: impl Fn(&str) -> Vec<String>,
    ) -> [(PathBuf, Ran); 2] {
        ["ours", "theirs"].map(|who| {
            let dir = place.join(who);
            fs::create_dir_all(&dir).expect("writable");
            let flags = flags(text(&dir));
            let flags: Vec<_> = flags.iter().map(String::as_str).collect();
            let ran = match who {
                "ours" => self.ours(context, vars, &flags),
                _ => match self.theirs(context, vars, &flags) {
                    // A fault of containerd's image store, about which only we do something.
                    ran if ran.err.contains("failed to prepare extraction snapshot") => {
                        say("docker buildx lost a layer to the image store, and is run again");
                        self.theirs(context, vars, &flags)
                    }
                    ran => ran,
                },
            };
            assert_eq!(
                ran.code,
                Some(0),
                "{who} on {}: {}\n{flags:?}: {}",
                self.name(),
                ran.err.lines().last().unwrap_or_default(),
                ran.err
            );
            (dir, ran)
        })
    }

    pub(super) fn name(&self) -> String {
        self.target.name()
    }

    pub(super) fn keeps_manifests(&self) -> bool {
        matches!(
            self.target.daemon,
            Daemon::Docker28_5Containerd | Daemon::BuildkitUnix
        )
    }

    /// What makes an image of a build: on an endpoint of its own `docker buildx` makes none unless it is told to.
    pub(super) fn image(&self) -> &'static [&'static str] {
        match self.target.route {
            Route::Direct => &["-o", "type=image"],
            _ => &[],
        }
    }

    pub(super) fn is_old(&self) -> bool {
        self.target.daemon == Daemon::Docker20_10
    }
}

/// Runs `test` on each place that is there, one after the other.
pub(super) fn everywhere(name: &str, test: impl Fn(&Versus, &tokio::runtime::Runtime)) {
    on(&PLACES, name, test);
}

/// The same on some places.
pub(super) fn on(places: &[(Daemon, Route)], name: &str, test: impl Fn(&Versus, &tokio::runtime::Runtime)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    for &(daemon, route) in places {
        let Some(target) = Target::find(daemon, route, name) else {
            continue;
        };
        let Some(versus) = Versus::new(target) else {
            say(&format!("NOT RUN: {name}: BK_LIVE_DOCKER_CLI is not set"));
            return;
        };
        let _turn = runtime.block_on(versus.target.turn());
        test(&versus, &runtime);
        versus.target.passed(name);
    }
}
