//! Draws nothing.

use std::io;

use bk_build::BuildEvent;

use crate::Renderer;

/// Draws nothing, whatever happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Renderer for Quiet {
    fn event(&mut self, _event: &BuildEvent) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}
