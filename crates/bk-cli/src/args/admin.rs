//! Looking after a daemon: `bk du`, `prune`, `workers`, `info`, `ping` and `history`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Progress;

/// What programs read.
#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which records of the cache are meant.
#[derive(Debug, Args)]
pub(crate) struct CacheFilterArgs {
    /// Only records with id, type, description or parents =, != or ~= VALUE (id= matches a part); inuse, mutable,
    /// immutable, shared or private; until=TIME, unused for so long. Repeatable; all must hold
    #[arg(long = "filter", value_name = "CONDITION")]
    pub(crate) filters: Vec<String>,
}

/// `bk du`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk du                                  what the build cache holds, largest first
  bk du --filter type=source.local -v    everything about the contexts that are kept
  bk du --filter until=240h --json       what no build used for ten days, for programs

A * behind an id: it may still change. A * behind a size: something else holds it too.")]
pub(crate) struct DuArgs {
    #[command(flatten)]
    pub(crate) select: CacheFilterArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// `bk prune`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk prune --dry-run                     what would go
  bk prune --force --keep-duration 72h   keep what was used within three days, ask nothing
  bk prune -af --reserved-space 10GB     everything that is not needed, down to 10 GiB
  bk prune --filter type=exec.cachemount  the caches that RUN --mount=type=cache has")]
pub(crate) struct PruneArgs {
    /// Also what the daemon, its frontends and its images hold
    #[arg(short, long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) select: CacheFilterArgs,
    /// Keep what a build used within TIME, for instance 24h
    #[arg(long, visible_alias = "until", value_name = "TIME")]
    pub(crate) keep_duration: Option<String>,
    /// Bytes that always stay, for instance 10GB (powers of 1024)
    #[arg(long, visible_alias = "keep-storage", value_name = "BYTES")]
    pub(crate) reserved_space: Option<String>,
    /// Bytes that the cache may take: no more is removed than that needs. BuildKit 0.17
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_used_space: Option<String>,
    /// Bytes that must be free on the disk: no more is removed than that needs. BuildKit 0.17
    #[arg(long, value_name = "BYTES")]
    pub(crate) min_free_space: Option<String>,
    /// Remove nothing, say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) force: ForceArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Whether somebody is asked before something is lost.
#[derive(Debug, Args)]
pub(crate) struct ForceArgs {
    /// Do not ask. Needed when standard input is no terminal
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// `bk workers`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk workers                             what runs steps, and for which platforms
  bk workers -v                          labels, devices and rules of the cache too
  bk workers --filter id~=^abc --json")]
pub(crate) struct WorkersArgs {
    /// A condition on id or labels.NAME, in BuildKit's own language. Repeatable; one must hold
    #[arg(long = "filter", value_name = "CONDITION")]
    pub(crate) filters: Vec<String>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// `bk info`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk info                                versions, workers, platforms, rules of the cache
  bk info --json | jq .workers           for programs")]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// `bk ping`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk ping                                who answers, how fast, what it can do
  bk --addr tcp://build:1234 ping --count 5")]
pub(crate) struct PingArgs {
    /// How often to ask, each time on a connection of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// `bk history`.
#[derive(Debug, Subcommand)]
pub(crate) enum HistoryCommand {
    /// List the builds that the daemon remembers, newest first
    Ls(HistoryLsArgs),
    /// Show everything that the daemon remembers of a build
    Inspect(HistoryInspectArgs),
    /// Print the progress of a build again; follow one that runs
    Logs(HistoryLogsArgs),
    /// Print the trace of a build: its spans as JSON objects
    Trace(HistoryTraceArgs),
    /// Write builds with their logs, traces and statements to an archive that Docker Desktop reads
    Export(HistoryExportArgs),
    /// Keep records when the daemon cleans its history
    Pin(HistoryPinArgs),
    /// Let records go when the daemon cleans its history
    Unpin(HistoryUnpinArgs),
    /// Remove records; images and cache stay
    Rm(HistoryRmArgs),
}

/// Which build is meant.
#[derive(Debug, Args)]
pub(crate) struct RefArgs {
    /// The id of a build or its beginning, or ^N for the N-th before the newest. Default: the newest
    #[arg(value_name = "REF", default_value = "^0", hide_default_value = true)]
    pub(crate) build: String,
}

/// Which builds are meant.
#[derive(Debug, Args)]
pub(crate) struct RefsArgs {
    /// Ids of builds or their beginnings, or ^N for the N-th before the newest
    #[arg(value_name = "REF", required = true)]
    pub(crate) builds: Vec<String>,
}

/// `bk history ls`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk history ls                          what was built, newest first
  bk history ls --filter status=error    what failed
  bk history ls --filter 'duration>1m' --filter 'startedAt>24h' --json")]
pub(crate) struct HistoryLsArgs {
    /// Only builds with ref=ID, ref~=PART, status=STATE (running, completed, error, canceled) or status!=STATE;
    /// duration>TIME; startedAt>TIME or completedAt>TIME ago (> is later); pinned. With < too. Repeatable; all must hold
    #[arg(long = "filter", value_name = "CONDITION")]
    pub(crate) filters: Vec<String>,
    /// Do not cut long names
    #[arg(long)]
    pub(crate) no_trunc: bool,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// `bk history inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk history inspect                     the newest build
  bk history inspect ^1 --json           the one before, for programs")]
pub(crate) struct HistoryInspectArgs {
    #[command(flatten)]
    pub(crate) build: RefArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// `bk history logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk history logs                        what the newest build said
  bk history logs ^2 --progress rawjson")]
pub(crate) struct HistoryLogsArgs {
    #[command(flatten)]
    pub(crate) build: RefArgs,
    /// How it is written to standard output; not tty, which draws what happens now
    #[arg(long, value_name = "MODE", value_enum, default_value = "plain")]
    pub(crate) progress: Progress,
}

/// `bk history trace`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk history trace -o trace.json         the newest build
  bk history trace ^1 | jq .             the one before")]
pub(crate) struct HistoryTraceArgs {
    #[command(flatten)]
    pub(crate) build: RefArgs,
    /// Where it goes; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,
}

/// `bk history export`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk history export -o build.dockerbuild    the newest build that has ended
  bk history export ^0 ^1 > two.dockerbuild
  bk history export --all --finalize -o all.dockerbuild")]
pub(crate) struct HistoryExportArgs {
    /// Ids of builds or their beginnings, or ^N for the N-th before the newest. Default: the newest that has ended
    #[arg(value_name = "REF", conflicts_with = "all")]
    pub(crate) builds: Vec<String>,
    /// Where the archive goes; - is standard output, which is the default unless it is a terminal
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Every build that has ended
    #[arg(long)]
    pub(crate) all: bool,
    /// First let the daemon write the traces that it still holds back. BuildKit 0.15
    #[arg(long)]
    pub(crate) finalize: bool,
}

/// `bk history pin`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk history pin ^0                      keep the record of the newest build")]
pub(crate) struct HistoryPinArgs {
    #[command(flatten)]
    pub(crate) refs: RefsArgs,
}

/// `bk history unpin`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk history unpin ^0                    let the record of the newest build go")]
pub(crate) struct HistoryUnpinArgs {
    #[command(flatten)]
    pub(crate) refs: RefsArgs,
}

/// `bk history rm`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bk history rm ^0 ^1                    the newest two
  bk history rm --all --force            every build that has ended, ask nothing")]
pub(crate) struct HistoryRmArgs {
    /// Ids of builds or their beginnings, or ^N for the N-th before the newest
    #[arg(value_name = "REF", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) builds: Vec<String>,
    /// Every build that has ended
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) force: ForceArgs,
}
