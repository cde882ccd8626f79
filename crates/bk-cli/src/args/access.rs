//! What steps may use of this machine: secrets and keys.

use clap::Args;

/// What steps may use of this machine.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Secrets")]
pub(crate) struct AccessArgs {
    /// A secret for steps that mount it: id=ID[,src=FILE|,env=VARIABLE]. Without both it is the variable ID, else the
    /// file ID. Repeatable
    #[arg(long = "secret", value_name = "FIELDS")]
    pub(crate) secrets: Vec<String>,
    /// An SSH agent or keys for steps that mount them: default|ID[=SOCKET|KEY[,KEY…]][,raw=true]. Without a path it is
    /// the agent of SSH_AUTH_SOCK. Repeatable
    #[arg(long = "ssh", value_name = "FIELDS")]
    pub(crate) ssh: Vec<String>,
}
