//! A BuildKit endpoint before a Docker Engine: `docker buildx dial-stdio` for each connection.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{net::UnixStream, process::Command};

use crate::socket::Socket;

/// A running endpoint on a unix socket. It, its connections and their programs end with the value.
#[derive(Debug)]
pub struct Endpoint(Socket);

/// The Docker CLI, with buildx as its plugin.
#[derive(Clone, Debug)]
pub struct DockerCli {
    /// The program.
    pub program: PathBuf,
    /// The directory of its configuration, in which the plugin is.
    pub config: PathBuf,
}

impl DockerCli {
    /// The one that the environment names (`BK_LIVE_DOCKER_CLI`), if it does.
    pub fn find() -> Option<Self> {
        Some(Self {
            program: std::env::var_os("BK_LIVE_DOCKER_CLI")?.into(),
            config: std::env::var_os("BK_LIVE_DOCKER_CLI_CONFIG")?.into(),
        })
    }
}

impl Endpoint {
    /// Starts one before the engine at the socket `docker`.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn start(docker: &Path, cli: &DockerCli) -> io::Result<Self> {
        let (cli, host) = (cli.clone(), format!("unix://{}", docker.display()));
        let serve = move |client| serve(client, cli.clone(), host.clone());
        Socket::listen("bk-endpoint-", "buildkitd.sock", serve).map(Self)
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        self.0.path()
    }
}

/// Joins a client to a program. Ends, and ends the program, when either side has no more to say.
async fn serve(mut client: UnixStream, cli: DockerCli, host: String) -> io::Result<()> {
    let mut program = Command::new(&cli.program)
        .args(["buildx", "dial-stdio", "--progress", "quiet"])
        .env("DOCKER_CONFIG", &cli.config)
        .env("DOCKER_HOST", host)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(mut input), Some(mut output)) = (program.stdin.take(), program.stdout.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let (mut read, mut write) = client.split();
    let ended = tokio::select! {
        up = tokio::io::copy(&mut read, &mut input) => up,
        down = tokio::io::copy(&mut output, &mut write) => down,
    };
    program.kill().await?;
    ended.map(drop)
}
