//! What comes out: names, labels, outputs, and files for scripts.

use std::path::PathBuf;

use clap::Args;

/// What comes out.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Results")]
pub(crate) struct ResultArgs {
    /// A name for the image. Repeatable
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub(crate) tags: Vec<String>,
    /// A label for the image. Repeatable
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// An annotation of the image. Repeatable
    #[arg(long = "annotation", value_name = "[SCOPE:]KEY=VALUE")]
    pub(crate) annotations: Vec<String>,
    /// A statement about the image: type=sbom or type=provenance, with parameters. Repeatable
    #[arg(long = "attest", value_name = "FIELDS")]
    pub(crate) attests: Vec<String>,
    /// Short for --attest=type=sbom: true, false or parameters
    #[arg(long, value_name = "FIELDS")]
    pub(crate) sbom: Option<String>,
    /// Short for --attest=type=provenance: true, false or parameters such as mode=max
    #[arg(long, value_name = "FIELDS")]
    pub(crate) provenance: Option<String>,
    /// What comes out: type=local|tar|oci|docker|image|registry|cacheonly with KEY=VALUE fields, or a directory, or - for
    /// a tar archive on standard output. Repeatable. Default: an image in the daemon's store
    #[arg(short, long = "output", value_name = "OUTPUT")]
    pub(crate) outputs: Vec<String>,
    /// Put the image into Docker Engine. The same as --output=type=docker
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set)]
    pub(crate) load: bool,
    /// Push the image to its registry. The same as --output=type=registry
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set)]
    pub(crate) push: bool,
    /// Write the image id to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what the daemon answered, as JSON, to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Write what was offered, asked for and sent, as JSON, to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) transfer_report: Option<PathBuf>,
}
