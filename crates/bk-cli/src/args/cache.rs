//! What is built again and what is not.

use clap::Args;

/// What is built again and what is not.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct CacheArgs {
    /// Run every step again
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set)]
    pub(crate) no_cache: bool,
    /// Look base images up in their registry again
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set)]
    pub(crate) pull: bool,
}
