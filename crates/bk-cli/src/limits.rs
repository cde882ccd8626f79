//! Tuned numbers of the program, each with its unit and reason.

use std::time::Duration;

/// The longest Dockerfile, in bytes, that is taken from standard input. It is held in memory and sent as one file; the
/// daemon's own limit for a Dockerfile is far below.
pub(crate) const STDIN_DOCKERFILE_BYTES: u64 = 16 * 1024 * 1024;

/// How long a cancelled build may take to tell the daemon and to draw its last lines. All that is done on this machine takes
/// milliseconds; the daemon is told by the end of its connections, and nobody waits for its answer.
pub(crate) const CANCEL_GRACE: Duration = Duration::from_millis(1200);

/// How long the whole program may take to end after it was asked to: with [`SHUTDOWN_GRACE`] the two seconds within which a
/// cancelled program is gone, whatever the daemon does. More than [`CANCEL_GRACE`], so that a report can follow; it bounds the
/// case that nobody reads that report.
pub(crate) const EXIT_GRACE: Duration = Duration::from_millis(1800);

/// How long the runtime may take to end after everything is done: only a blocked terminal or disk could need it.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_millis(300);

/// Threads that run the session and the build: one for each would do; file reads have threads of their own.
pub(crate) const WORKER_THREADS: usize = 2;

/// How often `--on-change=retry` reads a file again. Three times over 150 ms, enough for an editor or compiler to finish
/// a small file.
pub(crate) const CHANGE_RETRIES: u32 = 3;
/// Files that `--explain` names for each step; `bk ctx diff` lists all.
pub(crate) const EXPLAINED_FILES: usize = 10;

/// The longest source policy, in bytes: thousands of rules.
pub(crate) const SOURCE_POLICY_BYTES: u64 = 512 * 1024;

/// The longest file of settings, in bytes: some thousand lines.
pub(crate) const SETTINGS_BYTES: u64 = 256 * 1024;

/// Bytes of standard input that are looked at to tell an archive from a Dockerfile; daemons look at as many.
pub(crate) const STDIN_FIRST_BYTES: u64 = 1024;

/// Bytes of an archive that are gathered before they are written.
pub(crate) const ARCHIVE_BUFFER: usize = 256 * 1024;

/// Warnings of the daemon that the metadata file holds at most; a Dockerfile's rules find a few dozen.
pub(crate) const METADATA_WARNINGS: usize = 1000;

/// Bytes of the index of a layout that are read: that of one build has an entry for each name of the image.
pub(crate) const LAYOUT_INDEX_BYTES: u64 = 4 * 1024 * 1024;

/// Connections that `bk proxy` carries at the same time. A build has one or two; those beyond wait to be accepted.
pub(crate) const PROXY_CONNECTIONS: usize = 64;

/// How long connections may go on when `bk proxy` is asked to end: less than [`EXIT_GRACE`], so that it ends well.
pub(crate) const PROXY_FAREWELL: Duration = Duration::from_millis(1000);

/// How long `bk proxy` waits after the system could not accept a connection, usually because descriptors ran out: until some
/// are closed, asking again is of no use.
pub(crate) const PROXY_REST: Duration = Duration::from_millis(200);

/// How long a collector may take to answer: what is near answers within milliseconds, and somebody waits for the run's end.
#[cfg(feature = "otel")]
pub(crate) const COLLECTOR_ANSWER: Duration = Duration::from_secs(2);

/// How long the spans of a run may take to be exported when it is over: one answer and a little.
#[cfg(feature = "otel")]
pub(crate) const TRACES_GRACE: Duration = Duration::from_secs(3);

/// Bytes of a collector's answer that are read: it says at most which spans it did not take.
#[cfg(feature = "otel")]
pub(crate) const MAX_COLLECTOR_ANSWER: usize = 64 * 1024;
