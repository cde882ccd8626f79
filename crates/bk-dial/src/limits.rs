//! Every number of this crate.

use std::time::Duration;

/// The end of what a program wrote to its standard error, which is kept for the error.
pub const STDERR_TAIL: usize = 4 << 10;

/// How long a program that carries bytes may take until there is a connection, and then again until the first answer. It may
/// log in on another machine first; `ssh` itself gives up after 30 seconds and says why, which is the better error.
pub const HELPER_TIMEOUT: Duration = Duration::from_secs(40);

/// How long a program that has closed its output may take to end and say why.
pub const FAREWELL: Duration = Duration::from_secs(3);

/// How long the standard error of a program that has ended is still read: something that it started may hold it open.
pub const STDERR_GRACE: Duration = Duration::from_millis(200);

/// Files of certificates and keys that are larger are refused; the certificates of all authorities that people trust are a
/// few hundred KiB.
pub const MAX_PEM: u64 = 4 << 20;

/// Idle time on a TCP connection after which the system probes the peer. What Docker's own client uses.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// How far apart the probes are.
pub const TCP_PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// How many probes go unanswered before the connection is dead: with the others 90 s after the peer has vanished.
pub const TCP_PROBES: u32 = 6;

/// How long sent bytes may stay unconfirmed by the peer's system before the connection is dead. Probes are sent into silence
/// only; this bounds the other case, in which Linux alone would wait a quarter of an hour.
pub const TCP_UNCONFIRMED: Duration = Duration::from_secs(90);

/// How long an address of a host may be silent before the next one is tried beside it. RFC 8305 recommends a quarter of a
/// second.
pub const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// The longest path of a socket, in bytes: the kernel's field has one more, for the zero behind it.
pub const SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// How long to wait before a named pipe that is busy is tried again.
#[cfg(windows)]
pub const PIPE_AGAIN: Duration = Duration::from_millis(50);
