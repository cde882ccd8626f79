//! Which daemon: options of every command.

use clap::{Args, ValueEnum};

/// Options that hold for every command.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Daemon")]
pub(crate) struct Global {
    /// The daemon: unix://PATH or tcp://HOST:PORT. Default: BUILDKIT_HOST, else DOCKER_HOST, else the usual sockets
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) addr: Option<String>,
    /// What kind of daemon to use. Default: BK_BACKEND, else auto
    #[arg(long, global = true, value_name = "KIND", value_enum)]
    pub(crate) backend: Option<Backend>,
    /// How to reach BuildKit inside Docker Engine. Default: auto, the best that the engine has
    #[arg(long, global = true, value_name = "ROUTE", value_enum)]
    pub(crate) docker_route: Option<Route>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    Auto,
    Docker,
    Buildkitd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Route {
    Auto,
    H2c,
    Grpc,
    Build,
    Tar,
}
