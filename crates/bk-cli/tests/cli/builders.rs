//! Builders that the real `docker buildx` made: found, used, and left as they are.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use bk_testkit::tls::{Authority, TlsFront};

use super::{
    endpoints::{Container, Place, docker_cli, ok, on},
    text,
};

/// The Docker CLI with a configuration of this test's own, in which a context called `live` is in use.
struct Cli<'a>(&'a Place);

impl<'a> Cli<'a> {
    fn new(place: &'a Place) -> Self {
        let plugins = place.path("config/cli-plugins");
        fs::create_dir_all(&plugins).expect("a directory");
        let (_, config) = docker_cli();
        std::os::unix::fs::symlink(
            config.join("cli-plugins/docker-buildx"),
            plugins.join("docker-buildx"),
        )
        .expect("a link");
        let this = Self(place);
        let host = format!("host=unix://{}", place.target.docker.display());
        ok(&mut this.docker(&["context", "create", "live", "--docker", &host]));
        ok(&mut this.docker(&["context", "use", "live"]));
        this
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(docker_cli().0);
        command
            .args(arguments)
            .env("DOCKER_CONFIG", self.0.path("config"))
            .env("HOME", self.0.dir.path())
            .env_remove("DOCKER_HOST");
        command
    }

    fn buildx(&self, arguments: &[&str]) {
        ok(&mut self.docker(&[&["buildx"], arguments].concat()));
    }

    /// Every file of buildx, with what is in it.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![self.0.path("config/buildx")];
        while let Some(dir) = waiting.pop() {
            for entry in fs::read_dir(dir).expect("a directory") {
                let path = entry.expect("an entry").path();
                match path.is_dir() {
                    true => waiting.push(path),
                    false => {
                        found.insert(text(&path).to_owned(), fs::read(&path).expect("readable"));
                    }
                }
            }
        }
        found
    }
}

#[test]
fn builders_of_buildx_are_used_as_they_are() {
    on("cli::builders_of_buildx_are_used_as_they_are", async |place| {
        let cli = Cli::new(place);
        let config = place.path("config");
        let home = ("DOCKER_CONFIG", text(&config));
        let own = format!("bkb{}", std::process::id());

        // A container, through the real `docker exec`.
        cli.buildx(&["create", "--name", &own, "--driver", "docker-container"]);
        place.program(
            "bin/docker",
            &format!("exec '{}' \"$@\"", docker_cli().0.display()),
        );
        let not_there = place.bk_with(&[home], &["--builder", &own]);
        assert_eq!(not_there.code, Some(1), "{}", not_there.err);
        assert!(
            not_there
                .err
                .contains(&format!("o such container: buildx_buildkit_{own}0")),
            "{}",
            not_there.err
        );
        assert!(
            not_there
                .err
                .contains(&format!("`docker buildx inspect --bootstrap {own}` starts it")),
            "{}",
            not_there.err
        );
        let container = Container::start_as(place, format!("buildx_buildkit_{own}0"));
        let before = cli.files();
        let at = format!("docker-container://buildx_buildkit_{own}0?context=live\n");
        let said = place.builds_with(&[home], &["--builder", &own]).await;
        assert!(said.contains(&at), "{said}");
        place.builds_with(&[home, ("BUILDX_BUILDER", &own)], &[]).await;
        // Not chosen: the engine of the context.
        let said = place.builds_with(&[home], &[]).await;
        assert!(said.contains("#0 building with docker "), "{said}");
        assert_eq!(cli.files(), before, "nothing is written");
        cli.buildx(&["use", &own]);
        let said = place.builds_with(&[home], &[]).await;
        assert!(said.contains(&at), "{said}");
        // Of another engine it is no choice, and what is said wins.
        let socket = format!("unix://{}", place.target.docker.display());
        let said = place.builds_with(&[home, ("DOCKER_HOST", &socket)], &[]).await;
        assert!(said.contains("#0 building with docker "), "{said}");
        cli.buildx(&["use", "live"]);
        let said = place.builds_with(&[home], &[]).await;
        assert!(said.contains("#0 building with docker "), "{said}");
        cli.buildx(&["use", "--global", &own]);
        let said = place.builds_with(&[home], &[]).await;
        assert!(said.contains(&at), "{said}");
        cli.buildx(&["use", "--default", "live"]);
        drop(container);
        place.target.supports("Builders of `docker buildx` (`--builder`)");
    });
}

#[test]
fn remote_builders_bring_their_certificates() {
    on("cli::remote_builders_bring_their_certificates", async |place| {
        let cli = Cli::new(place);
        let config = place.path("config");
        let home = ("DOCKER_CONFIG", text(&config));
        let dir = place.dir.path();
        let (ours, theirs) = (Authority::new().expect("keys"), Authority::new().expect("keys"));
        place.write("ca.pem", &ours.pem());
        let own = ours.sign(dir, "build.example", false).expect("signed");
        let client = theirs.sign(dir, "client", false).expect("signed");
        let socket = place.target.address.strip_prefix("unix://").expect("a socket");
        let front = TlsFront::start(Path::new(socket), &own, Some(&theirs)).expect("a front");
        let address = format!("tcp://{}", front.address());
        let options = format!(
            "cacert={},cert={},key={},servername=build.example",
            place.path("ca.pem").display(),
            client.cert.display(),
            client.key.display()
        );
        cli.buildx(&[
            "create",
            "--name",
            "bkr",
            "--driver",
            "remote",
            "--driver-opt",
            &options,
            &address,
        ]);
        let said = place.builds_with(&[home], &["--builder", "bkr"]).await;
        assert!(said.contains(&format!(" at {address}\n")), "{said}");
        cli.buildx(&[
            "create",
            "--name",
            "bks",
            "--driver",
            "remote",
            &place.target.address,
        ]);
        place.builds_with(&[home], &["--builder", "bks"]).await;
        // The second of two nodes, when the first does not answer.
        cli.buildx(&[
            "create",
            "--name",
            "bkn",
            "--driver",
            "remote",
            "unix:///nonexistent/b.sock",
        ]);
        cli.buildx(&["create", "--name", "bkn", "--append", &place.target.address]);
        let said = place.builds_with(&[home], &["--builder", "bkn"]).await;
        assert!(
            said.contains(&format!(" at {}\n", place.target.address)),
            "{said}"
        );
    });
}

#[test]
fn pods_of_a_builder_are_reached_with_exact_arguments() {
    on(
        "cli::pods_of_a_builder_are_reached_with_exact_arguments",
        async |place| {
            Cli::new(place);
            let config = place.path("config");
            let home = ("DOCKER_CONFIG", text(&config));
            place.write(
            "kube",
            "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
             contexts: [{name: x, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\ncurrent-context: x\n",
        );
            let kube = place.path("kube");
            let mut create = Command::new(docker_cli().0);
            create
                .args(["buildx", "create", "--name", "bkk", "--driver", "kubernetes"])
                .args(["--driver-opt", "namespace=builds", "--node", "pool_0"])
                .env("DOCKER_CONFIG", &config)
                .env("KUBECONFIG", &kube)
                .env("HOME", place.dir.path());
            ok(&mut create);
            place.dial("dial");
            let (noted, dial) = (place.path("noted"), place.path("dial"));
            place.program(
                "bin/kubectl",
                &format!(
                    "printf '%s|' \"${{0##*/}}\" \"$@\" >> '{}'\necho >> '{0}'\nexec '{}'",
                    noted.display(),
                    dial.display()
                ),
            );
            place.builds_with(&[home], &["--builder", "bkk"]).await;
            let called = format!(
                "kubectl|--kubeconfig={}|--context=|--namespace=builds|exec|--container=buildkitd|-i|deployment/pool-0|--|buildctl|\
             dial-stdio|\n",
                kube.display()
            );
            let noted = fs::read_to_string(&noted).expect("notes");
            assert_eq!(noted, format!("{called}{called}"));
        },
    );
}
