//! The binary `bk`.

fn main() {}
