//! Shapes of structured input.

/// A file of a tree: its path, its content (none: a link), its time in nanoseconds, its mode.
pub type TreeFile = (Vec<u8>, Option<Vec<u8>>, i64, u16);

/// A write of two slices: a byte, and how often eight of it and eight of its opposite are written.
pub type Write = (u8, u16, u16);

/// A detail of an error: a number that chooses its kind, and its value.
pub type Detail = (u8, Vec<u8>);
