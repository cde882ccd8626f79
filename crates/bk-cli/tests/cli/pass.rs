//! `bk dial-stdio` and `bk proxy` before real daemons: what comes through them builds, and they end when they are told to.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    process::{Child, ChildStderr, Stdio},
};

use bk_testkit::live::{Daemon, Engine, Route, Target};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{bk, endpoints::on, run};

/// A running `bk proxy`. It ends with the value.
struct Proxy {
    child: Child,
    said: BufReader<ChildStderr>,
    address: String,
}

impl Proxy {
    fn start(arguments: &[&str]) -> Self {
        let mut child = bk(&[&["proxy"], arguments].concat())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bk starts");
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("readable");
        let address = line
            .strip_prefix("listening at ")
            .and_then(|rest| rest.split_once(" for "))
            .map(|(address, _)| address.to_owned())
            .unwrap_or_else(|| panic!("{line}"));
        assert!(line.ends_with("; Ctrl-C ends it\n"), "{line}");
        Self { child, said, address }
    }

    /// Ends it as a service manager does; returns its exit code and what it said last.
    fn end(mut self) -> (Option<i32>, String) {
        let id = Pid::from_raw(self.child.id().cast_signed());
        kill(id, Signal::SIGTERM).expect("it is there");
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).expect("readable");
        (self.child.wait().expect("ends").code(), rest)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How an HTTP/2 connection begins, with no settings of ours.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[test]
fn a_proxy_stands_in_for_the_daemon() {
    on("cli::a_proxy_stands_in_for_the_daemon", async |place| {
        let socket = place.path("proxy.sock");
        let listen = format!("unix://{}", socket.display());
        let proxy = Proxy::start(&["--listen", &listen, "--to", &place.target.address]);
        assert_eq!(proxy.address, listen);
        let mode = fs::metadata(&socket).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        place.builds(&listen, &["--backend", "buildkitd"]).await;
        // One behind another, at a port.
        let second = Proxy::start(&["--listen", "tcp://127.0.0.1:0", "--to", &listen]);
        place.builds(&second.address, &["--backend", "buildkitd"]).await;
        assert_eq!(second.end(), (Some(0), String::new()));
        assert_eq!(proxy.end(), (Some(0), String::new()));
        assert!(!socket.exists());
        // Somebody who keeps a connection open without using it does not keep it from ending well.
        let proxy = Proxy::start(&["--listen", &listen, "--to", &place.target.address]);
        let mut idle = UnixStream::connect(&socket).expect("it listens");
        idle.write_all(PREFACE).expect("written");
        idle.read_exact(&mut [0; 9]).expect("an answer");
        assert_eq!(proxy.end(), (Some(0), String::new()));
        assert!(!socket.exists());
        // Before Docker Engine, whose BuildKit then takes sessions through its own API.
        let engine = format!("unix://{}", place.target.docker.display());
        let proxy = Proxy::start(&["--listen", &listen, "--to", &engine]);
        place.builds(&listen, &["--backend", "buildkitd"]).await;
        assert_eq!(proxy.end(), (Some(0), String::new()));
        place.target.supports("`bk proxy` and `bk dial-stdio`");
    });
}

#[test]
fn what_carries_bytes_can_be_bk_itself() {
    on("cli::what_carries_bytes_can_be_bk_itself", async |place| {
        // As the program that `docker-container://` starts.
        let script = format!(
            "[ \"$4 $5\" = 'buildctl dial-stdio' ] || exit 9\nexec '{}' --addr \"$BK_FAR\" dial-stdio",
            env!("CARGO_BIN_EXE_bk")
        );
        place.program("bin/docker", &script);
        let engine = format!("unix://{}", place.target.docker.display());
        for far in [&*place.target.address, &*engine] {
            let flags = ["--addr", "docker-container://b0"];
            place.builds_with(&[("BK_FAR", far)], &flags).await;
        }
        let ran = place.bk_with(
            &[("BK_FAR", "unix:///nonexistent/b.sock")],
            &["--addr", "docker-container://b0"],
        );
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert!(
            ran.err
                .contains("cannot reach a daemon at unix:///nonexistent/b.sock"),
            "{}",
            ran.err
        );
    });
}

/// What an engine's BuildKit says of itself tells that it is one, also where nobody speaks Docker's API.
#[test]
fn an_engine_behind_a_carrier_is_known_as_one() {
    let name = "cli::an_engine_behind_a_carrier_is_known_as_one";
    for daemon in [Daemon::Docker20_10, Daemon::Docker26_1, Daemon::Docker28_5] {
        let Some(old) = Target::find(daemon, Route::Grpc, name) else {
            continue;
        };
        on(name, async |place| {
            let socket = format!("unix://{}", old.docker.display());
            let script = format!(
                "exec '{}' --backend docker --addr '{socket}' dial-stdio",
                env!("CARGO_BIN_EXE_bk")
            );
            place.program("bin/docker", &script);
            let flags = ["--addr", "docker-container://b0"];
            let ran = place.bk_with(&[], &flags);
            assert_eq!(ran.code, Some(0), "{}: {}", old.name(), ran.err);
            let engine = Engine::connect(&old.docker).await.expect("the engine");
            engine.remove_image(&place.tag).await.expect("the image");
            let mut push = bk(&flags);
            push.args(["build", "--push", "-t", "127.0.0.1:9/nobody"])
                .arg(place.path("context"));
            let ran = run(push.env("PATH", place.search_path()));
            let error = "ERROR: --push: the image store of this Docker Engine does not push by itself";
            assert!(ran.err.contains(error), "{}: {}", old.name(), ran.err);
        });
        old.passed(name);
    }
}
