//! How the files of the context are sent.

use clap::{Args, ValueEnum};

/// How the files of the context are sent.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct FileArgs {
    /// How the daemon tells which files it lacks: by all that the file system knows, by size and time alone, or by
    /// content with one fixed time (SOURCE_DATE_EPOCH, else 1980-01-02)
    #[arg(long, value_name = "HOW", value_enum, default_value = "exact")]
    pub(crate) sync: Sync,
    /// Permission bits of the context: as they are, or as Git would check them out with umask 022
    #[arg(long, value_name = "MODE", value_enum, default_value = "keep")]
    pub(crate) context_mode: ContextMode,
    /// Owner of the context's files: reset (0:0), keep, or UID:GID
    #[arg(long, value_name = "OWNER", default_value = "reset")]
    pub(crate) context_owner: String,
    /// What to do when a file changes while it is sent
    #[arg(long, value_name = "WHAT", value_enum, default_value = "error")]
    pub(crate) on_change: OnChange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sync {
    Exact,
    Mtime,
    Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContextMode {
    Keep,
    Git,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnChange {
    Error,
    Retry,
    Warn,
}
