//! Which files of settings hold for a command, and what they say about an option.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bk_client::HOME;
use clap::{ArgMatches, Command};

use super::{
    Around, Problem,
    file::{self, Entry},
    keys::{self, Key, Kind},
    resolve::{Said, Source},
    trust,
};

/// The name of a file of settings.
const FILE: &str = "bk.toml";
/// Names another one than the user's.
pub(super) const CONFIG: &str = "BK_CONFIG";

/// A file of settings that was read.
pub(super) struct Read {
    pub(super) path: PathBuf,
    entries: Vec<Entry>,
    context: bool,
}

impl Read {
    /// What it says about an option: below its own command, then below `[build]` for commands that share it.
    pub(super) fn says(&self, key: &Key, path: &[String], around: &Around) -> Vec<Said> {
        let none: &[String] = &[];
        let own = if key.global { none } else { path };
        let mut found: Vec<&Entry> = self.named(key, own).collect();
        let build = ["build".to_owned()];
        if !key.global && path != build && keys::shares(path, &key.name) {
            found.extend(self.named(key, &build).filter(|entry| {
                // A list cannot be shared with a command that takes one value.
                key.kind == Kind::Many
                    || (entry.values.len() == 1 && !entry.values.iter().any(|v| v.contains(',')))
            }));
        }
        let home = around.var(HOME).map(Path::new);
        let value = |text: &String| match key.is_path {
            true => file::resolve(text, &self.path, home).into_os_string(),
            false => text.into(),
        };
        found
            .into_iter()
            .map(|entry| Said {
                values: entry.values.iter().map(value).collect(),
                source: Source::File {
                    path: self.path.clone(),
                    line: entry.line,
                    key: entry.dotted(),
                    context: self.context,
                },
            })
            .collect()
    }

    fn named<'a>(&'a self, key: &'a Key, command: &'a [String]) -> impl Iterator<Item = &'a Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.name == key.name && entry.command == command)
    }
}

/// The files that hold for a command: that of its context, then the user's.
///
/// # Errors
/// One of them is wrong, or sets what it may not.
pub(super) fn read(
    root: &Command,
    matches: &ArgMatches,
    path: &[String],
    around: &Around,
) -> Result<Vec<Read>, Problem> {
    let mut found = Vec::new();
    let user = user_file(around);
    if let Some(context) = context(matches, path) {
        let place = match context == Path::new(".") {
            true => FILE.into(),
            false => context.join(FILE),
        };
        // Who names a context's file as their own trusts it.
        let is_users = user.as_ref().is_some_and(|(user, _)| same(user, &place));
        if !is_users && let Some(text) = file::read(&place, false)? {
            let entries = file::entries(&place, &text, root)?;
            for entry in &entries {
                trusted(entry, &place, &context, around)?;
            }
            found.push(Read {
                path: place,
                entries,
                context: true,
            });
        }
    }
    if let Some((path, named)) = user {
        match file::read(&path, true)? {
            Some(text) => found.push(Read {
                entries: file::entries(&path, &text, root)?,
                path,
                context: false,
            }),
            None if named => {
                let why = format!("`{}` does not exist", path.display());
                return Err(Problem::new(CONFIG, why));
            }
            None => {}
        }
    }
    Ok(found)
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

fn trusted(entry: &Entry, place: &Path, context: &Path, around: &Around) -> Result<(), Problem> {
    let key = entry.dotted();
    trust::check(&key, &entry.values, context).map_err(|why| {
        let user = match user_file(around) {
            Some((path, _)) => path.display().to_string(),
            None => "a file that BK_CONFIG names".to_owned(),
        };
        Problem::new(format!("{}:{}: {key}", place.display(), entry.line), why.to_owned()).hint(format!(
            "a context may come from a stranger; if you want this, say it on the command line or in {user}, or let \
             --no-config leave such files alone"
        ))
    })
}

/// The context of a command, if it is a directory of this machine.
fn context(matches: &ArgMatches, path: &[String]) -> Option<PathBuf> {
    let one = |id: &str| matches.try_get_one::<PathBuf>(id).ok().flatten().cloned();
    let dir = match path.first()?.as_str() {
        "build" | "ctx" => one("context").or_else(|| one("directory"))?,
        "bake" => ".".into(),
        _ => return None,
    };
    dir.is_dir().then_some(dir)
}

/// The user's file, and whether somebody named it: `BK_CONFIG`, else in `XDG_CONFIG_HOME`, else below the home directory.
pub(super) fn user_file(around: &Around) -> Option<(PathBuf, bool)> {
    if let Some(path) = around.var(CONFIG) {
        return Some((path.into(), true));
    }
    let absolute = |name: &str| {
        let path = around.var(name).map(PathBuf::from)?;
        path.is_absolute().then_some(path)
    };
    let dir = absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .or_else(|| absolute("APPDATA"))?;
    Some((dir.join("bk").join(FILE), false))
}
