//! Checks of one file's text.
//!
//! The forbidden words are written in two halves here, so that this file passes its own check.

use super::Finding;

/// Longer than this without its tests, a file probably has a seam to split at.
const LONG_FILE: usize = 700;

/// Words that never stand in Rust code, and why.
const FORBIDDEN_IN_RUST: [(&str, &str); 4] = [
    (
        concat!("#[ign", "ore"),
        "an ignored test tests nothing: make it run or remove it",
    ),
    (concat!("to", "do!("), "unfinished code"),
    (concat!("unimple", "mented!("), "unfinished code"),
    (concat!("db", "g!("), "left over from debugging"),
];

/// Words that stand in no file.
const FORBIDDEN: [(&str, &str); 3] = [
    (
        concat!("TO", "DO"),
        "say what does not hold in the documentation, not in a note",
    ),
    (
        concat!("FIX", "ME"),
        "mend it, or say in the documentation what does not hold",
    ),
    (concat!("/wo", "rk/"), "a path of one machine"),
];

/// All findings in the file called `name` from the root of the workspace.
pub(crate) fn check(name: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let generated = name.contains("/src/generated/");
    if !generated {
        findings.extend(check_lines(name, text));
        if name.ends_with(".rs") {
            findings.extend(check_rust(name, text));
        }
    }
    findings
}

fn check_lines(name: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in numbered(text) {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(name, number, "blanks at the end of the line"));
        }
        for (word, why) in FORBIDDEN {
            if has_word(line, word) {
                findings.push(Finding::new(name, number, format!("{word}: {why}")));
            }
        }
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        findings.push(Finding::new(name, 0, "the file ends with exactly one line end"));
    }
    findings
}

fn check_rust(name: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(Finding::new(
            name,
            1,
            "the file opens with `//!`: what it is for and the rule it obeys",
        ));
    }
    let is_lib = name.ends_with("/lib.rs");
    let mut previous = "";
    for (number, line) in numbered(text) {
        for (word, why) in FORBIDDEN_IN_RUST {
            if line.contains(word) {
                findings.push(Finding::new(name, number, format!("{word}: {why}")));
            }
        }
        if is_allow(line) {
            findings.push(Finding::new(
                name,
                number,
                "suppress a lint with expect and a reason",
            ));
        }
        let remark = "// sleep: ";
        if is_sleep(line) && !line.contains(remark) && !previous.trim_start().starts_with(remark) {
            let text =
                "sleeping is no synchronisation; where nothing can be waited for, say why in `// sleep: …`";
            findings.push(Finding::new(name, number, text));
        }
        if is_lib && is_function(line) {
            findings.push(Finding::new(
                name,
                number,
                "lib.rs holds docs, `mod` and `use`, no functions",
            ));
        }
        previous = line;
    }
    let length = length_without_tests(text);
    if length > LONG_FILE && !is_test_file(name) {
        let text = format!("{length} lines without tests: is there a seam to split at?");
        findings.push(Finding {
            fails: false,
            ..Finding::new(name, 0, text)
        });
    }
    findings
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('\n')
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

/// Whether `word` stands in `line` and is no part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let ends_in_letter = word.ends_with(is_part);
    let starts_with_letter = word.starts_with(is_part);
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_part);
        let after = line[at + word.len()..].chars().next().is_some_and(is_part);
        let is_longer = (starts_with_letter && before) || (ends_in_letter && after);
        !is_longer
    })
}

/// A call of a blocking or an async sleep, or what brings one into scope.
fn is_sleep(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["thread::", "time::"]
        .iter()
        .any(|path| code.contains(&format!("{path}sleep")))
}

/// An attribute that allows a lint, conditional or not.
fn is_allow(line: &str) -> bool {
    let code = line.trim_start();
    let Some((_, attribute)) = code
        .split_once('[')
        .filter(|(start, _)| ["#", "#!"].contains(start))
    else {
        return false;
    };
    attribute.starts_with("allow(") || (attribute.starts_with("cfg_attr(") && attribute.contains(" allow("))
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let qualifier = |word: &&str| {
        ["pub", "async", "const", "unsafe", "extern"].contains(word)
            || word.starts_with("pub(")
            || word.ends_with(')')
    };
    !line.trim_start().starts_with("//") && words.find(|word| !qualifier(word)) == Some("fn")
}

/// The lines before the tests of the file, which come last.
fn length_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].trim_end().ends_with("tests {"))
        .unwrap_or(lines.len())
}

fn is_test_file(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("tests.rs") || name.starts_with("benches/")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of the findings in `text`, with its file head added in front.
    fn lines(name: &str, text: &str) -> Vec<usize> {
        check(name, &format!("//! Head.\n{text}"))
            .into_iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn a_clean_file_has_no_findings() {
        assert_eq!(check("a/src/x.rs", "//! Head.\n\nfn f() {}\n"), []);
        assert_eq!(check("README.md", "# Title\n"), []);
    }

    #[test]
    fn a_rust_file_opens_with_what_it_is_for() {
        assert_eq!(check("a/src/x.rs", "use std::fs;\n").len(), 1);
        assert_eq!(check("a/src/generated/x.rs", "use std::fs; \n"), []);
        assert_eq!(check("a/x.toml", "[package]\n"), []);
    }

    #[test]
    fn unfinished_code_is_found() {
        for (word, _) in FORBIDDEN_IN_RUST {
            assert_eq!(
                lines("a/src/x.rs", &format!("fn f() {{\n    {word}\n}}\n")),
                [3],
                "{word}"
            );
        }
        assert_eq!(
            lines("a/src/x.rs", &format!("// {}: later\n", FORBIDDEN[0].0)),
            [2]
        );
        assert_eq!(
            lines("a/src/x.rs", &format!("// {}_LIST is a name\n", FORBIDDEN[0].0)),
            [0usize; 0]
        );
        assert_eq!(
            lines("a/src/x.rs", &format!("let p = \"{}main\";\n", FORBIDDEN[2].0)),
            [2]
        );
        for attribute in [
            "#[allow(dead_code)]",
            "#![allow(dead_code)]",
            "#[cfg_attr(test, allow(dead_code))]",
        ] {
            assert_eq!(lines("a/src/x.rs", &format!("{attribute}\n")), [2]);
        }
        assert_eq!(
            lines("a/src/x.rs", "#[expect(dead_code, reason = \"x\")]\n"),
            [0usize; 0]
        );
    }

    #[test]
    fn a_sleep_says_why() {
        let sleep = concat!("tokio::time::", "sleep(d).await;");
        assert_eq!(lines("a/src/x.rs", &format!("{sleep}\n")), [2]);
        assert_eq!(
            lines(
                "a/src/x.rs",
                &format!("{sleep} // sleep: the device answers to nobody\n")
            ),
            [0usize; 0]
        );
        assert_eq!(
            lines(
                "a/src/x.rs",
                &format!("// sleep: the device answers to nobody\n{sleep}\n")
            ),
            [0usize; 0]
        );
        assert_eq!(
            lines(
                "a/src/x.rs",
                &format!("use std::{};\n", concat!("thread::", "sleep"))
            ),
            [2]
        );
        assert_eq!(lines("a/src/x.rs", &format!("// not {sleep}\n")), [0usize; 0]);
    }

    #[test]
    fn a_library_root_holds_no_functions() {
        let functions =
            "fn a() {}\npub fn b() {}\npub(crate) async fn c() {}\nmod d;\n//! fn e()\npub use d::f;\n";
        assert_eq!(lines("a/src/lib.rs", functions), [2, 3, 4]);
        assert_eq!(lines("a/src/main.rs", functions), [0usize; 0]);
    }

    #[test]
    fn line_ends_are_clean() {
        assert_eq!(lines("a/src/x.rs", "a \nb\t\nc\n"), [2, 3]);
        assert_eq!(
            check("a.md", "a"),
            [Finding::new("a.md", 0, "the file ends with exactly one line end")]
        );
        assert_eq!(check("a.md", "a\n\n").len(), 1);
    }

    #[test]
    fn long_files_are_noted_without_their_tests() {
        let code = "// line\n".repeat(LONG_FILE);
        assert_eq!(
            lines("a/src/x.rs", &format!("{code}#[cfg(test)]\nmod tests {{\n}}\n")),
            [0]
        );
        let code = "// line\n".repeat(LONG_FILE - 1);
        assert_eq!(
            lines("a/src/x.rs", &format!("{code}#[cfg(test)]\nmod tests {{\n}}\n")),
            [0usize; 0]
        );
        let found = check(
            "a/src/x.rs",
            &format!("//! Head.\n{}", "// line\n".repeat(LONG_FILE)),
        );
        assert!(found.len() == 1 && !found[0].fails);
    }
}
