//! What steps may use of this machine: secrets and keys.

use clap::Args;

/// What steps may use of this machine.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Secrets")]
pub(crate) struct AccessArgs {}
