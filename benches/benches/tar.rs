//! Writing contexts on disk as archives, into a Unix socket, and reading an archive as a tree.
//!
//! The limit of writing is the bare reading of the same files, written to a Unix socket; that of reading, copying the
//! archive's bytes to a file.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use bk_benches::{Beside, Context, raw, sizes};
use bk_fsync::TarTree;
use bk_fsync::filter::{Filter, FilterOptions};
use bk_fsync::report::Unobserved;
use bk_fsync::tar::TarWriter;
use criterion::{Criterion, Throughput};

/// Bytes gathered before they are written.
const BUFFER: usize = 128 * 1024;

/// Writes everything in a context as an archive.
fn archive(context: &Context, out: impl Write) -> io::Result<()> {
    let tree = context.tree();
    let filter = Filter::new(&*tree, &FilterOptions::default()).map_err(io::Error::other)?;
    let mut writer = TarWriter::new(BufWriter::with_capacity(BUFFER, out)).map_err(io::Error::other)?;
    writer
        .append_tree(&*tree, &filter, &Unobserved, &AtomicBool::new(false))
        .map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)?.flush()
}

fn write(criterion: &mut Criterion, name: &str, context: &Context, amount: Throughput) {
    let mut group = Beside::new(criterion, name, amount);
    group.limit(|| assert!(raw::copy(context.path()).expect("is readable") > 0));
    group.measure("write", || {
        assert!(raw::drained(|to| archive(context, to)).expect("arrives") > 0);
    });
}

fn read(criterion: &mut Criterion, context: &Context, files: u64) {
    let mut place = tempfile::tempfile().expect("a file");
    archive(context, &mut place).expect("there is room");
    let again = |place: &mut File| place.rewind().expect("is a file");
    let mut group = Beside::new(criterion, "tar/read small files", Throughput::Elements(files));
    group.limit(|| {
        again(&mut place);
        let mut copy = BufWriter::with_capacity(BUFFER, tempfile::tempfile().expect("a file"));
        io::copy(&mut io::Read::by_ref(&mut place), &mut copy).expect("there is room");
    });
    let spool: &Path = &std::env::temp_dir();
    group.measure("read", || {
        again(&mut place);
        TarTree::read(&mut place, spool).expect("is an archive");
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let sizes = sizes();
    let files = sizes.files as u64;
    let small = Context::small_files(sizes.files).expect("there is room");
    write(
        &mut criterion,
        "tar/write small files",
        &small,
        Throughput::Elements(files),
    );
    read(&mut criterion, &small, files);
    drop(small);
    let large = Context::large_file(sizes.large).expect("there is room");
    write(
        &mut criterion,
        "tar/write large file",
        &large,
        Throughput::Bytes(sizes.large),
    );
    drop(large);
    let sparse = Context::sparse_file(sizes.sparse).expect("there is room");
    write(
        &mut criterion,
        "tar/write sparse file",
        &sparse,
        Throughput::Bytes(sizes.sparse),
    );
    criterion.final_summary();
}
