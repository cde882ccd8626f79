//! What a daemon refuses, or cannot do.

use bk_testkit::live::{Daemon, Route};

use super::{
    scene::{ENGINES, Scene, targets},
    snapshot::{Snapshots, pattern},
};

#[test]
fn what_a_daemon_refuses_is_told_with_what_to_do() {
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&ENGINES, "errors::what_a_daemon_refuses_is_told_with_what_to_do") {
        let mut check = |name: &str, rest: &str, flags: &[&str]| {
            let mut scene = Scene::with_shell(&target, rest);
            scene.on(&target);
            let arguments = [&["build", "-q"][..], flags, &["."]].concat();
            snapshots.check(name, variant, &scene.run(&arguments));
        };
        check("refused-frontend", "", &["--frontend", "makefile.v0"]);
        check(
            "refused-entitlement-by-daemon",
            "",
            &["--allow", "security.insecure"],
        );
        check("refused-exporter", "", &["-o", "type=oci,dest=out.tar"]);
        check("refused-cache", "", &["--cache-to", "type=local,dest=cache"]);
        check("refused-push", "", &["--push", "-t", "127.0.0.1:1/app:1"]);
        check("refused-url", "ADD https://127.0.0.1:1/file /\n", &[]);
        match variant {
            // Its frontend does not know the flag.
            "20.10" => check("too-old", "", &["--sbom", "true"]),
            _ => check("refused-entitlement", "RUN --network=host true\n", &[]),
        }
        target.passed("errors::what_a_daemon_refuses_is_told_with_what_to_do");
    }
}

#[test]
fn what_only_a_standalone_daemon_refuses() {
    let places = [(Daemon::BuildkitUnix, Route::Direct, "")];
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&places, "errors::what_only_a_standalone_daemon_refuses") {
        let mut check = |name: &str, rest: &str, flags: &[&str]| {
            let mut scene = Scene::with_shell(&target, rest);
            scene.on(&target);
            let arguments = [&["build", "-q"][..], flags, &["."]].concat();
            snapshots.check(name, variant, &scene.run(&arguments));
        };
        check("refused-device", "", &["--allow", "device=vendor.test/card"]);
        check(
            "refused-attestation-scanner",
            "",
            &[
                "--sbom",
                "generator=127.0.0.1:1/scanner",
                "-o",
                "type=oci,dest=out.tar",
            ],
        );
    }
}

#[test]
fn output_that_the_daemon_cut_off_is_told() {
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&ENGINES, "errors::output_that_the_daemon_cut_off_is_told") {
        // Much more than daemons pass on in a second.
        let mut scene = Scene::with_shell(&target, "RUN /bin/sh /bin/noisy\n");
        scene.file(
            "Dockerfile",
            "FROM scratch\nCOPY sh unique noisy /bin/\nRUN /bin/sh /bin/noisy\n",
        );
        scene.file(
            "noisy",
            "i=0; l=0123456789abcdef; l=$l$l$l$l$l$l$l$l; l=$l$l$l$l$l$l$l$l\n\
             while [ $i -lt 3200 ]; do echo $l; i=$((i+1)); done\nexit 1\n",
        );
        scene.on(&target);
        let report = scene.run(&["build", "-q", "."]);
        // Where, and how often, it was cut depends on the daemon's clock.
        let long = pattern(r"(?m)^(<time> )?[0-9a-f]{5,}\n|^(?u:[^\n])*\d{4,} bytes(?u:[^\n])*\n");
        let report = long.replace_all(&report, "");
        let again = pattern(
            r"(?m)(^(?:<time> )?\[output clipped, log limit )(?u:[^\]])*\]\n(?:\[output clipped(?u:[^\n])*\n)*",
        );
        let report = again.replace_all(&report, "${1}<n> reached]\n");
        snapshots.check("step-clipped-output", variant, &report);
        target.passed("errors::output_that_the_daemon_cut_off_is_told");
    }
}
