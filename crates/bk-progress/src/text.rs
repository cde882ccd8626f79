//! Makes text from outside harmless for a terminal: no escape sequence, no control byte, always UTF-8.
//!
//! Escape sequences (colours, cursor moves, titles) are dropped; other control characters are drawn as `^X`; bytes that
//! are not UTF-8 become U+FFFD. Tabs stay. No sequence swallows more than the rest of its line.

/// Text of one or more lines without anything that a terminal would obey. Line ends and tabs stay.
pub fn neutralise(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut cleaner = Cleaner::default();
    let mut sink = |piece: Piece<'_>| match piece {
        Piece::Text(text) => clean.push_str(text),
        Piece::LineEnd => clean.push('\n'),
    };
    cleaner.feed(text.as_bytes(), &mut sink);
    clean
}

/// Text drawn on one line: as [`neutralise`], with each line end as a space.
pub fn neutralise_line(text: &str) -> String {
    neutralise(text).replace('\n', " ")
}

/// What a [`Cleaner`] yields.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Harmless text within a line; never empty.
    Text(&'a str),
    /// The end of a line.
    LineEnd,
}

/// Cleans a stream of bytes that is cut anywhere. A carriage return before a newline belongs to it; any other begins
/// a new line, so that progress bars become lines instead of overwriting each other.
#[derive(Default)]
pub(crate) struct Cleaner {
    /// The first bytes of a character whose rest has not come yet: at most three.
    carry: Vec<u8>,
    state: State,
    /// A carriage return was seen and nothing behind it yet.
    returned: bool,
    /// Whether the current line has text already.
    in_line: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// Behind ESC.
    Escape,
    /// Inside a control sequence (`ESC [`).
    Control,
    /// Inside a string (`ESC ]` and its kin), which BEL or `ESC \` ends.
    String,
    /// Behind an ESC inside a string.
    StringEscape,
}

impl Cleaner {
    /// Takes the next bytes; hands what they yield to `sink`.
    pub(crate) fn feed(&mut self, data: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
        let joined;
        let mut rest = if self.carry.is_empty() {
            data
        } else {
            joined = [&std::mem::take(&mut self.carry), data].concat();
            &joined
        };
        let mut text = String::new();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    valid.chars().for_each(|c| self.char(c, &mut text, sink));
                    break;
                }
                Err(e) => {
                    let (valid, behind) = rest.split_at(e.valid_up_to());
                    // Cannot fail: `valid_up_to` says so. Lossy keeps it free of panics anyway.
                    String::from_utf8_lossy(valid)
                        .chars()
                        .for_each(|c| self.char(c, &mut text, sink));
                    match e.error_len() {
                        None => {
                            self.carry = behind.to_vec();
                            break;
                        }
                        Some(length) => {
                            self.char(char::REPLACEMENT_CHARACTER, &mut text, sink);
                            rest = behind.get(length..).unwrap_or_default();
                        }
                    }
                }
            }
        }
        emit(&mut text, sink);
    }

    fn char(&mut self, c: char, text: &mut String, sink: &mut impl FnMut(Piece<'_>)) {
        if c == '\r' {
            // Ends every sequence too: what follows it is text again.
            self.state = State::Ground;
            self.returned = true;
            return;
        }
        if std::mem::take(&mut self.returned) && c != '\n' && self.in_line {
            self.line_end(text, sink);
        }
        if c == '\n' {
            self.state = State::Ground;
            self.line_end(text, sink);
            return;
        }
        match self.state {
            State::Ground => self.ground(c, text),
            State::Escape | State::StringEscape => {
                let in_string = self.state == State::StringEscape;
                self.state = match c {
                    '\\' if in_string => State::Ground,
                    '[' => State::Control,
                    ']' | 'P' | 'X' | '^' | '_' => State::String,
                    ' '..='/' | '\u{1b}' => State::Escape,
                    _ => State::Ground,
                };
            }
            State::Control => match c {
                ' '..='?' => {}
                '@'..='~' => self.state = State::Ground,
                _ => {
                    self.state = State::Ground;
                    self.ground(c, text);
                }
            },
            State::String => match c {
                '\u{7}' | '\u{9c}' => self.state = State::Ground,
                '\u{1b}' => self.state = State::StringEscape,
                _ => {}
            },
        }
    }

    fn ground(&mut self, c: char, text: &mut String) {
        match c {
            '\u{1b}' => return self.state = State::Escape,
            '\u{9b}' => return self.state = State::Control,
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => return self.state = State::String,
            '\t' => text.push(c),
            '\u{0}'..='\u{1f}' | '\u{7f}' => {
                text.push('^');
                text.push(char::from((c as u8) ^ 0x40));
            }
            '\u{80}'..='\u{9f}' => text.push(char::REPLACEMENT_CHARACTER),
            _ => text.push(c),
        }
        self.in_line = true;
    }

    fn line_end(&mut self, text: &mut String, sink: &mut impl FnMut(Piece<'_>)) {
        emit(text, sink);
        sink(Piece::LineEnd);
        self.in_line = false;
    }
}

fn emit(text: &mut String, sink: &mut impl FnMut(Piece<'_>)) {
    if !text.is_empty() {
        sink(Piece::Text(text));
        text.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(chunks: &[&[u8]]) -> String {
        let mut cleaner = Cleaner::default();
        let mut drawn = String::new();
        for chunk in chunks {
            cleaner.feed(chunk, &mut |piece| match piece {
                Piece::Text(text) => drawn.push_str(text),
                Piece::LineEnd => drawn.push('\n'),
            });
        }
        drawn
    }

    #[test]
    fn sequences_are_dropped_and_controls_drawn() {
        for (raw, drawn) in [
            (&b"plain\ttext\n"[..], "plain\ttext\n"),
            (b"\x1b[1;31mred\x1b[0m!", "red!"),
            (b"\x1b]0;title\x07after", "after"),
            (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            (b"\x1b(Bkept\x1b7\x1b8", "kept"),
            (b"bell\x07 del\x7f nul\0", "bell^G del^? nul^@"),
            (b"\xc2\x9b31mred \xc2\x85", "red \u{fffd}"),
            (b"bad \xff\xfe utf", "bad \u{fffd}\u{fffd} utf"),
            (b"\x1b[\nnext", "\nnext"),
            (b"\x1b]never ended\nnext", "\nnext"),
            (b"\x1b[3\x071m", "^G1m"),
            ("grün ✓".as_bytes(), "grün ✓"),
        ] {
            assert_eq!(clean(&[raw]), drawn, "{raw:?}");
        }
    }

    #[test]
    fn carriage_returns_end_lines_once() {
        assert_eq!(clean(&[b"a\r\nb\r\r\nc"]), "a\nb\nc");
        assert_eq!(
            clean(&[b"10%\r20%\r", b"30%\r", b"\ndone\n"]),
            "10%\n20%\n30%\ndone\n"
        );
        assert_eq!(clean(&[b"\r\rx"]), "x");
    }

    #[test]
    fn cuts_do_not_matter() {
        let raw = "a\x1b[31mö✓\x1b]0;t\x1b\\🦀\r\nz\r\x1b[2Kend\n".as_bytes();
        let whole = clean(&[raw]);
        assert_eq!(whole, "aö✓🦀\nz\nend\n");
        for i in 0..=raw.len() {
            for j in i..=raw.len() {
                assert_eq!(
                    clean(&[&raw[..i], &raw[i..j], &raw[j..]]),
                    whole,
                    "cut at {i} and {j}"
                );
            }
        }
    }

    #[test]
    fn one_line_stays_one_line() {
        assert_eq!(neutralise_line("RUN a\n\x1b[2Jb\r\nc"), "RUN a b c");
        assert_eq!(neutralise("a\nb\x1b[2J\n"), "a\nb\n");
    }
}
