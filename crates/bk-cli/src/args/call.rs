//! What is asked instead of building.

use clap::Args;

/// What is asked instead of building.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Questions")]
pub(crate) struct CallArgs {
    /// What to do: build, or ask the frontend and print its answer: check, outline or targets. With ,format=json the
    /// answer is JSON; with ,ignorestatus=true findings of a check are a success
    #[arg(long, value_name = "WHAT", default_value = "build")]
    pub(crate) call: String,
    /// Short for --call=check
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set)]
    pub(crate) check: bool,
}
