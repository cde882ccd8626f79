//! A Dockerfile that is wrong, as the daemon's frontend says, and ignore files that cannot be read.

use super::{
    scene::{ENGINES, ROUTES, Scene, targets},
    snapshot::Snapshots,
};

#[test]
fn a_wrong_dockerfile_is_shown_with_its_line() {
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&ENGINES, "errors::a_wrong_dockerfile_is_shown_with_its_line") {
        let mut check = |name: &str, dockerfile: &str, flags: &[&str]| {
            let mut scene = Scene::new(dockerfile);
            scene.on(&target);
            let arguments = [&["build", "-q"][..], flags, &["."]].concat();
            snapshots.check(name, variant, &scene.run(&arguments));
        };
        check("dockerfile-empty", "", &[]);
        check("dockerfile-syntax", "FROM scratch\nCOPY a\n", &[]);
        check(
            "dockerfile-unknown-instruction",
            "FROM scratch\nWORKDIR /app\nCOPPY . .\nUSER 1000\n",
            &[],
        );
        check(
            "dockerfile-unknown-flag",
            "FROM scratch\nCOPY --chowns=1 a b\n",
            &[],
        );
        check("dockerfile-no-from", "COPY a b\n", &[]);
        check(
            "dockerfile-missing-target",
            "FROM scratch AS base\nCOPY Dockerfile /\nFROM base AS test\n",
            &["--target", "tests"],
        );
        check(
            "dockerfile-unknown-stage",
            "FROM scratch\nCOPY --from=5 /a /b\n",
            &[],
        );
        check("dockerfile-heredoc", "FROM scratch\nRUN <<EOF\necho\n", &[]);
        check("dockerfile-no-base", "ARG BASE\nFROM ${BASE}\n", &[]);
        check("dockerfile-bad-reference", "FROM Example/App\n", &[]);
        check(
            "dockerfile-bad-port",
            "FROM scratch\nEXPOSE http\nCOPY Dockerfile /\n",
            &[],
        );
        target.passed("errors::a_wrong_dockerfile_is_shown_with_its_line");
    }
}

#[test]
fn mistakes_in_an_ignore_file_are_warned_of_once() {
    const TEST: &str = "errors::mistakes_in_an_ignore_file_are_warned_of_once";
    for (target, variant) in targets(&ROUTES, TEST) {
        let mut scene = Scene::new("FROM scratch\nCOPY . /\n");
        scene.on(&target);
        scene.unique();
        scene.file(
            ".dockerignore",
            "# what tools make\n!keep\nnode_modules # of npm\nnothing\nout\\dist\n",
        );
        let arguments = ["build", "--progress", "plain", "."];
        let said = scene.run(&arguments);
        let of_file = |said: &str| -> Vec<String> {
            let warnings = said.lines().filter(|line| line.contains(".dockerignore:"));
            warnings.map(str::to_owned).collect()
        };
        let wanted = [
            "#0 WARN: <context>/.dockerignore:2: `!keep`: nothing is ignored before it, and the last pattern that matches decides",
            "#0 WARN: <context>/.dockerignore:3: `node_modules # of npm`: comments have lines of their own, with the # in the first \
             column; here it is a part of the name",
            "#0 WARN: <context>/.dockerignore:5: `out\\dist`: a backslash takes the meaning of the next character away, and \
             separates nothing; write `out/dist`",
        ];
        assert_eq!(of_file(&said), wanted, "{variant} {said}");
        assert!(said.ends_with("exit code 0\n"), "{said}");
        // The one for the Dockerfile holds in its place.
        scene.file("Dockerfile.dockerignore", "*.log\n");
        assert_eq!(of_file(&scene.run(&arguments)), [""; 0], "{variant}");
        target.passed(TEST);
    }
}

#[test]
fn a_wrong_ignore_file_is_shown_with_its_line() {
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&ROUTES, "errors::a_wrong_ignore_file_is_shown_with_its_line") {
        let mut check = |name: &str, arrange: &dyn Fn(&Scene)| {
            let mut scene = Scene::new("FROM scratch\nCOPY . /\n");
            scene.on(&target);
            scene.unique();
            arrange(&scene);
            snapshots.check(name, variant, &scene.run(&["build", "-q", "."]));
        };
        check("ignore-pattern", &|scene| {
            scene.file(".dockerignore", "# logs\n*.log\n\na[\n");
        });
        check("ignore-lone-exception", &|scene| {
            scene.file(".dockerignore", "*.log\n!\n");
        });
        check("ignore-own-file", &|scene| {
            scene
                .file(".dockerignore", "*.log\n")
                .file("Dockerfile.dockerignore", "[z-a]x\n");
        });
        target.passed("errors::a_wrong_ignore_file_is_shown_with_its_line");
    }
}
