//! What a context says to a path that a daemon did not find, of each kind.

use std::{fs, path::Path};

use bk_build::{BuildError, BuildRequest, DockerfileFailure, LineRange, NamedContext, SourceSnippet};

use super::super::explain_failure;

/// What the hint becomes after a daemon has not found `path` for the last line of the Dockerfile.
async fn hint(dir: &Path, line: &str, message: &str) -> Option<String> {
    let text = format!("FROM scratch\n{line}\n");
    fs::write(dir.join("Dockerfile"), &text).expect("writable");
    let request = BuildRequest::new(dir).named_context("other", NamedContext::Dir(dir.join("sub")));
    let snippet = SourceSnippet::new("Dockerfile", text, vec![LineRange { start: 2, end: 2 }]);
    // BuildKit 0.8 does not say where.
    let snippets = if message.contains("checksum") {
        vec![snippet]
    } else {
        Vec::new()
    };
    let error = DockerfileFailure::new(message, snippets).into();
    match explain_failure(&request, error).await {
        BuildError::Dockerfile(failure) => failure.hint,
        other => panic!("{other:?}"),
    }
}

fn missing(path: &str) -> String {
    format!("failed to compute cache key: failed to calculate checksum of ref: \"{path}\": not found")
}

#[tokio::test]
async fn the_context_says_why() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = fs::canonicalize(temp.path()).expect("a path");
    for path in [
        "src/bin/tool",
        "sub/Only",
        "README.md",
        "deep/er/settings.json",
        "empty/x.log",
    ] {
        let file = dir.join(path);
        fs::create_dir_all(file.parent().expect("a directory")).expect("made");
        fs::write(file, path).expect("writable");
    }
    std::os::unix::fs::symlink("../elsewhere", dir.join("link")).expect("a link");
    fs::write(dir.join(".dockerignore"), "# what is built\n**/bin\n*/*.log\n").expect("writable");
    let ignore = dir.join(".dockerignore");
    let ignore = ignore.display();
    for (line, path, said) in [
        (
            "COPY src/bin/tool /",
            "/src/bin/tool",
            format!("`src/bin/tool` is there, but {ignore}:2 (`**/bin`) leaves it out with all of `src/bin`"),
        ),
        (
            "COPY src/bin /",
            "/src/bin",
            format!("`src/bin` is there, but {ignore}:2 (`**/bin`) leaves it out"),
        ),
        (
            "COPY readme.MD /",
            "/readme.MD",
            "there is `README.md`, and no `readme.MD`: capitals count".to_owned(),
        ),
        (
            "COPY READM.md /",
            "/READM.md",
            "there is no `READM.md`; did you mean `README.md`?".to_owned(),
        ),
        (
            "COPY settings.json /",
            "/settings.json",
            "there is no `settings.json`; did you mean `deep/er/settings.json`?".to_owned(),
        ),
        (
            "COPY link /",
            "/link",
            "`link` is a symbolic link to `../elsewhere`, which the context does not have".to_owned(),
        ),
        (
            "COPY link/file /",
            "/link/file",
            "`link` is a symbolic link to `../elsewhere`, which the context does not have".to_owned(),
        ),
        (
            "COPY ../secret /",
            "/secret",
            format!(
                "`../secret` leads out of the context; only what is below {} can be copied",
                dir.display()
            ),
        ),
        (
            "COPY --from=other only /",
            "/only",
            "there is `Only`, and no `only`: capitals count".to_owned(),
        ),
    ] {
        assert_eq!(
            hint(&dir, line, &missing(path)).await.as_deref(),
            Some(&*said),
            "{line}"
        );
    }
    // Words of BuildKit 0.8.
    let old = hint(
        &dir,
        "COPY readme.md /",
        "failed to compute cache key: \"/readme.md\" not found: not found",
    )
    .await;
    assert!(old.is_some_and(|said| said.contains("README.md")));
    for (line, path, said) in [
        (
            "COPY nothing-like-it /",
            "/nothing-like-it",
            format!(
                "there is no `nothing-like-it` in {}, nor a name like it",
                dir.display()
            ),
        ),
        (
            "COPY --from=stage x /",
            "/x",
            "`stage`, which the instruction copies from, has no `/x`".to_owned(),
        ),
    ] {
        assert_eq!(
            hint(&dir, line, &missing(path)).await.as_deref(),
            Some(&*said),
            "{line}"
        );
    }
    // What it says when it stumbles over its own copy.
    let walk = "failed to compute cache key: failed to walk /var/lib/docker/tmp/buildkit-mount1/src/bin: lstat \
                /var/lib/docker/tmp/buildkit-mount1/src/bin: no such file or directory";
    let said = hint(&dir, "COPY src/bin/tool /", walk).await;
    assert!(
        said.as_deref().is_some_and(|s| s.contains(":2 (`**/bin`)")),
        "{said:?}"
    );
    for (line, message) in [
        ("COPY x /", "something else failed".to_owned()),
        ("COPY x /", "the target \"x\" was not found".to_owned()),
    ] {
        assert_eq!(hint(&dir, line, &message).await, None, "{line}");
    }
}
