//! Tuned numbers of the contract, each with its unit and reason.

use std::time::Duration;

/// Events that wait in a channel made by [`EventSink::channel`](crate::EventSink::channel) when the caller has
/// no opinion. A status message of a daemon folds into a few dozen events at most; 256 lets the reader run ahead
/// of a terminal without holding more than a few hundred KiB of log bytes.
pub const EVENT_CHANNEL_CAPACITY: usize = 256;

/// Bytes of patterns and paths that the details of a transfer keep of what the daemon asked for, with what their strings
/// take: room for a thousand patterns or more.
pub const MAX_ASKED: usize = 64 * 1024;

/// Last log lines of a failed step that an error carries: what `docker buildx` prints in plain mode.
pub const LOG_TAIL_LINES: usize = 10;

/// Bytes kept of one line in a log tail. Longer lines (minified output, progress bars without newlines) are cut so
/// that an error stays printable; the whole line has already gone out as log events.
pub const LOG_TAIL_LINE_BYTES: usize = 4096;

/// Largest secret that is passed to a daemon, in bytes: what Go's client allows, so that no build works with one of
/// them only.
pub const MAX_SECRET_BYTES: usize = 500 * 1024;

/// How long nothing at all may come from a daemon before a build gives up. A daemon that lives answers a ping at once, also
/// one whose machine is busy; two minutes let a machine be moved, a link come back and a slow link drain what it holds.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// How many builds of a set run at the same time unless the program says otherwise. The daemon shares its own processors
/// among them.
pub const SET_BUILDS: usize = 4;

/// Headers that a program may add to the calls of a build: more than any proxy looks at.
pub const MAX_HEADERS: usize = 32;

/// Bytes of one such header's value: what servers commonly take for all headers of a request together.
pub const MAX_HEADER_VALUE: usize = 8 * 1024;

/// Bytes of a `tracestate` that are passed on: what the W3C recommendation asks everybody to pass on at least.
pub const MAX_TRACE_STATE: usize = 512;

/// Entries of a `tracestate`: the recommendation's own limit.
pub const MAX_TRACE_ENTRIES: usize = 32;

/// Largest blob of a daemon's history that is read, in bytes. Traces of builds with thousands of steps take a few MiB, and
/// they are held in memory until their digest is known to be right.
pub const MAX_HISTORY_BLOB: usize = 64 * 1024 * 1024;
