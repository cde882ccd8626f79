//! Short forms written out, and one compose file put over another.
//!
//! The rule: after [`written_out`] a key has one form, so that merging needs to know nothing about it: objects are merged
//! key by key, lists are put together without what stands there twice, and everything else is replaced.

use bk_build::InputError;

use crate::{
    decode::{texts, wrong},
    node::Node,
};

/// Puts a later value over an earlier one.
pub(super) fn merged(earlier: Node, later: Node) -> Node {
    match (earlier, later) {
        (Node::Map(mut here), Node::Map(over)) => {
            for (key, value) in over {
                match here.iter_mut().find(|(k, _)| *k == key) {
                    Some((_, place)) => {
                        let before = std::mem::replace(place, Node::Null);
                        *place = merged(before, value);
                    }
                    None => here.push((key, value)),
                }
            }
            Node::Map(here)
        }
        (Node::List(mut here), Node::List(over)) => {
            for item in over {
                if !here.contains(&item) {
                    here.push(item);
                }
            }
            Node::List(here)
        }
        (earlier, Node::Null) => earlier,
        (_, later) => later,
    }
}

/// A key of a service in its long form.
///
/// # Errors
/// A value of a type that the key does not take.
pub(super) fn written_out(place: &str, key: &str, node: Node) -> Result<Node, InputError> {
    match (key, node) {
        ("environment", node) => pairs(place, node, Node::Null),
        ("build", Node::Text(context)) => Ok(Node::Map(vec![("context".to_owned(), Node::Text(context))])),
        ("build", Node::Map(entries)) => {
            let mut all = Vec::with_capacity(entries.len());
            for (key, node) in entries {
                let place = format!("{place}.{key}");
                let node = match (&*key, node) {
                    (_, Node::Null) => Node::Null,
                    ("args", node) => pairs(&place, node, Node::Null)?,
                    ("labels" | "additional_contexts", node) => {
                        pairs(&place, node, Node::Text(String::new()))?
                    }
                    ("extra_hosts", node) => hosts(&place, node)?,
                    ("ulimits", node) => limits(&place, node)?,
                    ("ssh", node) => keys(&place, node)?,
                    ("secrets", node) => secrets(&place, node)?,
                    (_, node) => node,
                };
                all.push((key, node));
            }
            Ok(Node::Map(all))
        }
        ("build", Node::Null) | (_, Node::Null) => Ok(Node::Null),
        ("build", other) => Err(wrong(place, &other, "a directory or an object")),
        (_, node) => Ok(node),
    }
}

/// `KEY=VALUE` each, as an object. `alone` is the value of a key without one.
fn pairs(place: &str, node: Node, alone: Node) -> Result<Node, InputError> {
    if matches!(node, Node::Map(_) | Node::Null) {
        return Ok(node);
    }
    let mut map: Vec<(String, Node)> = Vec::new();
    for text in texts(place, node)? {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), Node::Text(value.to_owned())),
            None => (text, alone.clone()),
        };
        map.retain(|(k, _)| *k != key);
        map.push((key, value));
    }
    Ok(Node::Map(map))
}

/// `NAME:IP` or `NAME=IP` each, as an object of lists: a name can have several addresses.
fn hosts(place: &str, node: Node) -> Result<Node, InputError> {
    let mut map: Vec<(String, Node)> = Vec::new();
    let mut add = |name: &str, address: Node| {
        let one = Node::Map(vec![(name.to_owned(), Node::List(vec![address]))]);
        let before = std::mem::take(&mut map);
        if let Node::Map(all) = merged(Node::Map(before), one) {
            map = all;
        }
    };
    match node {
        Node::Map(entries) => {
            for (name, addresses) in entries {
                match addresses {
                    Node::List(all) => all.into_iter().for_each(|a| add(&name, a)),
                    one => add(&name, one),
                }
            }
        }
        node => {
            for text in texts(place, node)? {
                let (name, address) = text
                    .split_once(['=', ':'])
                    .ok_or_else(|| InputError::new(place, format!("`{text}` names no address"), "NAME=IP"))?;
                let address = address.trim_start_matches('[').trim_end_matches(']');
                add(name, Node::Text(address.to_owned()));
            }
        }
    }
    Ok(Node::Map(map))
}

/// One number is both limits.
fn limits(place: &str, node: Node) -> Result<Node, InputError> {
    let Node::Map(entries) = node else {
        return Err(wrong(place, &node, "an object of limits"));
    };
    let both = |value: &Node| {
        let side = |name: &str| (name.to_owned(), value.clone());
        Node::Map(vec![side("soft"), side("hard")])
    };
    let entries = entries.into_iter().map(|(name, value)| match value {
        value @ (Node::Number(_) | Node::Text(_)) => (name, both(&value)),
        value => (name, value),
    });
    Ok(Node::Map(entries.collect()))
}

/// `ID[=PATH]` each, or one word, as an object; nothing stands for the agent of the environment.
fn keys(place: &str, node: Node) -> Result<Node, InputError> {
    match node {
        Node::Text(one) => pairs(place, Node::List(vec![Node::Text(one)]), Node::Null),
        node => pairs(place, node, Node::Null),
    }
}

/// Names, or objects with a `source`, as an object by name.
fn secrets(place: &str, node: Node) -> Result<Node, InputError> {
    let Node::List(items) = node else {
        return Err(wrong(place, &node, "a list of secrets"));
    };
    let mut map = Vec::new();
    for (i, item) in items.into_iter().enumerate() {
        let place = format!("{place}[{i}]");
        let name = match &item {
            Node::Text(name) => name.clone(),
            object => object
                .get("source")
                .and_then(Node::scalar)
                .ok_or_else(|| wrong(&place, &item, "the name of a secret, or an object with `source`"))?,
        };
        if map.iter().all(|(n, _)| *n != name) {
            map.push((name, Node::Null));
        }
    }
    Ok(Node::Map(map))
}
