//! What a build would send of a context, found out without a daemon.
//!
//! The rule: everything asks the same filter that a transfer uses, made of the same lists that a daemon would send.

mod needs;
mod view;
mod why;
mod words;

pub use needs::{Need, Needs};
pub use view::ContextView;
pub use why::{Deciding, Why, WhyNot};
