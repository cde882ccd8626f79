//! The sending machine under any sequence of operations, beside a model.

#![no_main]

use bk_fuzz::{Op, SenderModel};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|ops: Vec<Op>| {
    let mut model = SenderModel::default();
    for op in ops {
        model.step(op);
    }
});
