//! What the terminal shows when a build fails: whole reports of the program, kept as text files in `tests/errors/`.
//!
//! A report is compared exactly; only what differs from run to run (times, digests, paths, addresses) is replaced by a
//! word in angle brackets. `BK_BLESS=1` writes the files, and the blocks of `docs/errors.md`, anew.
#![cfg(unix)]

#[path = "errors/absence.rs"]
mod absence;
#[path = "errors/connect.rs"]
mod connect;
#[path = "errors/dockerfile.rs"]
mod dockerfile;
#[path = "errors/fake.rs"]
mod fake;
#[path = "errors/input.rs"]
mod input;
#[path = "errors/local.rs"]
mod local;
#[path = "errors/page.rs"]
mod page;
#[path = "errors/refused.rs"]
mod refused;
#[path = "errors/registry.rs"]
mod registry;
#[path = "errors/scene.rs"]
mod scene;
#[path = "errors/snapshot.rs"]
mod snapshot;
#[path = "errors/steps.rs"]
mod steps;
