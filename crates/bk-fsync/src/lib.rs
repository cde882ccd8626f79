//! File trees, ignore patterns and both halves of BuildKit's diff-copy protocol.

pub mod entry;
pub mod filter;
pub mod follow;
pub mod limits;
pub mod path;
pub mod pattern;
pub mod policy;
pub mod report;
pub mod tree;
pub mod walk;

#[cfg(unix)]
pub use tree::DirTree;
pub use tree::{FilesTree, MemoryTree, Tree};
