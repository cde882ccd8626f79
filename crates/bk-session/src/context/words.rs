//! Words of a Dockerfile: quotes, escapes and variables, as the frontend reads them.
//!
//! The rule: what cannot be known on this machine is never guessed. It is [`Stuck`], and whoever asked falls back.

/// The value of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// It is set, and this is known.
    Set(String),
    /// It is known not to be set.
    Unset,
    /// Only the daemon knows.
    Unknown,
}

/// Why a word cannot be read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stuck(pub(super) String);

/// Where the values of variables come from.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Value;

/// Words may hold words; more than this is no Dockerfile that anyone wrote.
const DEPTH_MAX: usize = 32;

/// The word without its quotes and escapes, and with its variables replaced.
pub(super) fn expand(word: &str, escape: char, lookup: Lookup<'_>) -> Result<String, Stuck> {
    let mut reader = Reader {
        rest: word.chars().peekable(),
        escape,
        lookup,
        depth: 0,
    };
    reader.until(None)
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    escape: char,
    lookup: Lookup<'a>,
    depth: usize,
}

impl Reader<'_> {
    /// Reads up to `end`, which is taken, or to the end of the text.
    fn until(&mut self, end: Option<char>) -> Result<String, Stuck> {
        let mut out = String::new();
        while let Some(c) = self.rest.next() {
            match c {
                _ if Some(c) == end => return Ok(out),
                '\'' => loop {
                    match self.rest.next() {
                        Some('\'') => break,
                        Some(c) => out.push(c),
                        None => return Err(open("a single quote")),
                    }
                },
                '"' => self.double_quoted(&mut out)?,
                '$' => out.push_str(&self.variable()?),
                _ if c == self.escape => out.extend(self.rest.next()),
                _ => out.push(c),
            }
        }
        match end {
            Some(_) => Err(open("a brace")),
            None => Ok(out),
        }
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), Stuck> {
        while let Some(c) = self.rest.next() {
            match c {
                '"' => return Ok(()),
                '$' => out.push_str(&self.variable()?),
                _ if c == self.escape => match self.rest.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => out.push(next),
                    Some(next) => out.extend([c, next]),
                    None => return Err(open("a double quote")),
                },
                _ => out.push(c),
            }
        }
        Err(open("a double quote"))
    }

    /// What stands behind a `$`.
    fn variable(&mut self) -> Result<String, Stuck> {
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            return match &*name {
                "" => Ok("$".to_owned()),
                _ => Ok(self.value(&name)?.unwrap_or_default()),
            };
        }
        let name = self.name();
        let shape = || Stuck(format!("`${{{name}…}}` is of a form that is not known here"));
        if name.is_empty() {
            return Err(shape());
        }
        let mut how = self.rest.next().ok_or_else(|| open("a brace"))?;
        if how == '}' {
            return Ok(self.value(&name)?.unwrap_or_default());
        }
        let empty_counts = how != ':';
        if !empty_counts {
            how = self.rest.next().ok_or_else(|| open("a brace"))?;
        }
        if !"-+?".contains(how) {
            return Err(shape());
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(shape());
        }
        let word = self.until(Some('}'))?;
        self.depth -= 1;
        let value = self.value(&name)?.filter(|v| empty_counts || !v.is_empty());
        match (how, value) {
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            (_, None) => Err(Stuck(format!("`${name}` must be set"))),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        let first = self.rest.peek().copied();
        let digits = first.is_some_and(|c| c.is_ascii_digit());
        while let Some(c) = self.rest.next_if(|c| match digits {
            true => c.is_ascii_digit(),
            false => c.is_ascii_alphanumeric() || *c == '_',
        }) {
            name.push(c);
        }
        name
    }

    fn value(&self, name: &str) -> Result<Option<String>, Stuck> {
        match (self.lookup)(name) {
            Value::Set(value) => Ok(Some(value)),
            Value::Unset => Ok(None),
            Value::Unknown => Err(Stuck(format!("the value of `${name}` is not known here"))),
        }
    }
}

fn open(what: &str) -> Stuck {
    Stuck(format!("{what} is not closed"))
}

/// The raw words of `ARG` and `ENV`: split at white space outside quotes, quotes and escapes kept.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            // Nothing is escaped between single quotes.
            _ if c == escape && quote != Some('\'') => {
                word.push(c);
                word.extend(rest.next());
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The fields of a line of comma-separated values, as the flags of `RUN --mount` have them.
pub(super) fn fields(text: &str) -> Result<Vec<String>, Stuck> {
    let mut fields = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        let mut field = String::new();
        if rest.next_if_eq(&'"').is_some() {
            loop {
                match rest.next() {
                    Some('"') if rest.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(c) => field.push(c),
                    None => return Err(open("a double quote")),
                }
            }
        }
        while let Some(c) = rest.next_if(|c| *c != ',') {
            field.push(c);
        }
        fields.push(field);
        if rest.next().is_none() {
            return Ok(fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Value {
        match name {
            "a" => Value::Set("A b".to_owned()),
            "empty" => Value::Set(String::new()),
            "far" => Value::Unknown,
            _ => Value::Unset,
        }
    }

    #[test]
    fn words_lose_quotes_and_escapes_and_get_values() {
        for (word, want) in [
            ("x$a/y", "xA b/y"),
            ("${a}y", "A by"),
            ("'$a'\"$a\"", "$aA b"),
            ("\\$a\\ b", "$a b"),
            ("\"\\x\\\"\\$a\"", "\\x\"$a"),
            ("${no:-d$a}", "dA b"),
            ("${empty:-d}|${empty-d}", "d|"),
            ("${a:+w}|${empty:+w}|${empty+w}|${no+w}", "w||w|"),
            ("$no-$", "-$"),
            ("${no:-${no:-in}}", "in"),
        ] {
            assert_eq!(expand(word, '\\', &value).as_deref(), Ok(want), "{word}");
        }
        assert_eq!(expand("a\\b`$a", '`', &value).as_deref(), Ok("a\\b$a"));
        for word in [
            "$far",
            "${far:-x}",
            "'a",
            "\"a",
            "${a",
            "${a%b}",
            "${no:?x}",
            "${}",
        ] {
            assert!(expand(word, '\\', &value).is_err(), "{word}");
        }
        let deep = "${no:-".repeat(100_000);
        assert!(expand(&deep, '\\', &value).is_err());
    }

    #[test]
    fn texts_are_split() {
        assert_eq!(
            split(" a=1  b=\"x y\" c='\\' d=e\\ f ", '\\'),
            ["a=1", "b=\"x y\"", "c='\\'", "d=e\\ f"]
        );
        let got = fields("type=bind,\"source=a,b\"\"\",target=/x").expect("fields");
        assert_eq!(got, ["type=bind", "source=a,b\"", "target=/x"]);
        assert!(fields("\"a").is_err());
    }
}
