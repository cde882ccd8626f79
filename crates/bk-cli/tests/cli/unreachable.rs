//! What a terminal shows for each way in which each kind of endpoint fails: the files in `tests/endpoints`, word for word.
//!
//! `BK_BLESS=1` writes them. Ports, hosts of tests and temporary directories have fixed names there.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixListener, process::CommandExt as _},
    path::{Path, PathBuf},
    thread,
};

use bk_testkit::{
    live::sshd_program,
    ssh::{SshAgent, Sshd, make_key},
    tls::{Authority, TlsFront},
};

use super::{
    Ran, bk,
    endpoints::{Container, docker_cli, ok, on},
    ran, run, text,
};

/// What a run said, compared with the file of that name. `names` are what differs from run to run, and what stands for it.
pub(super) fn shows(name: &str, ran: &Ran, names: &[(&str, &str)]) {
    let mut said = format!("{}{}exit code {}\n", ran.out, ran.err, ran.code.unwrap_or(-1));
    for (from, to) in names {
        said = said.replace(from, to);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/endpoints/{name}.txt"));
    if std::env::var_os("BK_BLESS").is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("writable");
        fs::write(&path, said).expect("writable");
        return;
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(said, wanted, "{name}: see tests/endpoints/{name}.txt");
}

/// A directory with a context in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // For the test of a socket that is not for everybody.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        fs::create_dir(dir.path().join("context")).expect("a directory");
        fs::write(dir.path().join("context/Dockerfile"), "FROM scratch\n").expect("writable");
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("writable");
        fs::write(path, content).expect("writable");
    }

    fn program(&self, name: &str, script: &str) {
        self.write(name, &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).expect("ours");
    }

    fn build(&self, variables: &[(&str, &str)], flags: &[&str]) -> Ran {
        let mut command = bk(flags);
        command
            .env("PATH", self.path("bin"))
            .envs(variables.iter().copied());
        run(command
            .args(["build", "--progress", "plain"])
            .arg(self.path("context")))
    }

    /// A build that must fail as the file `name` says.
    fn fails(&self, name: &str, variables: &[(&str, &str)], flags: &[&str], names: &[(&str, &str)]) {
        let mut all = names.to_vec();
        all.push((text(self.0.path()), "DIR"));
        shows(name, &self.build(variables, flags), &all);
    }
}

/// Something at a port that answers each connection with these bytes, or never.
fn answering(bytes: Option<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port().to_string();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else {
                return;
            };
            match bytes {
                None => kept.push(stream),
                Some(bytes) => {
                    thread::spawn(move || answer(&mut stream, bytes));
                }
            }
        }
    });
    port
}

fn answer(stream: &mut TcpStream, bytes: &[u8]) {
    let mut first = [0; 4096];
    // Whoever is gone needs no answer.
    let _ = stream.read(&mut first);
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    // What nobody reads would turn the end into a reset.
    let _ = std::io::copy(stream, &mut std::io::sink());
}

/// A port at which nothing listens.
fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port().to_string()
}

#[test]
fn addresses_that_make_no_sense() {
    let place = Place::new();
    for (name, flags) in [
        ("address-scheme", &["--addr", "ftp://host"][..]),
        ("address-no-scheme", &["--addr", "/run/b.sock"]),
        ("address-relative", &["--addr", "unix://b.sock"]),
        (
            "address-buildkitd-no-port",
            &["--backend", "buildkitd", "--addr", "tcp://host"],
        ),
        ("address-port", &["--addr", "tcp://host:0"]),
        ("address-ssh-password", &["--addr", "ssh://me:secret@host"]),
        ("address-ssh-option", &["--addr", "ssh://-oProxyCommand=x"]),
        (
            "address-container-option",
            &["--addr", "docker-container://--privileged"],
        ),
        (
            "address-container-key",
            &["--addr", "podman-container://b0?context=x"],
        ),
        ("address-pod", &["--addr", "kube-pod://job/x"]),
        ("address-pipe", &["--addr", "npipe:////./pipe/docker_engine"]),
        ("address-tls-socket", &["--tls", "--addr", "unix:///run/d.sock"]),
        (
            "address-tls-container",
            &["--tls", "--addr", "docker-container://b0"],
        ),
    ] {
        place.fails(name, &[], flags, &[]);
    }
    let ran = run(&mut bk(&[
        "proxy",
        "--to",
        "ftp://host",
        "--listen",
        "tcp://127.0.0.1:0",
    ]));
    shows("proxy-to", &ran, &[]);
}

#[test]
fn sockets_and_ports_at_which_nothing_good_answers() {
    let place = Place::new();
    for (kind, backend) in [("auto", "auto"), ("docker", "docker"), ("buildkitd", "buildkitd")] {
        let fails = |name: &str, address: &str, port: &str| {
            let name = format!("{name}-{kind}");
            place.fails(
                &name,
                &[],
                &["--backend", backend, "--addr", address],
                &[(port, "PORT")],
            );
        };
        let missing = format!("unix://{}", place.path("no.sock").display());
        fails("socket-missing", &missing, "PORT");
        let left = place.path("left.sock");
        if !left.exists() {
            drop(UnixListener::bind(&left).expect("bound"));
        }
        fails("socket-left", &format!("unix://{}", left.display()), "PORT");
        let port = closed();
        fails("port-closed", &format!("tcp://127.0.0.1:{port}"), &port);
        fails("host-unknown", "tcp://nowhere.invalid:1234", "PORT");
        let port = answering(Some(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"));
        fails("http-server", &format!("tcp://127.0.0.1:{port}"), &port);
        let port = answering(Some(b""));
        fails("closed-at-once", &format!("tcp://127.0.0.1:{port}"), &port);
        let port = answering(Some(b"SSH-2.0-OpenSSH_9.2\r\n"));
        fails("something-else", &format!("tcp://127.0.0.1:{port}"), &port);
        let port = answering(Some(
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
        ));
        fails("wants-tls", &format!("tcp://127.0.0.1:{port}"), &port);
    }
    let port = answering(Some(
        b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nLibpod-API-Version: 5.0\r\nContent-Length: 2\r\n\r\nOK",
    ));
    let address = format!("tcp://127.0.0.1:{port}");
    place.fails(
        "podman-service",
        &[("DOCKER_HOST", &address)],
        &[],
        &[(&port, "PORT")],
    );
    // As the Docker CLI reads it.
    let port = closed();
    let short = format!("127.0.0.1:{port}");
    place.fails(
        "docker-host-short",
        &[("DOCKER_HOST", &short)],
        &[],
        &[(&port, "PORT")],
    );
    place.fails(
        "docker-host-path",
        &[("DOCKER_HOST", "/var/run/docker.sock")],
        &[],
        &[],
    );
    for (name, variable) in [
        ("silent-docker", "DOCKER_HOST"),
        ("silent-buildkitd", "BUILDKIT_HOST"),
    ] {
        let port = answering(None);
        let address = format!("tcp://127.0.0.1:{port}");
        place.fails(name, &[(variable, &address)], &[], &[(&port, "PORT")]);
    }
}

#[test]
fn a_socket_that_is_not_for_everybody() {
    let place = Place::new();
    let socket = place.path("d.sock");
    let _listener = UnixListener::bind(&socket).expect("bound");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).expect("ours");
    for (name, backend) in [
        ("socket-forbidden-docker", "docker"),
        ("socket-forbidden-buildkitd", "buildkitd"),
    ] {
        let mut command = bk(&["--backend", backend, "--addr"]);
        command
            .arg(format!("unix://{}", socket.display()))
            .args(["build", "--progress", "plain"])
            .arg(place.path("context"));
        if nix::unistd::geteuid().is_root() {
            // Nobody, and a program where nobody else may be kept from.
            let program = place.path("bk");
            fs::copy(env!("CARGO_BIN_EXE_bk"), &program).expect("copied");
            let mut other = std::process::Command::new(program);
            other.args(command.get_args()).env_clear().uid(65534).gid(65534);
            command = other;
        } else {
            fs::set_permissions(&socket, fs::Permissions::from_mode(0o0)).expect("ours");
        }
        let output = loop {
            match command.output() {
                // Another test has just started a program, and holds what was copied open until that runs.
                Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => thread::yield_now(),
                done => break done.expect("bk starts"),
            }
        };
        shows(name, &ran(output), &[(text(place.0.path()), "DIR")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_are_not_accepted() {
    let place = Place::new();
    let dir = place.0.path();
    let (ours, theirs) = (Authority::new().expect("keys"), Authority::new().expect("keys"));
    place.write("ca.pem", &ours.pem());
    place.write("other.pem", &theirs.pem());
    place.write("torn.pem", "-----BEGIN CERTIFICATE-----\n");
    let good = ours.sign(dir, "127.0.0.1", false).expect("signed");
    let client = ours.sign(dir, "client", false).expect("signed");
    let (ca, other, torn) = (
        place.path("ca.pem"),
        place.path("other.pem"),
        place.path("torn.pem"),
    );
    let nothing = place.path("nothing.sock");
    let front = TlsFront::start(&nothing, &good, Some(&theirs)).expect("a front");
    let old = ours.sign(dir, "old.example", true).expect("signed");
    let old = TlsFront::start(&nothing, &old, None).expect("a front");
    let (front_port, old_port) = (
        front.address().port().to_string(),
        old.address().port().to_string(),
    );
    let plain = answering(Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let shown = ["--tlscert", text(&client.cert), "--tlskey", text(&client.key)];
    for (name, port, flags) in [
        (
            "tls-other-authority",
            &front_port,
            vec!["--tlscacert", text(&other)],
        ),
        (
            "tls-other-name",
            &front_port,
            vec!["--tlscacert", text(&ca), "--tlsservername", "build.example"],
        ),
        (
            "tls-expired",
            &old_port,
            vec!["--tlscacert", text(&ca), "--tlsservername", "old.example"],
        ),
        ("tls-no-certificate", &front_port, vec!["--tlscacert", text(&ca)]),
        (
            "tls-other-certificate",
            &front_port,
            [&["--tlscacert", text(&ca)][..], &shown].concat(),
        ),
        ("tls-to-plain", &plain, vec!["--tlscacert", text(&ca)]),
        ("tls-torn-file", &front_port, vec!["--tlscacert", text(&torn)]),
        (
            "tls-no-file",
            &front_port,
            vec!["--tlscacert", "/nonexistent/ca.pem"],
        ),
        (
            "tls-no-key",
            &front_port,
            vec!["--tlscacert", text(&ca), "--tlscert", text(&client.cert)],
        ),
    ] {
        let address = format!("tcp://127.0.0.1:{port}");
        let flags = [&["--addr", &*address][..], &flags].concat();
        place.fails(name, &[], &flags, &[(port, "PORT")]);
    }
    let address = format!("tcp://127.0.0.1:{front_port}");
    place.write("certs/ca.pem", &theirs.pem());
    let certs = place.path("certs");
    let variables = [
        ("DOCKER_HOST", &*address),
        ("DOCKER_TLS_VERIFY", "1"),
        ("DOCKER_CERT_PATH", text(&certs)),
    ];
    place.fails(
        "tls-variables-authority",
        &variables,
        &[],
        &[(&front_port, "PORT")],
    );
    fs::remove_file(place.path("certs/ca.pem")).expect("removable");
    place.fails("tls-variables-no-file", &variables, &[], &[(&front_port, "PORT")]);
}

#[test]
fn programs_that_carry_nothing() {
    let place = Place::new();
    let addresses = [
        ("docker", "docker-container://b0"),
        ("podman", "podman-container://b0"),
        ("nerdctl", "nerdctl-container://b0"),
        ("kubectl", "kube-pod://b0"),
        ("ssh", "ssh://build.example"),
    ];
    for (program, address) in addresses {
        place.fails(
            &format!("{program}-not-installed"),
            &[],
            &["--addr", address],
            &[],
        );
    }
    for (program, address) in addresses {
        place.program(&format!("bin/{program}"), "echo 'what it has to say' >&2; exit 3");
        place.fails(&format!("{program}-ended"), &[], &["--addr", address], &[]);
    }
    place.program("bin/docker", "echo Welcome");
    place.fails("docker-chatty", &[], &["--addr", "docker-container://b0"], &[]);
    place.program("bin/docker", "exit 0");
    place.fails("docker-quiet", &[], &["--addr", "docker-container://b0"], &[]);
}

#[test]
fn contexts_and_builders_that_cannot_be_used() {
    let place = Place::new();
    let config = place.path("config");
    let home = ("DOCKER_CONFIG", text(&config));
    place.write("config/config.json", "{}");
    let meta =
        |hash: &str, content: &str| place.write(&format!("config/contexts/meta/{hash}/meta.json"), content);
    meta(&digest("torn"), r#"{"Name":"torn","#);
    meta(
        &digest("kube"),
        r#"{"Name":"kube","Endpoints":{"kubernetes":{}}}"#,
    );
    meta(
        &digest("gone"),
        r#"{"Name":"gone","Endpoints":{"docker":{"Host":"unix:///nonexistent/d.sock"}}}"#,
    );
    place.fails("context-unknown", &[home, ("DOCKER_CONTEXT", "away")], &[], &[]);
    place.fails(
        "context-unknown-address",
        &[home],
        &["--addr", "docker://away"],
        &[],
    );
    place.fails("context-torn", &[home, ("DOCKER_CONTEXT", "torn")], &[], &[]);
    place.fails("context-no-engine", &[home, ("DOCKER_CONTEXT", "kube")], &[], &[]);
    place.fails(
        "context-not-running",
        &[home, ("DOCKER_CONTEXT", "gone")],
        &[],
        &[],
    );
    place.write("config/config.json", r#"{"currentContext":"away"}"#);
    place.fails("context-in-use-unknown", &[home], &[], &[]);
    place.write("config/config.json", "{");
    place.fails("config-torn", &[home], &["--addr", "docker://"], &[]);
    place.write("config/config.json", "{}");

    let instance =
        |name: &str, content: &str| place.write(&format!("config/buildx/instances/{name}"), content);
    instance(
        "cloud",
        r#"{"Name":"cloud","Driver":"cloud","Nodes":[{"Name":"c0"}]}"#,
    );
    instance("empty", r#"{"Name":"empty","Driver":"remote","Nodes":[]}"#);
    instance("torn", r#"{"Name":"#);
    instance(
        "down",
        r#"{"Name":"down","Driver":"remote","Nodes":[{"Name":"d0","Endpoint":"unix:///nonexistent/0.sock"},{"Name":"d1","Endpoint":"unix:///nonexistent/1.sock"}]}"#,
    );
    for (name, builder) in [
        ("builder-unknown", "away"),
        ("builder-name", "../x"),
        ("builder-driver", "cloud"),
        ("builder-no-node", "empty"),
        ("builder-torn", "torn"),
        ("builder-not-running", "down"),
    ] {
        place.fails(name, &[home], &["--builder", builder], &[]);
    }
    place.fails("builder-variable", &[home, ("BUILDX_BUILDER", "away")], &[], &[]);
    place.write(
        "config/buildx/current",
        r#"{"Key":"","Name":"down","Global":true}"#,
    );
    place.fails("builder-in-use-not-running", &[home], &[], &[]);
    place.fails(
        "builder-backend",
        &[home],
        &["--builder", "down", "--backend", "docker"],
        &[],
    );
}

fn digest(text: &str) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(text)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[test]
fn machines_that_ssh_does_not_reach() {
    let name = "cli::machines_that_ssh_does_not_reach";
    let Some(program) = sshd_program(name) else {
        return;
    };
    let place = Place::new();
    let key = place.path("key");
    make_key(&key).expect("a key");
    let agent = SshAgent::start(place.0.path(), &key).expect("an agent");
    let public = key.with_extension("pub");
    let server = Sshd::start_with(&program, place.0.path(), &public, "/usr/bin:/bin").expect("a server");
    let address = format!("ssh://{}", server.address());
    let host = server.address().replace("git@", "");
    let ssh = |agent: &Path, more: &str| {
        place.program(
            "bin/ssh",
            &format!(
                "SSH_AUTH_SOCK='{}' exec /usr/bin/ssh -F /dev/null -o BatchMode=yes -o UserKnownHostsFile=/dev/null \
                 -o GlobalKnownHostsFile=/dev/null -o LogLevel=ERROR {more} \"$@\"",
                agent.display()
            ),
        );
    };
    let fails = |name: &str, address: &str| {
        place.fails(name, &[], &["--addr", address], &[(&host, "HOST")]);
    };
    let trusting = "-o StrictHostKeyChecking=no";
    ssh(agent.socket(), trusting);
    fails("ssh-no-program", &address);
    place.fails(
        "ssh-no-docker",
        &[("DOCKER_HOST", &address)],
        &[],
        &[(&host, "HOST")],
    );
    ssh(agent.socket(), "-o StrictHostKeyChecking=yes");
    fails("ssh-host-key", &address);
    ssh(Path::new("/nonexistent"), trusting);
    fails("ssh-no-key", &address);
    ssh(agent.socket(), trusting);
    let port = closed();
    let ran = place.build(&[], &["--addr", &format!("ssh://127.0.0.1:{port}")]);
    shows("ssh-refused", &ran, &[(&port, "PORT")]);
    let mut ran = place.build(&[], &["--addr", "ssh://nowhere.invalid"]);
    // Each system has its own words for it.
    let known = "Could not resolve hostname nowhere.invalid: ";
    if let Some((before, behind)) = ran.err.split_once(known) {
        let rest = behind
            .find('\n')
            .and_then(|at| behind.get(at..))
            .unwrap_or_default();
        ran.err = format!("{before}{known}…{rest}");
    }
    shows("ssh-host-unknown", &ran, &[]);
}

#[test]
fn containers_that_hold_no_daemon() {
    on("cli::containers_that_hold_no_daemon", async |place| {
        place.program(
            "bin/docker",
            &format!(
                "DOCKER_HOST='unix://{}' exec '{}' \"$@\"",
                place.target.docker.display(),
                docker_cli().0.display()
            ),
        );
        let fails = |name: &str, container: &str| {
            let ran = place.bk_with(&[], &["--addr", &format!("docker-container://{container}")]);
            shows(name, &ran, &[(container, "NAME")]);
        };
        fails("container-unknown", "bk-nobody");
        let own = format!("bk-unreachable-{}", std::process::id());
        let container = Container::start_as(place, own.clone());
        let busybox = ["exec", &own, "/bin/busybox", "rm", "/bin/buildctl"];
        ok(container.docker().args(busybox));
        fails("container-no-buildctl", &own);
        ok(container.docker().args(["kill", &own]));
        let mut inspect = container.docker();
        let id = ok(inspect.args(["inspect", "--format", "{{.Id}}", &own]));
        let ran = place.bk_with(&[], &["--addr", &format!("docker-container://{own}")]);
        shows("container-stopped", &ran, &[(&own, "NAME"), (&id, "ID")]);
        // The image that the container is of goes too.
        drop(container);
        place.engine.remove_image(&place.tag).await.expect("removable");
    });
}
