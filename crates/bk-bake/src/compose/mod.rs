//! The `build` sections of compose files.
//!
//! The rule: only what a build needs is read (`image`, `build`, `environment` of services, and top-level `secrets`); of that,
//! what is not understood is an error, and what other tools leave aside is a warning.

mod dotenv;
mod interpolate;
mod merge;
mod service;

use bk_build::InputError;

use crate::{
    Definition, File, Group, Variables,
    definition::{check_name, put_group, put_target, target_name},
    limits,
    node::Node,
    yaml,
};

use dotenv::Lookup;

/// Adds a target for each service that is built, and the group `default` of all of them.
///
/// # Errors
/// Anything that is not understood, with its place.
pub(crate) fn add(to: &mut Definition, files: &[&File], variables: &Variables) -> Result<(), InputError> {
    let lookup = Lookup::new(variables)?;
    let mut whole = Node::Map(Vec::new());
    for file in files {
        let one = read(file, &lookup, &mut to.warnings)?;
        whole = merge::merged(whole, one);
    }
    // After a merge a place has no file of its own any more.
    let place = match files {
        [only] => only.name.clone(),
        files => files.iter().map(|f| &*f.name).collect::<Vec<_>>().join(" + "),
    };
    let secrets = whole.get("secrets").cloned().unwrap_or(Node::Null);
    let mut default = Group::default();
    if let Some(Node::Map(services)) = whole.get("services") {
        for (service, body) in services {
            let place = format!("{place}: services.{service}");
            let target = service::target(&place, body, &secrets, &lookup, &mut to.warnings)?;
            let Some(target) = target else { continue };
            let name = target_name(service).into_owned();
            check_name(&place, &name)?;
            default.targets.push(name.clone());
            put_target(&mut to.targets, name, target);
        }
    }
    put_group(&mut to.groups, "default".to_owned(), default);
    Ok(())
}

/// What a build needs of one file, with variables in their places and short forms written out.
fn read(file: &File, lookup: &Lookup<'_>, warnings: &mut Vec<String>) -> Result<Node, InputError> {
    let not = |why: String| InputError::new(&file.name, format!("it is not a compose file: {why}"), "");
    let root = yaml::parse(&file.text).map_err(not)?;
    let Node::Map(entries) = root else {
        return Err(not(format!("it is {}, not an object", root.kind())));
    };
    let mut kept = Vec::new();
    for (key, node) in entries {
        let place = format!("{}: {key}", file.name);
        match &*key {
            "services" => kept.push((key, services(&place, node, lookup, warnings)?)),
            "secrets" => kept.push((key, lookup.interpolated(&place, node, warnings)?)),
            "include" => {
                let why = "files that include others are not supported";
                return Err(InputError::new(place, why, FLAT));
            }
            "target" | "group" | "variable" => {
                return Err(InputError::new(
                    place,
                    "this key is one of bake files, not of compose files",
                    "",
                ));
            }
            _ => {}
        }
    }
    if kept.is_empty() {
        return Err(not("it has neither `services` nor `secrets`".to_owned()));
    }
    Ok(Node::Map(kept))
}

/// The name of the service that another one extends.
fn extended(place: &str, node: Node) -> Result<Node, InputError> {
    let mut fields = match node {
        name @ Node::Text(_) => return Ok(name),
        node => crate::decode::Fields::new(place, node)?,
    };
    if fields.take("file").is_some() {
        let why = "services of other files cannot be extended";
        return Err(InputError::new(place, why, FLAT));
    }
    let name = fields.required("service")?;
    fields.finish(&["service"])?;
    Ok(Node::Text(name))
}

/// Puts each service of a file over the one that it extends.
fn extend(place: &str, services: Vec<(String, Node)>) -> Result<Vec<(String, Node)>, InputError> {
    let mut all = Vec::with_capacity(services.len());
    for (name, own) in &services {
        let mut whole = own.clone();
        let mut chain = vec![name.as_str()];
        while let Some(base) = whole.get("extends").and_then(Node::scalar) {
            let place = format!("{place}.{name}.extends");
            let Some((base, body)) = services.iter().find(|(n, _)| *n == base) else {
                return Err(InputError::new(
                    place,
                    format!("no service is named `{base}`"),
                    "",
                ));
            };
            if chain.contains(&base.as_str()) || chain.len() > limits::DEPTH {
                let why = format!(
                    "services extend each other without end: {} → {base}",
                    chain.join(" → ")
                );
                return Err(InputError::new(place, why, ""));
            }
            chain.push(base);
            if let Node::Map(entries) = &mut whole {
                entries.retain(|(key, _)| key != "extends");
            }
            whole = merge::merged(body.clone(), whole);
        }
        all.push((name.clone(), whole));
    }
    Ok(all)
}

/// How to get a file that needs no other.
const FLAT: &str = "one file that needs no other: `docker compose config` writes it";

fn services(
    place: &str,
    node: Node,
    lookup: &Lookup<'_>,
    warnings: &mut Vec<String>,
) -> Result<Node, InputError> {
    let Node::Map(services) = node else {
        return Err(crate::decode::wrong(place, &node, "an object of services"));
    };
    let mut all = Vec::new();
    for (name, body) in services {
        let place = format!("{place}.{name}");
        let entries = match body {
            Node::Map(entries) => entries,
            Node::Null => Vec::new(),
            other => return Err(crate::decode::wrong(&place, &other, "an object")),
        };
        let mut kept = Vec::new();
        for (key, node) in entries {
            let place = format!("{place}.{key}");
            match &*key {
                "image" | "environment" | "env_file" | "build" => {
                    let node = lookup.interpolated(&place, node, warnings)?;
                    kept.push((key.clone(), merge::written_out(&place, &key, node)?));
                }
                "extends" => kept.push((key, extended(&place, node)?)),
                _ => {}
            }
        }
        all.push((name, Node::Map(kept)));
    }
    extend(place, all).map(Node::Map)
}

#[cfg(test)]
mod tests;
