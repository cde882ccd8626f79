//! Tuned numbers of the session server, each with its unit and reason.

use std::time::Duration;

/// Receive window of one stream, in bytes. The daemon sends us small packets on file transfers (requests) and file
/// contents on exports; 1 MiB is what the Go client grants and keeps an export's pipe full on a local link.
pub const STREAM_WINDOW: u32 = 1024 * 1024;

/// Receive window of the whole session connection, in bytes.
///
/// Two reasons for 64 MiB. A stream that is not read must not starve the health check of the others: the connection
/// window has to be much larger than any stream's. And h2 (since 0.4.16) closes connections with too many unread DATA
/// frames under 256 bytes, which is what the requests of a file transfer are: its budget is half of this window, so
/// about 131,000 such frames may wait. The file service reads them at once anyway; this is the second line.
pub const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

/// Largest header list accepted from the daemon, in bytes. Exclude patterns and followed paths travel as headers; the
/// Go client accepts 1 MiB, hyper's own default of 16 KiB breaks large ignore files. 16 MiB costs nothing until used.
pub const MAX_HEADER_LIST: u32 = 16 * 1024 * 1024;

/// Largest gRPC message accepted from the daemon, in bytes: daemons send up to 16 MiB since BuildKit 0.13, plus room
/// for the envelope.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024 + 64 * 1024;

/// Streams that the daemon may have open at once; the Go client's number.
pub const MAX_CONCURRENT_STREAMS: u32 = 250;

/// Bytes that hyper may hold unsent for one stream. Bounds memory when the daemon reads slowly, and still lets one
/// flush carry several chunks.
pub const MAX_SEND_BUFFER: usize = 512 * 1024;

/// Packets of one file transfer that wait for the connection. Together with the chunk size of the sender this bounds
/// what a slow reader costs.
pub const OUTBOUND_PACKETS: usize = 64;

/// Largest slice of the session's byte stream put into one tunnel message, in bytes. Old daemons accept 4 MiB
/// messages; 256 KiB carries several HTTP/2 frames a message and keeps the copy in the cache.
pub const TUNNEL_CHUNK: usize = 256 * 1024;

/// Tunnel messages that wait for the control connection.
pub const TUNNEL_QUEUE: usize = 4;

/// How long the end of a session waits for its tasks. They stop by themselves within one chunk of a file; the bound is
/// for a disk that blocks.
pub const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Largest Docker config file read, in bytes. Real ones are a few KiB; this bounds a mistaken path.
pub const MAX_CONFIG_FILE: u64 = 16 * 1024 * 1024;

/// How often a running transfer tells its counts.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Warnings about single files that one session tells; the counts in the report go on.
pub const MAX_WARNINGS: usize = 1000;
