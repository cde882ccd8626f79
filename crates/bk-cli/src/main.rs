//! The binary `bk`: typed arguments in, a build, an exit code out.
//!
//! It holds nothing that a user of the library would want: requests, events, errors and their hints come from
//! `bk_client`, drawing from `bk_progress`. What is left is the command line, the terminal, signals and exit codes.

mod access;
mod admin;
mod args;
mod bake;
mod build;
mod call;
mod color;
mod connect;
mod ctx;
mod display;
mod exit;
mod explain;
mod files;
mod host;
mod interrupt;
mod limits;
mod manual;
mod nodes;
mod outputs;
mod pass;
mod policies;
mod private;
mod report;
mod request;
mod settings;
mod threads;
#[cfg(feature = "otel")]
mod traces;
mod verbose;

use std::{ffi::OsString, process::ExitCode};

use bk_bake::csv;

fn main() -> ExitCode {
    report::install_panic_hook();
    let line: Vec<OsString> = std::env::args_os().collect();
    let around = settings::Around::of_process();
    let colours = color::named(&line).or_else(|| settings::color(&around));
    color::choose(colours.unwrap_or_default());
    let code = settings::parse(&line, &around)
        .and_then(|cli| run(&cli, &line, &around))
        .unwrap_or_else(|stop| stopped(&stop));
    ExitCode::from(code)
}

fn run(cli: &args::Cli, line: &[OsString], around: &settings::Around) -> Result<u8, settings::Stop> {
    color::choose(cli.global.color);
    verbose::set(cli.global.verbose);
    let command = || command(cli, line, around);
    #[cfg(feature = "otel")]
    let command = || traces::during(command);
    command()
}

fn command(cli: &args::Cli, line: &[OsString], around: &settings::Around) -> Result<u8, settings::Stop> {
    Ok(match &cli.command {
        args::Command::Build(build) => build::main(&cli.global, build),
        args::Command::Bake(bake) => bake::main(&cli.global, bake),
        args::Command::Ctx(command) => ctx::main(command),
        args::Command::Config(command) => settings::main(command, line, around)?,
        args::Command::DialStdio(_) => pass::dial_stdio(&cli.global),
        args::Command::Proxy(args) => pass::proxy(&cli.global, args),
        args::Command::Daemon(command) => private::main(command),
        args::Command::Completion(args) => manual::completion(args),
        args::Command::Man(args) => manual::man(args),
        other => admin::main(&cli.global, other).unwrap_or(exit::USAGE),
    })
}

/// Tells why nothing runs, and returns the exit code. Help and version arrive here too; they go to standard output and are a
/// success.
fn stopped(stop: &settings::Stop) -> u8 {
    match stop {
        settings::Stop::Line(e, notes) if e.use_stderr() => {
            report::to_stderr(&format!("{}{notes}", styled(e, color::stderr())));
            exit::USAGE
        }
        settings::Stop::Line(e, _) => report::to_stdout(&styled(e, color::stdout())),
        settings::Stop::Setting(problem) => {
            report::to_stderr(&problem.render());
            exit::USAGE
        }
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
