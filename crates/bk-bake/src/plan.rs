//! From a definition to the targets that are to be built: groups, inheritance, overrides, and targets that others use.

use std::collections::{BTreeMap, btree_map::Entry};

use bk_build::InputError;
use serde::Serialize;

use crate::{
    Definition, Group, OutputEntry, Target, Variables, definition::target_name, glob, limits,
    overrides::Overrides, paths,
};

/// What is named on the command line, for errors.
const WHAT: &str = "TARGET";

/// The targets that were asked for, ready to be built. Serialised it is a bake file that needs nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// The groups among what was asked for; `default` is what was asked for.
    #[serde(rename = "group", skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Group>,
    /// The targets, and those whose results they use.
    #[serde(rename = "target")]
    pub targets: BTreeMap<String, Target>,
}

impl Plan {
    /// As a bake file in JSON, indented by two spaces, with a line end at the end.
    pub fn to_json(&self) -> String {
        let mut plan = self.clone();
        for target in plan.targets.values_mut() {
            *target = target.escaped();
        }
        // Maps with text keys and texts can always be written.
        serde_json::to_string_pretty(&plan).map_or_else(|_| String::new(), |text| text + "\n")
    }
}

impl Definition {
    /// What `names` mean: targets, groups and patterns, or `default` when there are none. `overrides` are of the form
    /// `TARGET.KEY=VALUE`, where TARGET may be a pattern; the last of a key holds.
    ///
    /// # Errors
    /// A name or an override that has no meaning, or targets that inherit from or use each other in a circle.
    pub fn plan(
        &self,
        names: &[&str],
        overrides: &[&str],
        variables: &Variables,
    ) -> Result<Plan, InputError> {
        let overrides = Overrides::parse(self, overrides, variables)?;
        let names = self.asked(names)?;
        let mut plan = Plan::default();
        for name in &names {
            let (mut targets, mut groups) = (Vec::new(), Vec::new());
            self.members(name, &mut targets, &mut groups);
            for target in targets {
                if let Entry::Vacant(place) = plan.targets.entry(target) {
                    let resolved = self.resolve(place.key(), &overrides)?;
                    place.insert(resolved);
                }
            }
            for group in groups {
                if let Some(found) = self.group(&group) {
                    plan.groups.insert(group, found.clone());
                }
            }
        }
        let default = plan.groups.entry("default".to_owned()).or_default();
        for name in names {
            // The group that was asked for by its own name stays what it is.
            let is_itself = name == "default" && self.group("default").is_some();
            if !is_itself && !default.targets.contains(&name) {
                default.targets.push(name);
            }
        }
        default.targets.sort();
        let mut roots: Vec<String> = plan.targets.keys().cloned().collect();
        for name in roots.drain(..) {
            self.link(&name, &mut plan.targets, &overrides, &mut Vec::new())?;
        }
        for target in plan.targets.values_mut() {
            target.context = target.context.as_deref().map(paths::context);
        }
        Ok(plan)
    }

    fn asked(&self, names: &[&str]) -> Result<Vec<String>, InputError> {
        let mut all: Vec<String> = Vec::new();
        let default = ["default"];
        let names = if names.is_empty() { &default[..] } else { names };
        for name in names {
            let name = target_name(name);
            let found: Vec<String> = match glob::is_pattern(&name) {
                false => vec![name.into_owned()],
                true => {
                    let there = self.groups.iter().map(|(n, _)| n);
                    let there = there.chain(self.targets.iter().map(|(n, _)| n));
                    let found: Vec<_> = there.filter(|n| glob::matches(&name, n)).cloned().collect();
                    if found.is_empty() {
                        return Err(self.no_such(WHAT, &name));
                    }
                    found
                }
            };
            for name in found {
                if !all.contains(&name) {
                    all.push(name);
                }
            }
        }
        Ok(all)
    }

    /// The targets and groups that a name stands for, each once. A group that holds itself adds nothing.
    fn members(&self, name: &str, targets: &mut Vec<String>, groups: &mut Vec<String>) {
        let Some(group) = self.group(name) else {
            if !targets.iter().any(|n| n == name) {
                targets.push(name.to_owned());
            }
            return;
        };
        if groups.iter().any(|n| n == name) {
            return;
        }
        groups.push(name.to_owned());
        for member in &group.targets {
            // A group may hold a target of its own name.
            if member == name && self.target(name).is_some() {
                targets.push(member.clone());
                continue;
            }
            self.members(member, targets, groups);
        }
    }

    fn resolve(&self, name: &str, overrides: &Overrides) -> Result<Target, InputError> {
        let mut target = self.inherited(name, overrides, &mut Vec::new(), &mut BTreeMap::new())?;
        target.inherits.clear();
        target.context.get_or_insert_with(|| ".".to_owned());
        if target.dockerfile.as_deref().is_none_or(str::is_empty) {
            target.dockerfile = Some("Dockerfile".to_owned());
        }
        Ok(target)
    }

    /// A target over those that it inherits from; overrides hold for each of them by its own name.
    fn inherited(
        &self,
        name: &str,
        overrides: &Overrides,
        path: &mut Vec<String>,
        known: &mut BTreeMap<String, Target>,
    ) -> Result<Target, InputError> {
        if let Some(target) = known.get(name) {
            return Ok(target.clone());
        }
        let own = self.target(name).ok_or_else(|| match path.last() {
            Some(heir) => self.no_such(&format!("target {heir}: inherits"), name),
            None => self.no_such(WHAT, name),
        })?;
        if path.iter().any(|n| n == name) {
            let why = format!("it inherits from itself: {} → {name}", path.join(" → "));
            return Err(InputError::new(format!("target {name}: inherits"), why, ""));
        }
        if path.len() >= limits::DEPTH {
            let why = format!("more than {} targets inherit one from the other", limits::DEPTH);
            return Err(InputError::new(format!("target {name}: inherits"), why, ""));
        }
        path.push(name.to_owned());
        let mut target = Target::default();
        for parent in &own.inherits {
            target.merge(self.inherited(parent, overrides, path, known)?);
        }
        path.pop();
        target.merge(own.clone());
        overrides.apply(name, &mut target)?;
        target.normalise();
        known.insert(name.to_owned(), target.clone());
        Ok(target)
    }

    /// Adds the targets whose results a target uses.
    fn link(
        &self,
        name: &str,
        targets: &mut BTreeMap<String, Target>,
        overrides: &Overrides,
        path: &mut Vec<String>,
    ) -> Result<(), InputError> {
        let Some(target) = targets.get(name) else {
            return Ok(());
        };
        let links: Vec<(String, String)> = target
            .contexts
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.strip_prefix("target:")?.to_owned())))
            .collect();
        let platforms = target.platforms.clone();
        path.push(name.to_owned());
        for (key, used) in links {
            let place = format!("target {name}: contexts.{key}");
            if path.contains(&used) {
                let why = format!("it uses its own result: {} → {used}", path.join(" → "));
                return Err(InputError::new(place, why, ""));
            }
            if path.len() > limits::DEPTH {
                let why = format!(
                    "more than {} targets use one the result of the other",
                    limits::DEPTH
                );
                return Err(InputError::new(place, why, ""));
            }
            if !targets.contains_key(&used) {
                if self.target(&used).is_none() {
                    return Err(self.no_such(&place, &used));
                }
                let mut other = self.resolve(&used, overrides)?;
                other.output = vec![OutputEntry {
                    kind: "cacheonly".to_owned(),
                    ..OutputEntry::default()
                }];
                other.linked = true;
                targets.insert(used.clone(), other);
            }
            self.link(&used, targets, overrides, path)?;
            let Some(other) = targets.get(&used) else {
                continue;
            };
            let (theirs, granted) = (other.platforms.clone(), other.entitlements.clone());
            let lacking = platforms.iter().find(|p| !theirs.contains(p));
            if let Some(platform) = lacking.filter(|_| platforms.len() > 1 && theirs.len() > 1) {
                let why = format!("target {used} is not built for {platform}");
                return Err(InputError::new(place, why, ""));
            }
            if let Some(target) = targets.get_mut(name) {
                for entitlement in granted {
                    if !target.entitlements.contains(&entitlement) {
                        target.entitlements.push(entitlement);
                    }
                }
            }
        }
        path.pop();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
