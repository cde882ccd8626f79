//! Draws a build on a terminal: a header, one row for each step, and below a running step what goes on inside.
//!
//! The drawing is repainted in place, at most 30 times a second, and only lines that changed are written. It never has
//! more lines than the terminal: then what runs and what ended last stays, and the rest is summed up. At the end
//! everything is drawn once, with the last output of failed steps below it.

mod frame;
mod model;
mod row;
mod screen;

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use bk_build::BuildEvent;

use self::{frame::Look, model::Model, row::State, screen::Screen};
use crate::{Renderer, Theme, limits, theme::Ink};

pub use self::screen::Size;

/// What gives a terminal back as it was: colours, breaking of lines, cursor.
pub const RESTORE_TERMINAL: &str = "\u{1b}[0m\u{1b}[?7h\u{1b}[?25h";

/// How a display for terminals looks. The default suits a terminal of 80 by 24 with colours.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TtyOptions {
    /// How large the terminal is at first.
    pub size: Size,
    /// The colours.
    pub theme: Theme,
    /// Lines of output shown of a running step; default [`limits::LOG_WINDOW_LINES`].
    pub log_lines: usize,
    /// Whether the terminal breaks lines anew when it becomes narrower, as most do; default yes. The drawing is not cleanly
    /// replaced after a change of size if this is wrong.
    pub reflows: bool,
}

impl Default for TtyOptions {
    fn default() -> Self {
        Self {
            size: Size::default(),
            theme: Theme::default(),
            log_lines: limits::LOG_WINDOW_LINES,
            reflows: true,
        }
    }
}

/// Draws a build on a terminal.
///
/// The writer has to be a terminal that knows the usual escape sequences. Nothing is drawn before
/// [`limits::FIRST_PAINT`] after the first [`tick`](Renderer::tick), and nothing but the end without ticks. The cursor is
/// hidden meanwhile; [`finish`](Renderer::finish) and dropping give it back. A program that ends in another way has to
/// write [`RESTORE_TERMINAL`] by itself.
///
/// Text from outside is neutralised. What is kept is bounded for each step; only the number of steps is the daemon's.
pub struct Tty<W: Write> {
    screen: Screen<W>,
    model: Model,
    options: TtyOptions,
    began: Option<Instant>,
    now: Option<Instant>,
    painted: Option<Instant>,
    /// Whether anything happened since the last frame.
    fresh: bool,
}

impl<W: Write> Tty<W> {
    /// Draws to `out`.
    pub fn new(out: W, options: TtyOptions) -> Self {
        Self {
            screen: Screen::new(out),
            model: Model::default(),
            options,
            began: None,
            now: None,
            painted: None,
            fresh: false,
        }
    }

    fn look(&self) -> Look<'_> {
        let elapsed = match (self.began, self.now) {
            (Some(began), Some(now)) => now.saturating_duration_since(began),
            _ => Duration::ZERO,
        };
        Look {
            size: self.options.size,
            theme: &self.options.theme,
            log_lines: self.options.log_lines,
            now: self.now,
            elapsed,
        }
    }

    /// The last output of steps that failed, and all warnings.
    fn report(&mut self) {
        let out = &mut self.screen.out;
        for row in self.model.begun.iter().filter_map(|i| self.model.rows.get(*i)) {
            if row.state() != State::Failed {
                continue;
            }
            out.push(&format!("------\n > {}:\n", row.name));
            if row.tail.dropped() > 0 {
                out.push(&format!("[{} earlier lines are not shown]\n", row.tail.dropped()));
            }
            for line in row.tail.last(usize::MAX) {
                out.push(line);
                out.push("\n");
            }
            out.push("------\n");
        }
        if self.model.warned > 0 {
            let s = if self.model.warned == 1 { "" } else { "s" };
            out.push(&format!("\n {} warning{s} found:\n", self.model.warned));
            for warning in &self.model.warnings {
                let text = self.options.theme.paint(Ink::Warning, warning.clone());
                out.push(&format!(" - {text}\n"));
            }
            let more = self.model.warned - self.model.warnings.len() as u64;
            if more > 0 {
                out.push(&format!(" - and {more} more\n"));
            }
        }
    }
}

impl<W: Write> Renderer for Tty<W> {
    fn event(&mut self, event: &BuildEvent) -> io::Result<()> {
        self.fresh |= self.model.event(event);
        Ok(())
    }

    fn tick(&mut self, now: Instant) -> io::Result<()> {
        let began = *self.began.get_or_insert(now);
        self.now = Some(now);
        self.model.tick(now);
        let due = match self.painted {
            None => now.saturating_duration_since(began) >= limits::FIRST_PAINT,
            Some(painted) => {
                let since = now.saturating_duration_since(painted);
                since >= limits::FRAME && self.fresh || since >= limits::CLOCK
            }
        };
        if !due {
            return Ok(());
        }
        (self.painted, self.fresh) = (Some(now), false);
        let lines = self.look().frame(&self.model);
        self.screen.paint(lines)
    }

    fn resize(&mut self, size: Size) -> io::Result<()> {
        if size != self.options.size {
            self.screen.resize(size, self.options.reflows);
            self.options.size = size;
            self.fresh = true;
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.screen.leave();
        for line in self.look().last(&self.model) {
            self.screen.out.push(&line.text);
            self.screen.out.push("\n");
        }
        self.report();
        self.screen.out.flush()
    }
}

#[cfg(test)]
mod tests;
