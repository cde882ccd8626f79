//! The receiving machine under any sequence of packets and of its own doings, beside a model.

#![no_main]

use bk_fuzz::{ReceiverModel, Step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Vec<Step>| {
    let mut model = ReceiverModel::default();
    for step in &steps {
        if !model.step(step) {
            return;
        }
    }
});
