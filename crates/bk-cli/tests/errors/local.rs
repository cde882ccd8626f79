//! Files of this machine that cannot be read as needed, and results that cannot be written.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::sys::stat::SFlag;

use super::{
    scene::{ENGINES, ROUTES, Scene, targets},
    snapshot::{Snapshots, pattern},
};

/// Without what lets root read everything.
const PLAIN_USER: [&str; 2] = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"];

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&ROUTES, "errors::a_file_that_cannot_be_read_is_named") {
        let mut check = |name: &str, arrange: &dyn Fn(&Scene)| {
            let mut scene = Scene::new("FROM scratch\nCOPY . /\n");
            scene.on(&target).through(&PLAIN_USER);
            scene.unique();
            arrange(&scene);
            snapshots.check(name, variant, &scene.run(&["build", "-q", "."]));
        };
        let closed = |scene: &Scene, name: &str| {
            let none = fs::Permissions::from_mode(0o000);
            fs::set_permissions(scene.path(name), none).expect("ours");
        };
        check("local-unreadable-file", &|scene| {
            scene.file("keys/private.pem", "x");
            closed(scene, "keys/private.pem");
        });
        check("local-unreadable-directory", &|scene| {
            scene.file("data/db/file", "x");
            closed(scene, "data/db");
        });
        check("local-unreadable-dockerfile", &|scene| {
            closed(scene, "Dockerfile")
        });
        check("local-unreadable-ignore-file", &|scene| {
            scene.file(".dockerignore", "*.log\n");
            closed(scene, ".dockerignore");
        });
        target.passed("errors::a_file_that_cannot_be_read_is_named");
    }
}

#[test]
fn what_is_no_file_is_named() {
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&ROUTES, "errors::what_is_no_file_is_named") {
        let mut check = |name: &str, arguments: &[&str], arrange: &dyn Fn(&Scene)| {
            let mut scene = Scene::new("FROM scratch\nCOPY . /\n");
            scene.on(&target);
            arrange(&scene);
            let arguments = [&["build", "-q"][..], arguments, &["."]].concat();
            snapshots.check(name, variant, &scene.run(&arguments));
        };
        check("pipe-dockerfile", &["-f", "Dockerfile.pipe"], &|scene| {
            scene.node("Dockerfile.pipe", SFlag::S_IFIFO);
        });
        check("device-dockerfile", &["-f", "/dev/null"], &|_| {});
        check("socket-dockerfile", &["-f", "Dockerfile.sock"], &|scene| {
            scene.socket("Dockerfile.sock");
        });
        // A daemon would open what it was sent, and wait.
        check("pipe-ignore-file", &[], &|scene| {
            scene.node(".dockerignore", SFlag::S_IFIFO);
        });
        target.passed("errors::what_is_no_file_is_named");
    }
}

/// How often a build is tried that something else has to disturb.
const TRIES: usize = 50;

#[test]
fn a_file_that_changes_while_it_is_sent_is_named() {
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&ENGINES, "errors::a_file_that_changes_while_it_is_sent_is_named") {
        let mut scene = Scene::new("FROM scratch\nCOPY . /\n");
        scene.on(&target);
        scene.unique();
        scene.file("log/server.log", "begun\n");
        let stop = Arc::new(AtomicBool::new(false));
        let growing = {
            let (stop, path) = (stop.clone(), scene.path("log/server.log"));
            thread::spawn(move || {
                let mut file = OpenOptions::new().append(true).open(path).expect("it is there");
                while !stop.load(Ordering::Relaxed) {
                    file.write_all(b"x").expect("writable");
                }
            })
        };
        // The file has to grow between two looks at it, which needs a moment of processor time for this program.
        let mut report = String::new();
        for _ in 0..TRIES {
            scene.unique();
            report = scene.run(&["build", "-q", "."]);
            if !report.ends_with("exit code 0\n") {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        growing.join().expect("it ends");
        // Which of them is seen first depends on the moment.
        let ways = pattern(
            r"its size changed from \d+ to \d+ bytes since it was listed|it changed (?:after it was listed|while it was read)",
        );
        let report = ways.replace_all(&report, "<how it changed>");
        snapshots.check("local-changed", variant, &report);
        target.passed("errors::a_file_that_changes_while_it_is_sent_is_named");
    }
}

#[test]
fn results_that_cannot_be_written_are_named() {
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&ENGINES, "errors::results_that_cannot_be_written_are_named") {
        let mut check = |name: &str, flags: &[&str], arrange: &dyn Fn(&Scene)| {
            let mut scene = Scene::new("FROM scratch\nCOPY unique /\n");
            scene.on(&target).through(&PLAIN_USER);
            scene.unique();
            arrange(&scene);
            let arguments = [&["build", "-q"][..], flags, &["."]].concat();
            snapshots.check(name, variant, &scene.run(&arguments));
        };
        check(
            "result-parent-is-a-file",
            &["-o", "type=local,dest=unique/out"],
            &|_| {},
        );
        check(
            "result-not-writable",
            &["-o", "type=local,dest=closed/out"],
            &|scene| {
                scene.directory("closed");
                let read = fs::Permissions::from_mode(0o555);
                fs::set_permissions(scene.path("closed"), read).expect("ours");
            },
        );
        check("result-disk-full", &["-o", "type=tar,dest=/dev/full"], &|_| {});
        check("result-is-a-directory", &["-o", "type=tar,dest=out"], &|scene| {
            scene.directory("out");
        });
        check("result-iidfile", &["--iidfile", "none/iid"], &|_| {});
        check(
            "result-metadata",
            &["--metadata-file", "none/metadata.json"],
            &|_| {},
        );
        target.passed("errors::results_that_cannot_be_written_are_named");
    }
}
