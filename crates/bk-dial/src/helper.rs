//! Addresses behind which a program carries the bytes: containers, pods and other machines.
//!
//! The rule: no part of an address becomes an option of the program or a word of a shell.

use std::{ffi::OsString, fmt, process::Stdio};

use bk_build::{InputError, Obstacle};
use tokio::process::Command;

use crate::{command::CommandStream, host::host_port};

/// What the other side of the bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "these are the daemons that there are")]
pub enum Serves {
    /// A buildkitd, by `buildctl dial-stdio`.
    Buildkit,
    /// A Docker Engine, by `docker system dial-stdio`.
    Docker,
}

/// A program that carries bytes to a daemon, with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    address: String,
    program: OsString,
    arguments: Vec<String>,
}

/// What addresses may be.
const ALLOWED: &str = "docker-container://NAME[?context=NAME or ?host=ADDRESS], podman-container://NAME, \
                       nerdctl-container://NAME[?namespace=NAME], \
                       kube-pod://[deployment/]NAME[?context=…&namespace=…&container=…&kubeconfig=…] or \
                       ssh://[USER@]HOST[:PORT][/SOCKET]";

impl Helper {
    /// Reads an address. `None` when its scheme is not one of a program.
    ///
    /// The programs are looked for in `PATH` and get the environment of this process: `docker exec -i NAME buildctl
    /// dial-stdio` for `docker-container://NAME`, likewise `podman`, `nerdctl` and `kubectl`; for `ssh://HOST` it is `ssh`,
    /// which runs `buildctl dial-stdio` or, for [`Serves::Docker`], `docker system dial-stdio` there, and asks for no
    /// password or passphrase: an agent or a key without one is needed.
    ///
    /// # Errors
    /// An [`InputError`] names what the address lacks or must not have.
    pub fn parse(address: &str, serves: Serves) -> Option<Result<Self, InputError>> {
        let (scheme, rest) = address.split_once("://")?;
        let read = match scheme {
            "docker-container" => container("docker", rest, &["context", "host"], |name, query| {
                let options = query.iter().map(|(key, value)| format!("--{key}={value}"));
                options.chain(words(&["exec", "-i", name])).collect()
            }),
            "podman-container" => container("podman", rest, &[], |name, _| {
                words(&["exec", "-i", name]).collect()
            }),
            "nerdctl-container" => container("nerdctl", rest, &["namespace"], |name, query| {
                let space = query
                    .iter()
                    .flat_map(|(_, value)| ["--namespace".to_owned(), value.clone()]);
                words(&["exec"])
                    .chain(space)
                    .chain(words(&["-i", name]))
                    .collect()
            }),
            "kube-pod" => container(
                "kubectl",
                rest,
                &["context", "namespace", "container", "kubeconfig"],
                |name, query| {
                    let value = |key: &str| {
                        let found = query.iter().find(|(k, _)| k == key);
                        format!("--{key}={}", found.map_or("", |(_, v)| v))
                    };
                    let (context, namespace, container) =
                        (value("context"), value("namespace"), value("container"));
                    let config = query.iter().find(|(k, _)| k == "kubeconfig");
                    let config = config.map(|(_, path)| format!("--kubeconfig={path}"));
                    let rest = [&context, &namespace, "exec", &container, "-i", name, "--"];
                    config.into_iter().chain(words(&rest)).collect()
                },
            ),
            "ssh" => ssh(rest, serves),
            _ => return None,
        };
        Some(match read {
            Ok((program, mut arguments)) => {
                if scheme != "ssh" {
                    arguments.extend(words(&["buildctl", "dial-stdio"]));
                }
                Ok(Self {
                    address: address.to_owned(),
                    program: program.into(),
                    arguments,
                })
            }
            Err(why) => Err(InputError::new(
                "the address",
                format!("`{address}`: {why}"),
                ALLOWED,
            )),
        })
    }

    /// The address that it was made of.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The program's name.
    pub fn program(&self) -> &OsString {
        &self.program
    }

    /// The arguments.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Starts the program, in a group of processes of its own: signals of a terminal do not reach it. Dropping the stream
    /// ends it.
    ///
    /// # Errors
    /// When it cannot be started, which names it.
    pub fn dial(&self) -> std::io::Result<CommandStream> {
        let name = self.program.to_string_lossy().into_owned();
        let mut command = Command::new(&self.program);
        // A terminal's Ctrl-C is for us: the daemon is told through the program that the build ends.
        #[cfg(unix)]
        command.process_group(0);
        command
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let child = command.spawn().map_err(|e| {
            let text = match e.kind() {
                std::io::ErrorKind::NotFound => {
                    format!("there is no program `{name}` in PATH; install it, or start bk where it is")
                }
                _ => format!("cannot start `{name}`: {e}"),
            };
            Obstacle::Program.error(e.kind(), text)
        })?;
        CommandStream::new(child, name)
    }
}

impl fmt::Display for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

fn words<'a>(list: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
    list.iter().map(|word| (*word).to_owned())
}

type Read = Result<(&'static str, Vec<String>), String>;

/// `NAME[?KEY=VALUE&…]` with the keys that this kind of address knows.
fn container(
    program: &'static str,
    rest: &str,
    keys: &[&str],
    arguments: impl FnOnce(&str, &[(String, String)]) -> Vec<String>,
) -> Read {
    let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
    let name = name.strip_suffix('/').unwrap_or(name);
    // A pod can be named by what made it.
    let kinds = ["pod/", "deployment/", "statefulset/"];
    let bare = match program {
        "kubectl" => kinds.iter().find_map(|kind| name.strip_prefix(kind)),
        _ => None,
    };
    check("the name", bare.unwrap_or(name))?;
    let mut pairs = Vec::new();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if !keys.contains(&&*key) {
            return Err(format!("`{key}` is not known here"));
        }
        if pairs.iter().any(|(k, _)| *k == key) {
            return Err(format!("`{key}` stands there twice"));
        }
        if program == "docker" && !pairs.is_empty() {
            return Err("`context` and `host` exclude each other".to_owned());
        }
        match &*key {
            "kubeconfig" => check_path(&key, &value)?,
            _ => check(&key, &value)?,
        }
        pairs.push((key.into_owned(), value.into_owned()));
    }
    Ok((program, arguments(name, &pairs)))
}

/// A path, which stands behind its option and may have any character that is one.
fn check_path(what: &str, path: &str) -> Result<(), String> {
    match path {
        "" => Err(format!("{what} is empty")),
        path if path.contains(char::is_control) => Err(format!("{what} cannot be {path:?}")),
        _ => Ok(()),
    }
}

/// A name that can stand among arguments and means nothing but itself.
fn check(what: &str, name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@/+".contains(&b);
    if name.is_empty() {
        return Err(format!("{what} is empty"));
    }
    if name.starts_with('-')
        || !name.bytes().all(plain)
        || (what == "the name" && name.contains(['/', '@', ':', '+']))
    {
        return Err(format!("{what} cannot be `{name}`"));
    }
    Ok(())
}

/// `[USER@]HOST[:PORT][/SOCKET]`.
fn ssh(rest: &str, serves: Serves) -> Read {
    if rest.contains(['?', '#']) {
        return Err("nothing can follow a `?` or `#`".to_owned());
    }
    let (place, socket) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let socket = if socket == "/" { "" } else { socket };
    let (user, place) = match place.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, place),
    };
    if let Some(user) = user {
        if user.contains(':') {
            return Err("a password cannot be part of it; ssh asks an agent or its files".to_owned());
        }
        check("the user", user)?;
    }
    let (host, port) = host_port(place)?;
    check("the host", host)?;
    // The other side gives the words to a shell.
    if !socket
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
    {
        return Err("the path of the socket has a character that a shell would take for its own".to_owned());
    }
    let mut arguments = Vec::new();
    // A question for a password would go to a terminal, for each connection, and nobody waits for an answer.
    arguments.extend(words(&["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30"]));
    if let Some(user) = user {
        arguments.extend(words(&["-l", user]));
    }
    if let Some(port) = port {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    arguments.extend(words(&["--", host]));
    let (program, option, rest): (_, _, &[&str]) = match serves {
        Serves::Buildkit => ("buildctl", "--addr", &["dial-stdio"]),
        Serves::Docker => ("docker", "--host", &["system", "dial-stdio"]),
    };
    arguments.push(program.to_owned());
    if !socket.is_empty() {
        arguments.extend([option.to_owned(), format!("unix://{socket}")]);
    }
    arguments.extend(words(rest));
    Ok(("ssh", arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(address: &str, serves: Serves) -> String {
        let helper = Helper::parse(address, serves).expect("a program").expect(address);
        format!(
            "{} {}",
            helper.program.to_string_lossy(),
            helper.arguments.join(" ")
        )
    }

    #[test]
    fn addresses_are_commands() {
        for (address, command) in [
            ("docker-container://b0", "docker exec -i b0 buildctl dial-stdio"),
            (
                "docker-container://b0?context=far",
                "docker --context=far exec -i b0 buildctl dial-stdio",
            ),
            (
                "docker-container://b0?host=unix:///run/d.sock",
                "docker --host=unix:///run/d.sock exec -i b0 buildctl dial-stdio",
            ),
            (
                "kube-pod://deployment/b0?kubeconfig=/k/config&namespace=n",
                "kubectl --kubeconfig=/k/config --context= --namespace=n exec --container= -i deployment/b0 -- buildctl \
                 dial-stdio",
            ),
            (
                "docker-container://b0?context=a%2Bb",
                "docker --context=a+b exec -i b0 buildctl dial-stdio",
            ),
            (
                "kube-pod://b0?kubeconfig=C:%5Ck+%26%20c",
                "kubectl --kubeconfig=C:\\k & c --context= --namespace= exec --container= -i b0 -- buildctl dial-stdio",
            ),
            ("podman-container://b.0", "podman exec -i b.0 buildctl dial-stdio"),
            ("nerdctl-container://b", "nerdctl exec -i b buildctl dial-stdio"),
            (
                "nerdctl-container://b?namespace=k8s.io",
                "nerdctl exec --namespace k8s.io -i b buildctl dial-stdio",
            ),
            (
                "kube-pod://pod-1?context=c&namespace=n&container=k",
                "kubectl --context=c --namespace=n exec --container=k -i pod-1 -- buildctl dial-stdio",
            ),
            (
                "kube-pod://pod-1",
                "kubectl --context= --namespace= exec --container= -i pod-1 -- buildctl dial-stdio",
            ),
            (
                "ssh://h",
                "ssh -T -o BatchMode=yes -o ConnectTimeout=30 -- h buildctl dial-stdio",
            ),
            (
                "ssh://me@h.example:2222/run/b.sock",
                "ssh -T -o BatchMode=yes -o ConnectTimeout=30 -l me -p 2222 -- h.example buildctl --addr unix:///run/b.sock dial-stdio",
            ),
            (
                "ssh://[fe80::1]:22/",
                "ssh -T -o BatchMode=yes -o ConnectTimeout=30 -p 22 -- fe80::1 buildctl dial-stdio",
            ),
        ] {
            assert_eq!(line(address, Serves::Buildkit), command);
        }
        assert_eq!(
            line("ssh://me@h/run/d.sock", Serves::Docker),
            "ssh -T -o BatchMode=yes -o ConnectTimeout=30 -l me -- h docker --host unix:///run/d.sock system dial-stdio"
        );
        assert!(Helper::parse("tcp://h:1", Serves::Buildkit).is_none());
        assert!(Helper::parse("nothing", Serves::Buildkit).is_none());
    }

    #[test]
    fn nothing_becomes_an_option_or_a_word_of_a_shell() {
        for (address, why) in [
            ("docker-container://", "the name is empty"),
            ("docker-container://-v", "cannot be `-v`"),
            ("docker-container://a b", "cannot be `a b`"),
            ("docker-container://a?context=-x", "context cannot be `-x`"),
            (
                "docker-container://a?namespace=x",
                "`namespace` is not known here",
            ),
            ("docker-container://a?context=x&context=y", "twice"),
            ("docker-container://a?context=x&host=y", "exclude each other"),
            ("docker-container://deployment/a", "cannot be"),
            ("kube-pod://deployment/-a", "cannot be"),
            ("kube-pod://job/a", "cannot be"),
            ("kube-pod://a?kubeconfig=b%0Ac", "kubeconfig cannot be \"b\\nc\""),
            ("kube-pod://a?kubeconfig=", "kubeconfig is empty"),
            ("podman-container://a?context=x", "not known here"),
            ("kube-pod://a;b", "cannot be"),
            ("ssh://", "the host is empty"),
            ("ssh://-oProxyCommand=x", "the host cannot be"),
            ("ssh://me:secret@h", "a password cannot"),
            ("ssh://-l@h", "the user cannot be"),
            ("ssh://h:0", "port"),
            ("ssh://h:x", "port"),
            ("ssh://::1", "brackets"),
            ("ssh://h/a$(b)", "a shell"),
            ("ssh://h/a b", "a shell"),
            ("ssh://h?x=1", "`?`"),
        ] {
            let error = Helper::parse(address, Serves::Buildkit)
                .expect("a program")
                .expect_err(address);
            let text = error.to_string();
            assert!(text.contains(why) && text.contains(address), "{text}");
        }
    }
}
