//! `bk ctx`: the context of a build, looked at or as an archive.
//!
//! The rule of an archive: the archive is whole or the exit code says otherwise; a file appears under its name when it is complete, and
//! neither it nor what is written for it becomes part of the archive.

mod compare;
mod du;
mod lint;
mod look;
mod ls;
mod why;

use std::{
    fs,
    io::{self, BufWriter, IsTerminal as _, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bk_client::{BuildError, ContextTar, InputError, LocalFailure};

use crate::{
    args::{CtxCommand, CtxTarArgs},
    exit,
    files::Pending,
    interrupt::Interrupt,
    limits, report,
    request::{self, Process},
};

/// Runs the command and returns its exit code; everything there is to say was said.
pub(crate) fn main(command: &CtxCommand) -> u8 {
    match command {
        CtxCommand::Tar(args) => tar(args),
        CtxCommand::Ls(args) => ls::main(args),
        CtxCommand::Why(args) => why::main(args),
        CtxCommand::Du(args) => du::main(args),
        CtxCommand::Lint(args) => lint::main(args),
        CtxCommand::Hash(args) => compare::hash(args),
        CtxCommand::Diff(args) => compare::diff(args),
    }
}

fn tar(args: &CtxTarArgs) -> u8 {
    match run(args) {
        Ok(()) => exit::SUCCESS,
        Err(e) => {
            report::to_stderr(&report::render(&e, false));
            exit::of(&e)
        }
    }
}

fn run(args: &CtxTarArgs) -> Result<(), BuildError> {
    let to_stdout = args.output == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        let why = "an archive is not written to a terminal";
        return Err(InputError::new("--output", why, "a file, or a pipe behind the command").into());
    }
    let request = request::context_request(args, &Process)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| LocalFailure::new("bk", "cannot start its threads").caused_by(e))?;
    let output = args.output.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let result = runtime.block_on(async {
        let mut interrupt = Interrupt::listen()
            .map_err(|e| LocalFailure::new("bk", "cannot listen for signals").caused_by(e))?;
        let stopped = Arc::clone(&stop);
        let mut work = tokio::task::spawn_blocking(move || {
            let tar = ContextTar::of(&request)?;
            if to_stdout {
                standard_output(tar, &stopped)
            } else {
                file(tar, &output, &stopped)
            }
        });
        let ended = tokio::select! {
            biased;
            ended = &mut work => ended,
            () = interrupt.asked() => {
                stop.store(true, Ordering::Relaxed);
                // What is half written is removed before the program ends.
                work.await
            }
        };
        ended.unwrap_or_else(|e| Err(BuildError::Misuse(format!("the work ended early: {e}"))))
    });
    runtime.shutdown_timeout(limits::SHUTDOWN_GRACE);
    result
}

fn standard_output(mut tar: ContextTar, stop: &AtomicBool) -> Result<(), BuildError> {
    if let Some(path) = regular_standard_output() {
        tar.leave_out(&path);
    }
    say_where(&tar);
    write(&tar, io::stdout().lock(), Path::new("/dev/stdout"), stop).map(drop)
}

fn file(mut tar: ContextTar, output: &Path, stop: &AtomicBool) -> Result<(), BuildError> {
    let mut pending = Pending::new(output)?;
    for path in pending.paths() {
        tar.leave_out(&path);
    }
    say_where(&tar);
    write(&tar, &mut pending, output, stop)?;
    pending.commit()
}

fn write<W: Write>(tar: &ContextTar, out: W, name: &Path, stop: &AtomicBool) -> Result<(), BuildError> {
    let out = BufWriter::with_capacity(limits::ARCHIVE_BUFFER, out);
    let warn = |text: &str| report::to_stderr(&format!("WARNING: {text}\n"));
    tar.save(out, name, stop, &warn).map(drop)
}

/// A Dockerfile from elsewhere has to be named when the archive is built.
fn say_where(tar: &ContextTar) {
    if tar.dockerfile_is_placed() {
        let name = tar.dockerfile();
        report::to_stderr(&format!(
            "The Dockerfile is in the archive as {name}: build it with -f {name}\n"
        ));
    }
}

/// The file that standard output is redirected to, if it is one.
fn regular_standard_output() -> Option<PathBuf> {
    let path = fs::read_link("/proc/self/fd/1").ok()?;
    fs::symlink_metadata(&path)
        .is_ok_and(|found| found.is_file())
        .then_some(path)
}
