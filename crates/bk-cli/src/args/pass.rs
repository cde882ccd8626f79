//! Passing connections on: `bk dial-stdio` and `bk proxy`.

use clap::Args;

/// `bk dial-stdio`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk dial-stdio                          for programs that start it; nothing for people to read
  bk --builder b0 dial-stdio             the same to a builder of docker buildx
  buildctl --addr ssh://HOST build       starts `buildctl dial-stdio` there; a link of that name to bk serves")]
pub(crate) struct DialStdioArgs {}

/// `bk proxy`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk proxy --listen unix:///tmp/b.sock --to docker://            BuildKit of Docker Engine, for buildctl
  bk proxy --listen unix:///tmp/b.sock --to ssh://build.example  BuildKit on another machine
  bk proxy --listen tcp://127.0.0.1:1234 --to docker-container://b0")]
pub(crate) struct ProxyArgs {
    /// Where to listen: unix://PATH, for this user alone, or tcp://HOST:PORT on the loopback device. Port 0 is any
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: String,
    /// The daemon, as --addr takes it. Default: what --addr says
    #[arg(long, value_name = "ADDR")]
    pub(crate) to: Option<String>,
}
