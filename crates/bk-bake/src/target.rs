//! One target as plain fields, and how several definitions of it become one.
//!
//! The rule: what merges and what is replaced is what `docker buildx bake` does, since the same files must mean the same.

use std::collections::BTreeMap;

use bk_build::InputError;
use serde::Serialize;

use crate::{Attest, CacheEntry, OutputEntry, SecretEntry, SshEntry, decode::Fields};

/// Targets under one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Group {
    /// What it is for; empty when nobody said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its targets and groups, in the order of the file.
    pub targets: Vec<String>,
}

/// A target: what one build is about. Serialised it is what a bake file holds.
///
/// Empty texts, lists and objects, and `None`, are what nobody said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Target {
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Targets whose fields it takes over. Empty in a [`Plan`](crate::Plan), where that has happened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inherits: Vec<String>,
    /// Annotations, `[SCOPE:]KEY=VALUE` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<String>,
    /// Statements about the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attest: Vec<Attest>,
    /// The build context: a directory, or an address that the daemon fetches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Contexts by name. `target:NAME` is the result of another target.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub contexts: BTreeMap<String, String>,
    /// The Dockerfile, relative to the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The text of a Dockerfile, which wins over [`dockerfile`](Self::dockerfile).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile_inline: Option<String>,
    /// Build arguments.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// Labels of the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Names of the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Where to look steps up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cache_from: Vec<CacheEntry>,
    /// Where to keep steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cache_to: Vec<CacheEntry>,
    /// The stage to build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Secrets for steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret: Vec<SecretEntry>,
    /// SSH agents and keys for steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<SshEntry>,
    /// Platforms to build for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// What comes out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<OutputEntry>,
    /// Whether base images are looked up in their registry again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<bool>,
    /// Whether every step runs again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_cache: Option<bool>,
    /// The network of steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Stages whose steps run again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_cache_filter: Vec<String>,
    /// The size of `/dev/shm`, with a unit or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<String>,
    /// Resource limits of processes, `NAME=SOFT[:HARD]` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<String>,
    /// What is asked of the frontend instead of a build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// What steps may do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entitlements: Vec<String>,
    /// Lines for `/etc/hosts`: names and their addresses, several behind commas.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_hosts: BTreeMap<String, String>,
    /// Whether it is only built because another target uses its result.
    #[serde(skip)]
    pub linked: bool,
    #[serde(skip)]
    pub(crate) said: Said,
}

/// Which lists were said, if only as empty: a later definition replaces them then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) tags: bool,
    pub(crate) platforms: bool,
    pub(crate) cache_to: bool,
    pub(crate) output: bool,
}

/// Every key of a target in a bake file.
pub(crate) const KEYS: [&str; 28] = [
    "annotations",
    "args",
    "attest",
    "cache-from",
    "cache-to",
    "call",
    "context",
    "contexts",
    "description",
    "dockerfile",
    "dockerfile-inline",
    "entitlements",
    "extra-hosts",
    "inherits",
    "labels",
    "matrix",
    "name",
    "network",
    "no-cache",
    "no-cache-filter",
    "output",
    "platforms",
    "pull",
    "secret",
    "shm-size",
    "ssh",
    "tags",
    "target",
];

impl Target {
    /// From the keys of a block, whose variables are in their places.
    pub(crate) fn read(mut f: Fields) -> Result<Self, InputError> {
        let tags = f.list("tags")?;
        let platforms = f.list("platforms")?;
        let cache_to = f.entries("cache-to")?;
        let output = f.entries("output")?;
        let target = Self {
            said: Said {
                tags: tags.is_some(),
                platforms: platforms.is_some(),
                cache_to: cache_to.is_some(),
                output: output.is_some(),
            },
            tags: tags.unwrap_or_default(),
            platforms: platforms.unwrap_or_default(),
            cache_to: cache_to.unwrap_or_default(),
            output: output.unwrap_or_default(),
            description: f.text("description")?.unwrap_or_default(),
            inherits: f.list("inherits")?.unwrap_or_default(),
            annotations: f.list("annotations")?.unwrap_or_default(),
            attest: f.entries("attest")?.unwrap_or_default(),
            context: f.text("context")?,
            contexts: f.map("contexts")?,
            dockerfile: f.text("dockerfile")?,
            dockerfile_inline: f.text("dockerfile-inline")?,
            args: f.map("args")?,
            labels: f.map("labels")?,
            cache_from: f.entries("cache-from")?.unwrap_or_default(),
            target: f.text("target")?,
            secret: f.entries("secret")?.unwrap_or_default(),
            ssh: f.entries("ssh")?.unwrap_or_default(),
            pull: f.flag("pull")?,
            no_cache: f.flag("no-cache")?,
            network: f.text("network")?,
            no_cache_filter: f.list("no-cache-filter")?.unwrap_or_default(),
            shm_size: f.text("shm-size")?,
            ulimits: f.list("ulimits")?.unwrap_or_default(),
            call: f.text("call")?,
            entitlements: f.list("entitlements")?.unwrap_or_default(),
            extra_hosts: f.map("extra-hosts")?,
            linked: false,
        };
        for key in ["policy", "resources"] {
            if f.take(key).is_some() {
                return Err(InputError::new(f.at(key), "this key is not supported", ""));
            }
        }
        f.finish(&KEYS)?;
        Ok(target)
    }

    /// Puts a later definition over this one.
    pub(crate) fn merge(&mut self, over: Self) {
        fn put<T>(here: &mut Option<T>, over: Option<T>) {
            if over.is_some() {
                *here = over;
            }
        }
        if !over.description.is_empty() {
            self.description = over.description;
        }
        self.inherits.extend(over.inherits);
        self.annotations.extend(over.annotations);
        self.attest.extend(over.attest);
        put(&mut self.context, over.context);
        self.contexts.extend(over.contexts);
        put(&mut self.dockerfile, over.dockerfile);
        put(&mut self.dockerfile_inline, over.dockerfile_inline);
        self.args.extend(over.args);
        self.labels.extend(over.labels);
        if over.said.tags {
            (self.tags, self.said.tags) = (over.tags, true);
        }
        self.cache_from.extend(over.cache_from);
        if over.said.cache_to {
            (self.cache_to, self.said.cache_to) = (over.cache_to, true);
        }
        put(&mut self.target, over.target);
        self.secret.extend(over.secret);
        self.ssh.extend(over.ssh);
        if over.said.platforms {
            (self.platforms, self.said.platforms) = (over.platforms, true);
        }
        if over.said.output {
            (self.output, self.said.output) = (over.output, true);
        }
        put(&mut self.pull, over.pull);
        put(&mut self.no_cache, over.no_cache);
        put(&mut self.network, over.network);
        self.no_cache_filter.extend(over.no_cache_filter);
        put(&mut self.shm_size, over.shm_size);
        self.ulimits.extend(over.ulimits);
        put(&mut self.call, over.call);
        self.entitlements.extend(over.entitlements);
        self.extra_hosts.extend(over.extra_hosts);
    }

    /// Leaves out what stands there twice, and says what follows from the rest.
    pub(crate) fn normalise(&mut self) {
        for list in [
            &mut self.annotations,
            &mut self.tags,
            &mut self.platforms,
            &mut self.no_cache_filter,
            &mut self.ulimits,
        ] {
            once(list);
        }
        once(&mut self.cache_from);
        once(&mut self.cache_to);
        once(&mut self.output);
        last_of(&mut self.attest, |a| a.kind.clone());
        last_of(&mut self.secret, |s| s.id.clone());
        last_of(&mut self.ssh, |s| s.id.clone());
        if self.network.as_deref() == Some("host") {
            self.entitlements.push("network.host".to_owned());
        }
        once(&mut self.entitlements);
        self.contexts.retain(|_, value| !value.is_empty());
    }

    /// The same target as a bake file writes it, where `${` and `%{` in a text are escaped.
    pub(crate) fn escaped(&self) -> Self {
        let escape = |text: &mut String| *text = text.replace("${", "$${").replace("%{", "%%{");
        let mut target = self.clone();
        target.annotations.iter_mut().for_each(escape);
        target.dockerfile_inline.iter_mut().for_each(escape);
        target.labels.values_mut().for_each(escape);
        target.args.values_mut().for_each(escape);
        target.extra_hosts.values_mut().for_each(escape);
        target
    }
}

/// Keeps the first of equal ones.
fn once<T: PartialEq>(list: &mut Vec<T>) {
    let mut kept: Vec<T> = Vec::with_capacity(list.len());
    for item in list.drain(..) {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    *list = kept;
}

/// Keeps the last of those with one key, at the place of the first.
fn last_of<T>(list: &mut Vec<T>, key: impl Fn(&T) -> String) {
    let mut kept: Vec<T> = Vec::with_capacity(list.len());
    for item in list.drain(..) {
        match kept.iter().position(|k| key(k) == key(&item)) {
            Some(at) => {
                if let Some(place) = kept.get_mut(at) {
                    *place = item;
                }
            }
            None => kept.push(item),
        }
    }
    *list = kept;
}
