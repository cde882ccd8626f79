//! Every number of this crate.

use std::time::Duration;

/// How long the daemon stays when nobody uses it, unless somebody says otherwise: a pause between two edits.
pub const IDLE: Duration = Duration::from_secs(600);

/// The longest time that a daemon may be told to stay unused: a day.
pub const MAX_IDLE: Duration = Duration::from_secs(24 * 3600);

/// How long a daemon may take until it answers; it does within seconds, but a first start on a slow disk is slower.
pub const START_DEADLINE: Duration = Duration::from_secs(90);

/// How long a daemon may take to end by itself before it is killed. A dockerd is told to give containers less.
pub const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// The same for what a crashed daemon left behind: nobody waits for it to finish anything.
pub const ORPHAN_DEADLINE: Duration = Duration::from_secs(5);

/// How long the kernel may take to end a killed process that is busy in it.
pub const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How long a keeper waits for the lock of another one that is ending: that one may have to wait for its daemon and for
/// what the daemon left.
pub const LOCK_DEADLINE: Duration = Duration::from_secs(45);

/// How long a client waits for a lease in all: for one keeper that ends and another that starts.
pub const LEASE_DEADLINE: Duration = Duration::from_secs(150);

/// How long a keeper may take to answer what it can answer at once.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// How often a client asks again when the keeper that it spoke to was just ending.
pub const ROUNDS: u32 = 5;

/// Between two looks at something that cannot be waited for.
pub const POLL: Duration = Duration::from_millis(50);

/// How long one question to a starting daemon may take before it is asked again.
pub const QUESTION: Duration = Duration::from_secs(5);

/// Lines of the daemon's log that an error shows.
pub const LOG_LINES: usize = 12;

/// Bytes at the end of the daemon's log that are looked at for these lines.
pub const LOG_TAIL: u64 = 16 << 10;

/// The longest line on the keeper's socket, in bytes. An answer holds the lines of a log.
pub const MESSAGE: u64 = 64 << 10;

/// Connections that a keeper has at once; more wait until one ends.
pub const CONNECTIONS: usize = 512;

/// The longest path of the directory of sockets, in bytes. A socket's path has at most 107, and dockerd appends up to 40.
pub const RUN_PATH: usize = 62;
