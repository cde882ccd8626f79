//! BuildKit endpoints: the BuildKit inside a Docker engine, reachable as if it were a native daemon.
//!
//! `docker buildx dial-stdio` carries one connection over its standard input and output; socat starts one for each
//! client that connects.

use super::docker::{ENGINES, Engine, tool};
use super::layout::Layout;
use super::packages::{BOOKWORM, FORKY};
use super::process;
use crate::run::{Result, output};
use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// socat listens within a fraction of a second.
const READY_DEADLINE: Duration = Duration::from_secs(15);

/// All endpoints.
pub(crate) const ENDPOINTS: [Endpoint; 3] = [
    Endpoint {
        name: "buildkit-unix",
        variable: "BK_LIVE_BUILDKIT_UNIX",
        engine: &ENGINES[3],
        kind: Kind::Unix,
    },
    Endpoint {
        name: "buildkit-tcp",
        variable: "BK_LIVE_BUILDKIT_TCP",
        engine: &ENGINES[2],
        kind: Kind::Tcp,
    },
    Endpoint {
        name: "buildkit-tcp-26.1",
        variable: "BK_LIVE_BUILDKIT_TCP_26_1",
        engine: &ENGINES[1],
        kind: Kind::Tcp,
    },
];

/// One endpoint and the engine behind it.
pub(crate) struct Endpoint {
    /// The name on the command line.
    pub(crate) name: &'static str,
    /// The variable with its address.
    pub(crate) variable: &'static str,
    /// The engine that answers.
    pub(crate) engine: &'static Engine,
    kind: Kind,
}

enum Kind {
    Unix,
    Tcp,
}

impl Endpoint {
    /// The address in the form that `BUILDKIT_HOST` has.
    pub(crate) fn address(&self, layout: &Layout) -> Option<String> {
        Some(match self.kind {
            Kind::Unix => format!("unix://{}", self.socket(layout).display()),
            Kind::Tcp => format!("tcp://127.0.0.1:{}", layout.recorded_port(self.name)?),
        })
    }

    /// Starts listening in front of the engine, which must run.
    pub(crate) fn start(&self, layout: &Layout) -> Result<()> {
        self.remove(layout)?;
        let data = layout.data(self.name);
        fs::create_dir_all(&data)?;
        fs::create_dir_all(layout.run_of(self.name))?;
        let dial = data.join("dial");
        fs::write(&dial, self.dial_script(layout))?;
        output(Command::new("chmod").arg("0755").arg(&dial))?;
        let socket = self.socket(layout);
        let (listen, port) = match self.kind {
            Kind::Unix => (
                format!("UNIX-LISTEN:{},fork,mode=0600,backlog=128", socket.display()),
                0,
            ),
            Kind::Tcp => {
                let port = layout.port(self.name)?;
                (
                    format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=128"),
                    port,
                )
            }
        };
        let mut command = tool(layout, BOOKWORM, "usr/bin/socat");
        // After one side has ended, the other may go on for this many seconds: a build may take long to wind up.
        command
            .args(["-t", "60"])
            .arg(listen)
            .arg(format!("EXEC:{}", dial.display()));
        process::start(layout, self.name, &command)?;
        process::wait_ready(layout, self.name, READY_DEADLINE, || match self.kind {
            Kind::Unix => UnixStream::connect(&socket).is_ok(),
            Kind::Tcp => TcpStream::connect(("127.0.0.1", port)).is_ok(),
        })
    }

    /// Stops listening and cuts all connections.
    pub(crate) fn remove(&self, layout: &Layout) -> Result<()> {
        process::stop(layout, self.name)?;
        super::remove_dir(&layout.data(self.name))?;
        super::remove_dir(&layout.run_of(self.name))
    }

    fn socket(&self, layout: &Layout) -> PathBuf {
        layout.run_of(self.name).join("buildkitd.sock")
    }

    /// socat splits its own command line at blanks and colons, so the words are in a script.
    fn dial_script(&self, layout: &Layout) -> String {
        let docker = tool(layout, FORKY, "usr/bin/docker");
        format!(
            "#!/bin/sh\nexport DOCKER_CONFIG='{}' DOCKER_HOST='{}'\nexec '{}' buildx dial-stdio --progress quiet\n",
            layout.cli_config().display(),
            self.engine.address(layout),
            docker.get_program().to_string_lossy(),
        )
    }
}
