//! Walking a directory on disk, beside its limit: the bare `getdents` and `fstatat` of one thread, as `find` does it.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use bk_benches::{Beside, layout, raw, sizes};
use bk_fsync::DirTree;
use bk_fsync::filter::{Filter, FilterOptions};
use bk_fsync::policy::Utf8Policy;
use bk_fsync::report::Unobserved;
use bk_fsync::walk::Walk;
use criterion::{Criterion, Throughput};

/// Makes `count` empty files.
fn make(root: &Path, count: usize) {
    let mut dirs = layout(count);
    for dir in &mut dirs {
        for (_, size) in &mut dir.files {
            *size = 0;
        }
    }
    bk_benches::write(root, &dirs).expect("there is room");
}

fn walk(criterion: &mut Criterion, name: &str, files: usize) {
    let place = tempfile::tempdir().expect("a directory");
    make(place.path(), files);
    let entries = raw::list(place.path()).expect("is readable");
    let tree = DirTree::open(place.path()).expect("opens");
    let mut group = Beside::new(criterion, name, Throughput::Elements(entries));
    group.limit(|| assert_eq!(raw::list(place.path()).expect("is readable"), entries));
    for (name, exclude) in [
        ("everything", &[][..]),
        ("excludes", &["target*", "**/*.o", "!target*/part00042"]),
    ] {
        let exclude = exclude.iter().map(|p: &&str| p.as_bytes().to_vec()).collect();
        let options = FilterOptions::new(Vec::new(), exclude, Vec::new());
        let filter = Filter::new(&tree, &options).expect("the patterns are good");
        let stop = AtomicBool::new(false);
        let alone = || Walk::new(&tree, &filter, Utf8Policy::Any, &Unobserved, &stop);
        let visible = alone().inspect(|e| assert!(e.is_ok())).count();
        assert!(visible as u64 == entries || name == "excludes" && (visible as u64) < entries);
        group.measure(name, || {
            let found = std::thread::scope(|scope| alone().helped(scope).count());
            assert_eq!(found, visible);
        });
        group.measure(&format!("{name}, one thread"), || {
            assert_eq!(alone().count(), visible)
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let sizes = sizes();
    walk(&mut criterion, "walk/50 k", sizes.files);
    walk(&mut criterion, "walk/500 k", sizes.many_files);
    criterion.final_summary();
}
