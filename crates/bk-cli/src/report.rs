//! What the terminal is told: what happened, where, why, and what to do. Never a debug dump.

use std::{
    error::Error,
    io::{self, Write},
};

use bk_client::{BuildError, SourceSnippet};
use bk_progress::{neutralise, neutralise_line};

use crate::{exit, settings};

/// An error as a person reads it, with a line end behind each line. `with_log` adds the last output of a failed step,
/// for displays that have not drawn it.
pub(crate) fn render(error: &BuildError, with_log: bool) -> String {
    rendered("", error, with_log)
}

/// [`render`] for a build that is one of several: its target is named.
pub(crate) fn render_of(target: &str, error: &BuildError, with_log: bool) -> String {
    rendered(&format!("target {}: ", neutralise_line(target)), error, with_log)
}

fn rendered(whose: &str, error: &BuildError, with_log: bool) -> String {
    let renamed = settings::renamed(error);
    let error = renamed.as_ref().unwrap_or(error);
    let mut text = String::new();
    let snippets: &[SourceSnippet] = match error {
        BuildError::Step(step) => {
            if with_log && !step.log_tail.is_empty() {
                let name = neutralise_line(&step.name);
                text.push_str(&format!(
                    "------\n > {name}:\n{}\n------\n",
                    neutralise(&step.log_tail.join("\n"))
                ));
            }
            &step.snippets
        }
        BuildError::Dockerfile(e) => &e.snippets,
        _ => &[],
    };
    for snippet in snippets {
        text.push_str(&neutralise(&snippet.to_string()));
    }
    let mut said = error.to_string();
    text.push_str(&format!("ERROR: {whose}{}\n", neutralise(&said).trim_end()));
    let mut cause = error.source();
    while let Some(e) = cause {
        let why = e.to_string();
        // Errors that say more than their own level repeat their sources; once is enough.
        if !said.contains(&why) {
            text.push_str(&format!("  because: {}\n", neutralise(&why).trim_end()));
            said.push('\n');
            said.push_str(&why);
        }
        cause = e.source();
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!("  hint: {}\n", neutralise(&hint).trim_end()));
    }
    text
}

/// Writes to standard error. There is nowhere left to complain if that fails.
pub(crate) fn to_stderr(text: &str) {
    let painted = crate::color::stderr().then(|| crate::color::report(text));
    let text = painted.as_deref().unwrap_or(text);
    let mut out = io::stderr().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Writes to standard output and says how that went: a reader that has gone away is a success.
pub(crate) fn to_stdout(text: &str) -> u8 {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => exit::SUCCESS,
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => exit::SUCCESS,
        Err(e) => {
            to_stderr(&format!(
                "ERROR: cannot write to standard output\n  because: {e}\n"
            ));
            exit::FAILURE
        }
    }
}

/// Makes a bug end the program with one line and [`exit::PANIC`].
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let what = payload
            .downcast_ref::<&str>()
            .copied()
            .or(payload.downcast_ref::<String>().map(|s| &**s));
        let place = info
            .location()
            .map(|l| format!(" at {}:{}", l.file(), l.line()))
            .unwrap_or_default();
        crate::display::restore_terminal();
        to_stderr(&bug(what.unwrap_or("unknown"), &place));
        std::process::exit(i32::from(exit::PANIC));
    }));
}

fn bug(what: &str, place: &str) -> String {
    format!(
        "ERROR: this is a bug in bk{place}: {}; please report it\n",
        neutralise_line(what)
    )
}

#[cfg(test)]
mod tests {
    use bk_client::{ConnectError, DockerfileFailure, InputError, LineRange, LocalFailure, StepFailure};

    use super::*;

    #[test]
    fn a_failed_step_shows_its_place_and_if_asked_its_output() {
        let mut step =
            StepFailure::new("process \"/bin/sh -c false\" did not complete successfully: exit code: 1");
        step.name = "[2/2] RUN false".to_owned();
        step.log_tail = vec!["0.1 one\u{1b}[2J".to_owned(), "two".to_owned()];
        step.snippets = vec![SourceSnippet::new(
            "Dockerfile",
            "FROM scratch\nRUN false\u{1b}[31m\n",
            vec![LineRange { start: 2, end: 2 }],
        )];
        let error = BuildError::from(Box::new(step));
        let place = "Dockerfile:2\n--------------------\n   1 |     FROM scratch\n   2 | >>> RUN false\n   3 |     \n\
                     --------------------\nERROR: process \"/bin/sh -c false\" did not complete successfully: exit \
                     code: 1\n";
        assert_eq!(render(&error, false), place);
        assert_eq!(
            render(&error, true),
            format!("------\n > [2/2] RUN false:\n0.1 one\ntwo\n------\n{place}")
        );
    }

    #[test]
    fn causes_and_hints_have_lines_of_their_own() {
        let cause = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = LocalFailure::new("src/secret", "cannot open it")
            .caused_by(cause)
            .hint("exclude it in .dockerignore");
        assert_eq!(
            render(&error.into(), true),
            "ERROR: src/secret: cannot open it\n  because: permission denied\n  hint: exclude it in .dockerignore\n"
        );
    }

    #[test]
    fn a_wrong_argument_says_what_is_allowed() {
        let error = InputError::new("PATH", "`x` does not exist", "a directory on this machine");
        assert_eq!(
            render(&error.into(), true),
            "ERROR: PATH: `x` does not exist\n  hint: PATH takes a directory on this machine\n"
        );
    }

    #[test]
    fn an_unreachable_daemon_says_what_to_start() {
        let text = render(
            &ConnectError::single("unix:///x.sock", "no such file").into(),
            false,
        );
        assert_eq!(
            text,
            "ERROR: cannot reach a daemon at unix:///x.sock: no such file\n  hint: start Docker (dockerd) or \
             buildkitd, or name an endpoint with --addr, BUILDKIT_HOST or DOCKER_HOST\n"
        );
    }

    #[test]
    fn hostile_text_of_a_daemon_cannot_drive_the_terminal() {
        let error = DockerfileFailure::new("bad \u{1b}]0;title\u{7}thing\u{8}\n", Vec::new());
        assert_eq!(render(&error.into(), false), "ERROR: bad thing^H\n");
    }

    #[test]
    fn a_bug_is_one_line() {
        assert_eq!(
            bug("a\nb", " at x.rs:1"),
            "ERROR: this is a bug in bk at x.rs:1: a b; please report it\n"
        );
    }
}
