//! Tables and lists of text from a daemon, as wide as they have to be.

use bk_progress::neutralise_line;

/// Space between columns.
const GAP: &str = "   ";

/// Rows under a heading, each column as wide as its widest cell. Cells are made harmless for a terminal.
pub(super) fn table(heading: &[&str], rows: Vec<Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = std::iter::once(heading.iter().map(|h| (*h).to_owned()).collect())
        .chain(rows.into_iter().map(clean))
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            if !line.is_empty() {
                line.push_str(GAP);
            }
            line.push_str(&format!("{cell:width$}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn clean(row: Vec<String>) -> Vec<String> {
    row.iter().map(|cell| neutralise_line(cell)).collect()
}

/// `Name:  value` lines with their values below each other; those without a value are left out.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let there = || facts.iter().filter(|(_, value)| !value.is_empty());
    let width = there()
        .map(|(name, _)| name.chars().count() + 1)
        .max()
        .unwrap_or(0);
    there()
        .map(|(name, value)| {
            let name = neutralise_line(name);
            format!("{:width$}  {}\n", format!("{name}:"), neutralise_line(value))
        })
        .collect()
}

/// Text of at most `limit` characters, the last of them `…` when something is missing.
pub(super) fn cut(text: &str, limit: usize) -> String {
    match text.chars().count() > limit {
        true => text.chars().take(limit.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells_and_harmless() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = table(
            &["ID", "SIZE", "X"],
            vec![row(["abc\u{1b}[2J", "1B", ""]), row(["d", "12.34kB", "a\nb"])],
        );
        assert_eq!(text, "ID    SIZE      X\nabc   1B\nd     12.34kB   a b\n");
        let list = facts(&[
            ("A", "1\u{8}".to_owned()),
            ("None", String::new()),
            ("Long", "2".to_owned()),
        ]);
        assert_eq!(list, "A:     1^H\nLong:  2\n");
        assert_eq!(
            (cut("abcd", 4), cut("abcde", 4)),
            ("abcd".to_owned(), "abc…".to_owned())
        );
    }
}
