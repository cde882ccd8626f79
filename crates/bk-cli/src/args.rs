//! The command line as types. Names and meanings are those of `docker buildx build`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  bk build -t app .                      build the current directory, name the image app
  bk build -f docker/Dockerfile .        another Dockerfile, inside the context or not
  bk build --build-arg V=1 --target t .  pass a build argument, stop at stage t
  bk build -f - . < Dockerfile           take the Dockerfile from standard input
  bk build -q .                          print the image id and nothing else
  bk --addr tcp://127.0.0.1:1234 build . use that daemon";

const EXIT_CODES: &str = "\
Exit codes:
  0    the build succeeded
  1    the build failed, or no daemon could be reached
  2    the command line is wrong; nothing was sent
  100  a fault inside the daemon or bk, not in the build
  101  a bug in bk
  102  the daemon ran out of memory or disk space
  130  the build was cancelled (Ctrl-C, SIGTERM, or on the daemon)";

/// Build container images with BuildKit, inside Docker Engine or standalone.
#[derive(Debug, Parser)]
#[command(name = "bk", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that hold for every command.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Daemon")]
pub(crate) struct Global {
    /// The daemon: unix://PATH or tcp://HOST:PORT. Default: BUILDKIT_HOST, else DOCKER_HOST, else the usual sockets
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) addr: Option<String>,
    /// What kind of daemon to use. Default: BK_BACKEND, else auto
    #[arg(long, global = true, value_name = "KIND", value_enum)]
    pub(crate) backend: Option<Backend>,
    /// How to reach BuildKit inside Docker Engine. Default: auto, the best that the engine has
    #[arg(long, global = true, value_name = "ROUTE", value_enum)]
    pub(crate) docker_route: Option<Route>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
}

/// `bk build`.
#[derive(Debug, Args)]
#[command(after_help = "Examples and exit codes: bk build --help")]
#[command(after_long_help = after_build_help())]
pub(crate) struct BuildArgs {
    /// The Dockerfile, relative to the current directory; - reads it from standard input. Default: PATH/Dockerfile
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A name for the image. Repeatable
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub(crate) tags: Vec<String>,
    /// A build argument; without =VALUE it is taken from the environment, if it is there. Repeatable
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// The stage to build: its name or index. Default: the last one
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// A platform to build for. Repeatable, or a comma list. Default: the daemon's own
    #[arg(long = "platform", value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',')]
    pub(crate) platforms: Vec<String>,
    /// Run every step again
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set)]
    pub(crate) no_cache: bool,
    /// Look base images up in their registry again
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set)]
    pub(crate) pull: bool,
    /// A label for the image. Repeatable
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// How the daemon tells which files it lacks: by all that the file system knows, by size and time alone, or by
    /// content with one fixed time (SOURCE_DATE_EPOCH, else 1980-01-02)
    #[arg(long, value_name = "HOW", value_enum, default_value = "exact")]
    pub(crate) sync: Sync,
    /// Permission bits of the context: as they are, or as Git would check them out with umask 022
    #[arg(long, value_name = "MODE", value_enum, default_value = "keep")]
    pub(crate) context_mode: ContextMode,
    /// Owner of the context's files: reset (0:0), keep, or UID:GID
    #[arg(long, value_name = "OWNER", default_value = "reset")]
    pub(crate) context_owner: String,
    /// What to do when a file changes while it is sent
    #[arg(long, value_name = "WHAT", value_enum, default_value = "error")]
    pub(crate) on_change: OnChange,
    /// How progress is drawn on standard error. BUILDKIT_PROGRESS overrides auto
    #[arg(long, value_name = "MODE", value_enum, default_value = "auto")]
    pub(crate) progress: Progress,
    /// Draw no progress; print the image id on standard output
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "false", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set)]
    pub(crate) quiet: bool,
    /// Write the image id to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what the daemon answered, as JSON, to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// The build context: a directory
    #[arg(value_name = "PATH")]
    pub(crate) context: PathBuf,
}

fn after_build_help() -> String {
    format!(
        "{EXAMPLES}\n\n{EXIT_CODES}\n\nOptions of docker buildx build that are not listed here are not supported yet."
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    Auto,
    Docker,
    Buildkitd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Route {
    Auto,
    H2c,
    Grpc,
    Build,
    Tar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sync {
    Exact,
    Mtime,
    Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContextMode {
    Keep,
    Git,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnChange {
    Error,
    Retry,
    Warn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    Auto,
    Plain,
    Rawjson,
    Quiet,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
