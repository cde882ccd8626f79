//! What fuzz targets compare the workspace with: plain models and slow references.
//!
//! The rule: simple enough to be believed by reading, and written from what the thing must do, not from its code.

mod errors;
mod input;
mod pattern;
mod receiver;
mod scratch;
mod sender;
pub mod tar;

pub use errors::draw;
pub use input::{Detail, TreeFile, Write};
pub use pattern::matches;
pub use receiver::{NAMES, Peer, ReceiverModel, Step};
pub use scratch::{check, set};
pub use sender::{Op, SenderModel};
