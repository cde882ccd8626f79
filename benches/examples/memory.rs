//! How much memory transfers take: `cargo run --release -p bk-benches --example memory`.
//!
//! Runs one transfer after another inside this process and prints the most memory that the process has held so far,
//! both halves together. Trees are generated, so none of it is a tree's.

use std::sync::Arc;

use bk_benches::{Generated, Wanted, transfer};

/// The most memory held so far, in KiB. Linux only; 0 elsewhere.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or(0)
}

#[expect(clippy::print_stdout, reason = "it is a program for people")]
fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    println!(
        "{:<42} {:>9} {:>12} {:>9}",
        "transfer", "entries", "bytes", "peak KiB"
    );
    // From small to large: the peak of a process never falls.
    for (name, tree, wanted) in [
        (
            "one file of 1 GiB",
            Generated::new(1, 1 << 30),
            Wanted::Everything,
        ),
        (
            "50,000 files of 4 KiB",
            Generated::new(50_000, 4_096),
            Wanted::Everything,
        ),
        (
            "50,000 files, unchanged",
            Generated::new(50_000, 4_096),
            Wanted::Nothing,
        ),
        (
            "500,000 files, unchanged",
            Generated::new(500_000, 4_096),
            Wanted::Nothing,
        ),
        (
            "500,000 files of 100 bytes",
            Generated::new(500_000, 100),
            Wanted::Everything,
        ),
    ] {
        let got = runtime.block_on(transfer(Arc::new(tree), wanted))?;
        println!("{name:<42} {:>9} {:>12} {:>9}", got.entries, got.bytes, peak());
    }
    Ok(())
}
