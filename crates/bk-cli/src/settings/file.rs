//! `bk.toml`: reading it without being led astray, and its entries with their lines.
//!
//! A table has the options of the command of its name, the top those of every command. Every key is looked at, whichever
//! command is run: a file is right or wrong as a whole.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::Command;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    Problem,
    keys::{self, Key, Kind, nearest},
};
use crate::{host::open_settings, limits::SETTINGS_BYTES};

/// One key of a file.
#[derive(Debug)]
pub(super) struct Entry {
    /// The command that it is for; none is every command.
    pub(super) command: Vec<String>,
    pub(super) name: String,
    pub(super) values: Vec<String>,
    /// From 1.
    pub(super) line: usize,
}

impl Entry {
    /// As it would stand alone in a file: `build.progress`.
    pub(super) fn dotted(&self) -> String {
        dotted(&self.command, &self.name)
    }
}

/// A key as it would stand alone in a file.
pub(super) fn dotted(command: &[String], name: &str) -> String {
    let mut parts = command.to_vec();
    parts.push(name.to_owned());
    parts.join(".")
}

/// The text of a file; `None` when there is none. A link is followed only if `links` allows it: in a stranger's tree it
/// could point anywhere.
///
/// # Errors
/// It is no regular file, too large, no text, or cannot be read.
pub(super) fn read(path: &Path, links: bool) -> Result<Option<String>, Problem> {
    let bad = |why: String| Problem::new(path.display(), why);
    let file = match open_settings(path, links) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(_) if !links && is_link(path) => {
            return Err(bad(
                "it is a symbolic link; in a context it has to be a file".to_owned()
            ));
        }
        Err(e) => return Err(bad(format!("cannot read it: {e}"))),
    };
    let found = file.metadata().map_err(|e| bad(format!("cannot read it: {e}")))?;
    if !found.is_file() {
        return Err(bad("it is not a file".to_owned()));
    }
    let mut data = Vec::new();
    file.take(SETTINGS_BYTES + 1)
        .read_to_end(&mut data)
        .map_err(|e| bad(format!("cannot read it: {e}")))?;
    if data.len() as u64 > SETTINGS_BYTES {
        return Err(bad(format!("it is longer than {} KiB", SETTINGS_BYTES / 1024)));
    }
    String::from_utf8(data).map(Some).map_err(|e| {
        let line = 1 + e
            .as_bytes()
            .iter()
            .take(e.utf8_error().valid_up_to())
            .filter(|b| **b == b'\n')
            .count();
        Problem::new(format!("{}:{line}", path.display()), "it is not UTF-8".to_owned())
    })
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

/// The entries of a text, checked against the definition.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub(super) fn entries(path: &Path, text: &str, root: &Command) -> Result<Vec<Entry>, Problem> {
    let place = Place { path, text };
    let table = DeTable::parse(text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start);
        place.problem(at, None, e.message().to_owned())
    })?;
    let mut found = Vec::new();
    collect(&place, table.get_ref(), root, &mut Vec::new(), &mut found)?;
    Ok(found)
}

/// Where something stands.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|b| *b == b'\n').count()
    }

    fn problem(&self, at: usize, key: Option<&str>, why: String) -> Problem {
        let place = format!("{}:{}", self.path.display(), self.line(at));
        match key {
            Some(key) => Problem::new(format!("{place}: {key}"), why),
            None => Problem::new(place, why),
        }
    }
}

fn collect(
    place: &Place<'_>,
    table: &DeTable<'_>,
    command: &Command,
    path: &mut Vec<String>,
    found: &mut Vec<Entry>,
) -> Result<(), Problem> {
    let own: Vec<Key> = keys::keys(command)
        .into_iter()
        .filter(|key| keys::in_files(key) && key.global == path.is_empty())
        .collect();
    // In the order of the file: the first mistake is the one that is told.
    let mut rows: Vec<_> = table.iter().collect();
    rows.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in rows {
        let (at, word) = (name.span().start, name.get_ref().as_ref());
        if let Some(key) = own.iter().find(|key| key.name == word) {
            let dotted = dotted(path, word);
            let values = values(place, key, &dotted, value)?;
            for value in &values {
                key.check(value.as_ref())
                    .map_err(|why| place.problem(at, Some(&dotted), why).takes(word, &key.allowed()))?;
            }
            found.push(Entry {
                command: path.clone(),
                name: word.to_owned(),
                values,
                line: place.line(at),
            });
            continue;
        }
        let sub = command
            .find_subcommand(word)
            .filter(|_| !keys::WITHOUT.contains(&word));
        match (sub, value.get_ref()) {
            (Some(sub), DeValue::Table(table)) => {
                path.push(word.to_owned());
                collect(place, table, sub, path, found)?;
                path.pop();
            }
            (Some(_), _) => {
                let why = "this is a command, and has to be a table".to_owned();
                return Err(place.problem(at, Some(word), why));
            }
            (None, _) => return Err(unknown(place, at, word, path, &own, command)),
        }
    }
    Ok(())
}

/// What to say of a key that is not known there.
fn unknown(
    place: &Place<'_>,
    at: usize,
    word: &str,
    path: &[String],
    own: &[Key],
    command: &Command,
) -> Problem {
    let dotted = dotted(path, word);
    let here = own.iter().map(|key| key.name.as_str());
    let subs = command
        .get_subcommands()
        .map(Command::get_name)
        .filter(|name| !keys::WITHOUT.contains(name));
    let why = match nearest(word, here.chain(subs)) {
        Some(name) => format!("the key is not known; did you mean `{name}`?"),
        None => "the key is not known".to_owned(),
    };
    let problem = place.problem(at, Some(&dotted), why);
    let elsewhere = |command: &Command, global: bool| {
        let mut keys = keys::keys(command).into_iter();
        keys.any(|key| key.name == word && key.global == global && keys::in_files(&key))
    };
    if path.is_empty() {
        // An option of a command at the top.
        let build = command.find_subcommand("build");
        if build.is_some_and(|build| elsewhere(build, false)) {
            return problem.hint(format!(
                "`{word}` is an option of `bk build`: write it below [build]"
            ));
        }
    } else if elsewhere(command, true) {
        return problem.hint(format!(
            "`{word}` is an option of every command: write it at the top, before the first table"
        ));
    }
    problem
}

/// The values of a key as the command line would have them.
fn values(
    place: &Place<'_>,
    key: &Key,
    dotted: &str,
    value: &Spanned<DeValue<'_>>,
) -> Result<Vec<String>, Problem> {
    let bad = |at: &Spanned<DeValue<'_>>, why: String| place.problem(at.span().start, Some(dotted), why);
    let one = |value: &Spanned<DeValue<'_>>| {
        Ok(match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Boolean(b) => b.to_string(),
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
                .map_err(|e| bad(value, format!("`{}` is no number here: {e}", n.as_str())))?
                .to_string(),
            other => {
                let why = format!("a {} has no meaning here", other.type_str());
                return Err(bad(value, why));
            }
        })
    };
    match (value.get_ref(), key.kind) {
        (DeValue::Array(items), Kind::Many) => items.iter().map(one).collect(),
        (DeValue::Table(table), Kind::Many) if key.pairs => {
            let mut rows: Vec<_> = table.iter().collect();
            rows.sort_by_key(|(name, _)| name.span().start);
            rows.into_iter()
                .map(|(name, value)| Ok(format!("{}={}", name.get_ref(), one(value)?)))
                .collect()
        }
        (DeValue::Array(_), _) => Err(bad(value, "it takes one value, not a list".to_owned())),
        (DeValue::Table(_), _) => Err(bad(value, "a table has no meaning here".to_owned())),
        _ => Ok(vec![one(value)?]),
    }
}

/// A path of a file's value: relative to the file, `~/` is the home directory, `-` stays what it is.
pub(super) fn resolve(value: &str, file: &Path, home: Option<&Path>) -> PathBuf {
    if value == "-" {
        return value.into();
    }
    if let (Some(rest), Some(home)) = (value.strip_prefix("~/"), home) {
        return home.join(rest);
    }
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.join(value),
        _ => value.into(),
    }
}
