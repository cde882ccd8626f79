//! `HOST[:PORT]`, as it stands in addresses.

use std::net::Ipv6Addr;

/// The host, without the brackets of an IPv6 address, and the port if there is one. Either may be empty or odd but for what
/// is said here: see [`is_host`].
///
/// # Errors
/// Why it is neither, in words: brackets that are not closed or hold no IPv6 address, an IPv6 address without them, a port
/// that is none.
pub fn host_port(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest
                .split_once(']')
                .ok_or("the bracket of the address is not closed")?;
            if without_zone(host).parse::<Ipv6Addr>().is_err() {
                return Err("what is in the brackets is no IPv6 address");
            }
            match behind.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if behind.is_empty() => (host, None),
                None => return Err("only a port may follow the bracket"),
            }
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("an IPv6 address needs brackets"),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let number = |port: &str| {
        // A sign is no part of a port.
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        port.parse().ok().filter(|port: &u16| digits && *port != 0)
    };
    let port = match port {
        Some(port) => Some(number(port).ok_or("the port must be a number from 1 to 65535")?),
        None => None,
    };
    Ok((host, port))
}

/// Whether it can be a host: a name or an address, with nothing in it that means something else around it.
pub fn is_host(host: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:%".contains(&b);
    !host.is_empty() && host.bytes().all(plain)
}

/// An IPv6 address without the link that it is on, as `%eth0` behind it says: that is this machine's business.
pub(crate) fn without_zone(host: &str) -> &str {
    host.split_once('%').map_or(host, |(address, _)| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (text, host, port) in [
            ("h", "h", None),
            ("h:1", "h", Some(1)),
            ("10.0.0.1:65535", "10.0.0.1", Some(65535)),
            ("[::1]:1234", "::1", Some(1234)),
            ("[::1]", "::1", None),
            ("[fe80::1%eth0]:1", "fe80::1%eth0", Some(1)),
            ("", "", None),
            (":1", "", Some(1)),
        ] {
            assert_eq!(host_port(text), Ok((host, port)), "{text}");
        }
        for (text, why) in [
            ("[::1", "not closed"),
            ("[::1]x", "only a port"),
            ("[h]:1", "no IPv6 address"),
            ("[]", "no IPv6 address"),
            ("::1", "needs brackets"),
            ("::1:1234", "needs brackets"),
            ("h:", "from 1 to 65535"),
            ("h:0", "from 1 to 65535"),
            ("h:65536", "from 1 to 65535"),
            ("h:+1", "from 1 to 65535"),
            ("h:x", "from 1 to 65535"),
        ] {
            let error = host_port(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        for bad in ["", "a b", "a@b", "a/b", "a\r\nb", "ä"] {
            assert!(!is_host(bad), "{bad}");
        }
        assert!(is_host("build-1.example") && is_host("fe80::1%eth0"));
    }
}
