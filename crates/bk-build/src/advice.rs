//! What to do about a failure whose cause is known by its words.
//!
//! The rule: each kind is one thing that a person or a program can do. What was recognised is data; the sentence is its
//! `Display`.

use std::fmt;

/// What is known of a failure beyond what the daemon said, with what to do about it. `Display` is one sentence without a
/// full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// The daemon waited for the session of this build, and it did not come in time.
    NoSession,
    /// Something in the build needs a session, and the way to the daemon has none.
    NeedsSession,
    /// The daemon's disk is full.
    DaemonDiskFull,
    /// The daemon ran out of memory.
    DaemonMemory,
    /// The process of a step was killed from outside: most often memory had run out.
    Killed,
    /// The daemon passed on a part of the step's output only.
    ClippedLog,
    /// Somebody on the way told the connection to go away.
    GoAway,
    /// A step asks for something that the request does not permit.
    MissingEntitlement {
        /// What to permit, for instance `network.host`.
        entitlement: String,
    },
    /// The request permits something that the daemon's configuration forbids.
    ForbiddenEntitlement {
        /// What is forbidden, for instance `security.insecure`.
        entitlement: String,
    },
    /// A program is for another kind of processor, and there is no emulator for it.
    NoEmulator,
    /// A shell did not find a command.
    CommandNotFound,
    /// A file cannot be run because its mode does not say that it is a program.
    NotExecutable,
    /// The image of a step does not have the program that the step starts.
    NoProgram {
        /// The program as the step names it.
        program: String,
    },
    /// A step asks for a secret that was not given.
    MissingSecret {
        /// Its id.
        id: String,
    },
    /// A registry answers less often than it was asked.
    RateLimit,
    /// A registry has no such image.
    NoImage,
    /// An image is there, but not for the platform that is built for.
    NoPlatform,
    /// The daemon cannot reach a server.
    Unreachable {
        /// The server's `host[:port]`.
        host: String,
    },
    /// An engine has this with its containerd image store only.
    ContainerdStore,
    /// The daemon's image store removed a layer while it unpacked the image that was built: a race in containerd's store,
    /// seen on Docker Engine 28.5. The same build succeeds when it is run again.
    LayerRemoved,
    /// There is no frontend of that name in the daemon.
    NoFrontend,
    /// The daemon itself is at fault.
    DaemonFault,
    /// The daemon cannot do it now.
    TryAgain,
}

impl Advice {
    /// Whether the daemon lacks memory or disk space.
    pub fn is_about_resources(&self) -> bool {
        matches!(self, Self::DaemonDiskFull | Self::DaemonMemory)
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::MissingEntitlement { entitlement } => {
                return write!(f, "permit it with --allow {entitlement}");
            }
            Self::ForbiddenEntitlement { entitlement } => {
                return write!(
                    f,
                    "the daemon must permit `{entitlement}` first: --allow-insecure-entitlement of buildkitd, or \
                     builder.entitlements in the daemon.json of Docker Engine"
                );
            }
            Self::NoProgram { program } => {
                return write!(
                    f,
                    "the image of that step has no `{program}`; install it in an earlier step, or start something that is there"
                );
            }
            Self::MissingSecret { id } => {
                return write!(
                    f,
                    "give it with --secret id={id},src=FILE or --secret id={id},env=VARIABLE"
                );
            }
            Self::Unreachable { host } => {
                return write!(
                    f,
                    "the daemon cannot reach {host}: check the name, its network and its proxy settings"
                );
            }
            Self::NoSession => {
                "the daemon waited in vain for this program's session; try again, and if it stays so, look for what holds \
                 connections back: a proxy, or a daemon that is very busy"
            }
            Self::NeedsSession => {
                "secrets, SSH and credentials need a session, and the route `tar` has none; take another --docker-route"
            }
            Self::DaemonDiskFull => {
                "the daemon's disk is full; free space there, for instance with `docker builder prune`"
            }
            Self::DaemonMemory => "the daemon is out of memory; give it more, or build less at once",
            Self::Killed => {
                "the process was killed, most often because memory ran out; give the daemon more, or let the step need less"
            }
            Self::ClippedLog => {
                "the daemon cut the output off; BUILDKIT_STEP_LOG_MAX_SIZE and BUILDKIT_STEP_LOG_MAX_SPEED in its environment \
                 set how much it passes on"
            }
            Self::GoAway => {
                "the daemon, or a proxy before it, ended the connection on purpose; try again, or connect without the proxy"
            }
            Self::NoEmulator => {
                "the program is for another kind of processor, and the daemon's machine has no emulator for it; install one \
                 there (binfmt_misc with QEMU), or build for the daemon's own platform"
            }
            Self::CommandNotFound => {
                "the step's shell does not find the command; install it in an earlier step, or check its spelling and PATH"
            }
            Self::NotExecutable => "the file is no program by its mode; COPY --chmod=755 makes it one",
            Self::RateLimit => {
                "the registry was asked too often; wait, log in for a higher limit, or take the image from a mirror"
            }
            Self::NoImage => "check the image's name and tag: its registry does not have it",
            Self::NoPlatform => {
                "the image is not there for that platform; `docker buildx imagetools inspect IMAGE` lists those that it has"
            }
            Self::ContainerdStore => "Docker Engine has this with its containerd image store only",
            Self::LayerRemoved => {
                "the daemon's image store removed a layer while it unpacked the image, a known fault of it; build again"
            }
            Self::NoFrontend => {
                "dockerfile.v0 and gateway.v0 are there; any other is an image: --frontend gateway.v0 --opt source=IMAGE"
            }
            Self::DaemonFault => "this is a fault of the daemon; its own log says more",
            Self::TryAgain => "the daemon cannot do it now; try again",
        };
        f.write_str(text)
    }
}
