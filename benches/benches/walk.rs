//! Walking a directory on disk, beside its limit: the bare `readdir` and `lstat` of the standard library.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use bk_benches::{layout, sizes, write};
use bk_fsync::DirTree;
use bk_fsync::filter::{Filter, FilterOptions};
use bk_fsync::policy::Utf8Policy;
use bk_fsync::report::Unobserved;
use bk_fsync::walk::Walk;
use criterion::{Criterion, Throughput};

fn bare(dir: &Path) -> u64 {
    let mut entries = 0;
    for entry in std::fs::read_dir(dir).expect("lists") {
        let entry = entry.expect("lists");
        entries += 1;
        if entry.metadata().expect("is there").is_dir() {
            entries += bare(&entry.path());
        }
    }
    entries
}

fn walk(c: &mut Criterion) {
    let place = tempfile::tempdir().expect("a directory");
    write(place.path(), &layout(sizes().files)).expect("writes");
    let entries = bare(place.path());
    let tree = DirTree::open(place.path()).expect("opens");
    let mut group = c.benchmark_group("walk");
    group.sample_size(20).throughput(Throughput::Elements(entries));
    group.bench_function("limit", |b| b.iter(|| bare(place.path())));
    for (name, exclude) in [
        ("everything", &[][..]),
        ("excludes", &["target*", "**/*.o", "!target*/part00042"]),
    ] {
        let exclude = exclude.iter().map(|p: &&str| p.as_bytes().to_vec()).collect();
        let options = FilterOptions::new(Vec::new(), exclude, Vec::new());
        let filter = Filter::new(&tree, &options).expect("the patterns are good");
        let stop = AtomicBool::new(false);
        let all = || Walk::new(&tree, &filter, Utf8Policy::Any, &Unobserved, &stop);
        let visible = all().inspect(|e| assert!(e.is_ok())).count() as u64;
        assert!(visible == entries || name == "excludes" && visible < entries);
        group.bench_function(name, |b| b.iter(|| all().count()));
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    walk(&mut criterion);
    criterion.final_summary();
}
