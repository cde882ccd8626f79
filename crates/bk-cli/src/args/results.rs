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
    /// Write the image id to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what the daemon answered, as JSON, to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
}
