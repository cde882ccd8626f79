//! Tuned numbers of the control connection, each with its unit and reason.

use std::time::Duration;

/// Receive window of one stream of the control connection, in bytes. Status messages and the session tunnel arrive
/// here; a consumer of events that stalls can hold this much of Status and no more.
pub const STREAM_WINDOW: u32 = 2 * 1024 * 1024;

/// Receive window of the whole control connection, in bytes. Much larger than one stream's, so that a stalled Status
/// never starves the session tunnel beside it; and h2's guard against unread small frames allows half of it (about
/// 131,000 frames), more small messages than one stream's window holds.
pub const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

/// Largest header or trailer list accepted from the daemon, in bytes. Error trailers carry whole Dockerfiles.
pub const MAX_HEADER_LIST: u32 = 16 * 1024 * 1024;

/// Largest gRPC message accepted from the daemon, in bytes; daemons send up to 16 MiB.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024 + 64 * 1024;

/// Bytes that hyper may hold unsent for one stream; the session tunnel is one.
pub const MAX_SEND_BUFFER: usize = 1024 * 1024;

/// How long connecting may take, and then again the first answer, unless a [`Dialer`](crate::Dialer) says otherwise. Builds
/// themselves have no deadline.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a failed Solve waits to learn whether the session ended by itself: both news travel on the same machine's
/// sockets and arrive within a few milliseconds of each other.
pub const SESSION_END_GRACE: Duration = Duration::from_millis(100);

/// How long Status may stay silent after Solve has returned; upstream's number since BuildKit 0.27. Re-armed by every
/// message.
pub const STATUS_INACTIVITY: Duration = Duration::from_secs(5);

/// The same, as long as Status has said nothing at all: Solve failed before it made a job. A job's first message comes
/// within milliseconds.
pub const STATUS_NEVER_SEEN: Duration = Duration::from_secs(1);

/// How long a session connection may go on after Solve has failed for a lost session before it is given up, and how
/// long closing waits for tasks.
pub const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Log bytes kept for the error message of a step that may fail, per running step.
pub const LOG_TAIL_BYTES: usize = 16 * 1024;

/// How often the daemon is asked whether a build has begun whose frontend is to be asked. It waits up to three seconds
/// each time before it says no.
pub const JOB_ATTEMPTS: u32 = 5;

/// How long the daemon may take to tell what it knows of a build that has succeeded: for its provenance, and again for
/// its images. The answers are in its store already.
pub const INSPECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest provenance document that is read, in bytes. With `mode=max` it holds the steps, and the Dockerfile.
pub const MAX_PROVENANCE: usize = 16 * 1024 * 1024;

/// Largest index or manifest that is read, in bytes: what registries take.
pub const MAX_DOCUMENT: usize = 4 * 1024 * 1024;

/// Events of the daemon's history that are looked at for one build; a daemon sends one or two.
pub const MAX_HISTORY_EVENTS: usize = 64;

/// Images of an index that are looked into, each with a call. Official images have about ten.
pub const MAX_PLATFORM_IMAGES: usize = 64;

/// How long the reason of a connection's end is waited for, once the end is seen.
pub const END_REASON: Duration = Duration::from_millis(500);

/// How long a session that has ended by itself leaves Solve to say more: its answer is on the way when the daemon has ended
/// the build, and never comes when only the session was lost.
pub const SESSION_LOST_GRACE: Duration = Duration::from_secs(1);

/// How long a connection on which silence has lasted too long has to be read once more before it counts.
pub const STALL_LAST_LOOK: Duration = Duration::from_millis(200);

/// How often the watch over silence looks whether its own process runs.
pub const STALL_LOOK: Duration = Duration::from_secs(1);

/// How late it must be, at least, to take it that its process stood still: more than a busy machine makes it wait.
pub const STALL_LATE: Duration = Duration::from_secs(1);

/// How long to wait before a daemon that was lost is called again.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// How long a daemon that was lost may take to come back: service managers restart one within a few seconds.
pub const RECONNECT_WINDOW: Duration = Duration::from_secs(15);

/// Bytes of names and keys of steps that are remembered of one build; real ones have a few hundred KiB. What a daemon tells of
/// further steps is passed on, and forgotten.
pub const MAX_STEPS_HELD: usize = 64 * 1024 * 1024;

/// How long Status may go on in all after Solve has returned, however much it tells: what a build wrote last was told within
/// seconds.
pub const STATUS_AFTER_SOLVE: Duration = Duration::from_secs(30);

/// Running steps that are told as cancelled when their daemon was lost. A daemon runs a few at a time.
pub const MAX_CUT_OFF: usize = 1000;

/// How long the daemon may take for an answer that it has at hand: workers, versions, records of its history.
pub const ADMIN_ANSWER: Duration = Duration::from_secs(30);

/// How long it may take for one that costs it work: it measures its whole cache for a list of it, and removes large
/// directories between two records of a removal.
pub const ADMIN_WORK: Duration = Duration::from_secs(600);

/// Largest list of a cache that is accepted, in bytes: about a quarter of a million records.
pub const MAX_DISK_USAGE: usize = 64 * 1024 * 1024;

/// Builds of a history that are taken in. Daemons keep fifty unless they are told otherwise.
pub const MAX_HISTORY_RECORDS: usize = 100_000;

/// Bytes of such records, as they are sent. One has about eight KiB, most of it what the exporters answered.
pub const MAX_HISTORY_BYTES: usize = 256 * 1024 * 1024;

/// Bytes of a blob that are compressed between two looks at other tasks: about two milliseconds of work.
pub const EXPORT_STEP: usize = 64 * 1024;

/// Largest span of a trace that is exported, in bytes: each is held whole. A large one has a Dockerfile in it.
pub const MAX_SPAN: usize = 4 * 1024 * 1024;
