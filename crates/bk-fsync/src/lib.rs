//! File trees, ignore patterns and both halves of BuildKit's diff-copy protocol.
//!
//! A [`Tree`] is where files come from; [`send`](drive::send) walks it, filters it by the daemon's patterns,
//! announces what is visible in the order of the wire, and serves the files that the daemon asks for.
//!
//! | module | what |
//! |---|---|
//! | [`path`] | clean relative paths as bytes, and their order |
//! | [`entry`], [`tree`] | what is known of a file, and where files come from |
//! | [`pattern`], [`follow`], [`filter`] | Docker's pattern language, followed links, what is visible and why |
//! | [`walk`], [`hardlink`], [`policy`], [`wire`] | from a tree to the entries of the wire |
//! | [`order`], [`send`](mod@send) | the protocol, as machines without I/O |
//! | [`read`], [`drive`] | reading files whole, and the future that drives a transfer |
//! | [`receive`](mod@receive), [`diff`] | the protocol of an export to a directory, and what differs from what is there |
//! | [`write`](mod@write), [`drive_receive`] | a directory that nothing gets out of, and the future that drives an export |
//! | [`tar`] | the same entries as a tar stream, for a daemon without a session, and what is wrong with one that is read |
//! | [`options`], [`report`], [`limits`] | what a transfer is told, what it tells, and the numbers it goes by |
//!
//! Nothing here knows of gRPC servers, builds or daemons. For a session context the daemon reads the ignore
//! file and sends its patterns along: nothing is ignored here on its own account.

#![forbid(unsafe_code)]

mod ahead;
mod buffer;
pub mod diff;
pub mod drive;
pub mod drive_receive;
pub mod entry;
pub mod filter;
pub mod follow;
pub mod hardlink;
pub mod limits;
mod offset;
pub mod options;
pub mod order;
pub mod path;
pub mod pattern;
pub mod policy;
pub mod read;
pub mod receive;
pub mod report;
mod scan;
pub mod send;
pub mod tar;
pub mod tree;
pub mod walk;
pub mod wire;
pub mod write;

pub use drive::{SendError, send};
pub use drive_receive::{ReceiveError, receive};
pub use filter::FilterOptions;
pub use options::SendOptions;
pub use policy::{
    ChangePolicy, ContentOptions, DirHashCache, FilePolicies, HashCache, ModePolicy, OwnerMap, OwnerPolicy,
    SyncPolicy, Utf8Policy,
};
pub use receive::{ReceiveObserver, ReceiveOptions, ReceiveReport};
pub use report::{SendObserver, SendReport, Share, Warning};
pub use tree::{DirTree, FilesTree, MemoryTree, OverlayTree, PathMapTree, SingleFileTree, TarTree, Tree};
pub use write::Destination;
