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

#[test]
fn every_option_is_documented_and_nothing_else() {
    let help = run(&mut bk(&["build", "--help"])).out;
    let options = |text: &str, start: &str| -> Vec<String> {
        let mut found: Vec<String> = text
            .lines()
            .filter(|line| line.trim_start().starts_with(start))
            .filter_map(|line| line.split("--").nth(1))
            .map(|rest| {
                rest.chars()
                    .take_while(|c| c.is_ascii_lowercase() || *c == '-')
                    .collect()
            })
            .collect();
        found.sort();
        found
    };
    let mut told = options(&help, "-");
    told.retain(|name| name != "help");
    let documented = options(CLI, "| `-");
    assert_eq!(told, documented);
    for line in README.lines().filter(|line| line.trim_start().starts_with("bk ")) {
        for flag in line
            .split_whitespace()
            .filter_map(|word| word.trim_end_matches(',').strip_prefix("--"))
        {
            assert!(
                told.iter().any(|name| name == flag),
                "--{flag} in README.md: {line}"
            );
        }
    }
}
