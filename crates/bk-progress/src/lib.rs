//! Draws what happens while a build runs.
//!
//! A renderer is a pure consumer of [`bk_build::BuildEvent`]: it reads no clock, no environment and no terminal, opens
//! nothing ([`LogDir`] alone writes files), and writes only to the writer that it was given. Time reaches it through [`Renderer::tick`], so the same
//! events and ticks always draw the same bytes. A reader that goes away (a broken pipe) is not an error: the renderer
//! falls silent and the build goes on.
//!
//! ```
//! use bk_build::{BuildEvent, Vertex};
//! use bk_progress::{Plain, Renderer};
//!
//! # fn main() -> std::io::Result<()> {
//! let mut drawn = Vec::new();
//! let mut plain = Plain::new(&mut drawn);
//! let mut vertex = Vertex::new("sha256:1", "[1/1] FROM scratch");
//! vertex.cached = true;
//! plain.event(&BuildEvent::VertexCached(vertex))?;
//! plain.finish()?;
//! drop(plain);
//! assert_eq!(drawn, b"#1 [1/1] FROM scratch\n#1 CACHED\n");
//! # Ok(())
//! # }
//! ```

mod block;
mod fold;
mod json;
pub mod limits;
mod log_dir;
mod mode;
mod out;
mod plain;
mod quiet;
mod rawjson;
mod renderer;
mod spans;
mod tail;
mod tally;
mod text;
mod theme;
mod tty;
mod units;
mod width;

pub use fold::Fold;
pub use json::Json;
pub use log_dir::LogDir;
pub use mode::{Mode, Output, UnknownMode};
pub use plain::Plain;
pub use quiet::Quiet;
pub use rawjson::{RawJson, warning_json};
pub use renderer::Renderer;
pub use tally::Tally;
pub use text::{neutralise, neutralise_line};
pub use theme::{Theme, UnknownColor};
pub use tty::{RESTORE_TERMINAL, Size, Tty, TtyOptions};
