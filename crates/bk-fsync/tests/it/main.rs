//! The integration tests of the crate, in one binary.

mod golden;

#[path = "../support/vectors.rs"]
mod vectors;
