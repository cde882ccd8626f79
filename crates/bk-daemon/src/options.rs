//! What a keeper is told, and what it tells whoever started it.

use std::time::Duration;

use crate::{Layout, Program, limits};

/// What a keeper keeps.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeepOptions {
    /// Where.
    pub layout: Layout,
    /// What.
    pub program: Program,
    /// How long the daemon stays when nobody uses it, until a lease says otherwise.
    pub idle: Duration,
}

impl KeepOptions {
    /// Keeps `program` on the state of `layout`, for [`limits::IDLE`] after the last use.
    pub fn new(layout: Layout, program: Program) -> Self {
        Self {
            layout,
            program,
            idle: limits::IDLE,
        }
    }
}

/// What the one who started a keeper is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "one of the two answers, or another one does"
)]
pub enum Announcement {
    /// This keeper can be asked for leases.
    Listening,
    /// Another one can; this one has ended.
    AnotherListens,
}
