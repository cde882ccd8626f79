//! File trees, ignore patterns and both halves of BuildKit's diff-copy protocol.
