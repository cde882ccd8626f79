//! What the benchmarks share: their sizes, the trees that they make, and a receiver that wants everything.
//!
//! The rule: nothing here is measured by accident. Trees are made before the clock runs, and generated trees compute
//! their entries, so that memory that is seen is the memory of what is measured.

mod layout;
mod receiver;
mod sizes;
mod tree;

pub use layout::{Dir, layout, write};
pub use receiver::{Received, Wanted, receive, transfer};
pub use sizes::{Sizes, sizes};
pub use tree::Generated;
