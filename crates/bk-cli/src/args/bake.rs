//! `bk bake`: many targets, written down in files.

use std::path::PathBuf;

use clap::Args;

use super::{FileArgs, PatienceArgs, Progress};

/// `bk bake`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk bake                                build what compose.yaml or docker-bake.json in this directory define
  bk bake web worker                     these targets or groups; patterns such as 'web-*' work too
  bk bake --print                        say what would be built, as JSON
  bk bake --set '*.args.VERSION=2' --load")]
pub(crate) struct BakeArgs {
    /// A file with targets: bake JSON, or a compose file; - is standard input. Repeatable. Default: compose.yaml,
    /// compose.yml, docker-compose.yml, docker-compose.yaml, docker-bake.json and docker-bake.override.json, those that
    /// are there
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Put a value over what the files say; TARGET may be a pattern, += adds to a list. Repeatable
    #[arg(long = "set", value_name = "TARGET.KEY[.NAME]=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print what would be built as JSON, and build nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// Print the targets or the variables, and build nothing: targets or variables, with ,format=json as JSON
    #[arg(long, value_name = "WHAT", conflicts_with = "print")]
    pub(crate) list: Option<String>,
    /// Put the images into Docker Engine. The same as --set=*.load=true
    #[arg(long)]
    pub(crate) load: bool,
    /// Push the images to their registries. The same as --set=*.push=true
    #[arg(long)]
    pub(crate) push: bool,
    /// Run every step again
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) no_cache: Option<bool>,
    /// Look base images up in their registry again
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) pull: Option<bool>,
    /// Short for --set=*.attest=type=sbom: true, false or parameters
    #[arg(long, value_name = "FIELDS")]
    pub(crate) sbom: Option<String>,
    /// Short for --set=*.attest=type=provenance: true, false or parameters such as mode=max
    #[arg(long, value_name = "FIELDS")]
    pub(crate) provenance: Option<String>,
    /// Something that targets may do: network.host, security.insecure, device[=NAME], ssh, fs=PATH, fs.read=PATH or
    /// fs.write=PATH, where PATH may be *. Repeatable
    #[arg(long = "allow", value_name = "WHAT")]
    pub(crate) allow: Vec<String>,
    /// What to do with each target: build, or ask the frontend and print its answer: check, outline or targets, with
    /// ,format=json as JSON
    #[arg(long, value_name = "WHAT")]
    pub(crate) call: Option<String>,
    /// Short for --call=check
    #[arg(long, conflicts_with = "call")]
    pub(crate) check: bool,
    /// How many builds run at the same time. Default: 4
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Go on with the other targets when one has failed
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// After the builds, say which files made COPY and ADD of each target run again
    #[arg(long, help_heading = "Display")]
    pub(crate) explain: bool,
    /// Write what the daemon answered for each target, as JSON, to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) context: FileArgs,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
    /// How progress is drawn on standard error. BUILDKIT_PROGRESS overrides auto
    #[arg(
        long,
        value_name = "MODE",
        value_enum,
        default_value = "auto",
        help_heading = "Display"
    )]
    pub(crate) progress: Progress,
    /// What to build: targets, groups, or patterns of these. Default: default
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
}
