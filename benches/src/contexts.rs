//! The contexts that transfers are measured with, on disk, and how they are measured.
//!
//! They are made in the directory for temporary files (`TMPDIR` chooses another) and removed at the end.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use bk_fsync::DirTree;
use bk_fsync::tree::Tree;
use criterion::{Criterion, Throughput};
use tempfile::TempDir;

use crate::{Beside, Received, Sizes, Wanted, layout, raw, write};

/// Bytes written at once.
const PIECE: usize = 1 << 20;

/// A context on disk.
#[derive(Debug)]
pub struct Context {
    place: TempDir,
}

impl Context {
    /// `count` files of half a KiB to 8 KiB.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn small_files(count: usize) -> io::Result<Self> {
        let place = tempfile::tempdir()?;
        write(place.path(), &layout(count))?;
        Ok(Context { place })
    }

    /// One file of `bytes` bytes that no file system can make smaller.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn large_file(bytes: u64) -> io::Result<Self> {
        let place = tempfile::tempdir()?;
        let mut file = File::create(place.path().join("large"))?;
        let (mut piece, mut state, mut left) = (vec![0; PIECE], 0x9e37_79b9_7f4a_7c15_u64, bytes);
        while left > 0 {
            for word in piece.chunks_exact_mut(8) {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
            let count = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            file.write_all(&piece[..count])?;
            left -= count as u64;
        }
        Ok(Context { place })
    }

    /// One file of `bytes` bytes that is one hole.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn sparse_file(bytes: u64) -> io::Result<Self> {
        let place = tempfile::tempdir()?;
        File::create(place.path().join("sparse"))?.set_len(bytes)?;
        Ok(Context { place })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// It as a tree.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[must_use]
    pub fn tree(&self) -> Arc<dyn Tree> {
        Arc::new(DirTree::open(self.path()).expect("it was just made"))
    }
}

/// Measures `transfer`, which fetches a tree once, with every context, as `name`.
///
/// # Panics
/// If a context cannot be made, or does not arrive whole.
pub fn transfers(
    criterion: &mut Criterion,
    name: &str,
    sizes: Sizes,
    transfer: impl Fn(Arc<dyn Tree>, Wanted) -> Received,
) {
    let small = Context::small_files(sizes.files).expect("there is room");
    let entries = raw::list(small.path()).expect("is readable");
    let bytes = raw::copy(small.path()).expect("is readable");
    let files = sizes.files as u64;

    let mut group = Beside::new(
        criterion,
        &format!("{name}/small files"),
        Throughput::Elements(files),
    );
    group.limit(|| assert_eq!(raw::copy(small.path()).expect("is readable"), bytes));
    group.measure("send", || {
        let got = transfer(small.tree(), Wanted::Everything);
        assert_eq!((got.entries, got.files, got.bytes), (entries, files, bytes));
    });
    drop(group);

    let mut group = Beside::new(
        criterion,
        &format!("{name}/unchanged"),
        Throughput::Elements(entries),
    );
    group.limit(|| assert_eq!(raw::list(small.path()).expect("is readable"), entries));
    group.measure("send", || {
        let got = transfer(small.tree(), Wanted::Nothing);
        assert_eq!((got.entries, got.files), (entries, 0));
    });
    drop(group);
    drop(small);

    let large = Context::large_file(sizes.large).expect("there is room");
    one_file(
        criterion,
        &format!("{name}/large file"),
        &large,
        sizes.large,
        &transfer,
    );
    drop(large);
    let sparse = Context::sparse_file(sizes.sparse).expect("there is room");
    one_file(
        criterion,
        &format!("{name}/sparse file"),
        &sparse,
        sizes.sparse,
        &transfer,
    );
}

fn one_file(
    criterion: &mut Criterion,
    name: &str,
    context: &Context,
    bytes: u64,
    transfer: &impl Fn(Arc<dyn Tree>, Wanted) -> Received,
) {
    let mut group = Beside::new(criterion, name, Throughput::Bytes(bytes));
    group.limit(|| assert_eq!(raw::copy(context.path()).expect("is readable"), bytes));
    group.measure("send", || {
        let got = transfer(context.tree(), Wanted::Everything);
        assert_eq!((got.files, got.bytes), (1, bytes));
    });
}
