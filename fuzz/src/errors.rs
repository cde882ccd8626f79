//! Drawing errors with everything behind them.

/// Makes the text of an error and of everything behind it, which must not panic.
pub fn draw(error: &dyn std::error::Error) {
    let mut next = Some(error);
    while let Some(level) = next {
        let _ = level.to_string();
        next = level.source();
    }
}
