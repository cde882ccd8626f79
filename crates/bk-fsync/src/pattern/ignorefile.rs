//! Reads ignore files (`.dockerignore`) into patterns, each with the line it stands on.
//!
//! The rule: the same list as upstream's reader yields, so that the daemon and a tar upload agree. For a
//! session context the daemon reads the file itself; only tar uploads need this.

use std::io::{self, BufRead, BufReader, Read};

use super::trim;
use crate::limits::IGNORE_LINE_MAX;
use crate::path::clean;

/// One pattern of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IgnoreLine {
    /// The pattern, cleaned; a leading `!` makes it an exception.
    pub pattern: Vec<u8>,
    /// The line it stands on, from 1.
    pub line: usize,
}

/// Why an ignore file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IgnoreFileError {
    /// The file could not be read.
    #[error("cannot read the ignore file")]
    Io(#[source] io::Error),
    /// A line is longer than upstream's reader takes.
    #[error("line {line} of the ignore file is longer than {max} bytes", max = IGNORE_LINE_MAX)]
    LineTooLong {
        /// The line, from 1.
        line: usize,
    },
}

/// Reads the patterns of an ignore file.
///
/// Comments (`#` in the first column) and blank lines are dropped, white space around a pattern and a leading
/// byte order mark are cut, paths are cleaned, and one leading `/` is dropped.
///
/// # Errors
/// [`IgnoreFileError`] if reading fails or a line is longer than 64 KiB.
pub fn read_ignore_file(reader: impl Read) -> Result<Vec<IgnoreLine>, IgnoreFileError> {
    let mut reader = BufReader::new(reader);
    let mut lines = Vec::new();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let limit = IGNORE_LINE_MAX as u64 + 1;
        let read = (&mut reader)
            .take(limit)
            .read_until(b'\n', &mut text)
            .map_err(IgnoreFileError::Io)?;
        if read == 0 {
            break;
        }
        if text.last() == Some(&b'\n') {
            text.pop();
        } else if text.len() > IGNORE_LINE_MAX {
            return Err(IgnoreFileError::LineTooLong { line });
        }
        let mut content = text.strip_suffix(b"\r").unwrap_or(&text);
        if line == 1 {
            content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        }
        if let Some(pattern) = pattern_of(content) {
            lines.push(IgnoreLine { pattern, line });
        }
    }
    Ok(lines)
}

fn pattern_of(line: &[u8]) -> Option<Vec<u8>> {
    if line.first() == Some(&b'#') {
        return None;
    }
    let line = trim(line);
    if line.is_empty() {
        return None;
    }
    let (bang, path) = match line.strip_prefix(b"!") {
        Some(rest) => (true, trim(rest)),
        None => (false, line),
    };
    let mut pattern = Vec::with_capacity(path.len() + 1);
    if bang {
        pattern.push(b'!');
    }
    if !path.is_empty() {
        let path = clean(path);
        let path = if path.len() > 1 {
            path.strip_prefix(b"/").unwrap_or(&path)
        } else {
            &path
        };
        pattern.extend_from_slice(path);
    }
    Some(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(String, usize)> {
        let lines = read_ignore_file(text).unwrap();
        lines
            .into_iter()
            .map(|l| (String::from_utf8_lossy(&l.pattern).into_owned(), l.line))
            .collect()
    }

    #[test]
    fn lines_keep_their_numbers() {
        let got = read(b"\xef\xbb\xbf# c\n\n /a/ \r\n!  b//c \n!\n\xc2\xa0d\xe2\x80\x83");
        let want = [("a", 3), ("!b/c", 4), ("!", 5), ("d", 6)];
        assert_eq!(got, want.map(|(p, l)| (p.to_owned(), l)));
    }

    #[test]
    fn long_lines_are_refused_with_their_number() {
        let mut text = vec![b'a'; IGNORE_LINE_MAX];
        assert_eq!(read_ignore_file(&text[..]).unwrap().len(), 1);
        text.extend_from_slice(b"\nb");
        assert_eq!(read_ignore_file(&text[..]).unwrap()[1].line, 2);
        text.insert(0, b'a');
        assert!(matches!(
            read_ignore_file(&text[..]),
            Err(IgnoreFileError::LineTooLong { line: 1 })
        ));
    }
}
