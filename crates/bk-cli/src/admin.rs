//! The commands that look after a daemon: what they have in common.
//!
//! The rule: results go to standard output, everything else to standard error; what a daemon says is harmless for a
//! terminal when it is printed; nothing is removed without `--force` unless somebody at a terminal said yes.

mod cache;
mod daemon;
mod export;
mod history;
mod table;
mod units;

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    sync::Arc,
};

use bk_client::{Administration, BuildError, InputError, LocalFailure};
use serde::Serialize;

use crate::{
    args::{Command, ForceArgs, Global},
    build::fail,
    connect::connect,
    exit,
    interrupt::Interrupt,
    limits, report, threads,
};

/// Runs the command, if it is one of these, and returns its exit code; everything there is to say was said.
pub(crate) fn main(global: &Global, command: &Command) -> Option<u8> {
    let verbose = global.verbose > 0;
    Some(match command {
        Command::Du(args) => run(global, async |a, _| cache::du(&*a, args, verbose).await),
        Command::Prune(args) => match cache::ask(args) {
            Ok(true) => run(global, async |a, _| cache::prune(&*a, args).await),
            Ok(false) => exit::SUCCESS,
            Err(e) => fail(&e, true),
        },
        Command::Workers(args) => run(global, async |a, _| daemon::workers(&*a, args, verbose).await),
        Command::Info(args) => run(global, async |a, _| daemon::info(&*a, args).await),
        Command::Ping(args) => run(global, async |a, _| daemon::ping(&*a, args).await),
        Command::History(command) => match history::ask(command) {
            Ok(true) => run(global, async |a, interrupt| {
                history::run(&*a, command, interrupt).await
            }),
            Ok(false) => exit::SUCCESS,
            Err(e) => fail(&e, true),
        },
        _ => return None,
    })
}

/// Connects, does the work until it ends or the user asks to stop, and says what went wrong.
fn run(
    global: &Global,
    work: impl AsyncFnOnce(Arc<dyn Administration>, Interrupt) -> Result<u8, BuildError>,
) -> u8 {
    let runtime = match threads::start() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e, true),
    };
    let done = runtime.block_on(async {
        let listen = || {
            let failed = |e| LocalFailure::new("bk", "cannot listen for signals").caused_by(e);
            Interrupt::listen().map_err(failed)
        };
        let (mut interrupt, inner) = (listen()?, listen()?);
        let working = Box::pin(async {
            let admin = connect(global).await?.admin()?;
            work(admin, inner).await
        });
        tokio::select! {
            biased;
            done = working => done,
            () = interrupt.asked() => Err(BuildError::Cancelled),
        }
    });
    let code = done.unwrap_or_else(|e| fail(&e, true));
    runtime.shutdown_timeout(limits::SHUTDOWN_GRACE);
    code
}

/// Whether something may be removed: `--force`, or a yes at a terminal.
///
/// # Errors
/// There is nobody to ask.
fn confirmed(force: &ForceArgs, what: &str) -> Result<bool, BuildError> {
    if force.force {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        let why = format!("{what} Standard input is no terminal, so nobody can say yes");
        return Err(InputError::new("--force", why, "no value; it removes without asking").into());
    }
    report::to_stderr(&format!("{what} Continue? [y/N] "));
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|e| LocalFailure::new("/dev/stdin", "cannot read an answer").caused_by(e))?;
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// An object on a line of its own, without anything that a terminal would obey.
fn json_line(value: &impl Serialize) -> Result<String, BuildError> {
    let text = serde_json::to_string(value)
        .map_err(|e| BuildError::Misuse(format!("an answer cannot be written as JSON: {e}")))?;
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // JSON itself escapes those below a space.
        match c {
            '\u{7f}'..='\u{9f}' => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line.push('\n');
    Ok(line)
}

/// A value with its kind, for lines of several kinds.
#[derive(Serialize)]
struct Kind<'a, T> {
    kind: &'a str,
    #[serde(flatten)]
    value: T,
}

impl<'a, T: Serialize> Kind<'a, T> {
    fn line(kind: &'a str, value: T) -> Result<String, BuildError> {
        json_line(&Self { kind, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_programs_hold_nothing_that_a_terminal_obeys() {
        let line = json_line(&"a\u{1b}[2J\u{9b}\u{7f}ö\n").expect("JSON");
        assert_eq!(line, "\"a\\u001b[2J\\u009b\\u007fö\\n\"\n");
        let read: String = serde_json::from_str(&line).expect("JSON");
        assert_eq!(read, "a\u{1b}[2J\u{9b}\u{7f}ö\n");
    }
}
