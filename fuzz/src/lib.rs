//! What fuzz targets compare the workspace with: plain models and slow references.
//!
//! The rule: simple enough to be believed by reading, and written from what the thing must do, not from its code.

mod pattern;
mod sender;

pub use pattern::matches;
pub use sender::{Op, SenderModel};

/// Makes the text of an error and of everything behind it, which must not panic.
pub fn draw(error: &dyn std::error::Error) {
    let mut next = Some(error);
    while let Some(level) = next {
        let _ = level.to_string();
        next = level.source();
    }
}
