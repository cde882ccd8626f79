//! Reading a large ignore file and compiling it. What it prints is patterns a second.

use bk_benches::sizes;
use bk_fsync::pattern::{PatternList, read_ignore_file};
use criterion::{Criterion, Throughput};

fn ignore_file(c: &mut Criterion) {
    let count = sizes().patterns;
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
    let mut group = c.benchmark_group("ignore_file");
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("read", |b| {
        b.iter(|| read_ignore_file(text.as_bytes()).expect("the file is good").len());
    });
    let lines = read_ignore_file(text.as_bytes()).expect("the file is good");
    assert_eq!(lines.len(), count);
    group.bench_function("compile", |b| {
        b.iter(|| PatternList::from_ignore_file(&lines).expect("the patterns are good"));
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    ignore_file(&mut criterion);
    criterion.final_summary();
}
