//! Deciding on every path of a tree by an ignore list, as a walk does. What it prints is paths a second.

use std::hint::black_box;

use bk_benches::{layout, sizes};
use bk_fsync::filter::{DirState, Filter, FilterOptions};
use bk_fsync::path::RelPath;
use bk_fsync::tree::MemoryTree;
use criterion::{Criterion, Throughput};

const PLAIN: &[&str] = &[
    "target*",
    ".git",
    "**/*.o",
    "**/*.log",
    "node_modules*",
    "docs*/part*/*.md",
];
const EXCEPTIONS: &[&str] = &[
    "*",
    "!src*",
    "!lib*/*/*.go",
    "**/*.log",
    "!docs*/part00001",
    "!**/README.md",
    "**/*.o",
];
const EXPRESSIONS: &[&str] = &[
    "**/part0*/**/file*[0-4].r?",
    "[a-d]*/**/*[!s].json",
    "**/*{md,txt}",
];

fn pattern(c: &mut Criterion) {
    let count = sizes().paths;
    let dirs = layout(count);
    let mut group = c.benchmark_group("pattern");
    group.throughput(Throughput::Elements(count as u64));
    for (name, list) in [
        ("plain", PLAIN),
        ("exceptions", EXCEPTIONS),
        ("expressions", EXPRESSIONS),
    ] {
        let exclude = list.iter().map(|p| p.as_bytes().to_vec()).collect();
        let options = FilterOptions::new(Vec::new(), exclude, Vec::new());
        let filter = Filter::new(&MemoryTree::new(), &options).expect("the patterns are good");
        // The walk joins paths; here that is done before.
        let paths: Vec<(String, String, Vec<String>)> = dirs
            .iter()
            .map(|dir| {
                let at = format!("{}/{}", dir.top, dir.name);
                let files = dir.files.iter().map(|(name, _)| format!("{at}/{name}")).collect();
                (dir.top.clone(), at, files)
            })
            .collect();
        let decide = |path: &str, is_dir, state: &DirState| {
            let path = RelPath::new(path.as_bytes()).expect("paths are clean");
            filter.decide(path, is_dir, state).expect("the patterns are good")
        };
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut visible = 0;
                for (top, at, files) in &paths {
                    let top = decide(top, true, &DirState::default());
                    let dir = decide(at, true, &top.state);
                    for file in files {
                        visible += usize::from(decide(black_box(file), false, &dir.state).visible);
                    }
                }
                visible
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    pattern(&mut criterion);
    criterion.final_summary();
}
