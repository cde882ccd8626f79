//! `$NAME` and `${NAME:-default}` in the values of a compose file.

use bk_build::InputError;

use super::dotenv::Lookup;
use crate::node::Node;

impl Lookup<'_> {
    /// A value with variables in their places. A variable that is not set is empty, and a warning says so once.
    ///
    /// # Errors
    /// A form that has no meaning, or a variable that has to be set and is not.
    pub(super) fn interpolated(
        &self,
        place: &str,
        node: Node,
        warnings: &mut Vec<String>,
    ) -> Result<Node, InputError> {
        Ok(match node {
            Node::Text(value) => {
                let mut unset = Vec::new();
                let value = text(&value, &|name| self.var(name), &mut unset)
                    .map_err(|why| InputError::new(place, why, ""))?;
                for name in unset {
                    let line = format!("the variable `{name}` is not set; it is taken as empty");
                    if !warnings.contains(&line) {
                        warnings.push(line);
                    }
                }
                Node::Text(value)
            }
            Node::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (i, item) in items.into_iter().enumerate() {
                    list.push(self.interpolated(&format!("{place}[{i}]"), item, warnings)?);
                }
                Node::List(list)
            }
            Node::Map(entries) => {
                let mut map = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    let value = self.interpolated(&format!("{place}.{key}"), value, warnings)?;
                    map.push((key, value));
                }
                Node::Map(map)
            }
            other => other,
        })
    }
}

/// A text with its variables in their places. `unset` hears of variables that are not set and have no default.
///
/// # Errors
/// A form that has no meaning, or a variable that has to be set and is not.
pub(super) fn text<'v>(
    text: &str,
    var: &dyn Fn(&str) -> Option<&'v str>,
    unset: &mut Vec<String>,
) -> Result<String, String> {
    nested(text, var, unset, 0)
}

fn nested<'v>(
    text: &str,
    var: &dyn Fn(&str) -> Option<&'v str>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, String> {
    if depth > crate::limits::DEPTH {
        return Err("variables are nested too deeply".to_owned());
    }
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        whole.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            whole.push('$');
            rest = after;
            continue;
        }
        let braced = after.strip_prefix('{');
        let inner = braced.unwrap_or(after);
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = inner.find(|c| !good(c)).unwrap_or(inner.len());
        let (name, tail) = inner.split_at(end);
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return Err(format!(
                "`{text}`: a name of a variable has to follow `$`; `$$` is a dollar sign"
            ));
        }
        if braced.is_none() {
            whole.push_str(&plain(name, var, unset));
            rest = tail;
            continue;
        }
        let (operand, after) = closed(tail).ok_or_else(|| format!("`{text}`: `${{` is not closed"))?;
        rest = after;
        let value = var(name);
        let filled = value.filter(|v| !v.is_empty());
        let operators: [(&str, Option<&str>); 6] = [
            (":-", filled),
            (":?", filled),
            (":+", filled),
            ("-", value),
            ("?", value),
            ("+", value),
        ];
        if operand.is_empty() {
            whole.push_str(&plain(name, var, unset));
            continue;
        }
        let Some((operator, there, operand)) = operators
            .into_iter()
            .find_map(|(operator, there)| Some((operator, there, operand.strip_prefix(operator)?)))
        else {
            return Err(format!(
                "`{text}`: `${{{name}{operand}}}` is not a form that is known"
            ));
        };
        match (operator.trim_start_matches(':'), there) {
            ("-" | "?", Some(value)) => whole.push_str(value),
            ("+", None) => {}
            ("?", None) => {
                let why = nested(operand, var, unset, depth + 1)?;
                let why = if why.is_empty() {
                    "it is not set".to_owned()
                } else {
                    why
                };
                return Err(format!("the variable `{name}` has to be set: {why}"));
            }
            _ => whole.push_str(&nested(operand, var, unset, depth + 1)?),
        }
    }
    whole.push_str(rest);
    Ok(whole)
}

fn plain<'v>(name: &str, var: &dyn Fn(&str) -> Option<&'v str>, unset: &mut Vec<String>) -> String {
    match var(name) {
        Some(value) => value.to_owned(),
        None => {
            unset.push(name.to_owned());
            String::new()
        }
    }
}

/// What stands before the brace that closes, and behind it.
fn closed(text: &str) -> Option<(&str, &str)> {
    let mut open = 0usize;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => open += 1,
            '}' if open == 0 => return Some((text.get(..at)?, text.get(at + 1..)?)),
            '}' => open -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &str) -> Result<String, String> {
        let var = |name: &str| match name {
            "A" => Some("a"),
            "EMPTY" => Some(""),
            _ => None,
        };
        let mut unset = Vec::new();
        let whole = text(given, &var, &mut unset)?;
        Ok(match unset.is_empty() {
            true => whole,
            false => format!("{whole} unset: {}", unset.join(",")),
        })
    }

    #[test]
    fn every_form_of_compose() {
        for (given, expected) in [
            ("x$A-${A}y", "xa-ay"),
            ("$$A $${A}", "$A ${A}"),
            ("$NO ${NO}", "  unset: NO,NO"),
            ("${A:-d} ${EMPTY:-d} ${NO:-d}", "a d d"),
            ("${A-d} ${EMPTY-d} ${NO-d}", "a  d"),
            ("${A:+r}${EMPTY:+r}${NO:+r}${EMPTY+r}", "rr"),
            ("${NO:-${A}-${NO:-x}}!", "a-x!"),
            ("${A:?x}${EMPTY?x}", "a"),
            ("${NO:-}", ""),
        ] {
            assert_eq!(
                of(given).unwrap_or_else(|e| panic!("{given}: {e}")),
                expected,
                "{given}"
            );
        }
        for (given, why) in [
            ("${NO:?set $A}", "the variable `NO` has to be set: set a"),
            ("${EMPTY:?}", "`EMPTY` has to be set: it is not set"),
            ("${A", "is not closed"),
            ("${A!x}", "`${A!x}` is not a form"),
            ("$", "has to follow `$`"),
            ("${1}", "has to follow `$`"),
        ] {
            let e = of(given).expect_err(given);
            assert!(e.contains(why), "{given}: {e}");
        }
    }
}
