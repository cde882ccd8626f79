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

/// Bytes of frames that collect before they are written, unless the connection rests earlier. A Unix socket takes about
/// as much at a time.
pub const WRITE_BUFFER: usize = 128 * 1024;

/// Bytes of small packets that become one piece of a response.
pub const BODY_PIECE: usize = 32 * 1024;

/// Bytes of content up to which a packet is copied beside others. Larger contents become pieces of their own, whose
/// cost is that of copying about as much.
pub const COPIED_DATA: usize = 16 * 1024;

/// Packets of one file transfer that wait for the connection. Together with the chunk size of the sender this bounds
/// what a slow reader costs.
pub const OUTBOUND_PACKETS: usize = 64;

/// Largest slice of the session's byte stream put into one tunnel message, in bytes. Old daemons accept 4 MiB
/// messages; 256 KiB carries several HTTP/2 frames a message and keeps the copy in the cache.
pub const TUNNEL_CHUNK: usize = 256 * 1024;

/// Tunnel messages that wait for the control connection.
pub const TUNNEL_QUEUE: usize = 4;

/// Silence on a connection after which it is asked whether the other side is there. Longer than the daemon's health checks
/// are apart (5 s; 1 s in old ones), so that a healthy session is never asked; short enough to keep routers from forgetting
/// the connection.
pub const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long the answer to a ping of a build may take at least: longer than connecting and the first answer, which have
/// deadlines of 10 s and say what did not come.
pub const PING_DEADLINE: Duration = Duration::from_secs(30);

/// How long the answer to a ping may take where silence has no bound: it is asked then only to keep the way open.
pub const PING_DEADLINE_UNWATCHED: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long the end of a session waits for its tasks. They stop by themselves within one chunk of a file; the bound is
/// for a disk that blocks.
pub const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Largest Docker config file read, in bytes. Real ones are a few KiB; this bounds a mistaken path.
pub const MAX_CONFIG_FILE: u64 = 16 * 1024 * 1024;

/// How often a running transfer tells its counts.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Transfers whose details one session keeps. A build needs a handful.
pub const MAX_TRANSFER_DETAILS: usize = 64;

/// Warnings about single files that one session tells; the counts in the report go on.
pub const MAX_WARNINGS: usize = 1000;

/// How long a connection to the socket of an SSH agent may take. It is on this machine.
pub const AGENT_CONNECT: Duration = Duration::from_secs(2);

/// Largest message of the SSH agent protocol, in bytes, in either direction: OpenSSH's own bound.
pub const MAX_AGENT_MESSAGE: usize = 256 * 1024;

/// Largest slice of an agent connection accepted in one gRPC message, in bytes. Daemons send 32 KiB.
pub const MAX_SSH_MESSAGE: usize = 1024 * 1024;

/// Bytes read at once from a raw socket; what daemons send themselves.
pub const AGENT_CHUNK: usize = 32 * 1024;

/// Largest private key file read, in bytes. Real ones are a few KiB.
pub const MAX_KEY_FILE: u64 = 100 * 1024;
/// How long a credential helper may take. Those of clouds need several seconds; the daemon waits 60 s in all.
pub const HELPER_DEADLINE: Duration = Duration::from_secs(30);

/// Largest answer of a credential helper, in bytes. Tokens are a few KiB.
pub const HELPER_OUTPUT: u64 = 1024 * 1024;

/// What is kept of a credential helper's standard error, in bytes: a few lines for an error message.
pub const HELPER_ERRORS: u64 = 4096;

/// Credential helpers that run at the same time; each host has at most one.
pub const HELPERS_AT_ONCE: usize = 8;

/// How long an answer of a credential helper is used again: long enough for the several questions of one pull, short
/// enough for tokens of minutes.
pub const HELPER_MEMORY: Duration = Duration::from_secs(60);

/// How long before its end a credential counts as ended: the daemon still has to use it.
pub const EXPIRY_MARGIN: Duration = Duration::from_secs(60);

/// Answers of credential helpers that are kept. A build knows a few hosts; a hostile daemon may ask for any number.
pub const HELPER_ANSWERS: usize = 64;

/// Longest registry host, realm, service or scope that a daemon may ask with, in bytes. Names in images have at most
/// 255; a scope adds its actions, a realm its path.
pub const MAX_AUTH_TEXT: usize = 4096;

/// Scopes of one token. A push names the repository and those from which layers are mounted.
pub const MAX_SCOPES: usize = 256;

/// Largest salt or payload of a token authority's proof, in bytes; daemons send 32.
pub const MAX_PROOF: usize = 1024;

/// Registries that one session keeps in mind; a build knows a few.
pub const MAX_REGISTRIES: usize = 256;

/// How long it may take to find out whether a registry's token server answers. The daemon waits 60 s for everything
/// about credentials; most of that is for credential helpers.
pub const REACH_DEADLINE: Duration = Duration::from_secs(8);

/// How long it is remembered where a registry's token server is.
pub const REACH_MEMORY: Duration = Duration::from_secs(300);

/// How long it is remembered that a registry or its token server did not answer: a link may come back.
pub const UNREACHABLE_MEMORY: Duration = Duration::from_secs(30);

/// How long one token may take.
pub const TOKEN_DEADLINE: Duration = Duration::from_secs(20);

/// How long one question to a registry about a manifest may take, tokens included.
pub const REGISTRY_DEADLINE: Duration = Duration::from_secs(60);

/// Largest answer of a registry or a token server, in bytes. Tokens are a few KiB.
pub const MAX_TOKEN_ANSWER: usize = 1024 * 1024;

/// Largest head of such an answer, in bytes.
pub const MAX_ANSWER_HEAD: usize = 64 * 1024;

/// Redirects that are followed, all within one host.
pub const MAX_REDIRECTS: usize = 3;

/// Files that are looked at in a directory of certificates for one host.
pub const MAX_CERTIFICATES: usize = 100;

/// Largest file of certificates, in bytes. The bundle of a whole system has about 250 KiB.
pub const MAX_CERTIFICATE_FILE: u64 = 4 * 1024 * 1024;
/// Pieces of a result that wait for the disk. A piece is one message, at most [`MAX_MESSAGE`] and usually up to 3 MiB.
pub const EXPORT_PIECES: usize = 2;

/// Bytes of a result that are written at once: daemons send pieces as small as 4 KiB.
pub const FILE_BUFFER: usize = 256 * 1024;

/// Warnings about received files that wait to become events.
pub const EXPORT_WARNINGS: usize = 16;

/// Largest sum of what a daemon says of one result before its bytes, names and values, in bytes. Real ones are a few KiB.
pub const MAX_EXPORT_METADATA: usize = 1024 * 1024;

/// Bytes of an uploaded archive that go into one message. Daemons before 0.13 accept 4 MiB; this is what a pipe holds
/// twice, and small beside what waits in the connection.
pub const UPLOAD_CHUNK: usize = 128 * 1024;

/// Bytes of a blob that go into one message. Daemons read blobs in pieces of about 32 KiB, and whole ones at once; one piece
/// for each of the streams that may be open is in memory.
pub const CONTENT_CHUNK: usize = 512 * 1024;

/// Uploads of blobs that a daemon may have open at once. One more is told to come back later, which daemons do.
pub const MAX_INGESTS: usize = 64;

/// Largest name of an upload, in bytes. Daemons use a digest and some words.
pub const MAX_INGEST_REF: usize = 4096;

/// Largest file beside an upload that says something of it, in bytes: its name is the longest.
pub const MAX_INGEST_NOTE: u64 = 8192;

/// Unfinished uploads of which a list is made.
pub const MAX_INGESTS_LISTED: usize = 1000;

/// How long an unfinished upload of a cache waits for a build that takes it up, where the cache is cleaned up.
pub const INGEST_AGE: Duration = Duration::from_secs(24 * 3600);

/// Largest index or manifest read, in bytes. Registries take up to 4 MiB.
pub const MAX_LAYOUT_JSON: u64 = 16 * 1024 * 1024;

/// Blobs that are remembered as missing. One is enough to fail a build.
pub const MAX_MISSING_BLOBS: usize = 64;

/// Blobs of one manifest that are followed.
pub const MAX_LAYOUT_BLOBS: usize = 100_000;

/// Descriptions of blobs in one message of a list, as other servers send them.
pub const CONTENT_LIST: usize = 100;

/// How long the lock of an index is waited for. It is held for the moments in which a small file is written.
pub const INDEX_LOCK_WAIT: Duration = Duration::from_secs(10);

/// How long to wait before the lock of an index is tried again.
pub const INDEX_LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Largest Dockerfile that is read to find out what it needs, in bytes: far above any that a person or program writes, and
/// what a daemon would take in one message.
pub const MAX_DOCKERFILE: u64 = 16 * 1024 * 1024;

/// Bytes of a file that are read at once for a digest or a comparison of contexts: few system calls, and it stays in the
/// processor's cache.
pub const READ_BUFFER: usize = 128 * 1024;

/// Files that look like secrets of which each is named: more than anyone reads.
pub const MAX_FINDINGS: usize = 100;

/// Bytes at the start of a file that are searched for a secret: keys and settings are shorter.
pub const SECRET_PROBE: u64 = 64 * 1024;

/// Bytes in directories that tools fill which are worth a word in any context: a second on a slow connection.
pub const HUGE_BYTES: u64 = 10 * 1024 * 1024;

/// The same where they are at least a quarter of what is sent.
pub const HUGE_SHARE_BYTES: u64 = 1024 * 1024;

/// When a source of an instruction was not found: entries that are looked at for others of its name.
pub const ABSENCE_ENTRIES: usize = 50_000;

/// And how many are named.
pub const ABSENCE_NAMES: usize = 3;

/// Manifests of contexts that are kept, the newest ones: more than anyone builds in a week.
pub const MANIFESTS_KEPT: usize = 64;

/// Largest manifest that is kept, in bytes: about a million files.
pub const MANIFEST_BYTES: u64 = 128 * 1024 * 1024;

/// Largest record of a manifest, in bytes: the longest path that Linux has, and some numbers.
pub const MANIFEST_RECORD: u64 = 16 * 1024;

/// Differences from a manifest that are held; of the others only the number is known.
pub const MANIFEST_CHANGES: usize = 10_000;

/// How many mistakes in an ignore file a build tells; more would hide what the build itself says.
pub const IGNORE_WARNINGS: usize = 5;
