//! What `-v` shows: lines on standard error that tell what `bk` found out and decided by itself.
//!
//! Nothing is said while progress is drawn in place: a line would be painted over. Lines never hold a secret.

use std::sync::atomic::{AtomicU8, Ordering};

use bk_progress::neutralise_line;

use crate::report;

/// How often `-v` was given.
static LEVEL: AtomicU8 = AtomicU8::new(0);

/// The level for what was decided: the daemon and the route to it.
pub(crate) const DECISIONS: u8 = 1;

/// The level for where that came from: each setting with its source.
pub(crate) const SOURCES: u8 = 2;

/// Sets how much is said from now on; 0 is nothing.
pub(crate) fn set(level: u8) {
    LEVEL.store(level, Ordering::Relaxed);
}

/// Says one line when that level was asked for. `text` is only made then, and cannot drive the terminal.
pub(crate) fn say(level: u8, text: impl FnOnce() -> String) {
    if LEVEL.load(Ordering::Relaxed) >= level {
        report::to_stderr(&format!("bk: {}\n", neutralise_line(&text())));
    }
}
