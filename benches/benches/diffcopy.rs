//! A whole transfer inside one process, from files on disk to a receiver that wants everything or has everything.
//!
//! The limit is the bare reading of the same files, written to a Unix socket; for `unchanged`, their bare listing.

use bk_benches::{sizes, transfer, transfers};
use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .build()
        .expect("a runtime");
    transfers(&mut criterion, "diffcopy", sizes(), |tree, wanted| {
        runtime.block_on(transfer(tree, wanted)).expect("arrives")
    });
    criterion.final_summary();
}
