//! What shells and manuals get: completions and man pages.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// `bk completion`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk completion bash > /etc/bash_completion.d/bk
  bk completion zsh > ~/.zfunc/_bk       a directory of fpath
  bk completion fish > ~/.config/fish/completions/bk.fish
  bk completion powershell >> $PROFILE
  bk completion elvish >> ~/.config/elvish/rc.elv")]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: Shell,
}

/// `bk man`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk man --dir ~/.local/share/man/man1   write a page for bk and each of its commands
  bk man build | man -l -                read one
  bk man ctx ls > bk-ctx-ls.1            keep one")]
pub(crate) struct ManArgs {
    /// Write the pages of all commands to DIR, which is made when it is missing. Otherwise one page is printed
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub(crate) dir: Option<PathBuf>,
    /// The command to print the page of. Default: bk itself
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}
