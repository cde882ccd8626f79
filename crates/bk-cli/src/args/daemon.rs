//! Which daemon: options of every command.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::DaemonlessArgs;

/// Options that hold for every command.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Daemon")]
pub(crate) struct Global {
    /// The daemon: unix://PATH, tcp://HOST:PORT, https://HOST, ssh://HOST, docker-container://NAME, podman-container://NAME,
    /// nerdctl-container://NAME, kube-pod://NAME, npipe:////./pipe/NAME, docker:// or docker://CONTEXT. Several, with commas or repeated: each
    /// build goes to the one that its affinity chooses, or the next that answers. Default: BUILDKIT_HOST, else
    /// BUILDX_BUILDER, else DOCKER_HOST, else the Docker context or builder in use, else the usual sockets
    #[arg(long, global = true, value_name = "ADDR", value_delimiter = ',')]
    pub(crate) addr: Vec<String>,
    /// What chooses among several addresses: builds with the same key go to the same daemon. Default: the context directory
    /// on this machine
    #[arg(long, global = true, value_name = "KEY")]
    pub(crate) affinity: Option<String>,
    /// Send the affinity as a header of that name with every call, for balancers in front of daemons
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) affinity_header: Option<String>,
    /// The builder of `docker buildx` with that name. Its files are only read
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "addr")]
    pub(crate) builder: Option<String>,
    /// What kind of daemon to use. Default: BK_BACKEND, else auto
    #[arg(long, global = true, value_name = "KIND", value_enum)]
    pub(crate) backend: Option<Backend>,
    /// How to reach BuildKit inside Docker Engine. Default: auto, the best that the engine has
    #[arg(long, global = true, value_name = "ROUTE", value_enum)]
    pub(crate) docker_route: Option<Route>,
    /// Speak TLS to a daemon at tcp://, and trust the authorities of the system
    #[arg(long, global = true)]
    pub(crate) tls: bool,
    /// Speak TLS to a daemon at tcp://, and trust the authorities in this file. Default: those of the system
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Speak TLS, and show the certificate in this file
    #[arg(long, global = true, value_name = "FILE", requires = "tlskey")]
    pub(crate) tlscert: Option<PathBuf>,
    /// Speak TLS, with the key of --tlscert in this file
    #[arg(long, global = true, value_name = "FILE", requires = "tlscert")]
    pub(crate) tlskey: Option<PathBuf>,
    /// Speak TLS, with a daemon whose certificate is for that name. Default: the host of the address
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) tlsservername: Option<String>,
    /// Speak TLS, with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key) of this directory
    #[arg(long, global = true, value_name = "DIR", conflicts_with_all = ["tlscacert", "tlscert", "tlskey"])]
    pub(crate) tlsdir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) private: DaemonlessArgs,
    /// Whether to use colours. auto: on a terminal, unless NO_COLOR is set; CLICOLOR_FORCE=1 elsewhere too
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value = "auto",
        help_heading = "Every command"
    )]
    pub(crate) color: When,
    /// Say on standard error what is decided: the daemon and the route to it. Twice: also where settings come from
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Every command")]
    pub(crate) verbose: u8,
    /// Read no bk.toml, neither that of the context nor that of the user
    #[arg(long, global = true, help_heading = "Every command")]
    pub(crate) no_config: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    #[default]
    Auto,
    Always,
    Never,
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
