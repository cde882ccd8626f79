//! What stands between a client and a daemon, and what helps.
//!
//! The rule: a hint follows from the kind of endpoint and from what is known of its end, not from what somebody else said.

use std::{error::Error, io};

use crate::Attempt;

/// What somebody can start or name who reaches nothing on this machine.
const ANY: &str =
    "start Docker (dockerd) or buildkitd, or name an endpoint with --addr, BUILDKIT_HOST or DOCKER_HOST";
/// The number with which `ssh` ends when it is `ssh` itself that failed.
const OF_SSH: i32 = 255;
/// The numbers for a program that is not there, or is none: those of shells, which runtimes of containers have as well.
const NO_PROGRAM: [i32; 2] = [126, 127];

/// What stood between us and a daemon, where that is known for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// This user may not open the socket.
    Permission,
    /// This system has no such endpoints.
    Unsupported,
    /// No address is known for the host.
    Host,
    /// The program that carries the bytes cannot be started.
    Program,
    /// The program that carries the bytes ended badly: with this number, unless a signal ended it.
    Ended(Option<i32>),
    /// One side does not accept the certificate of the other, or wants to see one.
    Certificate,
    /// The daemon's certificate has expired, or is not valid yet.
    Expired,
    /// TLS was spoken to who does not speak it.
    NoTls,
    /// TLS was not spoken to who wants it.
    WantsTls,
}

/// An error that knows its obstacle, inside of those that do not.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Obstructed {
    obstacle: Obstacle,
    text: String,
}

impl Obstacle {
    /// An error that says `text`, in which [`of`](Self::of) finds this again.
    pub fn error(self, kind: io::ErrorKind, text: impl Into<String>) -> io::Error {
        let (obstacle, text) = (self, text.into());
        io::Error::new(kind, Obstructed { obstacle, text })
    }

    /// What an error or one of its causes knows of it.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(e) = next {
            if let Some(found) = e.downcast_ref::<Obstructed>() {
                return Some(found.obstacle);
            }
            // What such an error holds is not among its causes.
            next = match e.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(held) => Some(held),
                None => e.source(),
            };
        }
        None
    }

    /// Whether `ssh` itself failed, and not what it started on the other machine.
    pub fn is_of_ssh(self) -> bool {
        self == Self::Ended(Some(OF_SSH))
    }

    /// Whether what carries the bytes has found no program at its other end.
    fn is_no_program(self) -> bool {
        matches!(self, Self::Ended(Some(code)) if NO_PROGRAM.contains(&code))
    }
}

/// What the user can do about attempts that failed: what fits one of them best.
pub(crate) fn hint(attempts: &[Attempt]) -> Option<String> {
    let helps: Vec<Help> = attempts.iter().map(help).collect();
    let own = helps.iter().find_map(|help| match help {
        Help::Own(text) => Some(text.clone()),
        _ => None,
    });
    let any = helps.is_empty() || helps.contains(&Help::Any);
    own.or_else(|| any.then(|| ANY.to_owned()))
}

#[derive(PartialEq, Eq)]
enum Help {
    /// What it says fits it alone.
    Own(String),
    /// What always may help.
    Any,
    /// The reason has said it.
    Said,
}

fn help(attempt: &Attempt) -> Help {
    let kind = attempt.address.split_once("://").map_or("", |(scheme, _)| scheme);
    let of_program = attempt.obstacle.is_some_and(Obstacle::is_no_program);
    let text = match (attempt.obstacle, kind) {
        (Some(Obstacle::Program | Obstacle::WantsTls), _) => return Help::Said,
        (Some(Obstacle::Permission), _) => {
            "join the socket's group, or name another endpoint with --addr, BUILDKIT_HOST or DOCKER_HOST".to_owned()
        }
        (Some(Obstacle::Unsupported), _) => {
            "name an endpoint of another kind with --addr, BUILDKIT_HOST or DOCKER_HOST".to_owned()
        }
        (Some(Obstacle::Host), _) => "check the host's name in the address".to_owned(),
        (Some(Obstacle::Certificate), _) => {
            "check the certificates of both sides, and where they are named: --tlscacert, --tlscert, --tlskey and \
             --tlsservername, DOCKER_CERT_PATH, the Docker context or the builder"
                .to_owned()
        }
        (Some(Obstacle::Expired), _) => {
            "renew the daemon's certificate, or set the clock of this machine right".to_owned()
        }
        (Some(Obstacle::NoTls), _) => "leave TLS out, or name a port where it is spoken".to_owned(),
        (Some(end), "ssh") if end.is_of_ssh() => {
            "check the host, and that `ssh` logs in there without a question: the host's key is known, and there is an \
             agent or a key without a passphrase"
                .to_owned()
        }
        (_, "ssh") if of_program => {
            "that machine needs `docker` (for Docker) or `buildctl` (for buildkitd) in the PATH that ssh gives to commands"
                .to_owned()
        }
        (_, "ssh") => "start Docker (dockerd) or buildkitd on that machine".to_owned(),
        (_, "kube-pod") if of_program => {
            "a pod of BuildKit has `buildctl` in it: check the name with `kubectl get pods`; ?container=NAME behind it \
             names one of several containers"
                .to_owned()
        }
        (_, "kube-pod") => {
            "see with `kubectl get pods` whether the pod is there and runs; ?context=NAME and ?namespace=NAME behind its \
             name say where it is"
                .to_owned()
        }
        (_, "docker-container") => of_container("docker", of_program),
        (_, "podman-container") => of_container("podman", of_program),
        (_, "nerdctl-container") => of_container("nerdctl", of_program),
        _ => return Help::Any,
    };
    Help::Own(text)
}

fn of_container(tool: &str, of_program: bool) -> String {
    match of_program {
        true => format!("a container of BuildKit has `buildctl` in it: check the name with `{tool} ps`"),
        false => format!(
            "see with `{tool} ps --all` whether the container is there, and start it with `{tool} start` if it does not run"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str, obstacle: Option<Obstacle>) -> Option<String> {
        hint(&[Attempt::new(address, "it failed").obstacle(obstacle)])
    }

    #[test]
    fn a_hint_fits_the_kind_of_endpoint() {
        let ended = |code| Some(Obstacle::Ended(Some(code)));
        for address in ["unix:///d.sock", "tcp://h:1", "https://h", "npipe:////./pipe/d"] {
            assert_eq!(of(address, None).as_deref(), Some(ANY));
        }
        for (address, obstacle, start) in [
            (
                "docker-container://b",
                ended(1),
                "see with `docker ps --all` whether",
            ),
            (
                "docker-container://b",
                ended(127),
                "a container of BuildKit has `buildctl`",
            ),
            (
                "docker-container://b",
                ended(126),
                "a container of BuildKit has `buildctl`",
            ),
            (
                "podman-container://b",
                ended(125),
                "see with `podman ps --all` whether",
            ),
            (
                "nerdctl-container://b",
                None,
                "see with `nerdctl ps --all` whether",
            ),
            ("kube-pod://b", ended(1), "see with `kubectl get pods` whether"),
            ("kube-pod://b", ended(127), "a pod of BuildKit has `buildctl`"),
            ("ssh://h", ended(255), "check the host, and that `ssh` logs in"),
            ("ssh://h", ended(127), "that machine needs `docker` (for Docker)"),
            (
                "ssh://h",
                ended(1),
                "start Docker (dockerd) or buildkitd on that machine",
            ),
            (
                "ssh://h",
                Some(Obstacle::Ended(None)),
                "start Docker (dockerd) or",
            ),
            (
                "podman-container://b",
                ended(255),
                "see with `podman ps --all` whether",
            ),
            ("tcp://h:1", Some(Obstacle::Host), "check the host's name"),
            (
                "tcp://h:1",
                Some(Obstacle::Expired),
                "renew the daemon's certificate",
            ),
            ("tcp://h:1", Some(Obstacle::NoTls), "leave TLS out"),
            (
                "https://h",
                Some(Obstacle::Certificate),
                "check the certificates of both",
            ),
            (
                "unix:///d.sock",
                Some(Obstacle::Permission),
                "join the socket's group",
            ),
            (
                "npipe:////./pipe/d",
                Some(Obstacle::Unsupported),
                "name an endpoint of another",
            ),
        ] {
            let text = of(address, obstacle).expect(address);
            assert!(text.starts_with(start), "{address}: {text}");
        }
        assert_eq!(of("ssh://h", Some(Obstacle::Program)), None);
        assert_eq!(of("tcp://h:1", Some(Obstacle::WantsTls)), None);
    }

    #[test]
    fn of_several_attempts_the_one_that_is_known_best_is_helped() {
        let gone = || Attempt::new("unix:///d.sock", "gone");
        let forbidden = || Attempt::new("unix:///b.sock", "no").obstacle(Obstacle::Permission);
        let no_program = || Attempt::new("ssh://h", "none").obstacle(Obstacle::Program);
        assert_eq!(hint(&[]).as_deref(), Some(ANY));
        assert_eq!(hint(&[gone(), no_program()]).as_deref(), Some(ANY));
        assert_eq!(hint(&[gone(), forbidden()]), hint(&[forbidden()]));
        assert_eq!(hint(&[no_program(), no_program()]), None);
    }

    #[test]
    fn an_obstacle_is_found_wherever_it_is_inside() {
        #[derive(Debug, thiserror::Error)]
        #[error("a layer")]
        struct Layer(#[source] io::Error);
        let inner = Obstacle::Ended(Some(3)).error(io::ErrorKind::Other, "`ssh` ended");
        assert_eq!(inner.to_string(), "`ssh` ended");
        let outer = Layer(io::Error::other(Layer(io::Error::other(inner))));
        assert_eq!(Obstacle::of(&outer), Some(Obstacle::Ended(Some(3))));
        assert_eq!(Obstacle::of(&Layer(io::Error::other("nothing"))), None);
    }
}
