//! Files in, everything that they define out.

use std::borrow::Cow;

use bk_build::InputError;
use serde::Serialize;

use crate::{Group, Target, Variable, Variables, compose, json, limits};

/// The files that are read when nobody names one, in the order in which they are put one over the other. Those that are not
/// there are left out.
pub const DEFAULT_FILES: [&str; 6] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.override.json",
];

/// Files that `docker buildx bake` reads besides when nobody names one, and that cannot be read here: where one is, the
/// definition is not complete without it.
pub const HCL_FILES: [&str; 2] = ["docker-bake.hcl", "docker-bake.override.hcl"];

/// A file that was read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct File {
    /// Its name; how it ends says what it is.
    pub name: String,
    /// What is in it.
    pub text: String,
}

impl File {
    /// A file of that name with that text. `.json` is a bake file, `.yaml` and `.yml` is a compose file; another name is
    /// either, by its text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }

    fn is_bake(&self) -> Result<bool, InputError> {
        let name = self.name.to_ascii_lowercase();
        let ends = |end: &[&str]| end.iter().any(|e| name.ends_with(e));
        if ends(&[".hcl"]) {
            return Err(InputError::new(
                &self.name,
                "HCL is not supported",
                "JSON: `docker buildx bake --print > docker-bake.json` writes the same targets so that they can be read",
            ));
        }
        if self.text.len() > limits::FILE_BYTES {
            let why = format!("it is longer than {} MiB", limits::FILE_BYTES / 1024 / 1024);
            return Err(InputError::new(&self.name, why, ""));
        }
        Ok(ends(&[".json"]) || !ends(&[".yaml", ".yml"]) && self.text.trim_start().starts_with('{'))
    }
}

/// Everything that some files define.
#[derive(Clone, Debug, Default)]
pub struct Definition {
    pub(crate) targets: Vec<(String, Target)>,
    pub(crate) groups: Vec<(String, Group)>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) warnings: Vec<String>,
}

/// A target or a group, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is for; for a group with its members.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub description: String,
    /// Whether it is a group.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub group: bool,
}

impl Definition {
    /// What the files define, a later one over an earlier one; compose files go before bake files.
    ///
    /// # Errors
    /// An [`InputError`] that names the file, the block and the key.
    pub fn parse(files: &[File], variables: &Variables) -> Result<Self, InputError> {
        let mut definition = Self::default();
        let (mut bake, mut services) = (Vec::new(), Vec::new());
        for file in files {
            match file.is_bake()? {
                true => bake.push(json::Parsed::new(&file.name, &file.text)?),
                false => services.push(file),
            }
        }
        if !services.is_empty() {
            compose::add(&mut definition, &services, variables)?;
        }
        json::add(&mut definition, bake, variables)?;
        for (_, group) in &mut definition.groups {
            let mut seen = std::collections::BTreeSet::new();
            group.targets.retain(|name| seen.insert(name.clone()));
        }
        Ok(definition)
    }

    /// What is worth telling but no error, a line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The variables of bake files, sorted by name.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// Targets and groups, sorted by name; those whose name begins with `_` are private and left out.
    pub fn listed(&self) -> Vec<Listed> {
        let targets = self.targets.iter().map(|(name, target)| Listed {
            name: name.clone(),
            description: target.description.clone(),
            group: false,
        });
        let groups = self.groups.iter().map(|(name, group)| {
            let mut members: Vec<&str> = group.targets.iter().map(String::as_str).collect();
            members.sort_unstable();
            let members = members.join(", ");
            let description = match (group.description.as_str(), members.as_str()) {
                (said, "") => said.to_owned(),
                ("", members) => members.to_owned(),
                (said, members) => format!("{said} ({members})"),
            };
            Listed {
                name: name.clone(),
                description,
                group: true,
            }
        });
        let mut all: Vec<_> = targets
            .chain(groups)
            .filter(|listed| !listed.name.starts_with('_'))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(crate) fn target(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|(n, _)| n == name).map(|(_, g)| g)
    }

    /// An error that says which targets and groups there are.
    pub(crate) fn no_such(&self, what: &str, name: &str) -> InputError {
        const SHOWN: usize = 12;
        let all = self.listed();
        let mut names: Vec<_> = all.iter().take(SHOWN).map(|l| format!("`{}`", l.name)).collect();
        if all.len() > SHOWN {
            names.push(format!("{} more", all.len() - SHOWN));
        }
        let there = match names.is_empty() {
            true => "none is defined".to_owned(),
            false => format!("there are {}", names.join(", ")),
        };
        InputError::new(what, format!("no target or group is named `{name}`; {there}"), "")
    }
}

/// Whether a name is one that targets and groups can have.
pub(crate) fn check_name(place: &str, name: &str) -> Result<(), InputError> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(good) {
        return Ok(());
    }
    let why = format!("`{name}` is not a name for a target: only letters, digits, `_` and `-` are allowed");
    Err(InputError::new(place, why, ""))
}

/// The name of a target that a service or a word of the command line means.
pub(crate) fn target_name(name: &str) -> Cow<'_, str> {
    match name.contains('.') {
        true => Cow::Owned(name.replace('.', "_")),
        false => Cow::Borrowed(name),
    }
}

/// Puts a target over one of its name, or behind the others.
pub(crate) fn put_target(targets: &mut Vec<(String, Target)>, name: String, target: Target) {
    match targets.iter_mut().find(|(n, _)| *n == name) {
        Some((_, earlier)) => earlier.merge(target),
        None => targets.push((name, target)),
    }
}

/// Puts a group in place of one of its name, or behind the others.
pub(crate) fn put_group(groups: &mut Vec<(String, Group)>, name: String, group: Group) {
    match groups.iter_mut().find(|(n, _)| *n == name) {
        Some((_, earlier)) => *earlier = group,
        None => groups.push((name, group)),
    }
}
