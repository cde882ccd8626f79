//! `bk ctx` without a daemon: what it prints, and its exit codes.

use std::{fs, path::Path};

use super::{Ran, bk, run, text};

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (path, content) in [
        (
            "Dockerfile",
            "FROM scratch AS one\nCOPY src /src\nFROM one\nCOPY \\\n  doc/a* /doc/\n",
        ),
        (".dockerignore", "# what is made\n*/gen\n!src/gen/keep\n"),
        ("src/a.rs", "abc"),
        ("src/gen/b", "b"),
        ("src/gen/keep", "k"),
        ("doc/a\u{1b}[31m$ x", "x"),
        ("doc/b", "b"),
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("writable");
    }
    dir
}

fn ctx(dir: &Path, arguments: &[&str]) -> Ran {
    run(bk(&["ctx"]).args(arguments).current_dir(dir))
}

#[test]
fn ls_lists_in_wire_order() {
    let dir = tree();
    let ran = ctx(dir.path(), &["ls"]);
    let want = "doc\ndoc/a\u{1b}[31m$ x\nsrc\nsrc/a.rs\nsrc/gen\nsrc/gen/keep\n";
    assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(0), want, ""));
    let ran = ctx(
        dir.path(),
        &[
            "ls",
            "--long",
            "--context-mode=git",
            "--target",
            "one",
            text(dir.path()),
        ],
    );
    let want = "drwxr-xr-x            0 src\n-rw-r--r--            3 src/a.rs\ndrwxr-xr-x            0 src/gen\n\
                -rw-r--r--            1 src/gen/keep\n";
    assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(0), want, ""));
    let ran = ctx(dir.path(), &["ls", "--json", "--context-mode=git"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(
        lines[1],
        r#"{"kind":"file","mode":"0644","path":"doc/a\u001b[31m$ x","size":1}"#
    );
    let ran = ctx(dir.path(), &["ls", "--depfile", "made", "--target=one"]);
    let want = "made: \\\n  Dockerfile \\\n  .dockerignore \\\n  src/a.rs \\\n  src/gen/keep\n";
    assert_eq!((ran.code, &*ran.out), (Some(0), want));
    let ran = ctx(dir.path(), &["ls", "--depfile", "made"]);
    assert_eq!(ran.code, Some(2), "{}", ran.out);
    assert!(ran.err.contains("control character"), "{}", ran.err);
}

#[test]
fn why_names_patterns_and_instructions() {
    let dir = tree();
    let ran = ctx(dir.path(), &["why", "src/a.rs", "src/gen/keep"]);
    let want = "src/a.rs: sent\n  needed by Dockerfile:2: COPY src /src\n\
                src/gen/keep: sent\n  kept by .dockerignore:3: !src/gen/keep\n  needed by Dockerfile:2: COPY src /src\n";
    assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(0), want, ""));
    let whole = dir.path().canonicalize().expect("a path").join("doc/b");
    let ran = ctx(dir.path(), &["why", "src/gen/b", text(&whole), "src/gen", "no"]);
    let want = "src/gen/b: not sent\n  ignored by .dockerignore:2: */gen\n  needed by Dockerfile:2: COPY src /src\n\
                doc/b: not sent\n  it is not needed by any instruction\n\
                src/gen: sent\n  it is left out itself, but something in it is sent\n  ignored by .dockerignore:2: */gen\n  \
                needed by Dockerfile:2: COPY src /src\n\
                no: not sent\n  it is not in the context\n";
    assert_eq!((ran.code, &*ran.out), (Some(1), want));
    let ran = ctx(dir.path(), &["why", "--json", "src/gen/b"]);
    assert!(
        ran.out.contains(r#""reason":"ignored""#) && ran.out.contains(r#""line":2"#),
        "{}",
        ran.out
    );
    let ran = ctx(dir.path(), &["why", "../x"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
}

#[test]
fn what_is_not_known_is_a_warning() {
    let dir = tree();
    fs::write(dir.path().join("Dockerfile"), "FROM alpine\nCOPY $HOME/x /\n").expect("writable");
    let ran = ctx(dir.path(), &["ls"]);
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.out.lines().count(), 9, "{}", ran.out);
    assert_eq!(
        ran.err,
        "WARNING: line 2 of the Dockerfile: the value of `$HOME` is not known here; everything that the ignore file leaves \
         counts as needed\n"
    );
    let ran = ctx(dir.path(), &["ls", "--target", "none"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("no stage `none`"), "{}", ran.err);
}

#[test]
fn a_context_by_name_is_looked_at() {
    let dir = tree();
    let other = tempfile::tempdir().expect("a temporary directory");
    for name in ["x", "y"] {
        fs::write(other.path().join(name), name).expect("writable");
    }
    fs::write(
        dir.path().join("Dockerfile"),
        "FROM scratch\nCOPY --from=other x /\n",
    )
    .expect("writable");
    let given = format!("other={}", other.path().display());
    let ran = ctx(
        dir.path(),
        &["ls", "--build-context", &given, "--build-context", "other"],
    );
    assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(0), "x\n", ""));
    let ran = ctx(dir.path(), &["ls", "--build-context", &given]);
    assert_eq!((ran.code, &*ran.out), (Some(0), ""));
    let ran = ctx(dir.path(), &["ls", "--build-context", "other"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
}
