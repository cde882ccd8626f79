//! Lists of ignore patterns in Docker's language, and the two ways upstream asks them.
//!
//! The rule: order matters, the last pattern that matches decides, a pattern that matches a directory covers
//! what is below it, and `!` takes back. Every answer names the pattern that decided, so that a caller can
//! explain it. Upstream's two algorithms disagree in corners; both are here, each where upstream uses it.

mod compile;
mod gomatch;
mod goregex;
mod ignorefile;

pub use ignorefile::{IgnoreFileError, IgnoreLine, read_ignore_file};

pub(crate) use gomatch::matches as name_matches;

use crate::path::{clean, show};
use compile::Shape;
use goregex::Budget;

/// A pattern that cannot be used: an error of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed pattern {pattern:?}{}: {reason}", line.map(|l| format!(" on line {l}")).unwrap_or_default())]
#[non_exhaustive]
pub struct PatternError {
    /// The pattern as it was given, with bytes that are no UTF-8 escaped.
    pub pattern: String,
    /// Its place in the list, from 0.
    pub index: usize,
    /// The line of the ignore file, if it came from one.
    pub line: Option<usize>,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// One pattern of a list.
#[derive(Debug)]
pub struct Pattern {
    /// The cleaned text without the `!`.
    text: Vec<u8>,
    exception: bool,
    /// Place in the list as it was given (blank patterns keep their place).
    index: usize,
    line: Option<usize>,
    shape: Shape,
}

impl Pattern {
    /// The text of the pattern, cleaned and without a leading `!`.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether the pattern takes back (`!`).
    #[must_use]
    pub fn is_exception(&self) -> bool {
        self.exception
    }

    /// Its place in the list it was given in, from 0, blank patterns counted.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The line of the ignore file it came from, if any.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    fn matches(&self, path: &[u8]) -> Result<bool, PatternError> {
        compile::matches(&self.shape, &self.text, path).map_err(|reason| PatternError {
            pattern: show(&self.text).into_owned(),
            index: self.index,
            line: self.line,
            reason,
        })
    }

    /// The text without a final `/**` and then a final `/*`, which is what upstream prunes by.
    pub(crate) fn without_trailing_glob(&self) -> &[u8] {
        let text = self.text.strip_suffix(b"/**").unwrap_or(&self.text);
        text.strip_suffix(b"/*").unwrap_or(text)
    }

    /// Whether the pattern could match some path strictly below the directory `dir`. May say yes too often.
    pub(crate) fn may_match_below(&self, dir: &[u8]) -> bool {
        // Up to the first byte that is special in any reading, the pattern and the path must agree. An
        // alternation may drop the anchor, so it is given up on.
        if self.text.contains(&b'|') && !matches!(self.shape, Shape::Exact | Shape::Prefix(_)) {
            return true;
        }
        let special = |b: &u8| b"*?[]\\{}^".contains(b) || !b.is_ascii();
        let literal = match self.shape {
            Shape::Exact => &self.text[..],
            _ => &self.text[..self.text.iter().position(special).unwrap_or(self.text.len())],
        };
        // A counted repetition may drop the character before it.
        let literal = match self.text.get(literal.len()) {
            Some(b'{') => &literal[..literal.len().saturating_sub(1)],
            _ => literal,
        };
        let below = |at: usize| match dir.get(at) {
            Some(byte) => *byte,
            None => b'/',
        };
        literal
            .iter()
            .take(dir.len() + 1)
            .enumerate()
            .all(|(at, byte)| *byte == below(at))
            && (literal.len() > dir.len() || !matches!(self.shape, Shape::Exact))
    }
}

/// What a list says about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Verdict {
    /// Whether the path is matched in the end.
    pub matched: bool,
    /// The pattern that decided, as an index into [`PatternList::patterns`]. `None`: no pattern had a say.
    pub decided_by: Option<usize>,
}

/// Which patterns of a list matched a directory, for asking about its children. Empty at the top of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParentMatches(Vec<u64>);

impl ParentMatches {
    fn get(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    fn set(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }
}

/// A compiled list of patterns.
#[derive(Debug, Default)]
pub struct PatternList {
    patterns: Vec<Pattern>,
    exceptions: bool,
}

impl PatternList {
    /// Compiles `patterns`, in order. Blank ones are dropped; the others are trimmed and cleaned.
    ///
    /// # Errors
    /// [`PatternError`] for a lone `!`, for bad brackets or escapes, and for the pattern with which the list would take
    /// more than [`REGEX_LIST_MAX`](crate::limits::REGEX_LIST_MAX) to compile. A pattern that only its conversion to a
    /// regular expression shows to be malformed fails when it is first asked, as upstream does.
    pub fn new<P: AsRef<[u8]>>(patterns: impl IntoIterator<Item = P>) -> Result<Self, PatternError> {
        Self::compile(patterns.into_iter().map(|p| (p, None)))
    }

    /// Compiles the patterns of an ignore file, whose lines then appear in errors.
    ///
    /// # Errors
    /// As [`PatternList::new`].
    pub fn from_ignore_file(lines: &[IgnoreLine]) -> Result<Self, PatternError> {
        Self::compile(lines.iter().map(|l| (&l.pattern, Some(l.line))))
    }

    fn compile<P: AsRef<[u8]>>(
        patterns: impl Iterator<Item = (P, Option<usize>)>,
    ) -> Result<Self, PatternError> {
        let mut list = PatternList::default();
        let mut budget = Budget::default();
        for (index, (given, line)) in patterns.enumerate() {
            let trimmed = trim(given.as_ref());
            if trimmed.is_empty() {
                continue;
            }
            let fail = |reason| PatternError {
                pattern: show(trimmed).into_owned(),
                index,
                line,
                reason,
            };
            let mut text = clean(trimmed);
            let exception = text[0] == b'!';
            if exception {
                text.remove(0);
                if text.is_empty() {
                    return Err(fail("an exception needs a pattern after the \"!\""));
                }
                list.exceptions = true;
            }
            if gomatch::check(&text).is_err() {
                return Err(fail(
                    "a bracket is empty or not closed, or a backslash escapes nothing",
                ));
            }
            let shape = compile::compile(&text, &mut budget).map_err(|_| {
                fail(
                    "with it, the patterns of this list take too much memory; use fewer or simpler wildcards",
                )
            })?;
            list.patterns.push(Pattern {
                text,
                exception,
                index,
                line,
                shape,
            });
        }
        Ok(list)
    }

    /// The patterns in use.
    #[must_use]
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Whether any pattern takes back (`!`).
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.exceptions
    }

    /// Whether the list matches `path` or a directory above it. Needs no walk; the right question for a single
    /// path and for ignore files applied to a tar upload.
    ///
    /// # Errors
    /// [`PatternError`] for a pattern that turns out to be malformed.
    pub fn matches_or_parent(&self, path: &[u8]) -> Result<Verdict, PatternError> {
        let mut verdict = Verdict::default();
        for (at, pattern) in self.patterns.iter().enumerate() {
            if pattern.exception != verdict.matched {
                continue;
            }
            if pattern.matches(path)? || matches_above(pattern, path)? {
                verdict = Verdict {
                    matched: !pattern.exception,
                    decided_by: Some(at),
                };
            }
        }
        Ok(verdict)
    }

    /// Whether the list matches `path`, given what it said about the directory that holds it. The question a
    /// walk asks, top down; `parent` is the default value at the top of the tree. The second value is for the
    /// children, if `path` is a directory.
    ///
    /// # Errors
    /// [`PatternError`] for a pattern that turns out to be malformed.
    pub fn matches_below(
        &self,
        path: &[u8],
        parent: &ParentMatches,
    ) -> Result<(Verdict, ParentMatches), PatternError> {
        let mut own = ParentMatches(vec![0; self.patterns.len().div_ceil(64)]);
        let verdict = self.ask_below(path, parent, Some(&mut own))?;
        Ok((verdict, own))
    }

    /// [`matches_below`](Self::matches_below) for something that has no children.
    pub(crate) fn matches_leaf(&self, path: &[u8], parent: &ParentMatches) -> Result<Verdict, PatternError> {
        self.ask_below(path, parent, None)
    }

    fn ask_below(
        &self,
        path: &[u8],
        parent: &ParentMatches,
        mut own: Option<&mut ParentMatches>,
    ) -> Result<Verdict, PatternError> {
        let mut verdict = Verdict::default();
        for (at, pattern) in self.patterns.iter().enumerate() {
            let mut hit = parent.get(at);
            if !hit {
                if pattern.exception != verdict.matched {
                    continue;
                }
                hit = pattern.matches(path)?;
                if !hit && parent.0.is_empty() {
                    hit = matches_above(pattern, path)?;
                }
            }
            if hit {
                if let Some(own) = own.as_deref_mut() {
                    own.set(at);
                }
                verdict = Verdict {
                    matched: !pattern.exception,
                    decided_by: Some(at),
                };
            }
        }
        Ok(verdict)
    }
}

/// Whether the pattern matches a directory above `path`.
fn matches_above(pattern: &Pattern, path: &[u8]) -> Result<bool, PatternError> {
    for (at, byte) in path.iter().enumerate() {
        if *byte == b'/' && pattern.matches(&path[..at])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Cuts Unicode white space from both ends; bytes that are no UTF-8 are no white space.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let Some((c, width)) = gomatch::rune(text) {
        if !c.is_whitespace() {
            break;
        }
        text = &text[width..];
    }
    while let Some(width) = (1..=text.len().min(3)).find(|n| {
        let tail = &text[text.len() - n..];
        std::str::from_utf8(tail).is_ok_and(|t| t.chars().all(char::is_whitespace))
    }) {
        text = &text[..text.len() - width];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> PatternList {
        PatternList::new(patterns).unwrap()
    }

    #[test]
    fn the_deciding_pattern_is_named() {
        let list = list(&["*.md", "", "!README.md", "README.md/x"]);
        let verdict = list.matches_or_parent(b"README.md").unwrap();
        assert_eq!(
            verdict,
            Verdict {
                matched: false,
                decided_by: Some(1)
            }
        );
        assert_eq!(list.patterns()[1].index(), 2);
        assert_eq!(
            list.matches_or_parent(b"a.md").unwrap(),
            Verdict {
                matched: true,
                decided_by: Some(0)
            }
        );
        assert_eq!(list.matches_or_parent(b"a.rs").unwrap(), Verdict::default());
    }

    #[test]
    fn a_directory_covers_what_is_below() {
        let list = list(&["a", "!a/b"]);
        let (dir, own) = list.matches_below(b"a", &ParentMatches::default()).unwrap();
        assert!(dir.matched);
        assert!(list.matches_leaf(b"a/c", &own).unwrap().matched);
        assert!(!list.matches_leaf(b"a/b", &own).unwrap().matched);
        assert!(list.matches_or_parent(b"a/c/d").unwrap().matched);
    }

    #[test]
    fn errors_name_the_pattern_and_the_line() {
        let lines = read_ignore_file(&b"# x\nok\n\na[\n"[..]).unwrap();
        let err = PatternList::from_ignore_file(&lines).unwrap_err();
        assert_eq!((err.index, err.line), (1, Some(4)));
        assert!(
            err.to_string()
                .starts_with("malformed pattern \"a[\" on line 4: "),
            "{err}"
        );
        assert_eq!(PatternList::new(["! "]).unwrap_err().index, 0);
        // Fails only once it is asked.
        let late = list(&["a", "!*\\c"]);
        assert!(!late.matches_or_parent(b"b").unwrap().matched);
        assert!(late.matches_or_parent(b"a").is_err());
    }

    #[test]
    fn more_than_one_word_of_patterns() {
        let many: Vec<String> = (0..130).map(|i| format!("d{i}")).collect();
        let list = PatternList::new(&many).unwrap();
        let (verdict, own) = list.matches_below(b"d129", &ParentMatches::default()).unwrap();
        assert_eq!(verdict.decided_by, Some(129));
        assert!(own.get(129) && !own.get(128));
        assert!(list.matches_leaf(b"d129/x", &own).unwrap().matched);
    }

    #[test]
    fn what_may_match_below_a_directory() {
        for (pattern, dir, want) in [
            ("a/b", "a", true),
            ("a/b", "a/b", false),
            ("a/b", "c", false),
            ("a/*", "a", true),
            ("a/*", "ab", false),
            ("a*", "ab", true),
            ("a*", "b", false),
            ("**/x", "q", true),
            ("a/**", "a/b", true),
            ("ab{0}*", "a", true),
            ("x*|b", "q", true),
            ("\\b*", "q", true),
        ] {
            let list = list(&[pattern]);
            assert_eq!(
                list.patterns()[0].may_match_below(dir.as_bytes()),
                want,
                "{pattern} {dir}"
            );
        }
    }

    #[test]
    fn trimming_knows_unicode_and_bytes() {
        assert_eq!(trim(b" \t\xc2\x85a b\xe2\x80\x83\r\n"), b"a b");
        assert_eq!(trim(b"\xff \xff"), b"\xff \xff");
        assert_eq!(trim(b"  "), b"");
    }

    #[test]
    fn long_and_hostile_patterns_neither_crash_nor_take_long() {
        let path = "a/".repeat(20) + "b";
        for pattern in [
            "?".repeat(60_000),
            "*".repeat(60_000),
            "**/".repeat(20_000) + "x",
            "*a".repeat(1000),
            "**/*c".to_owned(),
            "**/*".repeat(15_000),
            "**/*".repeat(1000),
            "a{1000}*".repeat(50),
            "[a-z]".repeat(10_000),
            "\u{feff}**".to_owned(),
            "!".repeat(1000),
            "\\".repeat(1001),
        ] {
            if let Ok(list) = PatternList::new([&pattern]) {
                // Malformed or not is not the question here.
                let _ = list.matches_or_parent(path.as_bytes()).is_ok();
            }
        }
    }
    #[test]
    fn a_list_costs_no_more_than_one_bad_pattern() {
        // A few kilobytes of text that each compile on their own, and to half a gigabyte together.
        let large = "[^a]{1000}".repeat(12);
        let err = PatternList::new((0..40).map(|_| &large)).unwrap_err();
        assert_eq!((&err.pattern, err.line), (&large, None));
        assert!((1..12).contains(&err.index), "{}", err.index);
        assert!(err.reason.contains("of this list"), "{}", err.reason);
    }
}
