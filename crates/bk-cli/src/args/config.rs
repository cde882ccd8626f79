//! `bk config`: which settings hold, and why.

use clap::{Args, Subcommand};

/// `bk config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print each setting that has a value, and where it comes from
    Explain(ConfigExplainArgs),
    /// Print where the user's bk.toml is, whether it is there or not
    #[command(after_help = "Examples:
  bk config path                         ~/.config/bk/bk.toml, unless XDG_CONFIG_HOME or BK_CONFIG says otherwise")]
    Path,
}

/// `bk config explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk config explain                      the settings of bk build, without a context
  bk config explain --pull -t app .      those of bk build --pull -t app .
  bk config explain --json bake web      those of bk bake web, an object on each line

The strongest source holds: the command line, variables (BK_PROGRESS for --progress), bk.toml of the context, bk.toml of the
user, the default.")]
pub(crate) struct ConfigExplainArgs {
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// A command line without `bk`; without a command it is one of bk build
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        num_args = 0..
    )]
    pub(crate) line: Vec<std::ffi::OsString>,
}
