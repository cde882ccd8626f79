//! What every renderer is.

use std::{io, time::Instant};

use bk_build::BuildEvent;

use crate::Size;

/// Draws the events of one build. Not reusable for a second build.
///
/// Writing may block (a terminal, a pipe): call a renderer from a thread that may.
pub trait Renderer {
    /// Takes one event and draws what it changes.
    ///
    /// # Errors
    /// Any error of the writer but a broken pipe, after which everything is dropped silently.
    fn event(&mut self, event: &BuildEvent) -> io::Result<()>;

    /// Says what time it is; call it about every [`limits::TICK`](crate::limits::TICK) while events are awaited.
    /// The default does nothing.
    ///
    /// # Errors
    /// As [`event`](Renderer::event).
    fn tick(&mut self, now: Instant) -> io::Result<()> {
        let _ = now;
        Ok(())
    }

    /// Says how large the terminal is that is drawn on. The default does nothing.
    ///
    /// # Errors
    /// As [`event`](Renderer::event).
    fn resize(&mut self, size: Size) -> io::Result<()> {
        let _ = size;
        Ok(())
    }

    /// Draws everything that still waits and what belongs at the end, for instance the last output of failed steps.
    /// To be called once, after the last event, also when the build was cancelled.
    ///
    /// # Errors
    /// As [`event`](Renderer::event).
    fn finish(&mut self) -> io::Result<()>;
}
