//! From the `build` section of a service, written out and merged, to a target.

use std::collections::BTreeMap;

use bk_build::{InputError, is_remote, parse_bytes};

use super::dotenv::Lookup;
use crate::{
    Attest, SecretEntry, SshEntry, Target,
    decode::{Fields, boolean, texts, wrong},
    definition::target_name,
    entry::{Entry, from_texts},
    node::Node,
    paths::clean,
};

/// Every key of a `build` section.
const KEYS: [&str; 25] = [
    "additional_contexts",
    "args",
    "cache_from",
    "cache_to",
    "context",
    "dockerfile",
    "dockerfile_inline",
    "entitlements",
    "extra_hosts",
    "isolation",
    "labels",
    "network",
    "no_cache",
    "platforms",
    "privileged",
    "provenance",
    "pull",
    "sbom",
    "secrets",
    "shm_size",
    "ssh",
    "tags",
    "target",
    "ulimits",
    "x-bake",
];
/// Keys of the extension `x-bake`.
const EXTENSION: [&str; 11] = [
    "cache-from",
    "cache-to",
    "contexts",
    "no-cache",
    "no-cache-filter",
    "output",
    "platforms",
    "pull",
    "secret",
    "ssh",
    "tags",
];

/// The target of a service; nothing when it is not built.
///
/// # Errors
/// Anything that is not understood, with its place.
pub(super) fn target(
    service: &str,
    body: &Node,
    secrets: &Node,
    lookup: &Lookup<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Target>, InputError> {
    let Some(build @ Node::Map(_)) = body.get("build") else {
        return Ok(None);
    };
    let place = format!("{service}.build");
    let mut f = Fields::new(&place, build.clone())?;
    let said = |text: Option<String>| text.filter(|t| !t.is_empty());
    let mut target = Target {
        context: said(f.text("context")?).map(|path| path_of(&path, lookup)),
        dockerfile: said(f.text("dockerfile")?),
        dockerfile_inline: said(f.text("dockerfile_inline")?),
        args: args(&f.at("args"), f.take("args"), body, lookup)?,
        labels: f.map("labels")?,
        tags: f.list("tags")?.unwrap_or_default(),
        cache_from: from_texts(&f.at("cache_from"), &f.list("cache_from")?.unwrap_or_default())?,
        cache_to: from_texts(&f.at("cache_to"), &f.list("cache_to")?.unwrap_or_default())?,
        target: said(f.text("target")?),
        network: said(f.text("network")?),
        platforms: f.list("platforms")?.unwrap_or_default(),
        // As with other tools, `false` is the same as nothing.
        pull: f.flag("pull")?.filter(|yes| *yes),
        no_cache: f.flag("no_cache")?.filter(|yes| *yes),
        entitlements: f.list("entitlements")?.unwrap_or_default(),
        ..Target::default()
    };
    for (name, value) in f.map("additional_contexts")? {
        let value = match context_of(&value) {
            Some(linked) => linked,
            None if is_remote(&value) || value.contains("://") => value,
            None => path_of(&value, lookup),
        };
        target.contexts.insert(name, value);
    }
    if let Some(size) = f.text("shm_size")? {
        target.shm_size = Some(amount(parse_bytes(&f.at("shm_size"), &size)?));
    }
    ulimits(&f.at("ulimits"), f.take("ulimits"), &mut target)?;
    hosts(&f.at("extra_hosts"), f.take("extra_hosts"), &mut target)?;
    for (kind, key) in [("sbom", "sbom"), ("provenance", "provenance")] {
        if let Some(text) = said(f.text(key)?) {
            target.attest.push(statement(&f.at(key), kind, &text)?);
        }
    }
    if let Some(Node::Map(keys)) = f.take("ssh") {
        for (id, path) in keys {
            let paths = path
                .scalar()
                .filter(|p| !p.is_empty())
                .map(|p| path_of(&p, lookup));
            target.ssh.push(SshEntry {
                id,
                paths: paths.into_iter().collect(),
            });
        }
        target
            .ssh
            .sort_by(|a, b| (&a.id, &a.paths).cmp(&(&b.id, &b.paths)));
    }
    if let Some(Node::Map(names)) = f.take("secrets") {
        for (name, _) in names {
            target
                .secret
                .push(secret(&f.at("secrets"), &name, secrets, lookup)?);
        }
    }
    for key in ["isolation", "privileged"] {
        let node = f.take(key).and_then(|node| node.scalar());
        if node.is_some_and(|text| !matches!(&*text, "" | "false" | "default")) {
            warnings.push(format!("{}: it has no meaning here and is left aside", f.at(key)));
        }
    }
    let extension = f.take("x-bake");
    // Extensions of other tools are theirs.
    let mut rest = f.into_entries();
    rest.retain(|(key, _)| !key.starts_with("x-"));
    Fields::new(&place, Node::Map(rest))?.finish(&KEYS)?;
    if let Some(node) = extension {
        extend(&mut target, Fields::new(format!("{place}.x-bake"), node)?)?;
    }
    if target.tags.is_empty()
        && let Some(image) = body.get("image").and_then(Node::scalar).filter(|i| !i.is_empty())
    {
        target.tags.push(image);
    }
    let said = &mut target.said;
    said.tags = !target.tags.is_empty();
    said.platforms = !target.platforms.is_empty();
    said.cache_to = !target.cache_to.is_empty();
    said.output = !target.output.is_empty();
    Ok(Some(target))
}

/// Build arguments. One without a value is the service's variable of that name, else that of the surroundings.
fn args(
    place: &str,
    node: Option<Node>,
    body: &Node,
    lookup: &Lookup<'_>,
) -> Result<BTreeMap<String, String>, InputError> {
    let mut all = BTreeMap::new();
    let Some(Node::Map(entries)) = node else {
        return Ok(all);
    };
    for (key, value) in entries {
        let value = match value {
            Node::Null => {
                let own = body
                    .get("environment")
                    .and_then(|e| e.get(&key))
                    .and_then(Node::scalar);
                let found = own.or_else(|| lookup.var(&key).map(str::to_owned));
                if found.is_none() && body.get("env_file").is_some() {
                    let why = "it has no value, and the `env_file` that could hold one is not read";
                    return Err(InputError::new(format!("{place}.{key}"), why, "KEY=VALUE"));
                }
                found
            }
            node => Some(
                node.scalar()
                    .ok_or_else(|| wrong(&format!("{place}.{key}"), &node, "a text"))?,
            ),
        };
        if let Some(value) = value {
            all.insert(key, value);
        }
    }
    Ok(all)
}

/// A path as other tools write it; `~/` is the home directory.
fn path_of(text: &str, lookup: &Lookup<'_>) -> String {
    if is_remote(text) {
        return text.to_owned();
    }
    match (text.strip_prefix("~/"), lookup.var("HOME")) {
        (Some(rest), Some(home)) => clean(&format!("{home}/{rest}")),
        _ => clean(text),
    }
}

/// The target that a context by name means, if it means one.
fn context_of(value: &str) -> Option<String> {
    let name = value
        .strip_prefix("service:")
        .or_else(|| value.strip_prefix("target:"))?;
    Some(format!("target:{}", target_name(name)))
}

fn ulimits(place: &str, node: Option<Node>, target: &mut Target) -> Result<(), InputError> {
    let Some(Node::Map(entries)) = node else {
        return Ok(());
    };
    for (name, sides) in entries {
        let place = format!("{place}.{name}");
        let side = |side: &str| sides.get(side).and_then(Node::scalar);
        let (Some(soft), Some(hard)) = (side("soft"), side("hard")) else {
            return Err(InputError::new(
                place,
                "it needs `soft` and `hard`, or one number",
                "",
            ));
        };
        target.ulimits.push(format!("{name}={soft}:{hard}"));
    }
    Ok(())
}

fn hosts(place: &str, node: Option<Node>, target: &mut Target) -> Result<(), InputError> {
    let Some(Node::Map(entries)) = node else {
        return Ok(());
    };
    for (name, addresses) in entries {
        let all = texts(&format!("{place}.{name}"), addresses)?;
        target.extra_hosts.insert(name, all.join(","));
    }
    Ok(())
}

/// What `sbom: true` or `provenance: mode=max` means.
fn statement(place: &str, kind: &str, text: &str) -> Result<Attest, InputError> {
    match boolean(text) {
        Some(yes) => Ok(Attest {
            kind: kind.to_owned(),
            disabled: !yes,
            ..Attest::default()
        }),
        None => Attest::from_text(place, &format!("type={kind},{text}")),
    }
}

fn secret(place: &str, name: &str, secrets: &Node, lookup: &Lookup<'_>) -> Result<SecretEntry, InputError> {
    let Some(found) = secrets.get(name) else {
        let why = format!("no secret is named `{name}` in the file's own `secrets`");
        return Err(InputError::new(place, why, ""));
    };
    let mut fields = Fields::new(format!("secrets.{name}"), found.clone())?;
    if fields
        .take("external")
        .is_some_and(|node| node != Node::Bool(false))
    {
        let why = format!("the secret `{name}` is external: it is not on this machine");
        return Err(InputError::new(
            place,
            why,
            "a secret with `file` or `environment`",
        ));
    }
    Ok(SecretEntry {
        id: name.to_owned(),
        src: fields
            .text("file")?
            .map(|p| path_of(&p, lookup))
            .unwrap_or_default(),
        env: fields.text("environment")?.unwrap_or_default(),
    })
}

/// An amount of memory in the largest unit that holds it without a fraction.
fn amount(bytes: u64) -> String {
    let mut value = bytes;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value > 0 && value.is_multiple_of(1024) {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1024, next);
    }
    format!("{value}{unit}")
}

/// The keys of `x-bake`: what compose has no word for. Most add to what the section says.
fn extend(target: &mut Target, mut f: Fields) -> Result<(), InputError> {
    target.tags.extend(words(&mut f, "tags")?);
    target.platforms.extend(words(&mut f, "platforms")?);
    target.no_cache_filter.extend(words(&mut f, "no-cache-filter")?);
    target.cache_from.extend(entries(&mut f, "cache-from")?);
    target.cache_to.extend(entries(&mut f, "cache-to")?);
    target.secret.extend(entries(&mut f, "secret")?);
    target.ssh.extend(entries(&mut f, "ssh")?);
    target.output.extend(entries(&mut f, "output")?);
    target.pull = f.flag("pull")?.or(target.pull);
    target.no_cache = f.flag("no-cache")?.or(target.no_cache);
    for (name, value) in f.map("contexts")? {
        let value = context_of(&value).unwrap_or(value);
        target.contexts.entry(name).or_insert(value);
    }
    f.finish(&EXTENSION)?;
    target.normalise();
    Ok(())
}

fn entries<E: Entry>(f: &mut Fields, key: &str) -> Result<Vec<E>, InputError> {
    let place = f.at(key);
    from_texts(&place, &words(f, key)?)
}

/// A list of texts, or words with blanks between them.
fn words(f: &mut Fields, key: &str) -> Result<Vec<String>, InputError> {
    match f.take(key) {
        None => Ok(Vec::new()),
        Some(Node::Text(text)) => Ok(text.split_whitespace().map(str::to_owned).collect()),
        Some(node) => texts(&f.at(key), node),
    }
}
