//! The file `.env`, and the variables that compose files find.

use std::collections::BTreeMap;

use bk_build::InputError;

use super::interpolate;
use crate::Variables;

/// The variables that a compose file finds: the environment, and behind it the file `.env`.
pub(super) struct Lookup<'a> {
    surroundings: &'a Variables,
    file: BTreeMap<String, String>,
}

impl<'a> Lookup<'a> {
    /// Reads the file.
    ///
    /// # Errors
    /// A line of it that has no meaning.
    pub(super) fn new(surroundings: &'a Variables) -> Result<Self, InputError> {
        let mut lookup = Self {
            surroundings,
            file: BTreeMap::new(),
        };
        if let Some((name, text)) = surroundings.dot_env_file() {
            lookup.read(name, text)?;
        }
        Ok(lookup)
    }

    /// A variable.
    pub(super) fn var(&self, name: &str) -> Option<&str> {
        self.surroundings
            .environment(name)
            .or_else(|| self.file.get(name).map(String::as_str))
    }

    fn read(&mut self, file: &str, text: &str) -> Result<(), InputError> {
        let mut rest = text.trim_start_matches('\u{feff}');
        let mut line = 1;
        while !rest.is_empty() {
            let place = format!("{file}: line {line}");
            let before = rest;
            rest = self.entry(&place, rest)?;
            let read = before.len().saturating_sub(rest.len());
            line += before.get(..read).unwrap_or_default().matches('\n').count();
        }
        Ok(())
    }

    /// Reads one entry, which may have several lines, and returns what follows it.
    fn entry<'t>(&mut self, place: &str, text: &'t str) -> Result<&'t str, InputError> {
        // A value is never shown: it may be secret.
        let bad = |why: &str| InputError::new(place, why, "NAME=VALUE");
        let (line, behind) = text.split_once('\n').unwrap_or((text, ""));
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            return Ok(behind);
        }
        let start = text.trim_start();
        let start = match start.strip_prefix("export") {
            Some(after) if after.starts_with([' ', '\t']) => after.trim_start(),
            _ => start,
        };
        let good = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
        let end = start.find(|c| !good(c)).unwrap_or(start.len());
        let (name, after) = start.split_at(end);
        if name.is_empty() {
            return Err(bad("the name of a variable is missing"));
        }
        let after = after.trim_start_matches([' ', '\t']);
        let Some(value) = after.strip_prefix(['=', ':']) else {
            // A name alone is the variable of the environment, which is found anyway.
            return match after.is_empty() || after.starts_with(['\n', '\r']) {
                true => Ok(behind),
                false => Err(bad("`=` is missing behind the name of a variable")),
            };
        };
        let value = value.trim_start_matches([' ', '\t']);
        let (value, rest) = if let Some(inner) = value.strip_prefix('\'') {
            let (value, rest) = inner
                .split_once('\'')
                .ok_or_else(|| bad("a quote is not closed"))?;
            (value.to_owned(), rest)
        } else if let Some(inner) = value.strip_prefix('"') {
            let (value, rest) = quoted(inner).ok_or_else(|| bad("a quote is not closed"))?;
            (self.expanded(place, &value)?, rest)
        } else {
            let (value, rest) = value.split_once('\n').unwrap_or((value, ""));
            let value = value
                .find(" #")
                .map_or(value, |at| value.get(..at).unwrap_or(value));
            self.file
                .insert(name.to_owned(), self.expanded(place, value.trim())?);
            return Ok(rest);
        };
        self.file.insert(name.to_owned(), value);
        let (tail, rest) = rest.split_once('\n').unwrap_or((rest, ""));
        match tail.trim() {
            "" => Ok(rest),
            comment if comment.starts_with('#') => Ok(rest),
            _ => Err(bad("something follows a closing quote")),
        }
    }

    fn expanded(&self, place: &str, value: &str) -> Result<String, InputError> {
        // The error of it would show the value.
        interpolate::text(value, &|name| self.var(name), &mut Vec::new()).map_err(|_| {
            let why = "a `$` in the value begins no variable that can be read";
            InputError::new(
                place,
                why,
                "`$$` or single quotes for a dollar sign that stands for itself",
            )
        })
    }
}

/// The text up to a quote that is not escaped, and what follows it. A `$` behind a backslash is one that stands for itself.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                '$' => value.push_str("$$"),
                c @ ('"' | '\\') => value.push(c),
                other => value.extend(['\\', other]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, InputError> {
        let variables = Variables::new([("HOST", "h"), ("A", "own")]).dot_env(".env", text);
        Lookup::new(&variables).map(|lookup| lookup.file.clone().into_iter().collect())
    }

    #[test]
    fn entries_have_the_forms_of_other_tools() {
        let text = "# c\n\nexport B=1\nC = two words # comment\nD='raw $HOST # x'\nE=\"a\\n$HOST \\$x\" # c\nF=\nHOST\n\
                    G=${B}-${NO:-d}\nH=a#b\nI='two\nlines'\nJ=x";
        let expected = [
            ("B", "1"),
            ("C", "two words"),
            ("D", "raw $HOST # x"),
            ("E", "a\nh $x"),
            ("F", ""),
            ("G", "1-d"),
            ("H", "a#b"),
            ("I", "two\nlines"),
            ("J", "x"),
        ];
        let found = read(text).expect("entries");
        let found: Vec<_> = found.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(found, expected);
        for (text, why) in [
            ("A=1\n=2", ".env: line 2: the name of a variable is missing"),
            ("A b", ".env: line 1: `=` is missing"),
            ("A='x", ".env: line 1: a quote is not closed"),
            ("A=\"x\" y", ".env: line 1: something follows a closing quote"),
            (
                "A=1\nB=s3cret$",
                ".env: line 2: a `$` in the value begins no variable",
            ),
        ] {
            let e = read(text).expect_err(text).to_string();
            assert!(e.contains(why) && !e.contains("s3cret"), "{text}: {e}");
        }
    }

    #[test]
    fn the_environment_goes_first() {
        let variables = Variables::new([("A", "own")]).dot_env(".env", "A=file\nB=file");
        let lookup = Lookup::new(&variables).expect("entries");
        assert_eq!(
            (lookup.var("A"), lookup.var("B"), lookup.var("C")),
            (Some("own"), Some("file"), None)
        );
    }
}
