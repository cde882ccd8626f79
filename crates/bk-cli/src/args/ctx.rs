//! `bk ctx`: what a build would see of its context.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::FileArgs;

/// `bk ctx`.
#[derive(Debug, Subcommand)]
pub(crate) enum CtxCommand {
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
