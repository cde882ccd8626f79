//! One pattern of Docker's language, made ready to match.
//!
//! The rule: answer as upstream's conversion to a regular expression does, quirks included, because cache keys
//! and the daemon's expectations rest on it. The common shapes (plain names, prefixes, suffixes, at most two
//! wildcards) are matched by hand; only what is left becomes a regular expression.

use std::borrow::Cow;

use super::gomatch::rune;
use super::goregex::{self, Budget, OverBudget, Refused};
use crate::limits::REGEX_PATTERN_MAX;

/// How a pattern is matched.
#[derive(Debug)]
pub(crate) enum Shape {
    /// The whole path equals the text of the pattern.
    Exact,
    /// The path starts with this many bytes of the pattern.
    Prefix(usize),
    /// The path ends with the pattern after its leading `**`.
    Suffix,
    /// A few wildcards between literals.
    Glob(Vec<Token>),
    /// Anything else.
    Regex(regex::bytes::Regex),
    /// Fails when it is first needed, as upstream does: a list in which it is never asked stays usable.
    Refused(&'static str),
}

/// A piece of a pattern that is matched by hand.
#[derive(Debug, PartialEq)]
pub(crate) enum Token {
    /// These bytes.
    Literal(Vec<u8>),
    /// One character but `/`.
    One,
    /// Any run of characters without `/`.
    Star,
    /// Nothing, or anything that ends in `/` (no line feed before it).
    Dirs,
    /// Anything up to the end (no line feed).
    Rest,
}

/// Wildcards that may branch in a pattern that is still matched by hand: the work is at most quadratic then.
const GLOB_BRANCHES_MAX: usize = 2;

/// Turns the cleaned text of a pattern into what matches it, within what is left for its list.
pub(crate) fn compile(pattern: &[u8], budget: &mut Budget) -> Result<Shape, OverBudget> {
    let scanned = scan(pattern);
    Ok(match scanned.shape {
        Rough::Exact => Shape::Exact,
        Rough::Prefix => Shape::Prefix(pattern.len() - 2),
        Rough::Suffix => Shape::Suffix,
        Rough::Regex => match scanned.tokens {
            Some(tokens) if branches(&tokens) <= GLOB_BRANCHES_MAX => Shape::Glob(tokens),
            _ if pattern.len() > REGEX_PATTERN_MAX => {
                Shape::Refused("it is too long for a pattern with so many wildcards")
            }
            _ => match goregex::compile(&scanned.expression, budget)? {
                Ok(expression) => Shape::Regex(expression),
                Err(Refused(why)) => Shape::Refused(why),
            },
        },
    })
}

/// Whether `shape`, made of `pattern`, matches the whole of `path`. `Err` says why it cannot be asked.
pub(crate) fn matches(shape: &Shape, pattern: &[u8], path: &[u8]) -> Result<bool, &'static str> {
    Ok(match shape {
        Shape::Exact => path == pattern,
        Shape::Prefix(len) => path.starts_with(&pattern[..*len]),
        Shape::Suffix => {
            let suffix = &pattern[2..];
            path.ends_with(suffix) || suffix.strip_prefix(b"/") == Some(path)
        }
        Shape::Glob(tokens) => glob(tokens, path),
        Shape::Regex(expression) => expression.is_match(&replace_invalid(path)),
        Shape::Refused(why) => return Err(why),
    })
}

/// Text in which every byte that is no UTF-8 has become U+FFFD, which is how upstream's matcher sees it.
fn replace_invalid(path: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(path).is_ok() {
        return Cow::Borrowed(path);
    }
    let mut text = String::with_capacity(path.len() + 8);
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text.into_bytes())
}

/// The kind that upstream's scan decides on.
#[derive(Clone, Copy, PartialEq)]
enum Rough {
    Exact,
    Prefix,
    Suffix,
    Regex,
}

struct Scanned {
    shape: Rough,
    expression: String,
    /// The same as the expression, unless it holds something that only an expression can say.
    tokens: Option<Vec<Token>>,
}

fn scan(pattern: &[u8]) -> Scanned {
    let text = replace_invalid(pattern);
    let text = String::from_utf8_lossy(&text);
    // Upstream's scanner swallows a byte order mark at the very start.
    let mut input = text.strip_prefix('\u{feff}').unwrap_or(&text).chars().peekable();
    let mut expression = String::from("^");
    let mut shape = Rough::Exact;
    let mut tokens = Tokens {
        list: Vec::new(),
        usable: true,
    };
    let mut first = true;
    while let Some(c) = input.next() {
        match c {
            '*' if input.next_if_eq(&'*').is_some() => {
                input.next_if_eq(&'/');
                if input.peek().is_none() {
                    if shape == Rough::Exact {
                        shape = Rough::Prefix;
                    } else {
                        expression.push_str(".*");
                        tokens.list.push(Token::Rest);
                        shape = Rough::Regex;
                    }
                } else {
                    expression.push_str("(.*/)?");
                    tokens.wildcard(Token::Dirs);
                    shape = Rough::Regex;
                }
                if first {
                    shape = Rough::Suffix;
                }
            }
            '*' => {
                expression.push_str("[^/]*");
                tokens.wildcard(Token::Star);
                shape = Rough::Regex;
            }
            '?' => {
                expression.push_str("[^/]");
                tokens.list.push(Token::One);
                shape = Rough::Regex;
            }
            '.' | '+' | '(' | ')' | '$' => {
                expression.push('\\');
                expression.push(c);
                tokens.literal(c);
            }
            '\\' => {
                expression.push('\\');
                if let Some(escaped) = input.next() {
                    expression.push(escaped);
                    shape = Rough::Regex;
                    if escaped.is_ascii() && !escaped.is_ascii_alphanumeric() {
                        tokens.literal(escaped);
                    } else {
                        tokens.usable = false;
                    }
                }
            }
            '[' | ']' => {
                expression.push(c);
                shape = Rough::Regex;
                tokens.usable = false;
            }
            // These are left alone by upstream's escaping, so an expression may read them as operators.
            '|' | '{' | '^' => {
                expression.push(c);
                tokens.usable = false;
            }
            _ => {
                expression.push(c);
                tokens.usable &= c != char::REPLACEMENT_CHARACTER;
                tokens.literal(c);
            }
        }
        first = false;
    }
    expression.push('$');
    Scanned {
        shape,
        expression,
        tokens: tokens.usable.then_some(tokens.list),
    }
}

struct Tokens {
    list: Vec<Token>,
    usable: bool,
}

impl Tokens {
    /// One that may match nothing and anything says no more when it is written twice.
    fn wildcard(&mut self, token: Token) {
        if self.list.last() != Some(&token) {
            self.list.push(token);
        }
    }

    fn literal(&mut self, c: char) {
        let mut buffer = [0; 4];
        let bytes = c.encode_utf8(&mut buffer).as_bytes();
        match self.list.last_mut() {
            Some(Token::Literal(text)) => text.extend_from_slice(bytes),
            _ => self.list.push(Token::Literal(bytes.to_vec())),
        }
    }
}

fn branches(tokens: &[Token]) -> usize {
    tokens
        .iter()
        .filter(|t| matches!(t, Token::Star | Token::Dirs))
        .count()
}

/// Recurses only at wildcards that branch, of which there are at most [`GLOB_BRANCHES_MAX`].
fn glob(mut tokens: &[Token], mut path: &[u8]) -> bool {
    while let Some((first, rest)) = tokens.split_first() {
        tokens = rest;
        match first {
            Token::Literal(text) => match path.strip_prefix(text.as_slice()) {
                Some(after) => path = after,
                None => return false,
            },
            Token::One => match rune(path) {
                None | Some(('/', _)) => return false,
                Some((_, width)) => path = &path[width..],
            },
            Token::Rest => return !path.contains(&b'\n'),
            Token::Star => return star(rest, path),
            Token::Dirs => return dirs(rest, path),
        }
    }
    path.is_empty()
}

/// Whether `rest` matches after any run of characters without `/`.
fn star(rest: &[Token], mut path: &[u8]) -> bool {
    loop {
        if glob(rest, path) {
            return true;
        }
        match rune(path) {
            None | Some(('/', _)) => return false,
            Some((_, width)) => path = &path[width..],
        }
    }
}

/// Whether `rest` matches at once or after any `/` with no line feed before it.
fn dirs(rest: &[Token], mut path: &[u8]) -> bool {
    loop {
        if glob(rest, path) {
            return true;
        }
        match path.iter().position(|b| *b == b'/' || *b == b'\n') {
            Some(at) if path[at] == b'/' => path = &path[at + 1..],
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(pattern: &[u8]) -> Shape {
        super::compile(pattern, &mut Budget::default()).unwrap()
    }

    fn hit(pattern: &[u8], path: &[u8]) -> bool {
        matches(&compile(pattern), pattern, path).unwrap()
    }

    #[test]
    fn shapes_are_chosen_as_upstream_does() {
        assert!(matches!(compile(b"a/b"), Shape::Exact));
        assert!(matches!(compile(b"a|b{2}^"), Shape::Exact));
        assert!(matches!(compile(b"a/**"), Shape::Prefix(2)));
        assert!(matches!(compile(b"**"), Shape::Suffix));
        assert!(matches!(compile(b"**/a.b"), Shape::Suffix));
        assert!(matches!(compile(b"**/a/**"), Shape::Glob(_)));
        assert!(matches!(compile(b"*/*/*"), Shape::Regex(_)));
        assert!(matches!(compile(b"[ab]"), Shape::Regex(_)));
        assert!(matches!(compile(b"*\\c"), Shape::Refused(_)));
    }

    #[test]
    fn wildcards_and_quirks() {
        for (pattern, path, want) in [
            (&b"foo/**"[..], &b"foo"[..], false),
            (b"foo/**", b"foo/a/b", true),
            (b"**/foo", b"foo", true),
            (b"**/foo", b"a/foo", true),
            (b"**/foo", b"afoo", false),
            (b"**foo", b"afoo", true),
            (b"a/**/b", b"a/b", true),
            (b"a/**/b", b"a/x/y/b", true),
            (b"a/**/b", b"a/xb", false),
            (b"*.go", b"a.go", true),
            (b"*.go", b"d/a.go", false),
            (b"f?o", "féo".as_bytes(), true),
            (b"f?o", b"f\xffo", true),
            (b"*?", "€".as_bytes(), true),
            (b"*??", "€".as_bytes(), false),
            (b"**/*.go", b"x\n/a.go", false),
            (b"a*|b", b"axx/yy", true),
            (b"a*|b", b"q/b", true),
            (b"*{2}x", b"ax", false),
            (b"a[^b]c", b"axc", true),
            (b"a[^b]c", b"a/c", true),
            (b"\\a", b"a", false),
            (b"\\*", b"*", true),
            (b"*\xff", b"a\xfe", true),
        ] {
            if pattern == b"*{2}x" {
                assert!(matches(&compile(pattern), pattern, path).is_err());
                continue;
            }
            assert_eq!(
                hit(pattern, path),
                want,
                "{} {}",
                pattern.escape_ascii(),
                path.escape_ascii()
            );
        }
    }

    /// What is matched by hand says the same as the expression it stands for.
    #[test]
    fn matching_by_hand_agrees_with_the_expression() {
        let parts = [
            "*", "**", "**/", "?", "/", "a", "b", "ab", "é", "\\*", ".", "$", "\n",
        ];
        let texts = ["a", "b", "/", "é", "*", ".", "$", "\n", "ab", "x"];
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = |end: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % end as u64).unwrap()
        };
        let mut compared = 0;
        for _ in 0..4000 {
            let pattern: String = (0..1 + below(5)).map(|_| parts[below(parts.len())]).collect();
            let scanned = scan(pattern.as_bytes());
            let (Rough::Regex, Some(tokens)) = (scanned.shape, scanned.tokens) else {
                continue;
            };
            if branches(&tokens) > GLOB_BRANCHES_MAX {
                continue;
            }
            let compiled = goregex::compile(&scanned.expression, &mut Budget::default());
            let expression = compiled.unwrap().unwrap();
            for _ in 0..20 {
                let mut path: Vec<u8> = (0..below(6))
                    .flat_map(|_| texts[below(texts.len())].bytes())
                    .collect();
                if below(8) == 0 {
                    path.insert(below(path.len() + 1), 0xe2);
                }
                let want = expression.is_match(&replace_invalid(&path));
                assert_eq!(glob(&tokens, &path), want, "{pattern:?} {}", path.escape_ascii());
                compared += 1;
            }
        }
        assert!(compared > 10_000);
    }
}
