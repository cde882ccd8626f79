//! `bk ctx`: what a build would see of its context.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ContextMode, FileArgs};

/// `bk ctx`.
#[derive(Debug, Subcommand)]
pub(crate) enum CtxCommand {
    /// List what a build would send, in the order of the wire
    Ls(Box<CtxLsArgs>),
    /// Show how much a build would send, by directory, largest first
    Du(Box<CtxDuArgs>),
    /// Say why paths are sent, or why not
    Why(Box<CtxWhyArgs>),
    /// Look for what is questionable: patterns without effect, secrets, what tools left behind
    Lint(Box<CtxLintArgs>),
    /// Print a digest of what a build would send
    Hash(Box<CtxHashArgs>),
    /// Compare what a build would send with another directory, or with the last build
    Diff(Box<CtxDiffArgs>),
    /// Write the context as a tar archive, after its ignore file
    Tar(Box<CtxTarArgs>),
}

/// `bk ctx tar`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk ctx tar . | tar -tv                 see what a build would send
  bk ctx tar . | bk build -t app -       build it from the archive
  bk ctx tar -o context.tar DIR          keep it")]
pub(crate) struct CtxTarArgs {
    /// The Dockerfile, relative to the current directory; - reads it from standard input. Default: DIR/Dockerfile
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Where the archive goes; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// The context: a directory
    #[arg(value_name = "DIR")]
    pub(crate) context: PathBuf,
}

/// Which context of which build is looked at.
#[derive(Debug, Args)]
#[command(next_help_heading = "Build")]
pub(crate) struct LookArgs {
    /// The Dockerfile, relative to the current directory; - reads it from standard input. Default: DIR/Dockerfile
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The stage to build: its name or index. Default: the last one
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// A build argument; without =VALUE it is taken from the environment, if it is there. Repeatable
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// The platform to build for. Without it nothing that depends on it is known
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// NAME=VALUE: a context by name, as for `bk build`. NAME alone: look at that one instead of DIR. Repeatable
    #[arg(long = "build-context", value_name = "NAME[=VALUE]")]
    pub(crate) build_contexts: Vec<String>,
    /// Permission bits of the context: as they are, or as Git would check them out with umask 022
    #[arg(long, value_name = "MODE", value_enum, default_value = "keep")]
    pub(crate) context_mode: ContextMode,
}

/// `bk ctx ls`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk ctx ls                              what `bk build .` would send
  bk ctx ls --long --target test DIR     kinds, modes and sizes, for the stage test
  bk ctx ls --depfile image.stamp > image.d   a rule for make")]
pub(crate) struct CtxLsArgs {
    /// Kind, permission bits and size before each path, and where links point to
    #[arg(short, long)]
    pub(crate) long: bool,
    /// One JSON object a line
    #[arg(long, conflicts_with = "long")]
    pub(crate) json: bool,
    /// A rule for make: TARGET depends on the files, the Dockerfile and the ignore file
    #[arg(long, value_name = "TARGET", conflicts_with_all = ["long", "json"])]
    pub(crate) depfile: Option<String>,
    #[command(flatten)]
    pub(crate) look: LookArgs,
    /// The context: a directory
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) context: PathBuf,
}

/// `bk ctx why`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk ctx why src/main.rs                 sent or not, by which pattern, and which instruction needs it
  bk ctx why -C web node_modules/*       of the context web

Exit codes: 0 all are sent, 1 one is not, 2 the command line is wrong")]
pub(crate) struct CtxWhyArgs {
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// The context
    #[arg(short = 'C', long, value_name = "DIR", default_value = ".")]
    pub(crate) directory: PathBuf,
    #[command(flatten)]
    pub(crate) look: LookArgs,
    /// Paths from the root of the context, or whole paths of files in it
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
}

/// `bk ctx du`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk ctx du                              what makes the context of `bk build .` large
  bk ctx du --depth 1 web                the top of another context")]
pub(crate) struct CtxDuArgs {
    /// How many levels below DIR are shown
    #[arg(short, long, value_name = "LEVELS", default_value_t = 2)]
    pub(crate) depth: usize,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) look: LookArgs,
    /// The context: a directory
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) context: PathBuf,
}

/// `bk ctx lint`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk ctx lint                            questionable patterns and files of this directory
  bk ctx lint --target test --json .     for the stage test, for a program

Exit codes: 0 nothing was found, 1 something was, 2 the command line is wrong")]
pub(crate) struct CtxLintArgs {
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) look: LookArgs,
    /// The context: a directory
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) context: PathBuf,
}

/// `bk ctx hash`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk ctx hash --context-mode git .       the same for every checkout, whatever its umask was")]
pub(crate) struct CtxHashArgs {
    #[command(flatten)]
    pub(crate) look: LookArgs,
    /// The context: a directory
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) context: PathBuf,
}

/// `bk ctx diff`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk ctx diff ../other-checkout          what a build there would send, compared with here
  bk ctx diff --context-mode git ../old  permission bits as Git has them do not count

Exit codes: 0 they are the same, 1 they differ, 2 the command line is wrong")]
pub(crate) struct CtxDiffArgs {
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// The context
    #[arg(short = 'C', long, value_name = "DIR", default_value = ".")]
    pub(crate) directory: PathBuf,
    #[command(flatten)]
    pub(crate) look: LookArgs,
    /// The directory to compare with, as a context of its own. Default: the last build with --explain
    #[arg(value_name = "OTHER")]
    pub(crate) other: Option<PathBuf>,
}
