//! The binary `bk`: typed arguments in, a build, an exit code out.
//!
//! It holds nothing that a user of the library would want: requests, events, errors and their hints come from
//! `bk_client`, drawing from `bk_progress`. What is left is the command line, the terminal, signals and exit codes.

mod access;
mod args;
mod bake;
mod build;
mod call;
mod color;
mod connect;
mod ctx;
mod display;
mod exit;
mod files;
mod interrupt;
mod limits;
mod manual;
mod outputs;
mod policies;
mod report;
mod request;
mod verbose;

use std::{ffi::OsString, process::ExitCode};

use bk_bake::csv;
use clap::Parser as _;

fn main() -> ExitCode {
    report::install_panic_hook();
    let line: Vec<OsString> = std::env::args_os().collect();
    color::choose(color::named(&line).unwrap_or_default());
    let code = match args::Cli::try_parse_from(line) {
        Ok(cli) => run(&cli),
        // Help and version arrive here too; they go to standard output and are a success.
        Err(e) if e.use_stderr() => {
            report::to_stderr(&styled(&e, color::stderr()));
            exit::USAGE
        }
        Err(e) => report::to_stdout(&styled(&e, color::stdout())),
    };
    ExitCode::from(code)
}

fn run(cli: &args::Cli) -> u8 {
    color::choose(cli.global.color);
    verbose::set(cli.global.verbose);
    match &cli.command {
        args::Command::Build(build) => build::main(&cli.global, build),
        args::Command::Bake(bake) => bake::main(&cli.global, bake),
        args::Command::Ctx(command) => ctx::main(command),
        args::Command::Completion(args) => manual::completion(args),
        args::Command::Man(args) => manual::man(args),
    }
}

/// Help or an error about the command line.
fn styled(e: &clap::Error, colours: bool) -> String {
    let text = e.render();
    match colours {
        true => text.ansi().to_string(),
        false => text.to_string(),
    }
}
