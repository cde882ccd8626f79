//! Chores of the workspace, run as `cargo xtask <job>`.

fn main() {}
