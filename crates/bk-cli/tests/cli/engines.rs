//! Docker Engines that are not on a plain socket: one that speaks TLS with real certificates, and the contexts that the Docker
//! CLI makes for it.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bk_testkit::{
    live::dockerd_program,
    tls::{Authority, Identity},
};

use super::{Ran, bk, endpoints::docker_cli, endpoints::ok, run, text};

/// How long a dockerd may take to start, and to end.
const READY: Duration = Duration::from_secs(90);

/// A dockerd of this test's own that wants certificates. It ends with the value.
struct TlsEngine {
    child: Child,
    port: u16,
}

impl TlsEngine {
    fn start(program: &Path, dir: &Path, clients: &Path, own: &Identity) -> Self {
        fs::create_dir_all(dir).expect("a directory");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        // That of the machine plays no part.
        fs::write(dir.join("none.json"), "{}").expect("writable");
        let log = fs::File::create(dir.join("log")).expect("writable");
        let child = Command::new(program)
            .args(["--host", &format!("tcp://127.0.0.1:{port}"), "--tlsverify"])
            .arg("--tlscacert")
            .arg(clients)
            .arg("--tlscert")
            .arg(&own.cert)
            .arg("--tlskey")
            .arg(&own.key)
            .arg("--data-root")
            .arg(dir.join("root"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false"])
            .args([
                "--storage-driver",
                "vfs",
                "--shutdown-timeout",
                "5",
                "--config-file",
            ])
            .arg(dir.join("none.json"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a dockerd");
        let mut this = Self { child, port };
        let begun = Instant::now();
        loop {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            if log.contains("API listen on") {
                return this;
            }
            let ended = this.child.try_wait().expect("a child");
            assert!(ended.is_none() && begun.elapsed() < READY, "dockerd: {log}");
            thread::sleep(Duration::from_millis(50)); // sleep: it tells nobody but its log
        }
    }

    fn address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }
}

impl Drop for TlsEngine {
    fn drop(&mut self) {
        let id = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(30) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(50)); // sleep: `Child` has no wait with an end
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn bk(&self, variables: &[(&str, &str)], flags: &[&str]) -> Ran {
        let mut command = bk(flags);
        command.envs(variables.iter().copied());
        run(command
            .args(["build", "--progress", "plain", "-t", "bk-tls"])
            .arg(self.path("context")))
    }

    fn builds(&self, variables: &[(&str, &str)], flags: &[&str]) -> String {
        let ran = self.bk(variables, flags);
        assert_eq!(ran.code, Some(0), "{variables:?} {flags:?}: {}", ran.err);
        ran.err
    }

    fn fails(&self, variables: &[(&str, &str)], flags: &[&str], why: &str) {
        let ran = self.bk(variables, flags);
        assert_eq!(ran.code, Some(1), "{variables:?} {flags:?}: {}", ran.err);
        assert!(ran.err.contains(why), "{}\nwanted: {why}", ran.err);
    }

    /// The files of a directory as `DOCKER_CERT_PATH` has them.
    fn certificates(&self, name: &str, ca: &str, identity: Option<&Identity>) -> String {
        let dir = self.path(name);
        fs::create_dir(&dir).expect("a directory");
        fs::write(dir.join("ca.pem"), ca).expect("writable");
        if let Some(identity) = identity {
            fs::copy(&identity.cert, dir.join("cert.pem")).expect("copied");
            fs::copy(&identity.key, dir.join("key.pem")).expect("copied");
        }
        text(&dir).to_owned()
    }

    /// The Docker CLI with a configuration of this test's own.
    fn docker(&self) -> Command {
        let mut command = Command::new(docker_cli().0);
        command
            .env("DOCKER_CONFIG", self.path("config"))
            .env_remove("DOCKER_HOST");
        command
    }
}

#[test]
fn an_engine_behind_tls_is_reached_by_variables_options_and_contexts() {
    let name = "cli::an_engine_behind_tls_is_reached_by_variables_options_and_contexts";
    let Some(program) = dockerd_program(name) else {
        return;
    };
    let place = Place {
        dir: tempfile::tempdir().expect("a temporary directory"),
    };
    for dir in ["context", "config", "keys"] {
        fs::create_dir(place.path(dir)).expect("a directory");
    }
    fs::write(place.path("context/Dockerfile"), "FROM scratch\nCOPY file /\n").expect("writable");
    fs::write(place.path("context/file"), "over TLS").expect("writable");
    let (ours, theirs) = (Authority::new().expect("keys"), Authority::new().expect("keys"));
    let keys = place.path("keys");
    let own = ours.sign(&keys, "127.0.0.1", false).expect("signed");
    let client = theirs.sign(&keys, "client", false).expect("signed");
    let clients = place.path("keys/clients.pem");
    fs::write(&clients, theirs.pem()).expect("writable");
    let engine = TlsEngine::start(&program, &place.path("e"), &clients, &own);
    let address = engine.address();

    let good = place.certificates("good", &ours.pem(), Some(&client));
    let by_variables = |address: &str, dir: &str, check: &'static str| {
        let all = [("DOCKER_HOST", address), (check, "1"), ("DOCKER_CERT_PATH", dir)];
        all.map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let run_by_variables = |address: &str, dir: &str, check: &'static str| {
        let all = by_variables(address, dir, check);
        let all: Vec<_> = all.iter().map(|(name, value)| (&**name, &**value)).collect();
        place.bk(&all, &[])
    };
    let ran = run_by_variables(&address, &good, "DOCKER_TLS_VERIFY");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.err.contains("#0 building with docker ") && ran.err.contains(&format!(" (grpc) at {address}\n")),
        "{}",
        ran.err
    );
    // By options, when nothing says what kind of daemon it is.
    place.builds(&[], &["--addr", &address, "--tlsdir", &good]);
    place.builds(
        &[],
        &["--addr", &address.replace("tcp:", "https:"), "--tlsdir", &good],
    );
    for route in ["build", "tar"] {
        place.builds(
            &[],
            &["--addr", &address, "--tlsdir", &good, "--docker-route", route],
        );
    }

    // By contexts that the Docker CLI made.
    let config = place.path("config");
    let files = format!("host={address},ca={good}/ca.pem,cert={good}/cert.pem,key={good}/key.pem");
    ok(place
        .docker()
        .args(["context", "create", "far", "--docker", &files]));
    let skipping = format!("host={address},cert={good}/cert.pem,key={good}/key.pem,skip-tls-verify=true");
    ok(place
        .docker()
        .args(["context", "create", "skip", "--docker", &skipping]));
    let home = ("DOCKER_CONFIG", text(&config));
    place.builds(&[home, ("DOCKER_CONTEXT", "far")], &[]);
    place.builds(&[home], &["--addr", "docker://far"]);
    let said = place.builds(&[home, ("DOCKER_CONTEXT", "skip")], &[]);
    let warning = format!(
        "#0 WARN: the certificate of {address} is not checked (the Docker context `skip` says so): whoever is between can read \
         and change the build"
    );
    assert!(said.contains(&warning), "{said}");
    ok(place.docker().args(["context", "use", "far"]));
    place.builds(&[home], &[]);
    place.builds(&[home], &["--addr", "docker://"]);
    // The variable wins over contexts, and the engine that images of others are loaded into is the same.
    place.fails(
        &[home, ("DOCKER_HOST", "unix:///nonexistent/d.sock")],
        &[],
        "unix:///nonexistent/d.sock (DOCKER_HOST): there is no such socket",
    );

    // Each way to be refused.
    let wrong = place.certificates("wrong", &theirs.pem(), Some(&client));
    let nobody = place.certificates("nobody", &ours.pem(), None);
    let stranger = ours.sign(&keys, "stranger", false).expect("signed");
    let strange = place.certificates("strange", &ours.pem(), Some(&stranger));
    let elsewhere = address.replace("127.0.0.1", "localhost");
    for (address, dir, why) in [
        (
            &address,
            &wrong,
            "its certificate is signed by no authority that is trusted; name its authority with ca.pem of `",
        ),
        (&elsewhere, &good, "its certificate is not for `localhost`"),
        (
            &address,
            &nobody,
            "it wants to see a certificate; give one with cert.pem and key.pem of `",
        ),
        (
            &address,
            &strange,
            "it does not accept the certificate of cert.pem of `",
        ),
    ] {
        let ran = run_by_variables(address, dir, "DOCKER_TLS_VERIFY");
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert!(ran.err.contains(why), "{}\nwanted: {why}", ran.err);
        assert!(ran.err.contains(&**address), "{}", ran.err);
    }
    // Without being checked another authority does not matter, as for the Docker CLI.
    let ran = run_by_variables(&address, &wrong, "DOCKER_TLS");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("is not checked"), "{}", ran.err);
    for plain in [&[("DOCKER_HOST", &*address)][..], &[]] {
        place.fails(plain, &["--addr", &address], "what listens there speaks TLS");
    }
    drop(engine);

    let old = ours.sign(&keys, "127.0.0.1", true).expect("signed");
    let engine = TlsEngine::start(&program, &place.path("e"), &clients, &old);
    let ran = run_by_variables(&engine.address(), &good, "DOCKER_TLS_VERIFY");
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("its certificate has expired"), "{}", ran.err);
}
