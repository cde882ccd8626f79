//! `${NAME}` inside the texts of a bake file.
//!
//! The rule: names of variables, and keys or numbers into them, are read; every other expression is an error that shows
//! it. `$${` and `%%{` stand for `${` and `%{`.

use crate::node::Node;

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Vec<String>),
}

/// What a value means with its variables in place; `lookup` gives the value of a variable by its name. A text that is one
/// variable and nothing else becomes its value, whatever its type.
///
/// # Errors
/// An expression that is not read, a variable that `lookup` does not know, or one that is no text within a text.
pub(crate) fn evaluate(
    node: &Node,
    lookup: &mut dyn FnMut(&str) -> Result<Node, String>,
) -> Result<Node, String> {
    Ok(match node {
        Node::Text(text) => text_of(text, lookup)?,
        Node::List(items) => Node::List(
            items
                .iter()
                .map(|item| evaluate(item, lookup))
                .collect::<Result<_, _>>()?,
        ),
        Node::Map(entries) => {
            let mut map: Vec<(String, Node)> = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let key = match text_of(key, lookup)? {
                    Node::Text(key) => key,
                    other => other
                        .scalar()
                        .ok_or_else(|| format!("the key `{key}` is {}", other.kind()))?,
                };
                if map.iter().any(|(k, _)| *k == key) {
                    return Err(format!("the key `{key}` stands there twice"));
                }
                map.push((key, evaluate(value, lookup)?));
            }
            Node::Map(map)
        }
        other => other.clone(),
    })
}

fn text_of(text: &str, lookup: &mut dyn FnMut(&str) -> Result<Node, String>) -> Result<Node, String> {
    if !text.contains("${") && !text.contains("%{") {
        return Ok(Node::Text(text.to_owned()));
    }
    let pieces = pieces(text)?;
    if let [Piece::Value(path)] = &pieces[..] {
        return value(path, lookup);
    }
    let mut whole = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(part) => whole.push_str(&part),
            Piece::Value(path) => {
                let found = value(&path, lookup)?;
                let name = path.join(".");
                let part = found
                    .scalar()
                    .ok_or_else(|| format!("`{name}` is {}, which cannot be part of a text", found.kind()))?;
                whole.push_str(&part);
            }
        }
    }
    Ok(Node::Text(whole))
}

fn value(path: &[String], lookup: &mut dyn FnMut(&str) -> Result<Node, String>) -> Result<Node, String> {
    let (name, steps) = path.split_first().ok_or("an expression is empty")?;
    let mut node = lookup(name)?;
    for step in steps {
        let next = match &node {
            Node::Map(_) => node.get(step).cloned(),
            Node::List(items) => step.parse().ok().and_then(|at: usize| items.get(at)).cloned(),
            _ => None,
        };
        node = next.ok_or_else(|| format!("`{}` has no `{step}`", name))?;
    }
    Ok(node)
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut all = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['$', '%']) {
        let (before, tail) = rest.split_at(at);
        plain.push_str(before);
        if let Some(after) = tail.strip_prefix("$${") {
            plain.push_str("${");
            rest = after;
        } else if let Some(after) = tail.strip_prefix("%%{") {
            plain.push_str("%{");
            rest = after;
        } else if tail.starts_with("%{") {
            return Err(format!("`{text}`: directives (`%{{…}}`) are not supported"));
        } else if let Some(inner) = tail.strip_prefix("${") {
            let Some((expression, after)) = inner.split_once('}') else {
                return Err(format!("`{text}`: `${{` is not closed"));
            };
            if !plain.is_empty() {
                all.push(Piece::Text(std::mem::take(&mut plain)));
            }
            let path = path(expression.trim()).ok_or_else(|| {
                format!(
                    "`${{{expression}}}`: expressions are not supported, only names of variables; `docker buildx bake \
                     --print` writes out what they mean"
                )
            })?;
            all.push(Piece::Value(path));
            rest = after;
        } else {
            let first = tail.chars().next().map_or(1, char::len_utf8);
            let (sign, after) = tail.split_at(first);
            plain.push_str(sign);
            rest = after;
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() || all.is_empty() {
        all.push(Piece::Text(plain));
    }
    Ok(all)
}

/// `name`, `name.key`, `name[0]`, `name["key"]`, and these one behind the other.
fn path(text: &str) -> Option<Vec<String>> {
    let end = |text: &str| {
        text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .unwrap_or(text.len())
    };
    let (name, mut rest) = text.split_at(end(text));
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return None;
    }
    let mut steps = vec![name.to_owned()];
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let (key, after) = after.split_at(end(after));
            if key.is_empty() {
                return None;
            }
            steps.push(key.to_owned());
            rest = after;
        } else {
            let (inner, after) = rest.strip_prefix('[')?.split_once(']')?;
            let inner = inner.trim();
            let key = match inner.strip_prefix('"').and_then(|k| k.strip_suffix('"')) {
                Some(key) if !key.contains(['"', '\\', '$']) => key,
                None if !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_digit()) => inner,
                _ => return None,
            };
            steps.push(key.to_owned());
            rest = after;
        }
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Result<Node, String> {
        let text = match name {
            "TAG" => r#""v1""#,
            "N" => "7",
            "L" => r#"["a","b"]"#,
            "item" => r#"{"os":"linux","tags":["x","y"]}"#,
            _ => return Err(format!("`{name}` is unknown")),
        };
        Ok(serde_json::from_str(text).expect("JSON"))
    }

    fn of(text: &str) -> Result<String, String> {
        evaluate(&Node::Text(text.to_owned()), &mut lookup).map(|node| node.to_json())
    }

    #[test]
    fn names_and_what_is_in_them() {
        for (text, expected) in [
            ("a", r#""a""#),
            ("${TAG}", r#""v1""#),
            ("a:${ TAG }-${N}", r#""a:v1-7""#),
            ("${N}", "7"),
            ("${L}", r#"["a","b"]"#),
            ("${L[1]}", r#""b""#),
            ("${item.os}/${item.tags[0]}", r#""linux/x""#),
            (r#"${item["os"]}"#, r#""linux""#),
            ("$${TAG} %%{if} $TAG $$ 50%", r#""${TAG} %{if} $TAG $$ 50%""#),
            ("$$${TAG}", r#""$${TAG}""#),
            ("", r#""""#),
        ] {
            assert_eq!(
                of(text).unwrap_or_else(|e| panic!("{text}: {e}")),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn other_expressions_are_shown() {
        for (text, why) in [
            ("${upper(TAG)}", "`${upper(TAG)}`: expressions are not supported"),
            (r#"${TAG == "x" ? 1 : 2}"#, "expressions are not supported"),
            ("%{if TAG}x%{endif}", "directives"),
            ("${TAG", "is not closed"),
            ("${}", "expressions are not supported"),
            ("${NO}", "`NO` is unknown"),
            ("x${L}", "`L` is a list"),
            ("${L[9]}", "`L` has no `9`"),
            ("${item.arch}", "`item` has no `arch`"),
        ] {
            let e = of(text).expect_err(text);
            assert!(e.contains(why), "{text}: {e}");
        }
    }
}
