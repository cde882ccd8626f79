//! Draws each event as one JSON object on its own line, in our own schema.

use std::io::{self, Write};

use bk_build::BuildEvent;

use crate::{Renderer, out::Out};

/// Draws each event as one JSON object on its own line, as [`BuildEvent`] is serialised.
///
/// The first line is `{"event":"schema","version":1}` with [`BuildEvent::SCHEMA`]. Within a version members and events are
/// added only: a reader skips those that it does not know.
pub struct Json<W> {
    out: Out<W>,
    begun: bool,
}

impl<W: Write> Json<W> {
    /// Draws to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out: Out::new(out),
            begun: false,
        }
    }

    fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            let version = BuildEvent::SCHEMA;
            self.out
                .push(&format!("{{\"event\":\"schema\",\"version\":{version}}}\n"));
        }
    }
}

impl<W: Write> Renderer for Json<W> {
    fn event(&mut self, event: &BuildEvent) -> io::Result<()> {
        self.begin();
        serde_json::to_writer(self.out.buffer(), event)?;
        self.out.push("\n");
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.begin();
        self.out.flush()
    }
}
