//! Reports as files: what is replaced in them, how they are compared, and how they are written anew.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use regex::Regex;

/// Where the files are.
pub(super) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors")
}

/// Whether files are written instead of compared.
pub(super) fn blessing() -> bool {
    env::var("BK_BLESS").is_ok_and(|value| value == "1")
}

/// Compares the reports of one test; all that differ are told at its end.
#[derive(Default)]
pub(super) struct Snapshots {
    wrong: Vec<String>,
}

impl Snapshots {
    /// Compares `report` with the file `name`. Where a daemon or a route says other words than the newest does on its
    /// best route, there is a file with its name as well: `name.20.10-tar.txt`, else `name.20.10.txt`, else `name.txt`.
    pub(super) fn check(&mut self, name: &str, variant: &str, report: &str) {
        self.clean(name, report);
        let mut files = vec![directory().join(format!("{name}.txt"))];
        for (at, _) in variant.match_indices('-').chain([(variant.len(), "")]) {
            if at > 0 {
                files.push(directory().join(format!("{name}.{}.txt", &variant[..at])));
            }
        }
        let (own, general) = files.split_last().expect("one at least");
        if blessing() {
            let said = general
                .iter()
                .rev()
                .find_map(|file| fs::read_to_string(file).ok());
            if said.as_deref() == Some(report) {
                // It may never have been there.
                let _ = fs::remove_file(own);
            } else {
                fs::write(own, report).expect("snapshots can be written");
            }
            return;
        }
        let file = files.iter().rev().find(|file| file.exists()).unwrap_or(own);
        let expected = fs::read_to_string(file).unwrap_or_default();
        if expected != report {
            let shown = file.file_name().unwrap_or_default().to_string_lossy();
            self.wrong.push(format!(
                "{name} {variant}: not as {shown} has it\n--- expected\n{expected}--- is\n{report}---\n"
            ));
        }
    }

    /// What no report may hold, whatever the snapshot says.
    fn clean(&mut self, name: &str, report: &str) {
        static BAD: LazyLock<Regex> = LazyLock::new(|| {
            // Ids of builds and sessions, and what `{:?}` makes of Rust's types.
            pattern(r"\b[a-z0-9]{25}\b|\b[A-Za-z]+ \{ [a-z_]+: |Some\(|Err\(|Status \{|\x1b|/tmp/|/run/bk")
        });
        if let Some(found) = BAD.find(report) {
            self.wrong
                .push(format!("{name}: holds {:?}:\n{report}", found.as_str()));
        }
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.wrong.is_empty(), "\n{}", self.wrong.join("\n"));
        }
    }
}

/// A regular expression whose classes are those of ASCII.
pub(super) fn pattern(text: &str) -> Regex {
    Regex::new(&format!("(?-u){text}")).expect("a regular expression")
}

/// A report without what differs from run to run. `known` are texts and the words that stand for them.
pub(super) fn general(report: &str, known: &[(String, String)]) -> String {
    let mut known: Vec<&(String, String)> = known.iter().filter(|(text, _)| !text.is_empty()).collect();
    // A path before those that it begins with.
    known.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    let mut text = report.to_owned();
    for (part, word) in known {
        text = text.replace(part, word);
    }
    static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let rule = |text: &str, word| (pattern(text), word);
        vec![
            rule(r"sha256:[0-9a-f]{64}", "<digest>"),
            rule(r"\b[0-9a-f]{64}\b", "<digest>"),
            // The time before a line of a step's output.
            rule(r"(?m)^(#\d+ )?\d+\.\d{1,3} ", "${1}<time> "),
            rule(r"(?m)^(#\d+ (?:DONE|ERROR)) \d+\.\d+s", "${1} <time>"),
            // Whether it is reading or writing that meets the end first.
            rule(
                "connection error: stream closed because of a broken pipe",
                "connection error: connection reset",
            ),
            rule(r" in \d+\.\d+s", " in <time>"),
            rule(r"; longest (?u:[^;\n]*)", "; longest <step>"),
            rule(
                r"(->127\.0\.0\.1|127\.0\.0\.1->127\.0\.0\.1|127\.0\.0\.1):\d{4,5}",
                "${1}:<port>",
            ),
            rule(r"version 1\.(3[0-9]|4[0-9]|5[0-9])\b", "version <api>"),
        ]
    });
    for (pattern, word) in RULES.iter() {
        text = pattern.replace_all(&text, *word).into_owned();
    }
    text
}
