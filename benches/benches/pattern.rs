//! Ignore files: deciding on every path of a tree by one, as a walk does, and reading and compiling a very long one.
//!
//! The files in `ignore/` are such as projects have, some of only what to leave out, some with exceptions, some of only
//! what to keep. The limit of a decision is the same for an empty list, and that of compiling reading the lines.

use std::hint::black_box;

use bk_benches::{Beside, layout, sizes};
use bk_fsync::filter::{DirState, Filter, FilterOptions};
use bk_fsync::path::RelPath;
use bk_fsync::pattern::{PatternList, read_ignore_file};
use bk_fsync::tree::MemoryTree;
use criterion::{Criterion, Throughput};

/// Name and text of each file.
const FILES: [(&str, &str); 10] = [
    ("dotnet web", include_str!("../ignore/dotnet-web.dockerignore")),
    ("go service", include_str!("../ignore/go-service.dockerignore")),
    (
        "java gradle, !",
        include_str!("../ignore/java-gradle.dockerignore"),
    ),
    (
        "kitchen sink, !",
        include_str!("../ignore/kitchen-sink.dockerignore"),
    ),
    ("node app", include_str!("../ignore/node-app.dockerignore")),
    (
        "node monorepo, !",
        include_str!("../ignore/node-monorepo.dockerignore"),
    ),
    (
        "python allow list, !",
        include_str!("../ignore/python-allow-list.dockerignore"),
    ),
    (
        "python package",
        include_str!("../ignore/python-package.dockerignore"),
    ),
    (
        "rust service",
        include_str!("../ignore/rust-service.dockerignore"),
    ),
    (
        "rust workspace, !",
        include_str!("../ignore/rust-workspace.dockerignore"),
    ),
];

/// A directory at the top, one in it, and the files in that. A walk joins these paths; here that is done before.
type Paths = Vec<(String, String, Vec<String>)>;

fn paths(count: usize) -> Paths {
    let dirs = layout(count);
    let all = dirs.iter().map(|dir| {
        let at = format!("{}/{}", dir.top, dir.name);
        let files = dir.files.iter().map(|(name, _)| format!("{at}/{name}")).collect();
        (dir.top.clone(), at, files)
    });
    all.collect()
}

fn filter(text: &str) -> Filter {
    let lines = read_ignore_file(text.as_bytes()).expect("the file is good");
    let pattern = |line: &bk_fsync::pattern::IgnoreLine| line.pattern.clone();
    let exclude = lines.iter().map(pattern).collect();
    let options = FilterOptions::new(Vec::new(), exclude, Vec::new());
    Filter::new(&MemoryTree::new(), &options).expect("the patterns are good")
}

/// Decides on every path, and does not look into directories that a walk would not enter. Visible files.
fn decide_all(filter: &Filter, paths: &Paths) -> usize {
    let decide = |path: &str, is_dir, state: &DirState| {
        let path = RelPath::new(path.as_bytes()).expect("paths are clean");
        filter.decide(path, is_dir, state).expect("the patterns are good")
    };
    let mut visible = 0;
    for (top, at, files) in paths {
        let top = decide(top, true, &DirState::default());
        if !top.descend {
            continue;
        }
        let dir = decide(at, true, &top.state);
        if !dir.descend {
            continue;
        }
        for file in files {
            visible += usize::from(decide(black_box(file), false, &dir.state).visible);
        }
    }
    visible
}

fn decide(criterion: &mut Criterion, count: usize) {
    let paths = paths(count);
    let mut group = Beside::new(criterion, "pattern/decide", Throughput::Elements(count as u64));
    let nothing = filter("");
    group.limit(|| assert_eq!(decide_all(&nothing, &paths), count));
    for (name, text) in FILES {
        let filter = filter(text);
        let visible = decide_all(&filter, &paths);
        group.measure(name, || assert_eq!(decide_all(&filter, &paths), visible));
    }
}

fn compile(criterion: &mut Criterion, count: usize) {
    let forms = [
        "**/*.o",
        "target/",
        "!keep/this.txt",
        "/docs/**/*.[mM]d",
        "a?c/**",
        "**/deep/**/x*y",
    ];
    let line = |at: usize| format!("# number {at}\n  {}{at}  \n\n", forms[at % forms.len()]);
    let text: String = (0..count).map(line).collect();
    let read = || read_ignore_file(text.as_bytes()).expect("the file is good");
    let mut group = Beside::new(criterion, "pattern/compile", Throughput::Elements(count as u64));
    group.limit(|| assert_eq!(read().len(), count));
    group.measure("long list", || {
        black_box(PatternList::from_ignore_file(&read()).expect("the patterns are good"));
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let sizes = sizes();
    decide(&mut criterion, sizes.paths);
    compile(&mut criterion, sizes.patterns);
    criterion.final_summary();
}
