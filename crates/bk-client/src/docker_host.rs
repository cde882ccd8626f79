//! What `DOCKER_HOST` may be short for.
//!
//! The rule: the Docker CLI's defaults hold, and what it would not fill in stays as it is, for whoever reads addresses to
//! judge. An entry of the CLI's store of contexts is never short for anything there, nor here.

use bk_dial::host_port;

use crate::host::DOCKER_HOST_NAME;

/// The port of an engine when none is named, with TLS or without.
const PORT: u16 = 2375;
/// The addresses for schemes behind which nothing stands, on all systems alike.
const SOCKET: &str = "unix:///var/run/docker.sock";
const PIPE: &str = "npipe:////./pipe/docker_engine";

/// The address that a value of `DOCKER_HOST` means; `None` when there is nothing in it.
///
/// Without a scheme it is `tcp://`; what is missing of that is `localhost` and the port 2375. Nothing behind `unix://` or
/// `npipe://` is Docker's default socket or pipe, and the path of a socket may be relative to the current directory.
pub(crate) fn address(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    // The CLI takes a scheme twice for once.
    let rest = rest
        .strip_prefix(scheme)
        .and_then(|rest| rest.strip_prefix("://"))
        .unwrap_or(rest);
    let meant = match scheme {
        "tcp" => tcp(rest),
        "unix" if rest.is_empty() => Some(SOCKET.to_owned()),
        "npipe" if rest.is_empty() => Some(PIPE.to_owned()),
        "unix" => socket(rest),
        _ => None,
    };
    Some(meant.unwrap_or_else(|| text.to_owned()))
}

/// `[HOST][:[PORT]][/]`. Paths of sockets, of which somebody forgot the scheme, are no hosts.
fn tcp(rest: &str) -> Option<String> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '@', '?', '#']) || rest.contains(char::is_whitespace) {
        return None;
    }
    let (host, port) = host_port(rest.strip_suffix(':').unwrap_or(rest)).ok()?;
    let host = match host {
        "" => DOCKER_HOST_NAME.to_owned(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    Some(format!("tcp://{host}:{}", port.unwrap_or(PORT)))
}

/// A path, which may be relative.
fn socket(rest: &str) -> Option<String> {
    if bk_dial::is_unix(rest) {
        return Some(format!("unix://{rest}"));
    }
    if rest.contains("://") || rest.starts_with('@') {
        return None;
    }
    // A directory that has no name in UTF-8 cannot be part of an address.
    let path = std::path::absolute(rest).ok()?;
    Some(format!("unix://{}", path.to_str()?))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_the_docker_cli_fills_in_is_filled_in() {
        for (text, meant) in [
            ("host", "tcp://host:2375"),
            ("host:", "tcp://host:2375"),
            ("host:4243", "tcp://host:4243"),
            (" 10.0.0.1:4243\n", "tcp://10.0.0.1:4243"),
            (":4243", "tcp://localhost:4243"),
            ("host:4243/", "tcp://host:4243"),
            ("[::1]", "tcp://[::1]:2375"),
            ("[::1]:", "tcp://[::1]:2375"),
            ("[::1]:4243", "tcp://[::1]:4243"),
            ("tcp://", "tcp://localhost:2375"),
            ("tcp://:2376", "tcp://localhost:2376"),
            ("tcp://host", "tcp://host:2375"),
            ("tcp://host:", "tcp://host:2375"),
            ("tcp://tcp://host", "tcp://host:2375"),
            ("unix://", "unix:///var/run/docker.sock"),
            ("unix:///run/d.sock", "unix:///run/d.sock"),
            ("unix://unix:///run/d.sock", "unix:///run/d.sock"),
            ("npipe://", "npipe:////./pipe/docker_engine"),
            ("npipe:////./pipe/other", "npipe:////./pipe/other"),
            ("ssh://me@host", "ssh://me@host"),
        ] {
            assert_eq!(address(text).as_deref(), Some(meant), "{text:?}");
        }
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(
            address("unix://run/d.sock"),
            Some(format!("unix://{}", here.join("run/d.sock").display()))
        );
        assert_eq!((address(""), address(" \t")), (None, None));
    }

    #[test]
    fn what_it_would_not_fill_in_stays_as_it_is() {
        for text in [
            "/var/run/docker.sock",
            "host:port",
            "tcp:a.b.c.d",
            "host:1234567890",
            "::1",
            "[::1",
            "me@host",
            "two words",
            "tcp://host/path",
            "tcp://unix:///d.sock",
            "unix://tcp://h",
            "udp://host:1",
            "://",
            "http://host",
            "fd://",
        ] {
            assert_eq!(address(text).as_deref(), Some(text));
        }
    }
}
