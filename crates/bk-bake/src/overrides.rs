//! `--set TARGET.KEY=VALUE`: what the command line puts over targets.
//!
//! The rule: keys have the names that `docker buildx bake` gives them here, which for three of them is not that of the file.

use std::collections::BTreeMap;

use bk_build::InputError;

use crate::{
    Definition, OutputEntry, Target, Variables,
    decode::{boolean, unknown},
    entry::from_texts,
    glob,
};

const FLAG: &str = "--set";

/// What a key takes.
const KEYS: [&str; 26] = [
    "annotations",
    "args",
    "attest",
    "cache-from",
    "cache-to",
    "call",
    "context",
    "contexts",
    "dockerfile",
    "entitlements",
    "extra-hosts",
    "labels",
    "load",
    "network",
    "no-cache",
    "no-cache-filter",
    "output",
    "platform",
    "pull",
    "push",
    "secrets",
    "shm-size",
    "ssh",
    "tags",
    "target",
    "ulimits",
];
/// Keys that are maps: a name stands behind them.
const NAMED: [&str; 4] = ["args", "contexts", "extra-hosts", "labels"];
/// Keys that collect values.
const LISTS: [&str; 11] = [
    "annotations",
    "attest",
    "cache-from",
    "cache-to",
    "entitlements",
    "no-cache-filter",
    "output",
    "platform",
    "secrets",
    "ssh",
    "tags",
];

/// What is put over one key.
#[derive(Clone, Debug, Default)]
struct Value {
    /// The values, for a list; else the last one.
    texts: Vec<String>,
    append: bool,
}

/// What is put over each target, in the order of the command line.
#[derive(Debug, Default)]
pub(crate) struct Overrides(BTreeMap<String, Vec<(String, Value)>>);

impl Overrides {
    /// Reads them.
    ///
    /// # Errors
    /// A form or a key that has no meaning, or a target that is not there.
    pub(crate) fn parse(
        definition: &Definition,
        texts: &[&str],
        variables: &Variables,
    ) -> Result<Self, InputError> {
        const FORM: &str =
            "TARGET.KEY=VALUE, TARGET.KEY.NAME=VALUE for args, contexts, labels and extra-hosts";
        let mut all = Self::default();
        for text in texts {
            let bad = |why: &str| InputError::new(FLAG, format!("`{text}`: {why}"), FORM);
            let (left, value) = match text.split_once('=') {
                Some((left, value)) => (left, Some(value)),
                None => (*text, None),
            };
            let (left, append) = match left.strip_suffix('+') {
                Some(left) => (left, true),
                None => (left, false),
            };
            let (pattern, path) = left.split_once('.').ok_or_else(|| bad("no key is named"))?;
            let (key, name) = match path.split_once('.') {
                Some((key, name)) => (key, Some(name)),
                None => (path, None),
            };
            if !KEYS.contains(&key) {
                return Err(unknown(&format!("{FLAG} {text}"), key, &KEYS));
            }
            let value = match (value, name) {
                (Some(value), _) => value,
                // Without a value it comes from the environment, if it is there.
                (None, Some(name)) if key == "args" => match variables.environment(name) {
                    Some(value) => value,
                    None => {
                        expand(definition, pattern, text)?;
                        continue;
                    }
                },
                (None, _) => return Err(bad("no value is named")),
            };
            if NAMED.contains(&key) != name.is_some_and(|n| !n.is_empty()) {
                return Err(bad(match name {
                    None | Some("") => "this key takes a name behind it",
                    Some(_) => "this key takes no name behind it",
                }));
            }
            let list = LISTS.contains(&key) || key == "ulimits";
            if append && !list {
                return Err(bad("only lists can be added to"));
            }
            for target in expand(definition, pattern, text)? {
                let of = all.0.entry(target).or_default();
                let at = of.iter().position(|(k, _)| k == path).unwrap_or_else(|| {
                    of.push((path.to_owned(), Value::default()));
                    of.len() - 1
                });
                if let Some((_, here)) = of.get_mut(at) {
                    if !list {
                        here.texts.clear();
                    }
                    here.texts.push(value.to_owned());
                    here.append = append;
                }
            }
        }
        Ok(all)
    }

    /// Puts them over a target.
    ///
    /// # Errors
    /// A value that has no meaning.
    pub(crate) fn apply(&self, name: &str, target: &mut Target) -> Result<(), InputError> {
        for (path, value) in self.0.get(name).into_iter().flatten() {
            one(target, name, path, value)?;
        }
        Ok(())
    }
}

/// The targets that a pattern means.
fn expand(definition: &Definition, pattern: &str, text: &str) -> Result<Vec<String>, InputError> {
    if definition.target(pattern).is_some() {
        return Ok(vec![pattern.to_owned()]);
    }
    let names = definition.targets.iter().map(|(name, _)| name);
    let names: Vec<_> = names
        .filter(|name| glob::matches(pattern, name))
        .cloned()
        .collect();
    match names.is_empty() {
        true => Err(InputError::new(
            FLAG,
            format!("`{text}`: no target is named `{pattern}`"),
            "",
        )),
        false => Ok(names),
    }
}

fn one(target: &mut Target, name: &str, path: &str, value: &Value) -> Result<(), InputError> {
    fn put<T>(list: &mut Vec<T>, more: Vec<T>, append: bool) {
        if !append {
            list.clear();
        }
        list.extend(more);
    }
    let (key, inner) = path.split_once('.').unwrap_or((path, ""));
    let place = format!("{FLAG} {name}.{path}");
    let (texts, append) = (&value.texts, value.append);
    let last = texts.last().cloned().unwrap_or_default();
    let flag = || {
        boolean(&last).ok_or_else(|| {
            InputError::new(
                &place,
                format!("`{last}` is neither true nor false"),
                "true or false",
            )
        })
    };
    match key {
        "context" => target.context = Some(last),
        "dockerfile" => target.dockerfile = Some(last),
        "target" => target.target = Some(last),
        "call" => target.call = Some(last),
        "network" => target.network = Some(last),
        "shm-size" => target.shm_size = Some(last),
        "args" => drop(target.args.insert(inner.to_owned(), last)),
        "contexts" => drop(target.contexts.insert(inner.to_owned(), last)),
        "labels" => drop(target.labels.insert(inner.to_owned(), last)),
        "extra-hosts" => drop(target.extra_hosts.insert(inner.to_owned(), last)),
        "no-cache" => target.no_cache = Some(flag()?),
        "pull" => target.pull = Some(flag()?),
        "push" => push(&mut target.output, flag()?),
        "load" => load(&mut target.output, flag()?),
        "tags" => put(&mut target.tags, texts.clone(), append),
        "platform" => put(&mut target.platforms, texts.clone(), append),
        "no-cache-filter" => put(&mut target.no_cache_filter, texts.clone(), append),
        "ulimits" => put(&mut target.ulimits, texts.clone(), append),
        "cache-from" => put(&mut target.cache_from, from_texts(&place, texts)?, append),
        "cache-to" => put(&mut target.cache_to, from_texts(&place, texts)?, append),
        "output" => put(&mut target.output, from_texts(&place, texts)?, append),
        "secrets" => put(&mut target.secret, from_texts(&place, texts)?, append),
        "ssh" => put(&mut target.ssh, from_texts(&place, texts)?, append),
        // These three always add.
        "attest" => target.attest.extend(from_texts(&place, texts)?),
        "annotations" => target.annotations.extend_from_slice(texts),
        "entitlements" => target.entitlements.extend_from_slice(texts),
        other => return Err(unknown(&place, other, &KEYS)),
    }
    Ok(())
}

/// Makes images go to their registry, or keeps them from it. A target whose results are files is left alone.
fn push(outputs: &mut Vec<OutputEntry>, yes: bool) {
    if !yes {
        outputs.retain(|o| o.kind != "registry");
    }
    for output in outputs.iter_mut().filter(|o| o.kind == "image") {
        output.attrs.insert("push".to_owned(), yes.to_string());
    }
    if yes && outputs.iter().all(|o| o.kind == "docker") {
        outputs.push(OutputEntry {
            kind: "image".to_owned(),
            attrs: BTreeMap::from([("push".to_owned(), "true".to_owned())]),
            ..OutputEntry::default()
        });
    }
}

/// Puts images into the engine. A target whose results are files is left alone.
fn load(outputs: &mut Vec<OutputEntry>, yes: bool) {
    let files = |o: &OutputEntry| !matches!(&*o.kind, "docker" | "image" | "registry" | "oci");
    let loads = |o: &OutputEntry| o.kind == "docker" && o.dest.is_empty();
    if yes && !outputs.iter().any(|o| files(o) || loads(o)) {
        outputs.push(OutputEntry {
            kind: "docker".to_owned(),
            ..OutputEntry::default()
        });
    }
}
