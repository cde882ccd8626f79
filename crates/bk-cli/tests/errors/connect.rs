//! No daemon, or something else in its place.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener},
    thread,
};

use bk_testkit::tls::{Authority, TlsFront};

use super::{scene::Scene, snapshot::Snapshots};

const GOOD: &str = "FROM scratch\nCOPY unique /\n";

fn scene() -> Scene {
    let scene = Scene::new(GOOD);
    scene.unique();
    scene
}

#[test]
fn an_endpoint_that_does_not_answer_is_named() {
    let mut snapshots = Snapshots::default();
    let mut check = |name: &str, scene: &Scene| {
        snapshots.check(name, "", &scene.run(&["build", "-q", "."]));
    };

    let mut missing = scene();
    let socket = missing.around().join("nobody.sock");
    missing.at("auto", &format!("unix://{}", socket.display()));
    check("connect-no-socket", &missing);

    let mut closed = scene();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = format!("tcp://{}", port.local_addr().expect("an address"));
    drop(port);
    closed.at("auto", &address);
    check("connect-refused", &closed);

    let mut bad = scene();
    bad.at("auto", "tpc://localhost:1234");
    check("connect-bad-address", &bad);
}

#[test]
fn something_else_than_a_daemon_is_told() {
    let mut snapshots = Snapshots::default();
    for backend in ["buildkitd", "docker"] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = format!("tcp://{}", listener.local_addr().expect("an address"));
        // Answers everything as a web server does; ends with the test program.
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    if stream.read(&mut buffer).is_ok() {
                        let answer = "HTTP/1.1 404 Not Found\r\nServer: web\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwhat?";
                        // The client may have seen enough. A connection that is closed with something unread is reset, and
                        // the answer with it: so what comes is read until the client ends.
                        let _ = stream.write_all(answer.as_bytes());
                        let _ = stream.shutdown(Shutdown::Write);
                        let _ = std::io::copy(&mut stream, &mut std::io::sink());
                    }
                });
            }
        });
        let mut web = scene();
        web.at(backend, &address);
        let name = match backend {
            "docker" => "connect-not-docker",
            _ => "connect-not-buildkit",
        };
        snapshots.check(name, "", &answered(&web, &["build", "-q", "."]));
    }
}

/// A run in which the words of the other side arrived: its end may overtake them.
fn answered(scene: &Scene, arguments: &[&str]) -> String {
    let mut report = scene.run(arguments);
    for _ in 0..50 {
        if !report.contains("closed without an answer") {
            break;
        }
        report = scene.run(arguments);
    }
    report
}

#[test]
fn a_daemon_that_says_nothing_is_not_waited_for() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut silent = scene();
    silent.at(
        "buildkitd",
        &format!("tcp://{}", listener.local_addr().expect("an address")),
    );
    Snapshots::default().check("timeout", "", &silent.run(&["build", "-q", "."]));
}

#[test]
fn certificates_that_do_not_fit_are_told() {
    let daemon = bk_testkit::fake::FakeDaemon::start(bk_testkit::fake::Script::healthy()).expect("a daemon");
    let mut snapshots = Snapshots::default();
    let mut scene = scene();
    let authority = Authority::new().expect("an authority");
    let stranger = Authority::new().expect("another authority");
    let identity = authority
        .sign(scene.around(), "127.0.0.1", false)
        .expect("a certificate");
    let front = TlsFront::start(daemon.socket(), &identity, Some(&authority)).expect("a front");
    scene.at("buildkitd", &format!("tcp://{}", front.address()));
    let ca = scene.around().join("ca.pem");
    std::fs::write(&ca, authority.pem()).expect("writable");
    let other = scene.around().join("other.pem");
    std::fs::write(&other, stranger.pem()).expect("writable");
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let (ca, other) = (text(&ca), text(&other));
    let build = ["build", "-q", "."];
    for (name, flags) in [
        ("connect-tls-unknown-authority", &["--tlscacert", &other][..]),
        (
            "connect-tls-wrong-name",
            &["--tlscacert", &ca, "--tlsservername", "daemon.example"],
        ),
        ("connect-tls-certificate-wanted", &["--tlscacert", &ca]),
        ("connect-tls-missing-file", &["--tlscacert", "missing.pem"]),
        ("connect-tls-wanted", &[]),
    ] {
        let arguments = [flags, &build].concat();
        snapshots.check(name, "", &answered(&scene, &arguments));
    }
}
