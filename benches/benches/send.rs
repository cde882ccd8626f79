//! A whole transfer inside one process, from the tree to a receiver that wants everything or has everything.
//!
//! `disk` reads real files, `generated` computes them, so that the difference is the file system's share. The limit of
//! `large` is reading the same zeros in the same pieces.

use std::io::Read;
use std::sync::Arc;

use bk_benches::{Generated, Wanted, layout, sizes, transfer, write};
use bk_fsync::DirTree;
use bk_fsync::limits::DATA_CHUNK;
use bk_fsync::path::RelPath;
use bk_fsync::tree::Tree;
use criterion::{Criterion, Throughput};

fn send(c: &mut Criterion) {
    let sizes = sizes();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .build()
        .expect("a runtime");
    let place = tempfile::tempdir().expect("a directory");
    write(place.path(), &layout(sizes.files)).expect("writes");
    let disk: Arc<dyn Tree> = Arc::new(DirTree::open(place.path()).expect("opens"));
    let generated: Arc<dyn Tree> = Arc::new(Generated::new(sizes.files as u64, 4_096));

    let mut small = c.benchmark_group("send/small");
    small
        .sample_size(10)
        .throughput(Throughput::Elements(sizes.files as u64));
    for (name, tree, wanted) in [
        ("disk", &disk, Wanted::Everything),
        ("disk unchanged", &disk, Wanted::Nothing),
        ("generated", &generated, Wanted::Everything),
        ("generated unchanged", &generated, Wanted::Nothing),
    ] {
        let run = || {
            runtime
                .block_on(transfer(Arc::clone(tree), wanted))
                .expect("arrives")
        };
        assert_eq!(
            run().files,
            if wanted == Wanted::Everything {
                sizes.files as u64
            } else {
                0
            }
        );
        small.bench_function(name, |b| b.iter(run));
    }
    small.finish();

    let large: Arc<dyn Tree> = Arc::new(Generated::new(1, sizes.large));
    let mut group = c.benchmark_group("send/large");
    group.sample_size(10).throughput(Throughput::Bytes(sizes.large));
    group.bench_function("generated", |b| {
        b.iter(|| {
            let got = runtime
                .block_on(transfer(Arc::clone(&large), Wanted::Everything))
                .expect("arrives");
            assert_eq!(got.bytes, sizes.large);
        });
    });
    group.bench_function("limit", |b| {
        b.iter(|| {
            let mut file = large.open(RelPath::ROOT).expect("opens");
            let (mut piece, mut bytes) = (vec![0; DATA_CHUNK], 0);
            while let Ok(count @ 1..) = file.read(&mut piece) {
                bytes += count as u64;
            }
            assert_eq!(bytes, sizes.large);
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    send(&mut criterion);
    criterion.final_summary();
}
