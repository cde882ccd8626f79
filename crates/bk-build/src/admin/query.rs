//! Which records of a cache are meant, in the words of `docker buildx du --filter` and `docker buildx prune --filter`.

use std::{str::FromStr, time::Duration};

use super::CacheRecord;
use crate::InputError;

/// What conditions can be about; a daemon compares anything else with nothing.
const TEXTS: [&str; 4] = ["id", "parents", "description", "type"];
/// What a record is or is not.
const MARKS: [&str; 5] = ["inuse", "mutable", "immutable", "shared", "private"];

const ALLOWED: &str = "id, parents, description or type with =, != or ~= and a value; inuse, mutable, immutable, shared or \
    private; until=DURATION";

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Comparison {
    /// It is the value.
    Is,
    /// It is not the value.
    IsNot,
    /// The value, a regular expression in Go's notation, matches somewhere in it.
    Matches,
    /// It is so; there is no value.
    Holds,
}

/// One condition on a record, for instance `type=source.local`, `id~=^abc` or `inuse`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheCondition {
    /// What it is about.
    pub field: String,
    /// How that is compared.
    pub comparison: Comparison,
    /// With what; empty for [`Comparison::Holds`].
    pub value: String,
}

impl FromStr for CacheCondition {
    type Err = InputError;

    /// As `docker buildx` reads them: `id=X` matches part of an id too.
    fn from_str(text: &str) -> Result<Self, InputError> {
        let bad = |why: &str| InputError::new("--filter", format!("`{text}`: {why}"), ALLOWED);
        let end = text.find(['=', '!', '~']).unwrap_or(text.len());
        let (field, rest) = text.split_at(end);
        let field = match field {
            "parent" => "parents",
            field => field,
        };
        let (comparison, value) = if rest.is_empty() {
            (Comparison::Holds, "")
        } else if let Some(value) = rest.strip_prefix("!=") {
            (Comparison::IsNot, value)
        } else if let Some(value) = rest.strip_prefix("~=") {
            (Comparison::Matches, value)
        } else if let Some(value) = rest.strip_prefix("==") {
            (Comparison::Is, value)
        } else if let Some(value) = rest.strip_prefix('=') {
            let like = field == "id";
            (if like { Comparison::Matches } else { Comparison::Is }, value)
        } else {
            return Err(bad("it has no = in the right place"));
        };
        let condition = |field: &str, comparison, value: &str| Self {
            field: field.to_owned(),
            comparison,
            value: value.to_owned(),
        };
        if MARKS.contains(&field) {
            return match (comparison, value) {
                (Comparison::Holds, _) | (Comparison::Is, "true" | "1") => {
                    Ok(condition(field, Comparison::Holds, ""))
                }
                (Comparison::Is, "false" | "0") => match opposite(field) {
                    Some(other) => Ok(condition(other, Comparison::Holds, "")),
                    None => Err(bad("daemons cannot look for the opposite")),
                },
                _ => Err(bad("it is or it is not; there is nothing to compare")),
            };
        }
        if !TEXTS.contains(&field) {
            return Err(bad("there is no such field"));
        }
        if comparison == Comparison::Holds {
            return Err(bad("it needs a value"));
        }
        Ok(condition(field, comparison, value))
    }
}

fn opposite(mark: &str) -> Option<&'static str> {
    Some(match mark {
        "mutable" => "immutable",
        "immutable" => "mutable",
        "shared" => "private",
        "private" => "shared",
        _ => return None,
    })
}

impl CacheCondition {
    /// The condition in the language of BuildKit's filters.
    pub fn to_filter(&self) -> String {
        let field = &self.field;
        let value = quoted(&self.value);
        match self.comparison {
            Comparison::Is => format!("{field}=={value}"),
            Comparison::IsNot => format!("{field}!={value}"),
            Comparison::Matches => format!("{field}~={value}"),
            Comparison::Holds => field.clone(),
        }
    }

    /// Whether a record fulfils it; `None` when this side cannot tell, because it knows no regular expressions.
    pub fn holds(&self, record: &CacheRecord) -> Option<bool> {
        let mark = match &*self.field {
            "inuse" => record.in_use,
            "mutable" => record.mutable,
            "immutable" => !record.mutable,
            "shared" => record.shared,
            "private" => !record.shared,
            "parents" => {
                let parents = record.parents.join(";");
                return self.compare(&parents);
            }
            "id" => return self.compare(&record.id),
            "description" => return self.compare(&record.description),
            "type" => return self.compare(&record.record_type),
            _ => return None,
        };
        Some(mark)
    }

    fn compare(&self, text: &str) -> Option<bool> {
        match self.comparison {
            Comparison::Is => Some(text == self.value),
            Comparison::IsNot => Some(text != self.value),
            Comparison::Matches => {
                let plain = self
                    .value
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_:-/ ".contains(c));
                plain.then(|| text.contains(&self.value))
            }
            Comparison::Holds => None,
        }
    }
}

/// A value as BuildKit's filters take any text.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-:".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            c if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// Which records of a cache are meant. The default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheQuery {
    /// Conditions that must all hold.
    pub conditions: Vec<CacheCondition>,
    /// Only what no build has used for so long. Default: whenever.
    pub unused_for: Option<Duration>,
}

impl CacheQuery {
    /// Means all records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition that must hold too.
    #[must_use]
    pub fn condition(mut self, condition: CacheCondition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Sets for how long no build may have used a record; the default is any time.
    #[must_use]
    pub fn unused_for(mut self, time: Duration) -> Self {
        self.unused_for = Some(time);
        self
    }

    /// Adds what a user writes behind `--filter`: a condition, or `until=DURATION` (also `unused-for=`).
    ///
    /// # Errors
    /// An [`InputError`] that says what is allowed.
    pub fn filter(self, text: &str) -> Result<Self, InputError> {
        match text.split_once('=') {
            Some(("until" | "unused-for", _)) if self.unused_for.is_some() => {
                let why = "a second time; it can be said once";
                Err(InputError::new("--filter", format!("`{text}`: {why}"), ""))
            }
            Some(("until" | "unused-for", time)) => Ok(self.unused_for(parse_duration("--filter", time)?)),
            _ => Ok(self.condition(text.parse()?)),
        }
    }

    /// Whether all records are meant.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.unused_for.is_none()
    }

    /// The conditions in the language of BuildKit's filters; `None` when there are none.
    pub fn to_filter(&self) -> Option<String> {
        let all: Vec<_> = self.conditions.iter().map(CacheCondition::to_filter).collect();
        (!all.is_empty()).then(|| all.join(","))
    }
}

/// Reads a time: numbers with units (`h`, `m`, `s`, `ms`, `us`, `ns`, and `d` for 24 hours), one behind the other, for
/// instance `1h30m` or `0.5s`. `flag` is named in errors.
///
/// # Errors
/// An [`InputError`] when it is no such time.
pub fn parse_duration(flag: &str, text: &str) -> Result<Duration, InputError> {
    let bad = || {
        InputError::new(
            flag,
            format!("`{text}` is not a time"),
            "numbers with units, for instance 24h, 1h30m or 7d",
        )
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut sum) = (text, Duration::ZERO);
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let letters = behind
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let seconds = match unit {
            "d" => 86_400.0,
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(bad()),
        };
        let number: f64 = number.parse().map_err(|_| bad())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())?;
        sum = sum.checked_add(part).ok_or_else(bad)?;
        rest = behind;
    }
    // What daemons count in: nanoseconds in 63 bits.
    match i64::try_from(sum.as_nanos()) {
        Ok(_) => Ok(sum),
        Err(_) => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(texts: &[&str]) -> Result<CacheQuery, InputError> {
        let mut query = CacheQuery::new();
        for text in texts {
            query = query.filter(text)?;
        }
        Ok(query)
    }

    #[test]
    fn filters_are_those_of_buildx() {
        for (texts, meant) in [
            (&["type=regular"][..], "type==regular"),
            (&["type==regular", "id!=x"], "type==regular,id!=x"),
            (&["id=abc"], "id~=abc"),
            (&["parent=abc"], "parents==abc"),
            (
                &["description~=RUN echo, \"x\""],
                r#"description~="RUN echo, \"x\"""#,
            ),
            (&["description~=a\\.b"], r#"description~="a\\.b""#),
            (&["description=a\u{7}\nb"], r#"description=="a\u0007\nb""#),
            (&["type="], r#"type=="""#),
            (&["inuse"], "inuse"),
            (&["shared=true", "mutable=false"], "shared,immutable"),
        ] {
            let query = filter(texts).expect("a filter");
            assert_eq!(query.to_filter().as_deref(), Some(meant), "{texts:?}");
        }
        let query = filter(&["until=24h"]).expect("a time");
        assert_eq!(
            (query.to_filter(), query.unused_for),
            (None, Some(Duration::from_secs(86_400)))
        );
        assert!(!query.is_empty() && CacheQuery::new().is_empty());
        for (texts, part) in [
            (&["size=1"][..], "no such field"),
            (&["id"], "needs a value"),
            (&["id~x"], "no ="),
            (&["inuse=false"], "the opposite"),
            (&["shared~=x"], "nothing to compare"),
            (&["until=x"], "not a time"),
            (&["until=1h", "unused-for=2h"], "second time"),
        ] {
            let e = filter(texts).expect_err(part);
            assert!(e.what == "--filter" && e.message.contains(part), "{e}");
        }
    }

    #[test]
    fn conditions_hold_or_cannot_be_told() {
        let mut record = CacheRecord::new("abcdef");
        record.record_type = "regular".to_owned();
        record.mutable = true;
        for (text, holds) in [
            ("id=bcd", Some(true)),
            ("id=^abc", None),
            ("id==abcdef", Some(true)),
            ("type!=regular", Some(false)),
            ("mutable", Some(true)),
            ("inuse", Some(false)),
            ("private", Some(true)),
        ] {
            let condition: CacheCondition = text.parse().expect(text);
            assert_eq!(condition.holds(&record), holds, "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, millis) in [
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("7d", 604_800_000),
            ("0", 0),
        ] {
            let time = parse_duration("--x", text).expect(text);
            assert_eq!(time, Duration::from_millis(millis), "{text}");
        }
        for bad in ["", "1", "h", "-1h", "1x", "1h-", "1.2.3s", "999999999h", "1 h"] {
            assert!(parse_duration("--x", bad).is_err(), "{bad}");
        }
    }
}
