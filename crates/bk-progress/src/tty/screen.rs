//! What stands on the terminal, and the bytes that turn it into something else. Writes only what changed.

use std::io::{self, Write};

use crate::out::Out;

/// How large a terminal is, in cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Cells in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

impl Default for Size {
    /// 80 by 24, what a terminal is taken for that does not say.
    fn default() -> Self {
        Self {
            columns: 80,
            rows: 24,
        }
    }
}

/// One line, ready to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// Cells that it takes.
    pub(super) width: usize,
}

/// The lines that were written, with the cursor at the beginning of the line below.
pub(super) struct Screen<W: Write> {
    pub(super) out: Out<W>,
    shown: Vec<Line>,
    /// Lines to go up to the first one, when they may not be where they were put.
    moved: Option<usize>,
    /// Whether the cursor is hidden.
    active: bool,
}

/// Hides the cursor, and keeps a line that is wider than we think from moving the others.
const ENTER: &str = "\u{1b}[?25l\u{1b}[?7l";
/// Takes that back.
const LEAVE: &str = "\u{1b}[?7h\u{1b}[?25h";
/// Erases the rest of the line, and all below the cursor.
const ERASE_LINE: &str = "\u{1b}[K";
const ERASE_BELOW: &str = "\u{1b}[J";

impl<W: Write> Screen<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out: Out::new(out),
            shown: Vec::new(),
            moved: None,
            active: false,
        }
    }

    /// The terminal has another size now. `reflows`: lines that are too long now were broken by it.
    pub(super) fn resize(&mut self, size: Size, reflows: bool) {
        let columns = usize::from(size.columns).max(1);
        let rows = self.shown.iter().map(|line| match reflows {
            true => line.width.div_ceil(columns).max(1),
            false => 1,
        });
        self.moved = Some(rows.sum());
    }

    /// Shows these lines instead of those that are shown.
    pub(super) fn paint(&mut self, lines: Vec<Line>) -> io::Result<()> {
        if !self.active {
            self.out.push(ENTER);
            self.active = true;
        }
        if self.moved.is_some() {
            self.clear();
        }
        let same = self.shown.iter().zip(&lines).take_while(|(a, b)| a == b).count();
        if same < self.shown.len().max(lines.len()) {
            self.up(self.shown.len() - same);
            for (index, line) in lines.iter().enumerate().skip(same) {
                match self.shown.get(index) {
                    Some(old) if old == line => {}
                    Some(_) => {
                        self.out.push(&line.text);
                        self.out.push(ERASE_LINE);
                    }
                    None => self.out.push(&line.text),
                }
                self.out.push("\r\n");
            }
            if lines.len() < self.shown.len() {
                self.out.push(ERASE_BELOW);
            }
            self.shown = lines;
        }
        self.out.flush()
    }

    /// Takes everything away and gives the cursor back; what is written next begins where the first line stood.
    pub(super) fn leave(&mut self) {
        self.clear();
        if std::mem::take(&mut self.active) {
            self.out.push(LEAVE);
        }
    }

    fn clear(&mut self) {
        let lines = self.moved.take().unwrap_or(self.shown.len());
        self.up(lines);
        if !self.shown.is_empty() {
            self.out.push(ERASE_BELOW);
        }
        self.shown.clear();
    }

    fn up(&mut self, lines: usize) {
        if lines > 0 {
            self.out.push(&format!("\r\u{1b}[{lines}A"));
        }
    }
}

impl<W: Write> Drop for Screen<W> {
    /// Gives the cursor back when nobody finished the display. What is shown stays.
    fn drop(&mut self) {
        if self.active {
            self.out.push(LEAVE);
            // There is nobody to tell.
            drop(self.out.flush());
        }
    }
}
