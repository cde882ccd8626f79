//! What steps run in: network, hosts, limits, and what they are permitted.

use clap::Args;

/// What steps run in.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Steps")]
pub(crate) struct StepArgs {}
