//! Which proxy a connection takes. The settings come as data; `bk-client` reads the usual variables.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

/// Proxies, each `http://[user:password@]host[:port]`, and what needs none. The default is no proxy at all.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proxies {
    /// For `http://` addresses.
    pub http: Option<String>,
    /// For `https://` addresses.
    pub https: Option<String>,
    /// What is reached without: a comma list of `*`, hosts (which mean their subdomains too), `.domain`s, addresses and
    /// networks (`10.0.0.0/8`), each with `:port` or not. This machine itself never needs a proxy.
    pub none: String,
}

impl Proxies {
    /// No proxy.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the proxy for `http://` addresses; the default is none.
    #[must_use]
    pub fn http(mut self, proxy: impl Into<String>) -> Self {
        self.http = Some(proxy.into());
        self
    }

    /// Sets the proxy for `https://` addresses; the default is none.
    #[must_use]
    pub fn https(mut self, proxy: impl Into<String>) -> Self {
        self.https = Some(proxy.into());
        self
    }

    /// Sets what needs no proxy; the default is this machine only.
    #[must_use]
    pub fn none(mut self, list: impl Into<String>) -> Self {
        self.none = list.into();
        self
    }

    /// The proxy for a connection, if it takes one.
    pub(super) fn of(&self, tls: bool, host: &str, port: u16) -> Option<&str> {
        let proxy = if tls { &self.https } else { &self.http };
        let proxy = proxy.as_deref().filter(|p| !p.is_empty())?;
        let exempt = is_loopback(host)
            || self
                .none
                .split(',')
                .any(|entry| matches(entry.trim(), host, port));
        (!exempt).then_some(proxy)
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Their addresses may hold passwords.
        let shown = |proxy: &Option<String>| proxy.as_ref().map(|_| "***");
        f.debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("none", &self.none)
            .finish()
    }
}

/// Whether a host is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(|ip| ip.is_loopback())
}

fn address(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse().ok()
}

fn matches(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let (Some((network, bits)), Some(ip)) = (entry.split_once('/'), address(host)) {
        return contains(network, bits, ip);
    }
    // An IPv6 address without brackets has colons of its own.
    let (name, only) = match entry.rsplit_once(':') {
        Some((name, digits)) if address(entry).is_none() => (name, digits.parse::<u16>().ok()),
        _ => (entry, None),
    };
    if only.is_some_and(|only| only != port) || name.is_empty() {
        return false;
    }
    if let (Some(one), Some(other)) = (address(name), address(host)) {
        return one == other;
    }
    let (name, host) = (name.to_ascii_lowercase(), host.to_ascii_lowercase());
    match name.strip_prefix('.') {
        Some(_) => host.ends_with(&name),
        None => host == name || host.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.')),
    }
}

fn contains(network: &str, bits: &str, ip: IpAddr) -> bool {
    let (Some(network), Ok(bits)) = (address(network), bits.parse::<u32>()) else {
        return false;
    };
    let top = |value: u128, width: u32| value.checked_shr(width - bits).unwrap_or(0);
    let number = |ip: Ipv4Addr| u128::from(u32::from(ip));
    match (network, ip) {
        (IpAddr::V4(n), IpAddr::V4(ip)) if bits <= 32 => top(number(n), 32) == top(number(ip), 32),
        (IpAddr::V6(n), IpAddr::V6(ip)) if bits <= 128 => top(u128::from(n), 128) == top(u128::from(ip), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemptions_mean_what_they_mean_elsewhere() {
        let of = |none: &str, host: &str, port| {
            let proxies = Proxies::new().https("http://p:1").none(none);
            proxies.of(true, host, port).is_some()
        };
        for (none, host) in [
            ("*", "a.example"),
            ("example.com", "example.com"),
            ("x, example.com", "Sub.Example.com"),
            (".example.com", "sub.example.com"),
            ("example.com:443", "example.com"),
            ("10.0.0.0/8", "10.1.2.3"),
            ("10.1.2.3", "10.1.2.3"),
            ("fd00::/8", "[fd12::1]"),
            ("fd12::1", "[fd12::1]"),
            ("", "localhost"),
            ("", "127.0.0.2"),
            ("", "[::1]"),
        ] {
            assert!(!of(none, host, 443), "{none} {host}");
        }
        for (none, host) in [
            ("", "example.com"),
            (".example.com", "example.com"),
            ("example.com", "notexample.com"),
            ("example.com:8443", "example.com"),
            ("10.0.0.0/8", "11.1.2.3"),
            ("10.0.0.0/33", "10.1.2.3"),
            ("127.0.0.1.example", "127.0.0.1.example.com"),
        ] {
            assert!(of(none, host, 443), "{none} {host}");
        }
        let proxies = Proxies::new().https("http://u:hunter2@p:1");
        assert_eq!(proxies.of(false, "example.com", 80), None);
        assert!(!format!("{proxies:?}").contains("hunter2"));
    }
}
