//! Steps that ran and failed, and builds that were stopped.

use std::io::{BufRead as _, BufReader, Read as _};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    scene::{ENGINES, ROUTES, Scene, targets},
    snapshot::Snapshots,
};

/// A program of another processor: the head of one, which no kernel gets further than.
fn foreign() -> Vec<u8> {
    let mut elf = vec![0; 120];
    elf[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf[16] = 2; // a program
    elf[18] = 243; // RISC-V
    elf[20] = 1;
    elf[32] = 64; // one segment, behind the head
    elf[52] = 64;
    elf[54] = 56;
    elf[56] = 1;
    elf
}

#[test]
fn a_failed_step_is_shown_with_its_place_output_and_code() {
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(
        &ROUTES,
        "errors::a_failed_step_is_shown_with_its_place_output_and_code",
    ) {
        let mut check = |name: &str, rest: &str, arrange: &dyn Fn(&Scene)| {
            let mut scene = Scene::with_shell(&target, rest);
            scene.on(&target);
            arrange(&scene);
            snapshots.check(name, variant, &scene.run(&["build", "-q", "."]));
        };
        let nothing = |_: &Scene| {};
        check(
            "step-exit-code",
            "RUN echo compiling; echo 'main.c:3: error'; exit 2\n",
            &nothing,
        );
        check("step-command-not-found", "RUN make all\n", &nothing);
        check("step-not-executable", "RUN /bin/unique\n", &nothing);
        check("step-killed", "RUN /bin/sh -c 'kill -9 $$'; exit $?\n", &nothing);
        check(
            "step-no-program",
            "RUN [\"/bin/bash\", \"-c\", \"true\"]\n",
            &nothing,
        );
        check(
            "step-foreign-program",
            "COPY --chmod=755 foreign /bin/\nRUN [\"/bin/foreign\"]\n",
            &|scene| {
                scene.file("foreign", foreign());
                use std::os::unix::fs::PermissionsExt as _;
                let runs = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(scene.path("foreign"), runs).expect("ours");
            },
        );
        check(
            "step-secret-required",
            "RUN --mount=type=secret,id=token,required=true true\n",
            &nothing,
        );
        target.passed("errors::a_failed_step_is_shown_with_its_place_output_and_code");
    }
}

#[test]
fn an_interrupt_is_told_as_such() {
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&ENGINES, "errors::an_interrupt_is_told_as_such") {
        let mut scene = Scene::with_shell(
            &target,
            "RUN echo begun; exec /bin/sh -c 'while :; do read x; done'\n",
        );
        scene.on(&target);
        let arguments = ["build", "--progress", "plain", "."];
        let mut child = scene.command(&arguments).spawn().expect("bk starts");
        let mut progress = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.ends_with(" begun\n") {
            line.clear();
            assert_ne!(
                progress.read_line(&mut line).expect("readable"),
                0,
                "it ended early"
            );
        }
        let pid = i32::try_from(child.id()).expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("it runs");
        let mut rest = String::new();
        progress.read_to_string(&mut rest).expect("readable");
        let mut output = child.wait_with_output().expect("an end");
        // What was drawn of the step depends on the moment.
        let at = rest.find("ERROR: ").expect("a report");
        output.stderr = rest.as_bytes()[at..].to_vec();
        snapshots.check("cancelled", variant, &scene.report(&["build", "."], &output));
        target.passed("errors::an_interrupt_is_told_as_such");
    }
}
