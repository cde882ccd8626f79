//! Tuned numbers of the renderers, each with its unit and reason.

use std::time::Duration;

/// How often a program should call [`Renderer::tick`](crate::Renderer::tick): the rate at which `docker buildx`
/// redraws, fast enough to look alive and slow enough to cost nothing.
pub const TICK: Duration = Duration::from_millis(100);

/// How long a vertex that is drawn keeps the output to itself while others wait, however much it writes. What
/// `docker buildx` starts its fair share from.
pub const TURN: Duration = Duration::from_secs(5);

/// How long a drawn vertex may say nothing before a waiting one takes over. Long enough that two steps which both
/// write steadily do not alternate with each line.
pub const SILENCE: Duration = Duration::from_secs(1);

/// Bytes of output that may wait for their vertex's turn. A vertex that reaches this is drawn at once, so the memory
/// that waits stays bounded even when nobody ticks.
pub const WAITING_BYTES: usize = 64 * 1024;

/// A reading of an unfinished status is drawn when it moved by at least one part in this many since the last drawn one
/// (20: five per cent, as upstream).
pub const STATUS_STEP: i64 = 20;

/// An unfinished status that moved less is drawn again after this long, by the daemon's clock (as upstream).
pub const STATUS_PAUSE: Duration = Duration::from_secs(5);

/// A display for terminals draws nothing before this long after the first tick: a build that is over by then is drawn
/// once, and a terminal of a program that fails early is left alone.
pub const FIRST_PAINT: Duration = Duration::from_millis(250);

/// The shortest time between two frames on a terminal: 30 a second at most.
pub const FRAME: Duration = Duration::from_micros(33_334);

/// How often a frame is drawn on a terminal when only the time has moved.
pub const CLOCK: Duration = Duration::from_millis(100);

/// Lines of output that a terminal shows of a running step, unless told otherwise. What `docker buildx` shows.
pub const LOG_WINDOW_LINES: usize = 6;

/// Lines of status that a terminal shows of a running step.
pub const STATUS_WINDOW_LINES: usize = 10;

/// Statuses of one step that a terminal keeps; later ones are counted only. An image has 127 layers at most, each with a
/// download and an extraction.
pub const STATUSES_KEPT: usize = 512;

/// Lines of output of a running step that are kept for the report of its failure on a terminal, which has shown only
/// [`LOG_WINDOW_LINES`] of them.
pub const TAIL_LINES: usize = 200;

/// Bytes that these lines may have in all.
pub const TAIL_BYTES: usize = 128 * 1024;

/// Warnings whose text a terminal keeps to draw it at the end; later ones are counted only.
pub const WARNINGS_KEPT: usize = 100;

/// About how many bytes a short line of output takes in memory besides its text.
pub(crate) const LINE_COST: usize = 96;

/// Memory, in bytes, that output of one step may take while it waits for its turn among ordered steps. The older half is
/// left out when there is more, and the drawing says so. A daemon clips the output of a step at 2 MiB by default.
pub const ORDERED_STEP_BYTES: usize = 4 * 1024 * 1024;

/// The same for all steps that wait.
pub const ORDERED_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of output of one running step that the quiet display keeps for the case that it fails; the first ones are left
/// out when there are more, and the report says so. Twice what a daemon clips at by default.
pub const QUIET_STEP_BYTES: usize = 4 * 1024 * 1024;

/// The same for all running steps.
pub const QUIET_BYTES: usize = 32 * 1024 * 1024;

/// How long a file transfer goes on before lines of text tell of it, and how long until the next such line: short enough to
/// see that it goes on, long enough to leave a log readable.
pub const SENT_EVERY: Duration = Duration::from_secs(3);

/// Cells of the name of a step on the line that sums up a build.
pub(crate) const LONGEST_NAME: usize = 40;

/// Files of steps that are open at once; a file that was closed is opened again when its step writes more.
pub const OPEN_LOGS: usize = 16;

/// Bytes of a step's name in the name of its file.
pub(crate) const LOG_FILE_NAME: usize = 80;
