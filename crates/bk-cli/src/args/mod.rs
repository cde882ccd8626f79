//! The command line as types. Names and meanings are those of `docker buildx build`.
//!
//! One file holds the options under one heading of `bk build --help`; an option is declared nowhere else.

mod access;
mod admin;
mod bake;
mod cache;
mod call;
mod config;
mod ctx;
mod daemon;
mod files;
mod nodes;
mod pass;
mod patience;
mod private;
mod progress;
mod results;
mod shell;
mod source;
mod steps;

use clap::{Args, Parser, Subcommand};

pub(crate) use access::AccessArgs;
pub(crate) use admin::{
    CacheFilterArgs, DuArgs, ForceArgs, HistoryCommand, HistoryExportArgs, HistoryLogsArgs, HistoryLsArgs,
    HistoryRmArgs, HistoryTraceArgs, InfoArgs, PingArgs, PruneArgs, WorkersArgs,
};
pub(crate) use bake::BakeArgs;
pub(crate) use cache::CacheArgs;
pub(crate) use call::CallArgs;
pub(crate) use config::ConfigCommand;
pub(crate) use ctx::{
    CtxCommand, CtxDiffArgs, CtxDuArgs, CtxHashArgs, CtxLintArgs, CtxLsArgs, CtxTarArgs, CtxWhyArgs, LookArgs,
};
pub(crate) use daemon::{Backend, Global, Route, When};
pub(crate) use files::{ContextMode, FileArgs, OnChange, Sync};
pub(crate) use nodes::NodeArgs;
pub(crate) use pass::{DialStdioArgs, ProxyArgs};
pub(crate) use patience::PatienceArgs;
pub(crate) use private::{DaemonCommand, DaemonKind, DaemonlessArgs, KeepArgs};
pub(crate) use progress::{Progress, ProgressArgs};
pub(crate) use results::ResultArgs;
pub(crate) use shell::{CompletionArgs, ManArgs};
pub(crate) use source::SourceArgs;
pub(crate) use steps::StepArgs;

const EXAMPLES: &str = "\
Examples:
  bk build -t app .                      build the current directory, name the image app
  bk build -f docker/Dockerfile .        another Dockerfile, inside the context or not
  bk build --build-arg V=1 --target t .  pass a build argument, stop at stage t
  bk build -f - . < Dockerfile           take the Dockerfile from standard input
  bk build - < context.tar.gz            build an archive
  bk build -q .                          print the image id and nothing else
  bk build --check .                     build nothing, say what is questionable in the Dockerfile
  bk --addr tcp://127.0.0.1:1234 build .  use that daemon";

const EXIT_CODES: &str = "\
Exit codes:
  0    the build succeeded
  1    the build failed, or no daemon could be reached
  2    the command line is wrong; nothing was sent
  100  a fault inside the daemon or bk, not in the build
  101  a bug in bk
  102  the daemon ran out of memory or disk space
  130  the build was cancelled (Ctrl-C, SIGTERM, or on the daemon)";

const SETTINGS: &str = "\
Settings:
  Each option can also come from a variable (BK_PROGRESS for --progress) or from bk.toml, in the context or in
  ~/.config/bk. `bk config explain` says which one holds and where it comes from.";

/// Build container images with BuildKit, inside Docker Engine or standalone.
#[derive(Debug, Parser)]
#[command(name = "bk", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Build many targets, as files define them
    Bake(Box<BakeArgs>),
    /// Look at the context of a build
    #[command(subcommand)]
    Ctx(CtxCommand),
    /// Show what the daemon's build cache holds
    Du(DuArgs),
    /// Remove what no build uses from the daemon's build cache
    Prune(PruneArgs),
    /// List what runs steps in the daemon
    Workers(WorkersArgs),
    /// Show what the daemon is: versions, workers, platforms, rules of its cache
    Info(InfoArgs),
    /// Ask whether the daemon answers, how fast, and what it can do
    Ping(PingArgs),
    /// Look at builds that the daemon remembers
    #[command(subcommand)]
    History(HistoryCommand),
    /// Say which settings hold, and where they come from
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Carry bytes between standard input and output and BuildKit's API
    DialStdio(DialStdioArgs),
    /// Listen on a socket and pass connections on to BuildKit's API
    Proxy(ProxyArgs),
    /// Print what a shell needs to complete the command line
    Completion(CompletionArgs),
    /// Print or write man pages
    Man(ManArgs),
    /// Look at the private daemon, or stop it
    #[command(subcommand)]
    Daemon(DaemonCommand),
}

/// `bk build`.
#[derive(Debug, Args)]
#[command(after_help = "Examples and exit codes: bk build --help")]
#[command(after_long_help = after_build_help())]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) results: ResultArgs,
    #[command(flatten)]
    pub(crate) call: CallArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) steps: StepArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) files: FileArgs,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
    #[command(flatten)]
    pub(crate) nodes: NodeArgs,
}

fn after_build_help() -> String {
    format!(
        "{EXAMPLES}\n\n{EXIT_CODES}\n\n{SETTINGS}\n\nOptions of docker buildx build that are not listed here are not supported yet."
    )
}

#[cfg(test)]
mod tests;
