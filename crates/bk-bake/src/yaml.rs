//! YAML as a value. The parser gives events; what plain words mean is decided here, as Go's reader of compose files does.
//!
//! The rule: aliases are written out within a bound, and what JSON has no word for is an error with its line.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use crate::{
    limits,
    node::{Node, number},
};

/// The value of a document; nothing when the text holds none.
///
/// # Errors
/// What is wrong, and in which line.
pub(crate) fn parse(text: &str) -> Result<Node, String> {
    let mut loader = Loader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        values: 0,
    };
    let mut document = None;
    loop {
        let (event, span) = loader.next()?;
        match event {
            Event::StreamEnd => return Ok(document.unwrap_or(Node::Null)),
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event if document.is_none() => document = Some(loader.node(event, span, 0)?),
            _ => return Err(at(span, "a second document begins; only one is read")),
        }
    }
}

fn at(span: Span, why: &str) -> String {
    format!("line {}: {why}", span.start.line())
}

struct Loader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Values with an anchor, and how many values each of them holds.
    anchors: HashMap<usize, (Node, usize)>,
    values: usize,
}

impl<'a> Loader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), String> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(e)) => Err(format!("line {}: {}", e.marker().line(), e.info())),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn count(&mut self, more: usize, span: Span) -> Result<(), String> {
        self.values = self.values.saturating_add(more);
        if self.values > limits::YAML_VALUES {
            let why = format!(
                "there are more than {} values, with aliases written out",
                limits::YAML_VALUES
            );
            return Err(at(span, &why));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, String> {
        if depth > limits::DEPTH {
            return Err(at(span, "it is nested too deeply"));
        }
        let begun = self.values;
        self.count(1, span)?;
        let (node, anchor) = match event {
            Event::Alias(id) => {
                let (node, values) = self
                    .anchors
                    .get(&id)
                    .ok_or_else(|| at(span, "the alias stands inside of its own anchor"))?;
                let (node, values) = (node.clone(), *values);
                self.count(values, span)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tag = own_tag(tag.as_deref(), span)?;
                (scalar(&text, style, tag), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                own_tag(tag.as_deref(), span)?;
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => list.push(self.node(event, span, depth + 1)?),
                    }
                }
                (Node::List(list), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                own_tag(tag.as_deref(), span)?;
                (self.map(depth)?, anchor)
            }
            _ => return Err(at(span, "a value is missing")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.values - begun));
        }
        Ok(node)
    }

    fn map(&mut self, depth: usize) -> Result<Node, String> {
        let mut map: Vec<(String, Node)> = Vec::new();
        let mut merged: Vec<(String, Node)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = match self.node(event, span, depth + 1)? {
                Node::Null => "null".to_owned(),
                key => key
                    .scalar()
                    .ok_or_else(|| at(span, &format!("a key is {}", key.kind())))?,
            };
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span, depth + 1)?;
            if merge {
                let sources = match value {
                    Node::List(sources) => sources,
                    one => vec![one],
                };
                for source in sources {
                    let Node::Map(entries) = source else {
                        return Err(at(value_span, "`<<` takes an object, or a list of them"));
                    };
                    // The first of several wins.
                    merged.extend(entries);
                }
                continue;
            }
            if !seen.insert(key.clone()) {
                return Err(at(span, &format!("the key `{key}` stands there twice")));
            }
            map.push((key, value));
        }
        for (key, value) in merged {
            if seen.insert(key.clone()) {
                map.push((key, value));
            }
        }
        Ok(Node::Map(map))
    }
}

/// The name of a tag of YAML's own; others have no meaning here.
fn own_tag(tag: Option<&Tag>, span: Span) -> Result<Option<&str>, String> {
    match tag {
        None => Ok(None),
        Some(tag) if tag.is_yaml_core_schema() => Ok(Some(&tag.suffix)),
        Some(tag) => Err(at(span, &format!("the tag `{tag}` is not supported"))),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&str>) -> Node {
    if tag == Some("str") || (style != ScalarStyle::Plain && tag.is_none()) {
        return Node::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Node::Null,
        "true" | "True" | "TRUE" => return Node::Bool(true),
        "false" | "False" | "FALSE" => return Node::Bool(false),
        _ => {}
    }
    whole(text)
        .or_else(|| fraction(text))
        .map_or_else(|| Node::Text(text.to_owned()), Node::Number)
}

/// A whole number in any of the forms that Go reads: `1_000`, `0x1f`, `0b1`, `0o17` and `017`.
fn whole(text: &str) -> Option<String> {
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.as_bytes().first()? {
        b'-' => ("-", plain.get(1..)?),
        b'+' => ("", plain.get(1..)?),
        _ => ("", plain.as_str()),
    };
    let (base, digits) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, digits.get(2..)?),
        Some("0o") => (8, digits.get(2..)?),
        Some("0b") => (2, digits.get(2..)?),
        Some(two) if two.starts_with('0') => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    if !digits.chars().all(|c| c.is_ascii_alphanumeric()) {
        return None;
    }
    let value = u64::from_str_radix(digits, base).ok()?;
    Some(format!("{sign}{value}"))
}

fn fraction(text: &str) -> Option<String> {
    let plain = text.replace('_', "");
    let known = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if !plain.chars().all(known) || !plain.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    plain
        .parse::<f64>()
        .ok()
        .filter(|value| value.is_finite())
        .map(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).to_json()
    }

    #[test]
    fn plain_words_mean_what_go_takes_them_for() {
        for (text, expected) in [
            ("", "null"),
            ("a: ~", r#"{"a":null}"#),
            ("[true, False, yes, on]", r#"[true,false,"yes","on"]"#),
            (
                "[1, -1, +1, 0x1F, 0o17, 0777, 0b11, 1_000]",
                "[1,-1,1,31,15,511,3,1000]",
            ),
            ("[1.10, 1e3, .5, 08, 1.2.3]", r#"[1.1,1000,0.5,8,"1.2.3"]"#),
            (r#"["1", '2', !!str 3]"#, r#"["1","2","3"]"#),
            ("1: x", r#"{"1":"x"}"#),
            ("a: |\n  b\n  c\n", r#"{"a":"b\nc\n"}"#),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
    }

    #[test]
    fn anchors_aliases_and_merges() {
        let text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc:\n  <<: [{x: 9}, *a]\nd: *a\n";
        assert_eq!(
            json(text),
            r#"{"a":{"x":1,"y":2},"b":{"y":3,"x":1},"c":{"x":9,"y":2},"d":{"x":1,"y":2}}"#
        );
        for (text, why) in [
            ("a: &a [*a]", "line 1: "),
            ("<<: 1", "line 1: `<<` takes an object"),
            ("a: 1\na: 2", "line 2: the key `a` stands there twice"),
            ("a: !reset null", "line 1: the tag `!reset` is not supported"),
            ("a: 1\n---\nb: 2", "a second document begins"),
            ("a: [", "line "),
            ("? [x]\n: y", "a key is a list"),
        ] {
            let e = parse(text).expect_err(text);
            assert!(e.contains(why), "{text}: {e}");
        }
    }

    #[test]
    fn aliases_of_aliases_are_bounded() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 10].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert!(
            parse(&text)
                .expect_err("a bomb")
                .contains("more than 200000 values")
        );
        let deep = "[".repeat(200);
        assert!(parse(&deep).is_err());
    }
}
