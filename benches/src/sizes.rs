//! How much is measured. Small sizes only show that a benchmark still runs.

/// The sizes of one run.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Sizes {
    /// Paths that a pattern list decides on.
    pub paths: usize,
    /// Files in trees of small files.
    pub files: usize,
    /// Files in the tree that is only walked, and larger.
    pub many_files: usize,
    /// Bytes of the large file.
    pub large: u64,
    /// Bytes of the file that is one hole.
    pub sparse: u64,
    /// Patterns of a very long ignore file.
    pub patterns: usize,
    /// Status messages of a build.
    pub messages: usize,
}

/// The usual sizes, or the small ones if the variable `BK_BENCH_SMALL` is set.
#[must_use]
pub fn sizes() -> Sizes {
    if std::env::var_os("BK_BENCH_SMALL").is_some() {
        Sizes {
            paths: 500,
            files: 200,
            many_files: 400,
            large: 4 << 20,
            sparse: 8 << 20,
            patterns: 50,
            messages: 100,
        }
    } else {
        Sizes {
            paths: 50_000,
            files: 50_000,
            many_files: 500_000,
            large: 2 << 30,
            sparse: 4 << 30,
            patterns: 2_000,
            messages: 5_000,
        }
    }
}
