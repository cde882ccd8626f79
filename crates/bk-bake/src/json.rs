//! The JSON form of bake files: `variable`, `group` and `target`, and attributes beside them.
//!
//! The rule: all files are one text for variables, wherever they are declared; blocks of one name are merged in the order of
//! the files.

use bk_build::InputError;

use crate::{
    Definition, Group, Target, Variables,
    decode::Fields,
    definition::{check_name, put_group, put_target},
    limits,
    matrix::cells,
    node::Node,
    template,
    variables::Scope,
};

/// A file that was read but not evaluated.
pub(crate) struct Parsed {
    name: String,
    root: Vec<(String, Node)>,
}

impl Parsed {
    /// Reads a file.
    ///
    /// # Errors
    /// It is no JSON, or no object.
    pub(crate) fn new(name: &str, text: &str) -> Result<Self, InputError> {
        let node: Node = serde_json::from_str(text)
            .map_err(|e| InputError::new(name, format!("it is not a bake file in JSON: {e}"), ""))?;
        match node {
            Node::Map(root) => Ok(Self {
                name: name.to_owned(),
                root,
            }),
            other => Err(crate::decode::wrong(name, &other, "an object")),
        }
    }
}

/// A block of one kind: the file, its label, its keys.
struct Block {
    place: String,
    label: String,
    body: Node,
}

/// Adds what the files say to a definition.
///
/// # Errors
/// Anything that is not understood, with its place.
pub(crate) fn add(to: &mut Definition, files: Vec<Parsed>, variables: &Variables) -> Result<(), InputError> {
    let mut scope = Scope::new(variables);
    let (mut groups, mut targets) = (Vec::new(), Vec::new());
    let mut attributes = Vec::new();
    for file in files {
        for (key, node) in file.root {
            let place = format!("{}: {key}", file.name);
            match &*key {
                "variable" => {
                    for block in blocks(&place, node)? {
                        scope.declare(&block.label, Fields::new(block.place, block.body)?)?;
                    }
                }
                "group" => groups.extend(blocks(&place, node)?),
                "target" => targets.extend(blocks(&place, node)?),
                "function" => {
                    return Err(InputError::new(place, "functions are not supported", ""));
                }
                _ => attributes.push((key, place, node)),
            }
        }
    }
    if groups.len() > limits::TARGETS {
        let why = format!("there are more than {} groups", limits::TARGETS);
        return Err(InputError::new("group", why, ""));
    }
    // An attribute wins over a block of its name.
    for (key, place, node) in attributes {
        scope.attribute(&key, place, node);
    }
    to.variables = scope.all()?;
    let mut renamed = Vec::new();
    for block in targets {
        let place = block.place;
        if to.targets.len() >= limits::TARGETS {
            let why = format!("there are more than {} targets", limits::TARGETS);
            return Err(InputError::new(place, why, ""));
        }
        check_name(&place, &block.label)?;
        let mut fields = Fields::new(&place, block.body)?;
        let matrix = fields.take("matrix");
        let name = fields.take("name");
        if name.is_some() && matrix.is_none() {
            return Err(InputError::new(fields.at("name"), "it takes a `matrix`", ""));
        }
        let at = fields.at("matrix");
        let matrix = match matrix {
            Some(node) => Some(evaluate(&at, &node, &scope, &[])?),
            None => None,
        };
        let is_matrix = matrix.is_some();
        let body = Node::Map(fields.into_entries());
        let mut names = Vec::new();
        for cell in cells(&at, matrix)? {
            let own = match &name {
                Some(node) => {
                    let at = format!("{place}.name");
                    let own = evaluate(&at, node, &scope, &cell)?;
                    let own = own
                        .scalar()
                        .ok_or_else(|| crate::decode::wrong(&at, &own, "a text"))?;
                    check_name(&at, &own)?;
                    own
                }
                None => block.label.clone(),
            };
            if names.contains(&own) {
                let why = format!("the name `{own}` is made twice; put every part of the matrix into it");
                return Err(InputError::new(format!("{place}.name"), why, ""));
            }
            names.push(own.clone());
            let body = evaluate(&place, &body, &scope, &cell)?;
            put_target(&mut to.targets, own, Target::read(Fields::new(&place, body)?)?);
        }
        if is_matrix && names != [block.label.as_str()] {
            renamed.push((block.label, names));
        }
    }
    for block in groups {
        check_name(&block.place, &block.label)?;
        let body = evaluate(&block.place, &block.body, &scope, &[])?;
        let mut fields = Fields::new(&block.place, body)?;
        let group = Group {
            description: fields.text("description")?.unwrap_or_default(),
            targets: fields.list("targets")?.unwrap_or_default(),
        };
        fields.finish(&["description", "targets"])?;
        put_group(&mut to.groups, block.label, group);
    }
    for (name, targets) in renamed {
        if to.groups.iter().all(|(n, _)| *n != name) {
            let group = Group {
                targets,
                ..Group::default()
            };
            put_group(&mut to.groups, name, group);
        }
    }
    Ok(())
}

/// The blocks under a key: an object by label, or a list of such, where the value of a label may be a list too.
fn blocks(place: &str, node: Node) -> Result<Vec<Block>, InputError> {
    let objects = match node {
        Node::List(items) => items,
        one => vec![one],
    };
    let mut all = Vec::new();
    for object in objects {
        let Node::Map(entries) = object else {
            return Err(crate::decode::wrong(
                place,
                &object,
                "an object of blocks by name",
            ));
        };
        for (label, body) in entries {
            let place = format!("{place}.{label}");
            let bodies = match body {
                Node::List(items) => items,
                one => vec![one],
            };
            all.extend(bodies.into_iter().map(|body| Block {
                place: place.clone(),
                label: label.clone(),
                body,
            }));
        }
    }
    Ok(all)
}

/// A value with its variables in place; those of `cell` go first. Errors name the key.
fn evaluate(
    place: &str,
    node: &Node,
    scope: &Scope<'_>,
    cell: &[(String, Node)],
) -> Result<Node, InputError> {
    let mut lookup = |name: &str| match cell.iter().find(|(n, _)| n == name) {
        Some((_, node)) => Ok(node.clone()),
        None => scope.value(name),
    };
    let Node::Map(entries) = node else {
        return template::evaluate(node, &mut lookup).map_err(|why| InputError::new(place, why, ""));
    };
    let mut map = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let value = template::evaluate(value, &mut lookup)
            .map_err(|why| InputError::new(format!("{place}.{key}"), why, ""))?;
        map.push((key.clone(), value));
    }
    Ok(Node::Map(map))
}
