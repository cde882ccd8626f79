//! The binary `bk`: typed arguments in, a build, an exit code out.
//!
//! It holds nothing that a user of the library would want: requests, events, errors and their hints come from
//! `bk_client`, drawing from `bk_progress`. What is left is the command line, the terminal, signals and exit codes.

mod access;
mod args;
mod bake;
mod build;
mod call;
mod connect;
mod ctx;
mod display;
mod exit;
mod files;
mod interrupt;
mod limits;
mod outputs;
mod policies;
mod report;
mod request;

use std::process::ExitCode;

use bk_bake::csv;
use clap::Parser as _;

fn main() -> ExitCode {
    report::install_panic_hook();
    let code = match args::Cli::try_parse() {
        Ok(cli) => match cli.command {
            args::Command::Build(build) => build::main(&cli.global, &build),
            args::Command::Bake(bake) => bake::main(&cli.global, &bake),
            args::Command::Ctx(command) => ctx::main(&command),
        },
        // Help and version arrive here too; they go to standard output and are a success.
        Err(e) if e.use_stderr() => {
            report::to_stderr(&e.render().to_string());
            exit::USAGE
        }
        Err(e) => report::to_stdout(&e.render().to_string()),
    };
    ExitCode::from(code)
}
