//! Every tuned number of this crate, with its unit and its reason.

/// Bytes of file content in one DATA packet at most, and of a buffer that files are read into. Large enough that the cost
/// of a packet is small beside that of its bytes; small enough that the buffers in use stay in the processor's cache
/// between reading and writing; and far below the 4 MiB that daemons before 0.13 accept in a message.
pub const DATA_CHUNK: usize = 256 * 1024;

/// Buffers kept for use again by one transfer. Times [`DATA_CHUNK`] this is more than a transfer that flows has in use.
pub const BUFFERS_KEPT: usize = 16;

/// Files read at the same time for one transfer. The upstream client uses the same number; more only helps
/// on storage with high latency and costs a blocked thread each.
pub const FILE_READERS: usize = 4;

/// Files handed to one blocking job at most, so that small files do not pay for a job each.
pub const FILES_PER_JOB: usize = 32;

/// Announced bytes after which a blocking job takes no further file, so that large files spread over the readers.
pub const BYTES_PER_JOB: u64 = 1024 * 1024;

/// Entries that the walk hands over together, so that handing over costs little.
pub const LISTING_BATCH: usize = 64;

/// Such batches that the walk may be ahead of the wire. Bounds memory when the peer reads slowly.
pub const BATCHES_AHEAD: usize = 4;

/// Batches of pieces that the readers may be ahead of the wire, over all readers. Times [`DATA_CHUNK`] this is
/// the memory that a slow peer can pin, beside the packets that wait.
pub const CHUNKS_AHEAD: usize = 4;

/// Packets waiting for the wire below which the driver takes more from the walk and the readers.
pub const PACKETS_AHEAD: usize = 16;

/// Bytes of content waiting for the wire below which it does so.
pub const BYTES_AHEAD: usize = 2 * DATA_CHUNK;

/// Bytes of content from which on a packet counts as large.
pub const LARGE_PACKET: usize = DATA_CHUNK / 4;

/// Packets in the wire's channel beside which a large one may be put there: a channel that holds many small packets
/// must not hold as many large ones.
pub const LARGE_PACKETS_AHEAD: usize = 4;

/// Packets of the peer that are taken before files are read for them and anything is sent: requests come one by one, and
/// are served best together.
pub const REQUESTS_PER_TURN: usize = 64;

/// Files, and directories, that the report of a transfer names as the largest: what fits on a screen.
pub const LARGEST_KEPT: usize = 10;

/// Names of one directory that are examined together.
pub const SCAN_NAMES: usize = 256;

/// Threads that scan directories before a walk comes to them, at most. With the walk itself they are as many as there
/// are [`FILE_READERS`]; more only helps on storage with high latency.
pub const WALK_HELPERS: usize = 3;

/// Entries that these threads may be ahead of the walk, beside the scans that run. An entry takes some 250 bytes.
pub const SCANNED_AHEAD: usize = 4096;

/// Directories that wait to be scanned by these threads, at most. Those for which there is no room the walk scans.
pub const SCANS_QUEUED: usize = 1024;

/// Directory handles kept open along the path of the walk. Deeper ancestors are closed and opened again when
/// the walk comes back to them, so that a deep tree cannot use up the file descriptors of the process.
pub const OPEN_DIRS: usize = 32;

/// Bytes of a path beyond which the kernel refuses it in one call (`PATH_MAX`, which counts the final NUL).
/// Longer paths are opened component by component.
pub const PATH_MAX: usize = 4096;

/// Bytes that one line of an ignore file may have, the line end not counted. Upstream's line reader has a
/// buffer of 64 KiB in which the line end must fit too.
pub const IGNORE_LINE_MAX: usize = 64 * 1024 - 1;

/// Upper bound of a counted repetition in a pattern that turns into a regular expression, as upstream's.
pub const REGEX_REPEAT_MAX: u32 = 1000;

/// Bytes that the compiled form of one such pattern may take, tried from the first to the last. Nearly every pattern
/// fits the first; one that does not fit the last is refused.
pub const REGEX_SIZES: [usize; 5] = [8 << 10, 64 << 10, 1 << 20, 8 << 20, 32 << 20];

/// Bytes that all tries for one list may take together. Lists come from daemons too; this is room for 16,384 patterns
/// that need a regular expression, of which real lists have a handful, and a second or two of work.
pub const REGEX_LIST_MAX: usize = 128 << 20;

/// Links resolved for the followed paths of one request before it fails. The kernel gives up at 40 for one
/// path; patterns fan out and requests name many paths, so this only guards against trees built to be endless.
pub const FOLLOW_MAX: usize = 10_000;

/// Directory entries that a caller may name in a [`FilesTree`](crate::FilesTree): it serves a handful of names.
pub const FILES_TREE_MAX: usize = 64;

/// Bytes of the first buffer that extended attributes are read into; enough for nearly all of them.
pub const XATTR_FIRST: usize = 256;

/// Bytes that a list of attribute names, or one value, can have on Linux.
pub const XATTR_MAX: usize = 64 * 1024;

/// Bytes that a pattern may have if it has to become a regular expression. Compiling takes time and memory with
/// the length, and no path that could match comes near this.
pub const REGEX_PATTERN_MAX: usize = 16 * 1024;

/// The time of every entry under [`SyncPolicy::Content`](crate::policy::SyncPolicy::Content), in seconds since the Unix
/// epoch: 1980-01-02, 00:00 UTC. The ZIP format has no time before 1980, so archives made of such files inside a build
/// would fail at the epoch; the second day, since ZIP counts in local time.
pub const CONTENT_SECONDS: i64 = 315_619_200;

/// Age in nanoseconds below which a file's `ctime` says nothing of a further change: kernels take it from a clock that
/// ticks every 10 ms at the slowest. Twice that.
pub const RACY_NS: i64 = 20_000_000;

/// The same for a `ctime` without digits below the second: the coarsest file systems count in steps of 2 s.
pub const COARSE_RACY_NS: i64 = 3_000_000_000;

/// Pause before a changed file is read again. Whoever writes it is likely to be done by then; a thread of the pool is
/// blocked meanwhile.
pub const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Files of a cache of hashes. A build touches few of them if little changed.
pub const HASH_SHARDS: usize = 64;

/// Hashes in one of these files; at 48 bytes each all files together have 25 MiB, for half a million files.
pub const HASH_SHARD_RECORDS: usize = 8192;

/// Entries of a listing that are received at most, so that a sender which never ends it cannot take all memory.
pub const LISTING_MAX: u32 = 1 << 24;

/// Bytes that the names of a received listing may have in total.
pub const LISTING_NAMES_MAX: u32 = 1 << 30;

/// Bytes that one received path or link target may have. No system takes as much; deep trees stay well below.
pub const RECEIVED_PATH_MAX: usize = 64 * 1024;

/// Bytes of the peer's error text that are kept. It goes back to the peer in the header that ends a transfer, and common
/// HTTP/2 stacks take 16 KiB of headers.
pub const PEER_TEXT_MAX: usize = 4 * 1024;

/// Files that are asked for and not complete, at most. The daemon has room for 128 requests and serves 4 at a time;
/// this keeps it busy, and few files open here.
pub const REQUESTS_IN_FLIGHT: usize = 64;

/// Announced bytes of the files that are asked for while the listing still runs. All of them fit into
/// [`DATA_AHEAD`], so that the entries behind them are always read at once.
pub const BYTES_IN_FLIGHT: u64 = 8 * 1024 * 1024;

/// Bytes of received content that wait for the disk, at most; then nothing more is read from the wire. The excess
/// over [`BYTES_IN_FLIGHT`] is room for what the packets themselves take.
pub const DATA_AHEAD: usize = 12 * 1024 * 1024;

/// Bytes of received entries that wait for the disk, at most. Comparing an entry with the disk is faster than
/// receiving it, so this is reached only when the disk hangs.
pub const ENTRIES_AHEAD: usize = 64 * 1024 * 1024;

/// Bytes that a received packet takes in memory beside its content, roughly.
pub const PACKET_OVERHEAD: usize = 128;

/// Received packets that the task which writes takes at a time, so that it is woken less often.
pub const JOBS_PER_TURN: usize = 64;

/// Bytes of a block that becomes a hole if it is all zeros: the block size of most file systems.
pub const HOLE_BLOCK: usize = 4096;

/// Tries to find a free name for a temporary file. Names are random, so that one is enough unless somebody
/// interferes.
pub const TEMP_NAME_TRIES: usize = 16;

/// Bytes of a PAX header that are read; Go's reader takes as many.
pub const TAR_HEADER_MAX: u64 = 1024 * 1024;

/// Bytes that may follow the end mark of an archive. Programs fill the last record, which is rarely larger than 10 KiB.
pub const TAR_TRAILING_MAX: u64 = 16 * 1024 * 1024;

/// Runs of data that a sparse member may have, at 16 bytes of memory each while it is read.
pub const TAR_RUNS_MAX: usize = 1 << 18;

/// Entries that an archive may have, with the directories that it only implies.
pub const TAR_ENTRIES_MAX: usize = 1 << 22;

/// Bytes that the names of an archive's entries may have in total.
pub const TAR_NAMES_MAX: u64 = 1 << 30;

/// Bytes of a member's content that are read at a time, and looked at for zeros.
pub const SPOOL_CHUNK: usize = 64 * 1024;

/// Bytes that a file must have for its holes to be kept, and looked for. Smaller ones are stored without gaps.
pub const SPARSE_FROM: u64 = 64 * 1024;

/// Bytes that leaving out the holes of a file must save before an archive says where they are.
pub const TAR_HOLES_FROM: u64 = 64 * 1024;

/// Runs of data that are looked for in a file whose holes are to be left out of an archive. With more, it is written
/// whole.
pub const TAR_WRITTEN_RUNS_MAX: usize = 1 << 16;

/// Answers that a [`ListedTree`](crate::tree::ListedTree) remembers: names, metadata, link targets and lists of extended
/// attributes count one each. About 200 bytes apiece; the largest contexts have some hundred thousand files.
pub const LISTED_ENTRIES: usize = 2_000_000;
