//! Whole steps one after the other, with and without marks, and what happens when too much waits.

use super::{
    tests::{Stage, vertex},
    *,
};

fn two_steps(mut s: Stage) -> String {
    s.start("a", "[1/2] RUN a", 0);
    s.start("b", "[2/2] RUN 100% b", 0);
    s.log("b", 100, b"from b\n");
    s.log("a", 200, b"from a\n");
    let mut cached = vertex("c", "[3/3] COPY . .", Some(300), Some(300));
    cached.cached = true;
    s.event(BuildEvent::VertexCached(cached));
    s.fail("b", "[2/2] RUN 100% b", Some((0, 400)), "exit code: 1");
    s.log("a", 500, b"more a\n");
    s.done("a", "[1/2] RUN a", 0, 600);
    s.start("d", "[4/4] RUN d", 700);
    s.drawn()
}

#[test]
fn steps_are_whole_and_in_the_order_in_which_they_began() {
    let drawn = two_steps(Stage::of(Plain::ordered(Vec::new(), Fold::None)));
    assert_eq!(
        drawn,
        "\
#1 [1/2] RUN a
#1 0.200 from a
#1 0.500 more a
#1 DONE 0.6s

#2 [2/2] RUN 100% b
#2 0.100 from b
#2 ERROR: exit code: 1

#3 [3/3] COPY . .
#3 CACHED

#4 [4/4] RUN d
------
 > [2/2] RUN 100% b:
0.100 from b
------
"
    );
}

#[test]
fn services_fold_steps_by_their_marks() {
    let github = two_steps(Stage::of(Plain::ordered(Vec::new(), Fold::GitHub)));
    let (first, rest) = github.split_once("::endgroup::\n").expect("an end");
    assert_eq!(
        first,
        "::group::#1 [1/2] RUN a\n#1 0.200 from a\n#1 0.500 more a\n#1 DONE 0.6s\n"
    );
    assert!(rest.starts_with("\n::group::#2 [2/2] RUN 100%25 b\n"), "{rest}");
    assert!(
        rest.contains("::group::#4 [4/4] RUN d\n::endgroup::\n------\n"),
        "{rest}"
    );
    let gitlab = two_steps(Stage::of(Plain::ordered(Vec::new(), Fold::GitLab)));
    assert!(
        gitlab.starts_with(
            "\u{1b}[0Ksection_start:1700000000:bk_step_1[collapsed=true]\r\u{1b}[0K#1 [1/2] RUN a\n#1 0.200"
        ),
        "{gitlab:?}"
    );
    assert_eq!(gitlab.matches("section_start:").count(), 4);
    assert_eq!(gitlab.matches("section_end:").count(), 4);
    let buildkite = two_steps(Stage::of(Plain::ordered(Vec::new(), Fold::Buildkite)));
    assert!(
        buildkite.contains("--- #2 [2/2] RUN 100% b\n#2 0.100 from b\n#2 ERROR: exit code: 1\n^^^ +++\n"),
        "{buildkite}"
    );
    assert_eq!(buildkite.matches("^^^").count(), 1);
}

#[test]
fn a_status_that_never_ends_holds_nobody_back_for_long() {
    let mut s = Stage::of(Plain::ordered(Vec::new(), Fold::None));
    s.start("a", "A", 0).start("b", "B", 0);
    s.status("a", "s", (1, 2), 10, false);
    s.done("a", "A", 0, 20).done("b", "B", 0, 30);
    s.pass(limits::SILENCE).pass(limits::SILENCE);
    let drawn = String::from_utf8(s.plain.out.inner().clone()).expect("only UTF-8 is drawn");
    assert_eq!(drawn, "#1 A\n#1 s 1B / 2B\n#1 DONE 0.0s\n\n#2 B\n#2 DONE 0.0s\n");
}

#[test]
fn too_much_output_that_waits_loses_its_oldest_lines_and_says_so() {
    let mut s = Stage::of(Plain::ordered(Vec::new(), Fold::None));
    s.start("a", "A", 0).start("b", "B", 0);
    let line = [&[b'x'; 999][..], b"\n"].concat();
    for _ in 0..2 * limits::ORDERED_STEP_BYTES / line.len() {
        s.log("b", 10, &line);
        assert!(s.plain.held <= limits::ORDERED_STEP_BYTES + 2 * line.len());
    }
    s.log("b", 10, b"the last\n");
    s.done("a", "A", 0, 20).done("b", "B", 0, 30);
    assert_eq!(s.plain.held, 0);
    let drawn = s.drawn();
    let all = 2 * limits::ORDERED_STEP_BYTES / line.len();
    let kept = drawn.matches("xxx\n").count();
    assert!(
        drawn.contains(&format!(
            "#2 [{} lines left out: too much output while other steps were shown]\n",
            all - kept
        )),
        "{kept} of {all}"
    );
    assert!(drawn.ends_with("#2 0.010 the last\n#2 DONE 0.0s\n"));
    assert!(kept * 1000 > limits::ORDERED_STEP_BYTES / 4);
}

#[test]
fn all_that_waits_is_bounded_together() {
    let mut s = Stage::of(Plain::ordered(Vec::new(), Fold::None));
    s.start("first", "first", 0);
    let line = [&[b'x'; 4095][..], b"\n"].concat();
    for n in 0..10 {
        let id = n.to_string();
        s.start(&id, &id, 0);
        for _ in 0..900 {
            s.log(&id, 10, &line);
        }
        assert!(s.plain.held <= limits::ORDERED_BYTES + 2 * line.len());
    }
    let held: usize = s.plain.blocks.iter().map(Block::held).sum();
    assert_eq!(held, s.plain.held);
}
