//! What the `bk.toml` of a context may set. One may build a stranger's tree: such a file is as little trusted as the
//! Dockerfile beside it.
//!
//! The rule: it may say what the Dockerfile could have said or done itself, and how things look. It may not read anything
//! outside of its context, hand out secrets, choose a daemon, or say where results go. What is not in the table is refused.

use std::path::{Component, Path};

/// Says whether a value is harmless; `Path` is the context.
type Check = fn(&str, &Path) -> Result<(), &'static str>;

/// Keys that are allowed, each with a check of its values, and why.
pub(super) const ALLOWED: &[(&str, Check, &str)] = &[
    ("color", any, "only what is seen changes"),
    ("build.progress", any, "only what is seen changes"),
    ("build.timings", any, "only what is seen changes"),
    ("bake.progress", any, "only what is seen changes"),
    (
        "build.file",
        inside,
        "the Dockerfile comes from the context anyway",
    ),
    (
        "build.target",
        any,
        "a Dockerfile can name its last stage as it likes",
    ),
    (
        "build.build-arg",
        with_value,
        "a Dockerfile can have the same default",
    ),
    ("build.platform", any, "`FROM --platform` can say the same"),
    (
        "build.build-context",
        fetched,
        "`FROM` can name the same image or address",
    ),
    ("build.label", any, "a Dockerfile can set labels"),
    ("build.annotation", any, "words about the image, as labels are"),
    ("build.no-cache", any, "steps run again; nothing else changes"),
    (
        "build.no-cache-filter",
        any,
        "steps run again; nothing else changes",
    ),
    (
        "build.pull",
        any,
        "images are looked up again; nothing else changes",
    ),
    ("build.add-host", any, "a step can write its own /etc/hosts"),
    ("build.shm-size", any, "a step can mount a tmpfs of that size"),
    (
        "build.sync",
        any,
        "only how files of the context are compared changes",
    ),
    ("build.context-mode", any, "the bits of the context's own files"),
    ("build.context-owner", any, "the owner of the context's own files"),
    ("build.on-change", any, "only about the context's own files"),
    (
        "bake.sync",
        any,
        "only how files of the context are compared changes",
    ),
    ("bake.context-mode", any, "the bits of the context's own files"),
    ("bake.context-owner", any, "the owner of the context's own files"),
    ("bake.on-change", any, "only about the context's own files"),
    ("bake.keep-going", any, "what is built stays the same"),
];

/// Whether the `bk.toml` of `context` may give a key these values.
///
/// # Errors
/// Why not.
pub(super) fn check(key: &str, values: &[String], context: &Path) -> Result<(), &'static str> {
    let Some((_, check, _)) = ALLOWED.iter().find(|(name, ..)| *name == key) else {
        return Err("the bk.toml of a context may not set this");
    };
    values.iter().try_for_each(|value| check(value, context))
}

fn any(_value: &str, _context: &Path) -> Result<(), &'static str> {
    Ok(())
}

/// A file below the context, even when links on the way are followed.
fn inside(value: &str, context: &Path) -> Result<(), &'static str> {
    const WHY: &str = "the bk.toml of a context may name files of that context only";
    let path = Path::new(value);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain || value == "-" || value.starts_with('~') {
        return Err(WHY);
    }
    match (context.join(path).canonicalize(), context.canonicalize()) {
        (Ok(file), Ok(context)) if !file.starts_with(&context) => Err(WHY),
        // A file that is not there is told when it is needed.
        _ => Ok(()),
    }
}

/// Without a value it would be taken from the environment of whoever builds.
fn with_value(value: &str, _context: &Path) -> Result<(), &'static str> {
    match value.contains('=') {
        true => Ok(()),
        false => Err(
            "the bk.toml of a context may not pass on variables of the environment: it has to say the value",
        ),
    }
}

/// Only what the daemon fetches: a directory or a layout would be read on this machine.
fn fetched(value: &str, _context: &Path) -> Result<(), &'static str> {
    let (_, target) = value.split_once('=').unwrap_or_default();
    match ["docker-image://", "https://"]
        .iter()
        .any(|scheme| target.starts_with(scheme))
    {
        true => Ok(()),
        false => {
            Err("the bk.toml of a context may name images (docker-image://) and addresses (https://) only")
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::{args::Cli, settings::keys};

    #[test]
    fn every_row_is_an_option_that_there_is_and_has_a_reason() {
        let mut root = Cli::command();
        root.build();
        for (key, _, why) in ALLOWED {
            let mut path: Vec<_> = key.split('.').map(str::to_owned).collect();
            let name = path.pop().expect("a name");
            let command = keys::command(&root, &path).expect(key);
            assert!(
                keys::keys(command)
                    .iter()
                    .any(|k| k.name == name && k.global == path.is_empty()),
                "{key}"
            );
            assert!(why.len() > 10, "{key}");
        }
        let mut names: Vec<_> = ALLOWED.iter().map(|(key, ..)| key).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), ALLOWED.len(), "a key stands there twice");
    }

    #[test]
    fn the_document_lists_the_same_keys() {
        const CLI: &str = include_str!("../../../../docs/cli.md");
        let mut told = Vec::new();
        for (row, table) in [("at the top", ""), ("`[build]`", "build."), ("`[bake]`", "bake.")] {
            let start = format!("| {row} | ");
            let line = CLI.lines().find_map(|line| line.strip_prefix(&start)).expect(row);
            let mut words = line.split('`').skip(1).step_by(2);
            told.extend(
                words
                    .by_ref()
                    .filter(|word| !word.contains(':'))
                    .map(|word| format!("{table}{word}")),
            );
        }
        told.sort();
        let mut allowed: Vec<_> = ALLOWED.iter().map(|(key, ..)| (*key).to_owned()).collect();
        allowed.sort();
        assert_eq!(told, allowed);
    }

    #[test]
    fn what_leads_out_of_the_context_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let context = dir.path().join("context");
        std::fs::create_dir_all(context.join("sub")).expect("a directory");
        std::fs::write(dir.path().join("outside"), "FROM scratch\n").expect("writable");
        std::fs::write(context.join("sub/Dockerfile"), "FROM scratch\n").expect("writable");
        #[cfg(unix)]
        std::os::unix::fs::symlink("../outside", context.join("link")).expect("a link");
        let file = |value: &str| check("build.file", &[value.to_owned()], &context).is_ok();
        assert!(file("sub/Dockerfile") && file("./sub/Dockerfile") && file("none"));
        for value in ["../outside", "/etc/passwd", "sub/../../outside", "-", "~/x"] {
            assert!(!file(value), "{value}");
        }
        #[cfg(unix)]
        assert!(!file("link"));
    }

    #[test]
    fn nothing_of_the_environment_or_the_machine_is_passed_on() {
        let said = |key: &str, value: &str| check(key, &[value.to_owned()], Path::new("."));
        assert_eq!(said("build.build-arg", "A=1"), Ok(()));
        assert!(said("build.build-arg", "AWS_SECRET_ACCESS_KEY").is_err());
        assert_eq!(said("build.build-context", "x=docker-image://alpine"), Ok(()));
        assert_eq!(said("build.build-context", "x=https://h/r.git"), Ok(()));
        for value in [
            "x=/etc",
            "x=../..",
            "x=oci-layout:///l",
            "x=file:/etc/passwd",
            "docker-image://a",
            "x=https:/etc",
        ] {
            assert!(said("build.build-context", value).is_err(), "{value}");
        }
        for key in [
            "addr",
            "build.secret",
            "build.ssh",
            "build.output",
            "build.allow",
            "build.tag",
            "bake.allow",
        ] {
            assert!(said(key, "x").is_err(), "{key}");
        }
    }
}
