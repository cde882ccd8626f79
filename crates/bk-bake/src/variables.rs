//! Variables: those of the surroundings, and the `variable` blocks of bake files with their defaults.
//!
//! The rule: a variable of the surroundings replaces the default of the block of that name, and keeps its type. Values are
//! never shown by `Debug`: what is in an environment may be secret.

use std::{cell::RefCell, collections::BTreeMap, fmt};

use bk_build::InputError;
use serde::Serialize;

use crate::{
    csv,
    decode::{Fields, boolean},
    limits,
    node::{Node, number},
    template,
};

/// What variables of the surroundings there are.
#[derive(Clone, Default)]
pub struct Variables {
    environment: BTreeMap<String, String>,
    built_in: BTreeMap<String, String>,
    dot_env: Option<(String, String)>,
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variables")
            .field("environment", &self.environment.len())
            .field("built_in", &self.built_in)
            .finish_non_exhaustive()
    }
}

impl Variables {
    /// The variables of an environment.
    pub fn new<K: Into<String>, V: Into<String>>(environment: impl IntoIterator<Item = (K, V)>) -> Self {
        let environment = environment.into_iter().map(|(k, v)| (k.into(), v.into()));
        let cwd = ("BAKE_CMD_CONTEXT".to_owned(), "cwd://".to_owned());
        Self {
            environment: environment.collect(),
            built_in: BTreeMap::from([cwd]),
            dot_env: None,
        }
    }

    /// Sets a variable that bake files find without declaring it, and that no environment replaces;
    /// `BAKE_CMD_CONTEXT` is there anyway.
    #[must_use]
    pub fn built_in(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.built_in.insert(name.into(), value.into());
        self
    }

    /// Sets the text of a `.env` file, by the name `file` in errors. Compose files find what it says, unless the
    /// environment says something else.
    #[must_use]
    pub fn dot_env(mut self, file: impl Into<String>, text: impl Into<String>) -> Self {
        self.dot_env = Some((file.into(), text.into()));
        self
    }

    /// A variable of the environment.
    pub(crate) fn environment(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// The file `.env`: its name and its text.
    pub(crate) fn dot_env_file(&self) -> Option<(&str, &str)> {
        self.dot_env.as_ref().map(|(file, text)| (&**file, &**text))
    }
}

/// A variable of a bake file, with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What it is for; empty when nobody said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its type, when the file says one.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its value as text; lists and objects are JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A type that a variable can have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Type {
    Any,
    Text,
    Number,
    Bool,
    List(Box<Type>),
    /// Known to bake, but only its default is read.
    Other,
}

impl Type {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "any" => Self::Any,
            "string" => Self::Text,
            "number" => Self::Number,
            "bool" => Self::Bool,
            text => match text.strip_suffix(')').and_then(|t| t.split_once('(')) {
                Some(("list" | "set", inner)) => Self::List(Box::new(Self::parse(inner))),
                _ => Self::Other,
            },
        }
    }

    /// A value as one of this type.
    fn coerce(&self, node: Node) -> Option<Node> {
        match (self, node) {
            (Self::Any | Self::Other, node) | (_, node @ Node::Null) => Some(node),
            (Self::Text, node) => node.scalar().map(Node::Text),
            (Self::Number, node @ Node::Number(_)) => Some(node),
            (Self::Number, Node::Text(text)) => Self::number(&text),
            (Self::Bool, node @ Node::Bool(_)) => Some(node),
            (Self::Bool, Node::Text(text)) => boolean(&text).map(Node::Bool),
            (Self::List(inner), Node::List(items)) => {
                let items: Option<_> = items.into_iter().map(|item| inner.coerce(item)).collect();
                items.map(Node::List)
            }
            _ => None,
        }
    }

    fn number(text: &str) -> Option<Node> {
        if let Ok(whole) = text.parse::<i64>() {
            return Some(Node::Number(whole.to_string()));
        }
        let value = text.parse::<f64>().ok().filter(|n| n.is_finite())?;
        Some(Node::Number(number(value)))
    }

    /// The type of a default.
    fn of(node: &Node) -> Option<Self> {
        match node {
            Node::Null | Node::Text(_) => Some(Self::Text),
            Node::Number(_) => Some(Self::Number),
            Node::Bool(_) => Some(Self::Bool),
            Node::List(_) | Node::Map(_) => None,
        }
    }
}

#[derive(Clone, Debug)]
struct Block {
    place: String,
    default: Option<Node>,
    description: String,
    kind: Option<(String, Type)>,
    /// Whether the environment replaces it: a block, not a plain attribute of the file.
    replaceable: bool,
}

/// The variables of all bake files, evaluated when they are asked for.
pub(crate) struct Scope<'a> {
    surroundings: &'a Variables,
    blocks: BTreeMap<String, Block>,
    known: RefCell<BTreeMap<String, Node>>,
    asked: RefCell<Vec<String>>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(surroundings: &'a Variables) -> Self {
        Self {
            surroundings,
            blocks: BTreeMap::new(),
            known: RefCell::default(),
            asked: RefCell::default(),
        }
    }

    /// Adds a `variable` block; a later one of the same name replaces it.
    pub(crate) fn declare(&mut self, name: &str, mut fields: Fields) -> Result<(), InputError> {
        const KEYS: [&str; 3] = ["default", "description", "type"];
        if fields.take("validation").is_some() {
            let why = "rules for values are expressions, which are not supported";
            return Err(InputError::new(fields.at("validation"), why, ""));
        }
        let block = Block {
            place: fields.place().to_owned(),
            default: fields.take("default"),
            description: fields.text("description")?.unwrap_or_default(),
            kind: fields.text("type")?.map(|text| {
                let kind = Type::parse(&text);
                (text, kind)
            }),
            replaceable: true,
        };
        fields.finish(&KEYS)?;
        self.blocks.insert(name.to_owned(), block);
        Ok(())
    }

    /// Adds an attribute that stands beside the blocks; nothing replaces its value.
    pub(crate) fn attribute(&mut self, name: &str, place: String, value: Node) {
        let block = Block {
            place,
            default: Some(value),
            description: String::new(),
            kind: None,
            replaceable: false,
        };
        self.blocks.insert(name.to_owned(), block);
    }

    /// The value of a variable.
    ///
    /// # Errors
    /// It is not declared, refers to itself, or has a value that is not of its type.
    pub(crate) fn value(&self, name: &str) -> Result<Node, String> {
        if let Some(value) = self.surroundings.built_in.get(name) {
            return Ok(Node::Text(value.clone()));
        }
        if let Some(node) = self.known.borrow().get(name) {
            return Ok(node.clone());
        }
        let Some(block) = self.blocks.get(name) else {
            return Err(match name {
                "target" | "group" => {
                    format!("`{name}`: references to other blocks are not supported, only names of variables")
                }
                _ => format!("there is no variable `{name}`"),
            });
        };
        if self.asked.borrow().iter().any(|n| n == name) {
            return Err(format!("the variable `{name}` refers to itself"));
        }
        if self.asked.borrow().len() >= limits::DEPTH {
            return Err("variables refer to each other too deeply".to_owned());
        }
        self.asked.borrow_mut().push(name.to_owned());
        let node = self.evaluate(name, block);
        self.asked.borrow_mut().pop();
        let node = node?;
        self.known.borrow_mut().insert(name.to_owned(), node.clone());
        Ok(node)
    }

    fn evaluate(&self, name: &str, block: &Block) -> Result<Node, String> {
        let default = match &block.default {
            Some(node) => Some(template::evaluate(node, &mut |name| self.value(name))?),
            None => None,
        };
        let kind = block.kind.as_ref().map(|(_, kind)| kind);
        let default =
            match (default, kind) {
                (Some(node), Some(kind)) => {
                    let text = node.kind();
                    Some(kind.coerce(node).ok_or_else(|| {
                        format!("the default of `{name}` is {text}, which is not of its type")
                    })?)
                }
                (default, _) => default,
            };
        match self.replacement(name, block, default.as_ref())? {
            Some(node) => Ok(node),
            None => Ok(default.unwrap_or_else(|| match kind {
                None => Node::Text(String::new()),
                Some(_) => Node::Null,
            })),
        }
    }

    /// The value that the environment has.
    fn replacement(&self, name: &str, block: &Block, default: Option<&Node>) -> Result<Option<Node>, String> {
        if !block.replaceable {
            return Ok(None);
        }
        let kind = block.kind.as_ref().map(|(_, kind)| kind);
        let bad = |text: &str| format!("the environment variable `{name}` is not {text}");
        if let Some(kind) = kind {
            let json = format!("{name}_JSON");
            if !self.blocks.contains_key(&json)
                && let Some(text) = self.surroundings.environment(&json)
            {
                return serde_json::from_str(text)
                    .ok()
                    .and_then(|node| kind.coerce(node))
                    .map(Some)
                    .ok_or_else(|| {
                        format!("the environment variable `{json}` is not JSON of the variable's type")
                    });
            }
        }
        let Some(text) = self.surroundings.environment(name) else {
            return Ok(None);
        };
        let inferred = match default {
            Some(node) => Type::of(node),
            None => Some(Type::Text),
        };
        let value = match kind.cloned().or(inferred) {
            None => {
                return Err(format!(
                    "the variable `{name}` is a list or an object without a type"
                ));
            }
            Some(Type::Any) => Some(Node::Text(text.to_owned())),
            Some(Type::Other) => {
                let why = "has a type that only the variable with `_JSON` behind its name can set";
                return Err(format!("the variable `{name}` {why}"));
            }
            Some(Type::List(inner)) => {
                // The error of it would show the value.
                let fields = csv::fields(name, text).map_err(|_| bad("a list of comma-separated values"))?;
                let items = fields.into_iter().map(|field| inner.coerce(Node::Text(field)));
                items.collect::<Option<_>>().map(Node::List)
            }
            Some(kind) => kind.coerce(Node::Text(text.to_owned())),
        };
        let wanted = match kind.cloned().or_else(|| default.and_then(Type::of)) {
            Some(Type::Number) => "a number",
            Some(Type::Bool) => "true or false",
            _ => "of its type",
        };
        value.map(Some).ok_or_else(|| bad(wanted))
    }

    /// Every `variable` block with its value, sorted by name.
    pub(crate) fn all(&self) -> Result<Vec<Variable>, InputError> {
        let mut all = Vec::new();
        for (name, block) in &self.blocks {
            let value = self
                .value(name)
                .map_err(|why| InputError::new(&block.place, why, ""))?;
            if !block.replaceable {
                continue;
            }
            all.push(Variable {
                name: name.clone(),
                description: block.description.clone(),
                kind: block.kind.as_ref().map(|(text, _)| shown_type(text)),
                value: match &value {
                    Node::Null => None,
                    node => Some(node.scalar().unwrap_or_else(|| node.to_json())),
                },
            });
        }
        Ok(all)
    }
}

/// A type as other tools show it.
fn shown_type(text: &str) -> String {
    match text.trim().strip_suffix(')').and_then(|t| t.split_once('(')) {
        Some((outer, inner)) => format!("{outer} of {}", shown_type(inner)),
        None => text.trim().to_owned(),
    }
}
