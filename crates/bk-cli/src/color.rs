//! Whether colours are used: what `--color` says, else what the environment says, else whether it is a terminal.
//!
//! One choice holds for the whole program; each stream is asked about by itself.

use std::{
    ffi::{OsStr, OsString},
    io::{self, IsTerminal as _},
    sync::atomic::{AtomicU8, Ordering},
};

use clap::ValueEnum as _;

use crate::args::When;

/// A [`When`] as a number; `Auto` until somebody chooses.
static CHOICE: AtomicU8 = AtomicU8::new(When::Auto as u8);

/// Chooses for the rest of the program.
pub(crate) fn choose(when: When) {
    CHOICE.store(when as u8, Ordering::Relaxed);
}

/// Whether standard error gets colours.
pub(crate) fn stderr() -> bool {
    decide(chosen(), io::stderr().is_terminal(), |name| {
        std::env::var_os(name)
    })
}

/// Whether standard output gets colours.
pub(crate) fn stdout() -> bool {
    decide(chosen(), io::stdout().is_terminal(), |name| {
        std::env::var_os(name)
    })
}

fn chosen() -> When {
    match CHOICE.load(Ordering::Relaxed) {
        n if n == When::Always as u8 => When::Always,
        n if n == When::Never as u8 => When::Never,
        _ => When::Auto,
    }
}

/// Empty variables count as absent. `NO_COLOR` is the stronger one: who set it cannot read colours.
fn decide(when: When, is_terminal: bool, var: impl Fn(&str) -> Option<OsString>) -> bool {
    let var = |name| var(name).filter(|v| !v.is_empty());
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto if var("NO_COLOR").is_some() => false,
        When::Auto if var("CLICOLOR_FORCE").is_some_and(|v| v != "0") => true,
        When::Auto => is_terminal && var("TERM").is_some_and(|v| v != "dumb"),
    }
}

/// What a command line says, before it is understood: help and errors about the line itself have colours too. A value
/// that there is not is passed over; the error about it comes later.
pub(crate) fn named(line: &[OsString]) -> Option<When> {
    const FLAG: &str = "--color";
    let mut words = line.iter().map(OsString::as_os_str);
    let mut found = None;
    while let Some(word) = words.next().filter(|word| *word != OsStr::new("--")) {
        let Some(rest) = word.to_str().and_then(|w| w.strip_prefix(FLAG)) else {
            continue;
        };
        let value = match rest.strip_prefix('=') {
            Some(value) => Some(value),
            None if rest.is_empty() => words.next().and_then(OsStr::to_str),
            None => None,
        };
        found = value.and_then(|v| When::from_str(v, false).ok()).or(found);
    }
    found
}

/// A report with its marks in colours. Words in the middle of a line are left alone.
pub(crate) fn report(text: &str) -> String {
    const RED: &str = "\u{1b}[1;31m";
    const YELLOW: &str = "\u{1b}[1;33m";
    const CYAN: &str = "\u{1b}[1;36m";
    const MARKS: &[(&str, &str)] = &[
        ("ERROR:", RED),
        ("warning:", YELLOW),
        ("WARNING:", YELLOW),
        ("  because:", CYAN),
        ("  hint:", CYAN),
    ];
    let mut out = String::with_capacity(text.len() + 32);
    for line in text.split_inclusive('\n') {
        match MARKS
            .iter()
            .find_map(|(mark, paint)| Some((mark, paint, line.strip_prefix(mark)?)))
        {
            Some((mark, paint, rest)) => out.push_str(&format!("{paint}{mark}\u{1b}[0m{rest}")),
            None => out.push_str(line),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_wins_over_variables_and_these_over_the_terminal() {
        let decided = |when, terminal, vars: &[(&str, &str)]| {
            decide(when, terminal, |name| {
                let found = vars.iter().find(|(n, _)| *n == name)?;
                Some(found.1.into())
            })
        };
        let term = ("TERM", "xterm");
        assert!(decided(When::Auto, true, &[term]));
        assert!(!decided(When::Auto, false, &[term]));
        assert!(!decided(When::Auto, true, &[]));
        assert!(!decided(When::Auto, true, &[("TERM", "dumb")]));
        assert!(!decided(When::Auto, true, &[term, ("NO_COLOR", "1")]));
        assert!(decided(When::Auto, true, &[term, ("NO_COLOR", "")]));
        assert!(decided(When::Auto, false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!decided(When::Auto, false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!decided(
            When::Auto,
            false,
            &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]
        ));
        assert!(decided(When::Always, false, &[("NO_COLOR", "1")]));
        assert!(!decided(When::Never, true, &[term, ("CLICOLOR_FORCE", "1")]));
    }

    #[test]
    fn a_line_is_searched_before_it_is_understood() {
        let said = |line: &[&str]| named(&line.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(said(&["bk", "build", "."]), None);
        assert_eq!(said(&["bk", "--color", "never", "build"]), Some(When::Never));
        assert_eq!(said(&["bk", "build", "--color=always"]), Some(When::Always));
        assert_eq!(
            said(&["bk", "--color=always", "--color=never"]),
            Some(When::Never)
        );
        assert_eq!(said(&["bk", "--color=pink"]), None);
        assert_eq!(said(&["bk", "--color"]), None);
        assert_eq!(said(&["bk", "--colors=never"]), None);
        assert_eq!(said(&["bk", "--", "--color=never"]), None);
    }

    #[test]
    fn marks_have_colours_and_nothing_else() {
        assert_eq!(
            report("x\nERROR: a hint: b\n  because: c\n  hint: d\nWARNING: e\nwarning: f"),
            "x\n\u{1b}[1;31mERROR:\u{1b}[0m a hint: b\n\u{1b}[1;36m  because:\u{1b}[0m c\n\
             \u{1b}[1;36m  hint:\u{1b}[0m d\n\u{1b}[1;33mWARNING:\u{1b}[0m e\n\u{1b}[1;33mwarning:\u{1b}[0m f"
        );
    }
}
