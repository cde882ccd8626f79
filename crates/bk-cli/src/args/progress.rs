//! How progress is drawn.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How progress is drawn.
#[derive(Debug, Args)]
#[command(next_help_heading = "Display")]
pub(crate) struct ProgressArgs {
    /// How progress is drawn on standard error. BUILDKIT_PROGRESS overrides auto
    #[arg(long = "progress", value_name = "MODE", value_enum, default_value = "auto")]
    pub(crate) mode: Progress,
    /// Draw no progress; print the image id on standard output
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set)]
    pub(crate) quiet: bool,
    /// After the build, list the steps that determined how long it took
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set)]
    pub(crate) timings: bool,
    /// After the build, say beside each COPY and ADD that ran which files changed since the last build with --explain
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set)]
    pub(crate) explain: bool,
    /// Write the output of each step to a file of its own in DIR
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    Auto,
    Tty,
    Plain,
    Ordered,
    Grouped,
    Json,
    Rawjson,
    Quiet,
}
