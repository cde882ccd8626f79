//! Reads the regular expression that a Docker pattern turns into as the daemon's side would read it, and says
//! the same to the `regex` crate.
//!
//! Users never write these on purpose: a pattern such as `a\d*` or `x|y*` becomes one by the quirks of the
//! conversion. The rule: what the other side refuses is refused here, and everything that is kept is spelled
//! out so that no difference between the two dialects is left (escapes, ASCII classes, nested brackets).

use std::iter::Peekable;
use std::str::Chars;

use crate::limits::{REGEX_LIST_MAX, REGEX_REPEAT_MAX, REGEX_SIZES};

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) &'static str);

/// What the expressions of one list may still cost, in bytes of their compiled form.
#[derive(Debug)]
pub(crate) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Budget(REGEX_LIST_MAX)
    }
}

/// The list as a whole costs too much.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OverBudget;

/// Compiles `source`, an expression in the other side's dialect. Every try is paid for, also one that fails: it is the
/// work and the memory of all patterns together that is bounded.
pub(crate) fn compile(
    source: &str,
    budget: &mut Budget,
) -> Result<Result<regex::bytes::Regex, Refused>, OverBudget> {
    let text = match translate(source) {
        Ok(text) => text,
        Err(refused) => return Ok(Err(refused)),
    };
    for size in REGEX_SIZES {
        budget.0 = budget.0.checked_sub(size).ok_or(OverBudget)?;
        let built = regex::bytes::RegexBuilder::new(&text).size_limit(size).build();
        match built {
            Ok(expression) => return Ok(Ok(expression)),
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(_) => return Ok(Err(Refused("its expression is not supported"))),
        }
    }
    Ok(Err(Refused("its expression is too large")))
}

/// The same expression in the dialect of the `regex` crate.
fn translate(source: &str) -> Result<String, Refused> {
    Translator {
        input: source.chars().peekable(),
        out: String::new(),
        last: Last::Nothing,
        open: Vec::new(),
    }
    .run()
}

/// What a repetition would apply to.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    Nothing,
    Item,
    Repetition,
}

struct Translator<'s> {
    input: Peekable<Chars<'s>>,
    out: String,
    last: Last,
    /// One mark for each group that is open.
    open: Vec<()>,
}

impl Translator<'_> {
    fn run(mut self) -> Result<String, Refused> {
        while let Some(c) = self.input.next() {
            match c {
                '(' => {
                    self.open.push(());
                    self.out.push_str("(?:");
                    self.last = Last::Nothing;
                }
                ')' => {
                    self.open
                        .pop()
                        .ok_or(Refused("a group is closed that was not opened"))?;
                    self.out.push(')');
                    self.last = Last::Item;
                }
                '|' => {
                    self.out.push('|');
                    self.last = Last::Nothing;
                }
                '^' => self.item("^"),
                '$' => self.item("$"),
                '.' => self.item("[^\\n]"),
                '*' | '+' | '?' => {
                    self.repeatable()?;
                    self.out.push(c);
                }
                '{' => self.counted()?,
                '[' => {
                    let class = self.class()?;
                    self.item(&class);
                }
                '\\' => self.escape()?,
                _ => self.literal(c),
            }
        }
        if self.open.is_empty() {
            Ok(self.out)
        } else {
            Err(Refused("a group is not closed"))
        }
    }

    fn item(&mut self, text: &str) {
        self.out.push_str(text);
        self.last = Last::Item;
    }

    fn literal(&mut self, c: char) {
        let text = spell(c);
        self.item(&text);
    }

    /// Says that a repetition follows, if there is something that may be repeated.
    fn repeatable(&mut self) -> Result<(), Refused> {
        match self.last {
            Last::Nothing => Err(Refused("a repetition has nothing to repeat")),
            Last::Repetition => Err(Refused("a repetition is repeated")),
            Last::Item => {
                self.last = Last::Repetition;
                Ok(())
            }
        }
    }

    /// `{n}`, `{n,}` or `{n,m}`; anything else is a literal brace.
    fn counted(&mut self) -> Result<(), Refused> {
        let mut ahead = self.input.clone();
        let Some((low, high)) = count(&mut ahead) else {
            self.literal('{');
            return Ok(());
        };
        if low > REGEX_REPEAT_MAX || high.is_some_and(|h| h > REGEX_REPEAT_MAX || h < low) {
            return Err(Refused("the count of a repetition is out of range"));
        }
        self.repeatable()?;
        self.input = ahead;
        match high {
            None => self.out.push_str(&format!("{{{low},}}")),
            Some(high) => self.out.push_str(&format!("{{{low},{high}}}")),
        }
        Ok(())
    }

    /// What follows a backslash outside of brackets.
    fn escape(&mut self) -> Result<(), Refused> {
        match self.input.peek() {
            Some('A') => self.item("\\A"),
            Some('z') => self.item("\\z"),
            Some('b') => self.item("(?-u:\\b)"),
            Some('B') => self.item("(?-u:\\B)"),
            Some('Q') => {
                self.input.next();
                while let Some(c) = self.input.next() {
                    if c == '\\' && self.input.peek() == Some(&'E') {
                        self.input.next();
                        break;
                    }
                    self.literal(c);
                }
                return Ok(());
            }
            _ => {
                let text = match self.class_escape()? {
                    Some(class) => class,
                    None => spell(self.char_escape()?),
                };
                self.item(&text);
                return Ok(());
            }
        }
        self.input.next();
        Ok(())
    }

    /// `\d`, `\pL` and the like after the backslash: a bracketed class. `None`: it is no such escape.
    fn class_escape(&mut self) -> Result<Option<String>, Refused> {
        let Some(&c) = self.input.peek() else {
            return Ok(None);
        };
        let text = match c {
            'd' => "[0-9]".to_owned(),
            'D' => "[^0-9]".to_owned(),
            's' => "[\\t\\n\\x0c\\r ]".to_owned(),
            'S' => "[^\\t\\n\\x0c\\r ]".to_owned(),
            'w' => "[0-9A-Za-z_]".to_owned(),
            'W' => "[^0-9A-Za-z_]".to_owned(),
            'p' | 'P' => {
                self.input.next();
                return self.unicode_class(c == 'P').map(Some);
            }
            _ => return Ok(None),
        };
        self.input.next();
        Ok(Some(text))
    }

    /// `\pL`, `\p{Greek}`, `\p{^Greek}`.
    fn unicode_class(&mut self, mut negated: bool) -> Result<String, Refused> {
        const BAD: Refused = Refused("it names no Unicode class");
        let mut name = String::new();
        match self.input.next().ok_or(BAD)? {
            '{' => loop {
                match self.input.next().ok_or(BAD)? {
                    '}' => break,
                    c => name.push(c),
                }
            },
            c => name.push(c),
        }
        if let Some(rest) = name.strip_prefix('^') {
            negated = !negated;
            name = rest.to_owned();
        }
        if name == "Any" {
            return Ok(if negated {
                "[^\\x{0}-\\x{10FFFF}]".to_owned()
            } else {
                "[\\x{0}-\\x{10FFFF}]".to_owned()
            });
        }
        let plain = name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
        if !plain {
            return Err(BAD);
        }
        Ok(format!("[\\{}{{{name}}}]", if negated { 'P' } else { 'p' }))
    }

    /// One character written with a backslash, after the backslash.
    fn char_escape(&mut self) -> Result<char, Refused> {
        const BAD: Refused = Refused("a backslash escapes a letter that has no meaning");
        let c = self.input.next().ok_or(BAD)?;
        let octal = |c: &char| ('0'..='7').contains(c);
        match c {
            '1'..='7' if !self.input.peek().is_some_and(octal) => Err(BAD),
            '0'..='7' => {
                let mut value = c as u32 - '0' as u32;
                for _ in 0..2 {
                    let Some(digit) = self.input.next_if(octal) else {
                        break;
                    };
                    value = value * 8 + (digit as u32 - '0' as u32);
                }
                char::from_u32(value).ok_or(BAD)
            }
            'x' => {
                let mut digits = String::new();
                if self.input.next_if_eq(&'{').is_some() {
                    loop {
                        match self.input.next().ok_or(BAD)? {
                            '}' => break,
                            c => digits.push(c),
                        }
                    }
                } else {
                    digits.extend(self.input.next());
                    digits.extend(self.input.next());
                    if digits.chars().count() != 2 {
                        return Err(BAD);
                    }
                }
                if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
                    return Err(BAD);
                }
                u32::from_str_radix(&digits, 16)
                    .ok()
                    .and_then(char::from_u32)
                    .ok_or(BAD)
            }
            'a' => Ok('\x07'),
            'f' => Ok('\x0c'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'v' => Ok('\x0b'),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok(c),
            _ => Err(BAD),
        }
    }

    /// A bracketed class after its `[`.
    fn class(&mut self) -> Result<String, Refused> {
        const OPEN: Refused = Refused("a bracket is not closed");
        let mut out = String::from("[");
        if self.input.next_if_eq(&'^').is_some() {
            out.push('^');
        }
        let mut first = true;
        loop {
            match self.input.peek().ok_or(OPEN)? {
                ']' if !first => {
                    self.input.next();
                    out.push(']');
                    return Ok(out);
                }
                '[' => {
                    if let Some(named) = self.named_class()? {
                        first = false;
                        out.push_str(&named);
                        continue;
                    }
                }
                '\\' => {
                    let mut ahead = self.input.clone();
                    ahead.next();
                    if ahead.peek().is_some_and(|c| "dDsSwWpP".contains(*c)) {
                        self.input = ahead;
                        out.push_str(&self.class_escape()?.unwrap_or_default());
                        first = false;
                        continue;
                    }
                }
                _ => {}
            }
            first = false;
            let low = self.class_char()?;
            let mut ahead = self.input.clone();
            let high = if ahead.next() == Some('-') && ahead.peek().is_some_and(|c| *c != ']') {
                self.input = ahead;
                self.class_char()?
            } else {
                low
            };
            if high < low {
                return Err(Refused("a range in brackets runs backwards"));
            }
            out.push_str(&spell(low));
            out.push('-');
            out.push_str(&spell(high));
        }
    }

    fn class_char(&mut self) -> Result<char, Refused> {
        match self.input.next().ok_or(Refused("a bracket is not closed"))? {
            '\\' => self.char_escape(),
            c => Ok(c),
        }
    }

    /// `[:alpha:]` inside brackets. `None`: it is not of that form, so the bracket is a literal.
    fn named_class(&mut self) -> Result<Option<String>, Refused> {
        let mut ahead = self.input.clone();
        ahead.next();
        if ahead.next() != Some(':') {
            return Ok(None);
        }
        let mut name = String::new();
        loop {
            match ahead.next() {
                None => return Ok(None),
                Some(':') if ahead.peek() == Some(&']') => break,
                Some(c) => name.push(c),
            }
        }
        ahead.next();
        let known = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
            "space", "upper", "word", "xdigit",
        ];
        if !known.contains(&name.strip_prefix('^').unwrap_or(&name)) {
            return Err(Refused("it names no class of characters"));
        }
        self.input = ahead;
        Ok(Some(format!("[:{name}:]")))
    }
}

/// Reads the inside of a count up to its `}`. `None`: it is no count.
fn count(input: &mut Peekable<Chars<'_>>) -> Option<(u32, Option<u32>)> {
    let low = number(input)?;
    let high = match input.next()? {
        '}' => return Some((low, Some(low))),
        ',' if input.next_if_eq(&'}').is_some() => return Some((low, None)),
        ',' => number(input)?,
        _ => return None,
    };
    (input.next()? == '}').then_some((low, Some(high)))
}

/// A decimal number without leading zeros; one that is far too large stays too large.
fn number(input: &mut Peekable<Chars<'_>>) -> Option<u32> {
    let mut digits = String::new();
    while let Some(digit) = input.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    Some(digits.parse().unwrap_or(u32::MAX))
}

/// A character so that it means only itself, inside and outside of brackets.
fn spell(c: char) -> String {
    if c.is_ascii_alphanumeric() || !c.is_ascii() {
        c.to_string()
    } else {
        format!("\\x{{{:X}}}", c as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(expression: &str, text: &str) -> bool {
        let compiled = compile(expression, &mut Budget::default()).unwrap();
        compiled.unwrap().is_match(text.as_bytes())
    }

    #[test]
    fn the_other_dialect_is_read_as_it_is_meant() {
        for (expression, text, want) in [
            ("^\\a$", "\x07", true),
            ("^\\a$", "a", false),
            ("^a[^/]*|b$", "axx/yy", true),
            ("^a[^/]*|b$", "xx/b", true),
            ("^a{2}$", "aa", true),
            ("^a{,2}$", "a{,2}", true),
            ("^a{02}$", "a{02}", true),
            ("^[[^/]*]$", "//]", true),
            ("^[a&&b]$", "&", true),
            ("^[a~~b]$", "~", true),
            ("^[\\d-x]$", "-", true),
            ("^\\d$", "٣", false),
            ("^[[:alpha:]_]$", "q", true),
            ("^\\Qa.b$", "a.b$x", true),
            ("^\\Qa|b\\E[^/]*$", "a|bcd", true),
            ("^\\101\\x42\\x{43}$", "ABC", true),
            ("^\\p{Greek}\\pL$", "λa", true),
            ("^(.*/)?a$", "x\n/a", false),
            ("^[^a]$", "\n", true),
            ("^a b#$", "a b#", true),
        ] {
            assert_eq!(hit(expression, text), want, "{expression} {text:?}");
        }
    }

    #[test]
    fn what_the_other_side_refuses_is_refused() {
        for bad in [
            "^\\c$",
            "^\\8$",
            "^\\1$",
            "^\\é$",
            "^a|{2}$",
            "^a{2}{3}$",
            "^[^/]*{2}$",
            "^a{1001}$",
            "^a{3,2}$",
            "^[b-a]$",
            "^[[:foo:]]$",
            "^\\p{greek}$",
            "^\\pr$",
            "^\\xZZ$",
            "^[a",
            "^\\E$",
            "^\\C$",
            "^x{99999999999}$",
        ] {
            let compiled = compile(bad, &mut Budget::default()).unwrap();
            assert!(compiled.is_err(), "{bad}");
        }
    }

    #[test]
    fn every_try_is_paid_for() {
        let mut budget = Budget(REGEX_SIZES[0] + REGEX_SIZES[1]);
        assert!(compile("^[ab]$", &mut budget).unwrap().is_ok());
        assert_eq!(budget.0, REGEX_SIZES[1]);
        // What is refused before it is compiled costs nothing; what is too large costs what was tried.
        assert!(compile("^\\c$", &mut budget).unwrap().is_err());
        assert_eq!(budget.0, REGEX_SIZES[1]);
        assert!(compile("^[^a]{1000}$", &mut budget).is_err());
        let mut budget = Budget::default();
        let huge = compile(&"[^a]{1000}".repeat(60), &mut budget).unwrap();
        assert!(huge.is_err());
        assert_eq!(budget.0, REGEX_LIST_MAX - REGEX_SIZES.iter().sum::<usize>());
    }
}
