//! Nodes: a daemon for each platform.

use clap::Args;

/// Where each platform is built.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Daemon")]
pub(crate) struct NodeArgs {
    /// Build that platform on the daemon at ADDR, and put the results together in the registry (--push) or in one directory
    /// (--output DIR). Repeatable; platforms of the same daemon are built together
    #[arg(long = "node", value_name = "OS/ARCH[/VARIANT]=ADDR", conflicts_with_all = ["addr", "daemonless"])]
    pub(crate) nodes: Vec<String>,
}
