//! What a build would send of a context, found out without a daemon.
//!
//! The rule: everything asks the same filter that a transfer uses, made of the same lists that a daemon would send.

mod absence;
mod digest;
mod explain;
pub(crate) mod lint;
pub(crate) mod mistakes;
mod needs;
mod secrets;
mod sizes;
mod view;
mod why;
mod words;

pub use absence::Absence;
pub use digest::{ContextDifference, Differs};
pub use explain::explain_failure;
pub use lint::{LintFinding, LintKind};
pub use needs::{Need, Needs};
pub use sizes::ContextSize;
pub use view::ContextView;
pub use why::{Deciding, Why, WhyNot};

#[cfg(test)]
mod view_tests;
