//! Tuned numbers of the test support, each with its unit and reason.

use std::time::Duration;

/// Bytes hashed or copied at a time. Large enough that a 512 MiB file costs a few thousand system calls.
pub const CHUNK: usize = 256 * 1024;

/// Files in one directory of a fixture of many files. Real trees rarely hold more; a directory of 50,000 would test
/// the file system.
pub const FILES_PER_DIR: usize = 500;

/// Differences that a report lists before it only counts.
pub const DIFFERENCES_SHOWN: usize = 25;

/// How long the fake daemon waits for a session to be attached: what BuildKit's own callers wait.
pub const SESSION_WAIT: Duration = Duration::from_secs(5);

/// How long `Status` waits in the fake daemon for its build to begin, as BuildKit does.
pub const STATUS_WAIT: Duration = Duration::from_secs(6);

/// Bytes that must be free in memory for trees to be made there: two of the biggest at once, and as much again.
pub const ROOM: u64 = 4 << 30;

/// Age at which the time of a file's last change stands for one version of it: more than the 20 ms that the client takes
/// for a tick of any file system's clock.
pub const SETTLED: Duration = Duration::from_millis(30);
