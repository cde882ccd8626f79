//! A place in a source file, drawn as people know it from `docker buildx`.

use std::fmt;

use bytes::Bytes;

/// Lines `start..=end`, counted from 1 as the daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LineRange {
    /// First line.
    pub start: i32,
    /// Last line.
    pub end: i32,
}

/// A place in a source file (usually the Dockerfile), from the daemon's copy: never read again from disk.
///
/// `Display` draws the lines with up to four lines of surroundings, marking the range with `>>>`; it draws nothing when
/// there is no range or the range lies outside the file, and only `name:line` when the text is not known.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct SourceSnippet {
    /// The file's name as the daemon says it.
    pub filename: String,
    /// The file's text.
    #[serde(with = "crate::serial::bytes")]
    pub data: Bytes,
    /// The lines meant.
    pub ranges: Vec<LineRange>,
}

impl SourceSnippet {
    /// A place in `filename`, whose text is `data`.
    pub fn new(filename: impl Into<String>, data: impl Into<Bytes>, ranges: Vec<LineRange>) -> Self {
        Self {
            filename: filename.into(),
            data: data.into(),
            ranges,
        }
    }

    /// The first line meant, when there is one.
    pub fn first_line(&self) -> Option<i32> {
        self.ranges.iter().map(|r| r.start).min()
    }
}

/// Lines of context around a single marked line, and around several. What upstream's display pads with.
const PAD_SINGLE: i64 = 4;
const PAD_SEVERAL: i64 = 2;

/// Lines drawn at most: a daemon's range may span a whole file.
const MAX_DRAWN: usize = 200;

impl fmt::Display for SourceSnippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.data.is_empty() {
            // Old daemons say only the place.
            return match self.first_line().filter(|l| *l > 0) {
                Some(line) => writeln!(f, "{}:{line}", self.filename),
                None => Ok(()),
            };
        }
        let text = String::from_utf8_lossy(&self.data);
        let lines: Vec<&str> = text.split('\n').collect();
        let count = i64::try_from(lines.len()).unwrap_or(i64::MAX);
        let Some(first) = self.ranges.iter().map(|r| i64::from(r.start)).min() else {
            return Ok(());
        };
        let last = self
            .ranges
            .iter()
            .map(|r| i64::from(r.end.max(r.start)))
            .max()
            .unwrap_or(first);
        if first < 1 || first > count {
            return Ok(());
        }
        let (mut start, mut end) = (first, last.min(count));
        let budget = if end == start { PAD_SINGLE } else { PAD_SEVERAL };
        let mut padded = 0;
        while padded < budget {
            if start > 1 {
                start -= 1;
                padded += 1;
            }
            if end < count {
                end += 1;
                padded += 1;
            }
            padded += 1;
        }
        writeln!(f, "{}:{first}", self.filename)?;
        writeln!(f, "--------------------")?;
        let from = usize::try_from(start - 1).unwrap_or(0);
        for (number, line) in (start..=end).zip(lines.iter().skip(from)).take(MAX_DRAWN) {
            let marked = self
                .ranges
                .iter()
                .any(|r| i64::from(r.start) <= number && number <= i64::from(r.end.max(r.start)));
            let mark = if marked { ">>>" } else { "   " };
            writeln!(f, " {number:3} | {mark} {line}")?;
        }
        if usize::try_from(end - start).is_ok_and(|more| more >= MAX_DRAWN) {
            writeln!(f, "     | (and more, up to line {end})")?;
        }
        writeln!(f, "--------------------")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_a_single_line_with_surroundings() {
        let s = SourceSnippet::new(
            "Dockerfile",
            "FROM scratch\nCOPY a /\nRUN false\nCOPY b /\nCOPY c /\nCOPY d /\n",
            vec![LineRange { start: 3, end: 3 }],
        );
        assert_eq!(
            s.to_string(),
            "Dockerfile:3\n--------------------\n   1 |     FROM scratch\n   2 |     COPY a /\n   3 | >>> RUN false\n   4 |     \
             COPY b /\n   5 |     COPY c /\n--------------------\n"
        );
    }

    #[test]
    fn hostile_ranges_draw_nothing_or_stay_inside() {
        for (start, end) in [(0, 0), (-5, 3), (99, 100), (i32::MAX, i32::MAX)] {
            let s = SourceSnippet::new("D", "one\ntwo", vec![LineRange { start, end }]);
            assert_eq!(s.to_string(), "");
        }
        let s = SourceSnippet::new(
            "D",
            "one\ntwo",
            vec![LineRange {
                start: 1,
                end: i32::MAX,
            }],
        );
        assert!(s.to_string().contains("   2 | >>> two"));
        let long = SourceSnippet::new(
            "D",
            "\n".repeat(160_000),
            vec![
                LineRange {
                    start: 1,
                    end: i32::MAX
                };
                8000
            ],
        );
        assert!(long.to_string().lines().count() <= MAX_DRAWN + 4);
        assert_eq!(SourceSnippet::new("D", "", vec![]).to_string(), "");
        assert_eq!(
            SourceSnippet::new("D", "", vec![LineRange { start: 3, end: 3 }]).to_string(),
            "D:3\n"
        );
    }
}
