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
