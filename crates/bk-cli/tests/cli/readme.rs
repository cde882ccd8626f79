//! What the documents promise about code and options is what there is.

use super::{bk, run};

const README: &str = include_str!("../../../../README.md");
const CLI: &str = include_str!("../../../../docs/cli.md");
const EXAMPLE: &str = include_str!("../../../bk-client/examples/build.rs");

#[test]
fn the_build_of_the_readme_is_the_example_that_compiles() {
    let start = EXAMPLE
        .find("use bk_client")
        .expect("the example imports the library");
    let code = EXAMPLE.get(start..).unwrap_or_default();
    assert!(
        README.contains(&format!("```rust\n{code}```")),
        "README.md shows something else than:\n{code}"
    );
}

/// The part of a document from one heading to the next of its kind.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let start = document.find(&format!("\n## {heading}\n")).expect(heading) + 1;
    let rest = document.get(start..).unwrap_or_default();
    let end = rest
        .get(3..)
        .and_then(|r| r.find("\n## "))
        .map_or(rest.len(), |at| at + 3);
    rest.get(..end).unwrap_or_default()
}

/// The options of lines that begin with `start`.
fn options(text: &str, start: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .lines()
        // Help that is wrapped has lines that begin with an option too, further to the right.
        .filter(|line| line.trim_start().starts_with(start) && !line.starts_with("        "))
        .filter_map(|line| line.split("--").nth(1))
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '-')
                .collect()
        })
        .collect();
    found.sort();
    found
}

#[test]
fn every_option_is_documented_and_nothing_else() {
    let mut global = options(section(CLI, "Which daemon"), "| `-");
    global.extend(options(section(CLI, "Every command"), "| `-"));
    global.retain(|name| name != "help");
    let files = [
        "context-mode",
        "context-owner",
        "on-change",
        "retries",
        "stall-timeout",
        "sync",
    ]
    .map(str::to_owned);
    let mut all = Vec::new();
    for (command, elsewhere) in [("build", &[][..]), ("bake", &files)] {
        let help = run(&mut bk(&[command, "--help"])).out;
        let mut told = options(&help, "-");
        told.retain(|name| name != "help");
        let mut documented = options(section(CLI, &format!("`bk {command}`")), "| `-");
        documented.extend_from_slice(&global);
        documented.extend_from_slice(elsewhere);
        documented.sort();
        assert_eq!(told, documented, "bk {command}");
        all.extend(told);
    }
    for command in ["man", "completion"] {
        all.extend(options(&run(&mut bk(&[command, "--help"])).out, "-"));
    }
    for line in README.lines().filter(|line| line.trim_start().starts_with("bk ")) {
        for flag in line
            .split_whitespace()
            .filter_map(|word| word.trim_end_matches(',').strip_prefix("--"))
        {
            assert!(
                all.iter().any(|name| name == flag),
                "--{flag} in README.md: {line}"
            );
        }
    }
}
