//! What is built: context, Dockerfile, and what is passed to it.

use std::path::PathBuf;

use clap::Args;

/// What is built.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Build")]
pub(crate) struct SourceArgs {
    /// The Dockerfile, relative to the current directory; - reads it from standard input. Default: PATH/Dockerfile
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A build argument; without =VALUE it is taken from the environment, if it is there. Repeatable
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// The stage to build: its name or index. Default: the last one
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// A platform to build for. Repeatable, or a comma list. Default: the daemon's own
    #[arg(long = "platform", value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',')]
    pub(crate) platforms: Vec<String>,
    /// The build context: a directory
    #[arg(value_name = "PATH")]
    pub(crate) context: PathBuf,
}
