//! Ways to a daemon other than plain sockets: the real program behind each, and what is said when it fails.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use bk_testkit::{
    live::{Daemon, Engine, Route, Support, Target, sshd_program},
    snapshot::ContentDigest,
    ssh::{SshAgent, Sshd, make_key},
    tls::{Authority, TlsFront},
};

use super::{Ran, bk, run, text};

/// A BuildKit endpoint, and a directory of programs that `bk` finds before all others.
pub(super) struct Place {
    pub(super) target: Target,
    pub(super) engine: Engine,
    pub(super) dir: tempfile::TempDir,
    pub(super) tag: String,
}

/// A test on the newest BuildKit endpoint, when it is there.
pub(super) fn on(name: &str, test: impl AsyncFn(&Place)) {
    let Some(target) = Target::find(Daemon::BuildkitUnix, Route::Direct, name) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let _turn = target.turn().await;
        let place = Place {
            engine: Engine::connect(&target.docker).await.expect("the engine behind"),
            dir: tempfile::tempdir().expect("a temporary directory"),
            tag: format!("bk-endpoint-{}", name.rsplit("::").next().unwrap_or(name)),
            target: target.clone(),
        };
        fs::create_dir(place.path("bin")).expect("a directory");
        fs::create_dir(place.path("context")).expect("a directory");
        place.write("context/Dockerfile", "FROM scratch\nCOPY file /\n");
        place.write("context/file", &place.tag);
        test(&place).await;
    });
    target.passed(name);
}

impl Place {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("writable");
    }

    pub(super) fn program(&self, name: &str, script: &str) {
        self.write(name, &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).expect("ours");
    }

    pub(super) fn search_path(&self) -> String {
        format!("{}:/usr/local/bin:/usr/bin:/bin", self.path("bin").display())
    }

    /// A program that carries bytes to the daemon, as `buildctl dial-stdio` does.
    pub(super) fn dial(&self, name: &str) {
        let (cli, config) = docker_cli();
        self.program(
            name,
            &format!(
                "export DOCKER_CONFIG='{}' DOCKER_HOST='unix://{}'\nexec '{}' buildx dial-stdio --progress quiet",
                config.display(),
                self.target.docker.display(),
                cli.display()
            ),
        );
    }

    fn bk(&self, address: &str, flags: &[&str]) -> Ran {
        self.bk_with(&[], &[&["--addr", address], flags].concat())
    }

    /// A build with these variables and options before the command.
    pub(super) fn bk_with(&self, variables: &[(&str, &str)], flags: &[&str]) -> Ran {
        let context = self.path("context");
        let mut command = bk(flags);
        command.env("PATH", self.search_path());
        command.envs(variables.iter().copied());
        command.args(["build", "--progress", "plain", "-t", &self.tag]);
        run(command.arg(context))
    }

    /// The same, which must make the image. Returns what it said.
    pub(super) async fn builds_with(&self, variables: &[(&str, &str)], flags: &[&str]) -> String {
        let ran = self.bk_with(variables, flags);
        assert_eq!(ran.code, Some(0), "{variables:?} {flags:?}: {}", ran.err);
        let image = self.engine.tree(&self.tag, "").await.expect("the image");
        let file = image.entries.get(&b"file"[..]).and_then(|file| file.digest);
        let expected = fs::read(self.path("context/file")).expect("readable");
        assert_eq!(
            file,
            Some(ContentDigest::of(&expected)),
            "{variables:?} {flags:?}"
        );
        self.engine.remove_image(&self.tag).await.expect("removable");
        ran.err
    }

    /// A build that must make the image.
    pub(super) async fn builds(&self, address: &str, flags: &[&str]) {
        self.builds_with(&[], &[&["--addr", address], flags].concat())
            .await;
    }

    /// The files of a container that sees the whole machine as `/host` and has a `buildctl`.
    pub(super) fn container_root(&self) -> PathBuf {
        self.dial("dial");
        let root = self.path("root");
        fs::create_dir_all(root.join("bin")).expect("a directory");
        for name in ["sh", "busybox"] {
            fs::copy(&self.target.busybox, root.join("bin").join(name)).expect("a busybox");
        }
        let script = format!(
            "exec /bin/busybox chroot /host '{}' \"$@\"",
            self.path("dial").display()
        );
        self.program("root/bin/buildctl", &script);
        root
    }

    /// A build that must fail, with what it says.
    fn fails(&self, address: &str, flags: &[&str]) -> String {
        let ran = self.bk(address, flags);
        assert_eq!(ran.code, Some(1), "{address}: {}", ran.err);
        assert!(ran.err.contains(address), "{}", ran.err);
        ran.err
    }
}

pub(super) fn docker_cli() -> (PathBuf, PathBuf) {
    let variable = |name: &str| PathBuf::from(std::env::var_os(name).expect(name));
    (
        variable("BK_LIVE_DOCKER_CLI"),
        variable("BK_LIVE_DOCKER_CLI_CONFIG"),
    )
}

pub(super) fn ok(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        out.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A container that sees the whole machine and has a `buildctl`. It ends with the value.
pub(super) struct Container<'a>(&'a Place, String);

impl<'a> Container<'a> {
    pub(super) fn start(place: &'a Place) -> Self {
        Self::start_as(place, format!("{}-{}", place.tag, std::process::id()))
    }

    /// The same under a name.
    pub(super) fn start_as(place: &'a Place, name: String) -> Self {
        let root = place.container_root();
        let this = Self(place, name);
        let pack = format!("tar -C '{}' -c . | \"$0\" import - {}", root.display(), place.tag);
        let (cli, _) = docker_cli();
        ok(this.command("/bin/sh").args(["-c", &pack]).arg(cli));
        ok(this
            .docker()
            .args([
                "run",
                "-d",
                "--network",
                "none",
                "-v",
                "/:/host",
                "--name",
                &this.1,
                &place.tag,
            ])
            .args(["/bin/busybox", "sleep", "600"]));
        this
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env(
            "DOCKER_HOST",
            format!("unix://{}", self.0.target.docker.display()),
        );
        command
    }

    pub(super) fn docker(&self) -> Command {
        self.command(docker_cli().0)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // It may never have started.
        let _ = self.docker().args(["rm", "-f", &self.1]).output();
    }
}

#[test]
fn a_daemon_in_a_container_is_reached_through_docker() {
    on(
        "cli::a_daemon_in_a_container_is_reached_through_docker",
        async |place| {
            let container = Container::start(place);
            // The image that the container is of goes first: the build's has the same name.
            let (cli, _) = docker_cli();
            place.program(
                "bin/docker",
                &format!(
                    "DOCKER_HOST='unix://{}' exec '{}' \"$@\"",
                    place.target.docker.display(),
                    cli.display()
                ),
            );
            place
                .builds(&format!("docker-container://{}", container.1), &[])
                .await;

            let error = place.fails("docker-container://bk-nobody", &[]);
            assert!(
                error.contains("`docker` ended with exit status: 1: Error"),
                "{error}"
            );
            assert!(error.contains("o such container: bk-nobody"), "{error}");
            // No `buildctl` in there.
            ok(container
                .docker()
                .args(["exec", &container.1, "/bin/busybox", "rm", "/bin/buildctl"]));
            let error = place.fails(&format!("docker-container://{}", container.1), &[]);
            assert!(error.contains("buildctl"), "{error}");
            place.target.supports("`docker-container://`");
        },
    );
}

/// Programs that stand for those that are not on every machine: they write down what they were called with.
#[test]
fn other_containers_and_pods_are_reached_with_exact_arguments() {
    on(
        "cli::other_containers_and_pods_are_reached_with_exact_arguments",
        async |place| {
            place.dial("dial");
            let (noted, dial) = (place.path("noted"), place.path("dial"));
            let script = format!(
                "printf '%s|' \"${{0##*/}}\" \"$@\" >> '{}'\necho >> '{0}'\nexec '{}'",
                noted.display(),
                dial.display()
            );
            for name in ["nerdctl", "kubectl"] {
                place.program(&format!("bin/{name}"), &script);
            }
            for (address, arguments) in [
                ("nerdctl-container://b0", "nerdctl|exec|-i|b0|"),
                (
                    "nerdctl-container://b0?namespace=k8s.io",
                    "nerdctl|exec|--namespace|k8s.io|-i|b0|",
                ),
                (
                    "kube-pod://pod-0",
                    "kubectl|--context=|--namespace=|exec|--container=|-i|pod-0|--|",
                ),
                (
                    "kube-pod://pod-0?namespace=builds",
                    "kubectl|--context=|--namespace=builds|exec|--container=|-i|pod-0|--|",
                ),
                (
                    "kube-pod://pod-0?context=user@cluster",
                    "kubectl|--context=user@cluster|--namespace=|exec|--container=|-i|pod-0|--|",
                ),
                (
                    "kube-pod://pod-0?container=buildkitd",
                    "kubectl|--context=|--namespace=|exec|--container=buildkitd|-i|pod-0|--|",
                ),
                (
                    "kube-pod://pod-0?kubeconfig=/etc/kube/config",
                    "kubectl|--kubeconfig=/etc/kube/config|--context=|--namespace=|exec|--container=|-i|pod-0|--|",
                ),
                (
                    "kube-pod://pod/pod-0?namespace=builds",
                    "kubectl|--context=|--namespace=builds|exec|--container=|-i|pod/pod-0|--|",
                ),
                (
                    "kube-pod://deployment/pool?namespace=builds",
                    "kubectl|--context=|--namespace=builds|exec|--container=|-i|deployment/pool|--|",
                ),
                (
                    "kube-pod://statefulset/pool?container=buildkitd&kubeconfig=k&namespace=builds&context=far",
                    "kubectl|--kubeconfig=k|--context=far|--namespace=builds|exec|--container=buildkitd|-i|statefulset/pool|--|",
                ),
            ] {
                fs::write(&noted, "").expect("writable");
                place.builds(address, &[]).await;
                let noted = fs::read_to_string(&noted).expect("notes");
                let called = format!("{arguments}buildctl|dial-stdio|\n");
                // Once to see who answers, once for the build.
                assert_eq!(noted, called.repeat(2), "{address}");
            }
            fs::remove_file(place.path("bin/nerdctl")).expect("removable");
            let error = place.fails("nerdctl-container://b0", &[]);
            assert!(error.contains("there is no program `nerdctl` in PATH"), "{error}");
            let stand_ins = "exact arguments, with programs that stand for `nerdctl` and `kubectl`";
            place.target.record(
                "`nerdctl-container://`, `kube-pod://`",
                &Support::But(stand_ins.to_owned()),
            );
        },
    );
}

#[test]
fn a_daemon_on_another_machine_is_reached_through_ssh() {
    let name = "cli::a_daemon_on_another_machine_is_reached_through_ssh";
    let Some(program) = sshd_program(name) else {
        return;
    };
    on(name, async |place| {
        let key = place.path("key");
        make_key(&key).expect("a key");
        let agent = SshAgent::start(place.dir.path(), &key).expect("an agent");
        fs::create_dir(place.path("far")).expect("a directory");
        place.dial("far/buildctl");
        let path = format!("{}:/usr/bin:/bin", place.path("far").display());
        let public = key.with_extension("pub");
        let server = Sshd::start_with(&program, place.dir.path(), &public, &path).expect("a server");
        // A person's own configuration and keys play no part.
        let options =
            "-F /dev/null -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR";
        let ssh = |agent: &Path| {
            place.program(
                "bin/ssh",
                &format!(
                    "SSH_AUTH_SOCK='{}' exec /usr/bin/ssh {options} \"$@\"",
                    agent.display()
                ),
            );
        };
        let address = format!("ssh://{}", server.address());
        ssh(agent.socket());
        place.builds(&address, &[]).await;

        fs::remove_file(place.path("far/buildctl")).expect("removable");
        let error = place.fails(&address, &[]);
        assert!(error.contains("`ssh` ended with exit status: 127"), "{error}");
        assert!(
            error.contains("buildctl: not found") && error.contains("docker: not found"),
            "{error}"
        );
        // A Docker Engine in its place, which is found without being told, and by Docker's own variable.
        let (cli, config) = docker_cli();
        place.program(
            "far/docker",
            &format!(
                "export DOCKER_CONFIG='{}' DOCKER_HOST='unix://{}'\nexec '{}' \"$@\"",
                config.display(),
                place.target.docker.display(),
                cli.display()
            ),
        );
        place.builds(&address, &[]).await;
        place.builds(&address, &["--backend", "docker"]).await;
        let said = place.builds_with(&[("DOCKER_HOST", &address)], &[]).await;
        assert!(
            said.contains("#0 building with docker ") && said.contains(&format!(" at {address}\n")),
            "{said}"
        );
        let far = format!("{address}{}", place.target.docker.display());
        let said = place
            .builds_with(&[("DOCKER_HOST", &far)], &["--docker-route", "tar"])
            .await;
        assert!(said.contains(" (tar) at "), "{said}");
        fs::remove_file(place.path("far/docker")).expect("removable");
        place.target.supports("Docker Engine at `ssh://`");
        ssh(Path::new("/nonexistent"));
        let error = place.fails(&address, &[]);
        assert!(error.contains("`ssh` ended with exit status: 255"), "{error}");
        assert!(error.contains("Permission denied (publickey"), "{error}");
        drop(server);
        let error = place.fails(&address, &[]);
        assert!(error.contains("Connection refused"), "{error}");
        place.target.supports("`ssh://`");
    });
}

#[test]
fn tls_trusts_whom_it_is_told_to() {
    on("cli::tls_trusts_whom_it_is_told_to", async |place| {
        let dir = place.dir.path();
        let (ours, theirs) = (Authority::new().expect("keys"), Authority::new().expect("keys"));
        place.write("ca.pem", &ours.pem());
        place.write("other.pem", &theirs.pem());
        let (ca, other) = (place.path("ca.pem"), place.path("other.pem"));
        let good = ours.sign(dir, "build.example", false).expect("signed");
        let expired = ours.sign(dir, "old.example", true).expect("signed");
        let client = theirs.sign(dir, "client", false).expect("signed");
        let socket = place
            .target
            .address
            .strip_prefix("unix://")
            .expect("a socket")
            .to_owned();
        let front = TlsFront::start(Path::new(&socket), &good, Some(&theirs)).expect("a front");
        let address = format!("tcp://{}", front.address());
        let shown = ["--tlscert", text(&client.cert), "--tlskey", text(&client.key)];
        let named = ["--tlsservername", "build.example"];
        let trusting = ["--tlscacert", text(&ca)];
        place
            .builds(&address, &[&trusting[..], &named, &shown].concat())
            .await;
        // The same from a directory.
        fs::create_dir(place.path("tls")).expect("a directory");
        for (from, to) in [
            (&ca, "ca.pem"),
            (&client.cert, "cert.pem"),
            (&client.key, "key.pem"),
        ] {
            fs::copy(from, place.path("tls").join(to)).expect("copied");
        }
        let tls = place.path("tls");
        place
            .builds(&address, &[&["--tlsdir", text(&tls)], &named[..]].concat())
            .await;

        let old = TlsFront::start(Path::new(&socket), &expired, None).expect("a front");
        let old = format!("tcp://{}", old.address());
        for (address, flags, why) in [
            (
                &address,
                [&["--tlscacert", text(&other)][..], &named, &shown].concat(),
                "signed by no authority that is trusted; name its authority with --tlscacert",
            ),
            (
                &address,
                [&named[..], &shown].concat(),
                "signed by no authority that is trusted",
            ),
            (
                &address,
                [&trusting[..], &shown].concat(),
                "its certificate is not for `127.0.0.1`; if that is right, name whom it is for with --tlsservername",
            ),
            (
                &address,
                [&trusting[..], &named].concat(),
                "it wants to see a certificate; give one with --tlscert and --tlskey",
            ),
            (
                &old,
                [&trusting[..], &["--tlsservername", "old.example"]].concat(),
                "its certificate has expired",
            ),
        ] {
            let error = place.fails(address, &flags);
            assert!(error.contains(why), "{error}\nwanted: {why}");
        }
        let plain = place.bk(&place.target.address, &trusting);
        assert!(plain.err.contains("there is no TLS at `unix://"), "{}", plain.err);
        place.target.supports("TLS to BuildKit at `tcp://`");
    });
}
