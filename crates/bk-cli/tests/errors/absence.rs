//! Why an instruction found nothing: each reason, on each way to a daemon.

use super::{
    scene::{ROUTES, Scene, targets},
    snapshot::Snapshots,
};

#[test]
fn each_reason_for_a_missing_source_is_said() {
    let mut snapshots = Snapshots::default();
    for (target, variant) in targets(&ROUTES, "errors::each_reason_for_a_missing_source_is_said") {
        let mut check = |name: &str, dockerfile: &str, arrange: &dyn Fn(&Scene)| {
            let mut scene = Scene::new(dockerfile);
            scene.unique();
            scene.on(&target);
            arrange(&scene);
            snapshots.check(name, variant, &scene.run(&["build", "-q", "."]));
        };
        check(
            "absent-ignored",
            "FROM scratch\nCOPY unique /\nCOPY src/bin/app /app\n",
            &|scene| {
                scene
                    .file("src/bin/app", "x")
                    .file(".dockerignore", "# what tools make\n*.o\n\n**/bin\n");
            },
        );
        check(
            "absent-ignored-itself",
            "FROM scratch\nCOPY unique /\nADD app.o /app\n",
            &|scene| {
                scene.file("app.o", "x").file(".dockerignore", "*.o\n");
            },
        );
        check(
            "absent-case",
            "FROM scratch\nCOPY unique /\nCOPY readme.md /\n",
            &|scene| {
                scene.file("README.md", "x");
            },
        );
        check(
            "absent-outside",
            "FROM scratch\nCOPY unique /\nCOPY ../lib /lib\n",
            &|_| {},
        );
        check(
            "absent-link",
            "FROM scratch\nCOPY unique /\nCOPY current/app /app\n",
            &|scene| {
                scene.link("current", "../releases/7");
            },
        );
        check(
            "absent-empty",
            "FROM scratch\nCOPY unique /\nCOPY out/app /app\n",
            &|scene| {
                scene.directory("out");
            },
        );
        check(
            "absent-all-ignored",
            "FROM scratch\nCOPY unique /\nCOPY out /out\n",
            &|scene| {
                scene
                    .file("out/a.o", "x")
                    .file(".dockerignore", "out\n!out/*.bin\n");
            },
        );
        check(
            "absent-similar",
            "FROM scratch\nCOPY unique /\nCOPY pakage.json /\n",
            &|scene| {
                scene.file("package.json", "{}").file("package-lock.json", "{}");
            },
        );
        check(
            "absent-elsewhere",
            "FROM scratch\nCOPY unique /\nCOPY server.conf /etc/\n",
            &|scene| {
                scene.file("config/server.conf", "x");
            },
        );
        check(
            "absent-socket",
            "FROM scratch\nCOPY unique /\nCOPY agent.sock /\n",
            &|scene| {
                scene.socket("agent.sock");
            },
        );
        check("absent", "FROM scratch\nCOPY unique /\nCOPY zzz /\n", &|_| {});
        check(
            "absent-stage",
            "FROM scratch AS made\nCOPY unique /\nFROM scratch\nCOPY --from=made /nothing /\n",
            &|_| {},
        );
        target.passed("errors::each_reason_for_a_missing_source_is_said");
    }
}
