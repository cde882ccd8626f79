//! How wide text is on a terminal, and as much of it as fits. The only place that knows of cells.

use unicode_width::UnicodeWidthChar;

/// Cells between tab stops.
const TAB: usize = 8;

/// What is drawn where text was cut.
const CUT: char = '…';

/// Cells that harmless text on one line takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().fold(0, |column, c| column + cells(c, column))
}

/// As much of the beginning of `text` as fits into `room` cells, and how many it takes. Tabs become spaces; characters
/// that reorder text are drawn as U+FFFD; text that was cut ends with an ellipsis.
pub(crate) fn fit(text: &str, room: usize) -> (String, usize) {
    let mut fitted = String::with_capacity(text.len().min(room.saturating_mul(4)));
    let mut column = 0;
    // The end of what still leaves a cell for the ellipsis.
    let (mut keep, mut keep_column) = (0, 0);
    for c in text.chars() {
        let c = if reorders(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        };
        let next = column + cells(c, column);
        if next > room {
            fitted.truncate(keep);
            if room > 0 {
                fitted.push(CUT);
                keep_column += 1;
            }
            return (fitted, keep_column);
        }
        if c == '\t' {
            fitted.extend(std::iter::repeat_n(' ', next - column));
        } else {
            fitted.push(c);
        }
        column = next;
        if column < room {
            (keep, keep_column) = (fitted.len(), column);
        }
    }
    (fitted, column)
}

fn cells(c: char, column: usize) -> usize {
    match c {
        '\t' => TAB - column % TAB,
        _ => c.width().unwrap_or_default(),
    }
}

/// Characters with which a name could make a line read otherwise than it is.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_cells() {
        for (text, room, fitted, cells) in [
            ("abc", 3, "abc", 3),
            ("abcd", 3, "ab…", 3),
            ("", 0, "", 0),
            ("a", 0, "", 0),
            ("漢字", 4, "漢字", 4),
            ("漢字x", 4, "漢…", 3),
            ("漢字", 3, "漢…", 3),
            ("e\u{301}e\u{301}", 2, "e\u{301}e\u{301}", 2),
            ("a\tb", 10, "a       b", 9),
            ("a\tb", 5, "a…", 2),
            ("x\u{202e}y", 3, "x\u{fffd}y", 3),
        ] {
            assert_eq!(fit(text, room), (fitted.to_owned(), cells), "{text:?} in {room}");
            assert_eq!(width(fitted), cells);
        }
    }
}
