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
    /// A context by name: a directory, file:PATH, docker-image://REF, or a Git or HTTP address. Repeatable
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    pub(crate) build_contexts: Vec<String>,
    /// An attribute for the frontend, as it is. Repeatable
    #[arg(long = "opt", value_name = "KEY=VALUE")]
    pub(crate) opts: Vec<String>,
    /// The frontend, for instance gateway.v0 with --opt source=IMAGE. Default: dockerfile.v0
    #[arg(long, value_name = "NAME")]
    pub(crate) frontend: Option<String>,
    /// Rules for what may be fetched, as JSON. Default: EXPERIMENTAL_BUILDKIT_SOURCE_POLICY
    #[arg(long, value_name = "FILE")]
    pub(crate) source_policy_file: Option<PathBuf>,
    /// The build context: a directory, or a Git or HTTP address that the daemon fetches; - takes a tar archive, or a
    /// Dockerfile alone, from standard input
    #[arg(value_name = "PATH")]
    pub(crate) context: PathBuf,
}
