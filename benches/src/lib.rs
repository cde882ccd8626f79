//! What the benchmarks share: their sizes, the trees that they make, a receiver that wants everything, and the limits
//! that they stand beside.
//!
//! The rule: nothing here is measured by accident. Trees are made before the clock runs, and generated trees compute
//! their entries, so that memory that is seen is the memory of what is measured.

mod beside;
mod contexts;
mod layout;
pub mod raw;
mod receiver;
mod sizes;
mod tree;

pub use beside::Beside;
pub use contexts::{Context, transfers};
pub use layout::{Dir, layout, write};
pub use receiver::{Received, Wanted, receive, transfer};
pub use sizes::{Sizes, sizes};
pub use tree::Generated;
