//! Reading the keys of an object: each with its type, and none left over.
//!
//! The rule: an error names the file, the block and the key, and a key that nobody knows comes with the one that was
//! meant, if there is one near.

use std::collections::BTreeMap;

use bk_build::InputError;

use crate::{
    entry::{Entry, from_texts},
    node::Node,
};

/// The keys of an object that are not read yet.
pub(crate) struct Fields {
    /// The file and the block, for errors.
    place: String,
    entries: Vec<(String, Node)>,
}

impl Fields {
    /// The keys of `node`, which is at `place`.
    ///
    /// # Errors
    /// It is no object.
    pub(crate) fn new(place: impl Into<String>, node: Node) -> Result<Self, InputError> {
        let place = place.into();
        match node {
            Node::Map(entries) => Ok(Self { place, entries }),
            Node::Null => Ok(Self {
                place,
                entries: Vec::new(),
            }),
            other => Err(wrong(&place, &other, "an object")),
        }
    }

    /// Where these keys are, for errors.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Where a key of it is, for errors.
    pub(crate) fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.place)
    }

    /// Takes a key that is there and not null.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node> {
        let at = self.entries.iter().position(|(k, _)| k == key)?;
        match self.entries.remove(at).1 {
            Node::Null => None,
            node => Some(node),
        }
    }

    /// A text; numbers and booleans are texts too.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, InputError> {
        let Some(node) = self.take(key) else {
            return Ok(None);
        };
        let text = node
            .scalar()
            .ok_or_else(|| wrong(&self.at(key), &node, "a text"))?;
        Ok(Some(text))
    }

    /// A text that must be there.
    pub(crate) fn required(&mut self, key: &str) -> Result<String, InputError> {
        self.text(key)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| InputError::new(&self.place, format!("it has no `{key}`"), ""))
    }

    /// True or false.
    pub(crate) fn flag(&mut self, key: &str) -> Result<Option<bool>, InputError> {
        let Some(node) = self.take(key) else {
            return Ok(None);
        };
        node.scalar()
            .as_deref()
            .and_then(boolean)
            .map(Some)
            .ok_or_else(|| wrong(&self.at(key), &node, "true or false"))
    }

    /// A list of texts, without those that are empty.
    pub(crate) fn list(&mut self, key: &str) -> Result<Option<Vec<String>>, InputError> {
        let Some(node) = self.take(key) else {
            return Ok(None);
        };
        texts(&self.at(key), node).map(Some)
    }

    /// An object of texts, without those that are null.
    pub(crate) fn map(&mut self, key: &str) -> Result<BTreeMap<String, String>, InputError> {
        let place = self.at(key);
        match self.take(key) {
            None => Ok(BTreeMap::new()),
            Some(Node::Map(entries)) => map(&place, entries),
            Some(other) => Err(wrong(&place, &other, "an object of texts")),
        }
    }

    /// A list of entries, each as an object or as a text.
    pub(crate) fn entries<E: Entry>(&mut self, key: &str) -> Result<Option<Vec<E>>, InputError> {
        let place = self.at(key);
        let items = match self.take(key) {
            None => return Ok(None),
            Some(Node::List(items)) => items,
            Some(other) => return Err(wrong(&place, &other, "a list")),
        };
        let mut all = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            let place = format!("{place}[{i}]");
            match item {
                Node::Null => {}
                Node::Text(text) if text.is_empty() => {}
                Node::Text(text) => all.extend(from_texts(&place, &[text])?),
                object @ Node::Map(_) => all.push(E::from_fields(Fields::new(place, object)?)?),
                other => return Err(wrong(&place, &other, "an object or a text")),
            }
        }
        Ok(Some(all))
    }

    /// Everything that is left, as it is.
    pub(crate) fn into_entries(self) -> Vec<(String, Node)> {
        self.entries
    }

    /// Everything that is left, as texts.
    pub(crate) fn rest(self) -> Result<BTreeMap<String, String>, InputError> {
        map(&self.place, self.entries)
    }

    /// Ends the reading: nothing may be left. `known` are the keys that there could have been.
    pub(crate) fn finish(self, known: &[&str]) -> Result<(), InputError> {
        match self.entries.into_iter().next() {
            None => Ok(()),
            Some((key, _)) => Err(unknown(&self.place, &key, known)),
        }
    }
}

/// A key that nobody knows, with the one that was meant if there is one near.
pub(crate) fn unknown(place: &str, key: &str, known: &[&str]) -> InputError {
    let near = known
        .iter()
        .map(|name| (distance(key, name), *name))
        .filter(|(far, name)| *far <= (key.len().max(name.len()) / 3).max(1))
        .min();
    let hint = near.map_or(String::new(), |(_, name)| format!("; did you mean `{name}`?"));
    InputError::new(place, format!("the key `{key}` is not known{hint}"), "")
}

/// How many characters have to be put in, left out or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            left = (corner + usize::from(x != *y)).min(above + 1).min(left + 1);
            corner = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// What Go's reader of booleans takes.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A list of texts, without those that are empty or null.
pub(crate) fn texts(place: &str, node: Node) -> Result<Vec<String>, InputError> {
    let Node::List(items) = node else {
        return Err(wrong(place, &node, "a list of texts"));
    };
    let mut all = Vec::new();
    for (i, item) in items.into_iter().enumerate() {
        if item == Node::Null {
            continue;
        }
        let text = item
            .scalar()
            .ok_or_else(|| wrong(&format!("{place}[{i}]"), &item, "a text"))?;
        if !text.is_empty() {
            all.push(text);
        }
    }
    Ok(all)
}

/// An object of texts, without those that are null.
fn map(place: &str, entries: Vec<(String, Node)>) -> Result<BTreeMap<String, String>, InputError> {
    let mut all = BTreeMap::new();
    for (key, value) in entries {
        if value == Node::Null {
            continue;
        }
        let text = value
            .scalar()
            .ok_or_else(|| wrong(&format!("{place}.{key}"), &value, "a text"))?;
        all.insert(key, text);
    }
    Ok(all)
}

/// A value of the wrong type.
pub(crate) fn wrong(place: &str, node: &Node, wanted: &str) -> InputError {
    InputError::new(place, format!("it is {}, not {wanted}", node.kind()), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_near_are_suggested() {
        let known = ["context", "contexts", "tags", "no-cache"];
        for (key, said) in [
            (
                "contxt",
                "x: the key `contxt` is not known; did you mean `context`?",
            ),
            (
                "no_cache",
                "x: the key `no_cache` is not known; did you mean `no-cache`?",
            ),
            ("tag", "x: the key `tag` is not known; did you mean `tags`?"),
            ("labels", "x: the key `labels` is not known"),
        ] {
            assert_eq!(unknown("x", key, &known).to_string(), said);
        }
        assert_eq!((distance("", "abc"), distance("abc", "abc")), (3, 0));
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn values_have_their_types() {
        let read =
            |text: &str| Fields::new("f", serde_json::from_str(text).expect("JSON")).expect("an object");
        let mut fields = read(r#"{"a":1,"b":"true","c":["x","",null,2],"d":{"k":true,"n":null},"e":null}"#);
        assert_eq!(fields.text("a").expect("a text").as_deref(), Some("1"));
        assert_eq!(fields.flag("b").expect("a flag"), Some(true));
        assert_eq!(fields.list("c").expect("a list").expect("there"), ["x", "2"]);
        let map = fields.map("d").expect("an object");
        assert_eq!(
            map.into_iter().collect::<Vec<_>>(),
            [("k".to_owned(), "true".to_owned())]
        );
        assert_eq!(fields.text("e").expect("null"), None);
        assert!(fields.finish(&[]).is_ok());
        let mut fields = read(r#"{"a":[1],"b":"maybe","c":"x","d":[{}]}"#);
        let said = [
            fields.text("a").map(drop),
            fields.flag("b").map(drop),
            fields.list("c").map(drop),
            fields.list("d").map(drop),
        ];
        let said: Vec<_> = said
            .into_iter()
            .map(|r| r.expect_err("wrong").to_string())
            .collect();
        assert_eq!(
            said,
            [
                "f.a: it is a list, not a text",
                "f.b: it is a text, not true or false",
                "f.c: it is a text, not a list of texts",
                "f.d[0]: it is an object, not a text"
            ]
        );
    }
}
