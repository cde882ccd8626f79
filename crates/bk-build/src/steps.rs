//! What `RUN` steps see of the machine they run on: hosts, network, limits.
//!
//! The rule: what is written as text is checked when it is parsed, so that a wrong value names itself before a daemon is
//! asked. The grammars are those of `docker build`.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::{BuildRequest, InputError};

/// What `RUN` steps see. Every default is the daemon's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepOptions {
    /// Lines for `/etc/hosts`. Default: none.
    pub add_hosts: Vec<ExtraHost>,
    /// The network. Default: [`Network::Default`].
    pub network: Network,
    /// Bytes of `/dev/shm`. Default: 64 MiB, as the daemon sets it.
    pub shm_size: Option<u64>,
    /// Resource limits of processes. Default: those of the daemon.
    pub ulimits: Vec<Ulimit>,
    /// The control group under which steps run. Default: the daemon's own.
    pub cgroup_parent: Option<String>,
    /// Bytes of memory that a step may use. Default: no limit.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1 is unlimited. Default: no limit.
    pub memory_swap: Option<i64>,
    /// The share of processor time, relative to 1024. Default: the kernel's.
    pub cpu_shares: Option<u64>,
    /// The period of the processor limit, in microseconds. Default: the kernel's.
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in a period. Default: no limit.
    pub cpu_quota: Option<i64>,
    /// The processors that may be used, for instance `0-2,4`. Default: all.
    pub cpuset_cpus: Option<String>,
    /// The memory nodes that may be used. Default: all.
    pub cpuset_mems: Option<String>,
}

impl StepOptions {
    /// Whether the processor or the memory is limited.
    pub fn limits_resources(&self) -> bool {
        self.memory.is_some()
            || self.memory_swap.is_some()
            || self.cpu_shares.is_some()
            || self.cpu_period.is_some()
            || self.cpu_quota.is_some()
            || self.cpuset_cpus.is_some()
            || self.cpuset_mems.is_some()
    }
}

/// Which network steps have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Network {
    /// What the daemon gives them.
    #[default]
    Default,
    /// None but the loopback device.
    None,
    /// The daemon's own. Asks for the entitlement `network.host` by itself.
    Host,
}

impl FromStr for Network {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        match text {
            "" | "default" => Ok(Self::Default),
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            _ => Err(InputError::new(
                "--network",
                format!("BuildKit has no network `{text}`"),
                "default, none or host; other networks are set up with the daemon",
            )),
        }
    }
}

/// A line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Where it leads.
    pub address: HostAddress,
}

/// Where a host name leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAddress {
    /// An address.
    Ip(IpAddr),
    /// The machine that Docker Engine runs on (`host-gateway`). A standalone buildkitd knows none.
    Gateway,
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Gateway => f.write_str("host-gateway"),
        }
    }
}

impl FromStr for ExtraHost {
    type Err = InputError;

    /// Reads `NAME=ADDRESS` or `NAME:ADDRESS`; an IPv6 address may stand in brackets.
    fn from_str(text: &str) -> Result<Self, InputError> {
        let bad = |why: &str| {
            InputError::new(
                "--add-host",
                format!("`{text}`: {why}"),
                "NAME:IP, NAME=IP or NAME:host-gateway",
            )
        };
        let (name, address) = text
            .split_once('=')
            .or_else(|| text.split_once(':'))
            .ok_or_else(|| bad("there is no address"))?;
        if name.is_empty() || name.contains([',', '"', '=', ' ', '\n']) {
            return Err(bad("this is no host name"));
        }
        if address == "host-gateway" {
            return Ok(Self {
                name: name.to_owned(),
                address: HostAddress::Gateway,
            });
        }
        let bare = address
            .strip_prefix('[')
            .and_then(|a| a.strip_suffix(']'))
            .unwrap_or(address);
        let ip = bare.parse().map_err(|_| bad("this is no IP address"))?;
        Ok(Self {
            name: name.to_owned(),
            address: HostAddress::Ip(ip),
        })
    }
}

/// A resource limit of processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// Its name, for instance `nofile`.
    pub name: String,
    /// The limit; -1 is none.
    pub soft: i64,
    /// Up to where a process may raise it; -1 is none.
    pub hard: i64,
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.name, self.soft, self.hard)
    }
}

/// The names that Linux knows and Docker takes.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

impl FromStr for Ulimit {
    type Err = InputError;

    /// Reads `NAME=SOFT[:HARD]`; one number is both.
    fn from_str(text: &str) -> Result<Self, InputError> {
        let bad = |why: &str| InputError::new("--ulimit", format!("`{text}`: {why}"), "NAME=SOFT[:HARD]");
        let (name, limits) = text.split_once('=').ok_or_else(|| bad("there is no limit"))?;
        if !ULIMITS.contains(&name) {
            return Err(InputError::new(
                "--ulimit",
                format!("`{text}`: there is no limit of that name"),
                format!("one of {}", ULIMITS.join(", ")),
            ));
        }
        let number = |part: &str| part.parse::<i64>().map_err(|_| bad("this is no whole number"));
        let (soft, hard) = match limits.split_once(':') {
            Some((soft, hard)) => (number(soft)?, number(hard)?),
            None => (number(limits)?, number(limits)?),
        };
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(bad("the first number is beyond the second"));
        }
        Ok(Self {
            name: name.to_owned(),
            soft,
            hard,
        })
    }
}

impl BuildRequest {
    /// Adds a line to the `/etc/hosts` that steps see; the default is none.
    #[must_use]
    pub fn add_host(mut self, name: impl Into<String>, address: HostAddress) -> Self {
        let name = name.into();
        self.steps.add_hosts.push(ExtraHost { name, address });
        self
    }

    /// Sets which network steps have; the default is the daemon's.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.steps.network = network;
        self
    }

    /// Sets the bytes of `/dev/shm`; the default is the daemon's, 64 MiB.
    #[must_use]
    pub fn shm_size(mut self, bytes: u64) -> Self {
        self.steps.shm_size = Some(bytes);
        self
    }

    /// Adds a resource limit of processes; the default is the daemon's.
    #[must_use]
    pub fn ulimit(mut self, limit: Ulimit) -> Self {
        self.steps.ulimits.push(limit);
        self
    }
}

/// Reads an amount of memory in bytes: a number, with a decimal fraction or not, and a unit (`b`, `k`, `m`, `g`, `t`,
/// `p`, also as `kb` or `KiB`), each a power of 1024. `flag` is named in errors.
///
/// # Errors
/// An [`InputError`] when it is no such amount.
pub fn parse_bytes(flag: &str, text: &str) -> Result<u64, InputError> {
    let bad = || {
        InputError::new(
            flag,
            format!("`{text}` is not an amount of memory"),
            "bytes, or a number with a unit, for instance 64m or 1g",
        )
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        _ => {
            let (letter, rest) = unit.split_at(unit.char_indices().nth(1).map_or(unit.len(), |(i, _)| i));
            if !matches!(rest, "" | "b" | "ib") {
                return Err(bad());
            }
            "kmgtp"
                .find(letter)
                .and_then(|i| u32::try_from(i + 1).ok())
                .ok_or_else(bad)?
        }
    };
    let factor = 1u64 << (10 * power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(bad);
    }
    let parts = number.split_once('.').ok_or_else(bad)?;
    if parts.0.is_empty() || parts.1.is_empty() {
        return Err(bad());
    }
    let fraction: f64 = number.parse().map_err(|_| bad())?;
    #[expect(clippy::cast_precision_loss, reason = "a power of two is exact")]
    let bytes = fraction * factor as f64;
    // Up to here every whole number has a value of its own.
    if !(0.0..9_007_199_254_740_992.0).contains(&bytes) {
        return Err(bad());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was checked"
    )]
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_docker_does() {
        for (text, name, address) in [
            ("a:1.2.3.4", "a", "1.2.3.4"),
            ("a=1.2.3.4", "a", "1.2.3.4"),
            ("a.b:::1", "a.b", "::1"),
            ("a=[::1]", "a", "::1"),
            ("a:[fe80::2]", "a", "fe80::2"),
            ("a:host-gateway", "a", "host-gateway"),
        ] {
            let host: ExtraHost = text.parse().expect(text);
            assert_eq!(
                (host.name.as_str(), host.address.to_string().as_str()),
                (name, address)
            );
        }
        for bad in ["", "a", "a:", ":1.2.3.4", "a:b", "a,b:1.2.3.4", "a=1.2.3"] {
            let e = bad.parse::<ExtraHost>().expect_err(bad);
            assert_eq!(e.what, "--add-host");
        }
    }

    #[test]
    fn ulimits_are_read_as_docker_does() {
        for (text, said) in [
            ("nofile=5", "nofile=5:5"),
            ("nofile=5:7", "nofile=5:7"),
            ("core=-1", "core=-1:-1"),
            ("core=0:-1", "core=0:-1"),
        ] {
            assert_eq!(text.parse::<Ulimit>().expect(text).to_string(), said);
        }
        for bad in [
            "",
            "nofile",
            "files=1",
            "nofile=7:5",
            "nofile=-1:5",
            "nofile=x",
            "nofile=1:",
            "nofile=1:2:3",
        ] {
            assert_eq!(bad.parse::<Ulimit>().expect_err(bad).what, "--ulimit");
        }
    }

    #[test]
    fn amounts_of_memory_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("67108864", 67_108_864),
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1 g", 1 << 30),
            ("0.5g", 512 << 20),
            ("3b", 3),
            ("2t", 2 << 40),
        ] {
            assert_eq!(parse_bytes("--shm-size", text).expect(text), bytes, "{text}");
        }
        for bad in [
            "",
            "m",
            "-1",
            "1x",
            "1mm",
            "1 000",
            "1.",
            ".5m",
            "1.2.3k",
            "99999999p",
            "1é",
            "1mié",
        ] {
            assert!(parse_bytes("--shm-size", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks() {
        assert_eq!("host".parse(), Ok(Network::Host));
        assert_eq!("none".parse(), Ok(Network::None));
        assert_eq!("default".parse(), Ok(Network::Default));
        assert!("bridge".parse::<Network>().is_err());
    }
}
