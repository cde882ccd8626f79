//! Exports of any listing into a directory full of traps: nothing outside changes, and nothing is left that was not
//! sent.

#![no_main]

use std::sync::LazyLock;

use bk_fsync::{Destination, ReceiveOptions, receive};
use bk_fuzz::{Peer, Step, check, set};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static PLACE: LazyLock<(tempfile::TempDir, Runtime)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    (tempfile::tempdir().expect("a directory"), runtime)
});

fuzz_target!(|steps: Vec<Step>| {
    let place = PLACE.0.path();
    set(place);
    let dest = Destination::open(place.join("dest")).expect("it is there");
    let (peer, requests) = Peer::new(&steps);
    let result = PLACE.1.block_on(receive(dest, ReceiveOptions::new(), peer, requests));
    if let Err(error) = &result {
        bk_fuzz::draw(error);
    }
    check(place);
});
