//! Paths of a bake file: `cwd://`, and what is left of `./a/../b/`.

use bk_build::is_remote;

/// A path without `.`, `..` where it can go, doubled slashes, and a slash at its end. It is about text alone.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => drop(parts.pop()),
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// A build context: a clean path, or an address as it is.
pub(crate) fn context(text: &str) -> String {
    match text.strip_prefix("cwd://") {
        Some(path) => clean(path),
        None if is_remote(text) => text.to_owned(),
        None => clean(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_in_go() {
        for (path, expected) in [
            ("", "."),
            (".", "."),
            ("./a/../b/", "b"),
            ("../x", "../x"),
            ("a/../../b", "../b"),
            ("/../a//b/.", "/a/b"),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
        assert_eq!(context("cwd://"), ".");
        assert_eq!(context("cwd://./z/"), "z");
        assert_eq!(context("https://h/r.git#b:d/"), "https://h/r.git#b:d/");
    }
}
