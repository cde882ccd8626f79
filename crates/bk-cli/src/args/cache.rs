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
    /// Run the steps of a stage again. Repeatable
    #[arg(long = "no-cache-filter", value_name = "STAGE")]
    pub(crate) no_cache_filters: Vec<String>,
    /// Where to look steps up: an image reference, or type=… with fields. Repeatable
    #[arg(long = "cache-from", value_name = "CACHE")]
    pub(crate) cache_from: Vec<String>,
    /// Where to keep steps: an image reference, or type=… with fields. Repeatable
    #[arg(long = "cache-to", value_name = "CACHE")]
    pub(crate) cache_to: Vec<String>,
    /// Look base images up in their registry again
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set)]
    pub(crate) pull: bool,
}
