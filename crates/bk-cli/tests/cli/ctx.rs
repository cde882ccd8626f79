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

#[test]
fn du_adds_up_and_lint_finds() {
    let dir = tree();
    let ran = ctx(dir.path(), &["du"]);
    let want = "      5 B        3  .\n      4 B        2    src/\n      3 B        1      a.rs\n      1 B        1      gen/\n\
                \x20     1 B        1    doc/\n      1 B        1      a\u{1b}[31m$ x\n";
    assert_eq!((ran.code, &*ran.out), (Some(0), want));
    let ran = ctx(dir.path(), &["du", "--json", "--depth=1"]);
    let first = r#"{"bytes":5,"files":3,"kind":"dir","path":""}"#;
    assert_eq!(ran.out.lines().collect::<Vec<_>>()[..1], [first], "{}", ran.out);
    assert_eq!(ran.out.lines().count(), 3);

    let ran = ctx(dir.path(), &["lint"]);
    assert_eq!((ran.code, &*ran.out), (Some(0), ""), "{}", ran.err);
    fs::write(dir.path().join(".dockerignore"), "gone\n*/gen/\n!src/a.rs\n b\n").expect("writable");
    fs::write(dir.path().join("src/.env"), "SECRET=1").expect("writable");
    let ran = ctx(dir.path(), &["lint"]);
    let want = ".dockerignore:1: dead-pattern: `gone` matches nothing\n\
                .dockerignore:2: differs: `*/gen`: a `/` at the end means nothing here, so that files match too; Git matches \
                directories only\n\
                .dockerignore:3: no-effect: `!src/a.rs` changes nothing: what it matches is not ignored above it, or is \
                ignored again below it\n\
                .dockerignore:4: dead-pattern: `b` matches nothing\n\
                .dockerignore:4: differs: `b`: white space in front is cut here; Git takes it for a part of the name\n\
                secret: `src/.env` looks like settings with secrets, and is sent\n";
    assert_eq!((ran.code, &*ran.out), (Some(1), want));
}

#[test]
fn digests_and_differences_are_about_what_is_sent() {
    let (one, two) = (tree(), tree());
    let hash = |dir: &Path| {
        let ran = ctx(dir, &["hash", "--context-mode=git"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.out
    };
    let first = hash(one.path());
    assert!(first.starts_with("sha256:") && first.len() == 72, "{first}");
    fs::write(two.path().join("src/gen/b"), "not sent").expect("writable");
    assert_eq!(first, hash(two.path()));
    let same = ctx(one.path(), &["diff", text(two.path())]);
    assert_eq!((same.code, &*same.out), (Some(0), ""), "{}", same.err);

    fs::write(two.path().join("src/a.rs"), "abd").expect("writable");
    fs::write(two.path().join("src/b.rs"), "b").expect("writable");
    fs::remove_file(two.path().join("src/gen/keep")).expect("removed");
    use std::os::unix::fs::PermissionsExt as _;
    let dir = two.path().join("doc");
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).expect("a mode");
    assert_ne!(first, hash(two.path()));
    let ran = ctx(one.path(), &["diff", text(two.path())]);
    let want = "M doc\nC src/a.rs\n- src/b.rs\n+ src/gen\n+ src/gen/keep\n";
    assert_eq!((ran.code, &*ran.out), (Some(1), want), "{}", ran.err);
    let ran = ctx(
        one.path(),
        &["diff", "--context-mode=git", "--json", text(two.path())],
    );
    assert_eq!(
        ran.out.lines().next(),
        Some(r#"{"path":"src/a.rs","what":"content"}"#)
    );
}

#[cfg(target_os = "linux")]
#[test]
fn hostile_names_are_whole_in_pipes_and_escaped_in_json() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name: &[u8] = b"a\xff\n\x1b[31m";
    fs::write(dir.path().join("Dockerfile"), "FROM scratch\nCOPY a* /\n").expect("writable");
    fs::write(dir.path().join(OsStr::from_bytes(name)), "x").expect("writable");
    let output = bk(&["ctx", "ls"])
        .current_dir(dir.path())
        .output()
        .expect("bk starts");
    assert_eq!(output.stdout, [name, b"\n"].concat());
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        said.contains("not valid UTF-8") && !said.contains('\u{1b}'),
        "{said}"
    );
    let ran = ctx(dir.path(), &["ls", "--json", "--context-mode=git"]);
    let want =
        r#"{"kind":"file","mode":"0644","path":"a\\xff\n\u001b[31m","path_base64":"Yf8KG1szMW0=","size":1}"#;
    assert_eq!(ran.out, format!("{want}\n"));
    let ran = ctx(dir.path(), &["ls", "--depfile", "x"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
}
