//! Tuned numbers of the Docker backend, each with its unit and reason.

use std::time::Duration;

/// How long each step of reaching an engine may take: connecting, an upgrade, the answer to a ping. Builds themselves
/// have no deadline. The same number as for the control connection.
pub const CONNECT_TIMEOUT: Duration = bk_solve::limits::CONNECT_TIMEOUT;

/// Bytes read of an answer that is only an error message. Docker's are a few hundred bytes.
pub const MAX_ERROR_BODY: usize = 64 * 1024;

/// Largest record of a `/build` answer, in bytes. A record carries one Status message in base64; messages are at most
/// 16 MiB, so 4/3 of that and room for the envelope.
pub const MAX_RECORD: usize = 24 * 1024 * 1024;

/// Bytes of a context that are gathered into one piece of the request's body. Large enough that the cost of a piece
/// (a channel hop, a chunk header, a write) is small beside copying it.
pub const UPLOAD_CHUNK: usize = 128 * 1024;

/// Pieces of a context that wait for the connection. Times [`UPLOAD_CHUNK`] this is what a slow daemon can pin.
pub const UPLOAD_AHEAD: usize = 8;

/// Warnings and readings of an upload that wait for the listener.
pub const UPLOAD_EVENTS: usize = 64;

/// Bytes of a context between two progress readings of its upload.
pub const UPLOAD_READING: u64 = 1024 * 1024;

/// Largest line of an answer about an image, in bytes, and largest answer of one piece. Real ones are a few hundred bytes,
/// an engine's description of itself a few tens of KiB.
pub const MAX_LINE: usize = 4 * 1024 * 1024;

/// How long the end of a call waits for its connection's task.
pub const CLOSE_GRACE: Duration = bk_solve::limits::CLOSE_GRACE;

/// How long an engine may take to list its build cache or to remove from it: it measures, or deletes, whole directories.
/// The same number as over gRPC.
pub const ADMIN_WORK: Duration = bk_solve::limits::ADMIN_WORK;

/// How long it may take to say what it is. The same number as over gRPC.
pub const ADMIN_ANSWER: Duration = bk_solve::limits::ADMIN_ANSWER;

/// Largest list of a build cache that is accepted, in bytes: over a hundred thousand records.
pub const MAX_CACHE_LIST: usize = 64 * 1024 * 1024;
