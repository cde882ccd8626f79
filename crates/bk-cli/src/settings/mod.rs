//! Settings: options that the command line leaves open come from variables and files.
//!
//! Every option has one value from one source, the strongest that names it: the command line, then a variable (`BK_…`,
//! then those of other programs), then the `bk.toml` of the context, then the user's, then the default. What is found is
//! put into the command line and goes the way of every option: nothing has a second meaning.

mod blame;
mod explain;
mod file;
mod files;
mod keys;
mod resolve;
mod trust;

use std::{collections::BTreeMap, ffi::OsString, fmt::Display};

use bk_progress::neutralise;
use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _, ValueEnum as _, error::ErrorKind};

pub(crate) use blame::renamed;
pub(crate) use explain::main;

use crate::{
    args::{Cli, When},
    report,
};
use resolve::Settings;

/// The variables of the environment, those with names in UTF-8.
#[derive(Debug, Default)]
pub(crate) struct Around(BTreeMap<String, OsString>);

impl Around {
    /// Those of the process.
    pub(crate) fn of_process() -> Self {
        let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self(named.collect())
    }

    /// A variable; an empty one counts as absent.
    fn var(&self, name: &str) -> Option<&OsString> {
        self.0.get(name).filter(|value| !value.is_empty())
    }

    fn is_true(&self, name: &str) -> bool {
        let text = self.var(name).and_then(|value| value.to_str());
        text.and_then(keys::boolean).unwrap_or_default()
    }
}

/// A setting that is wrong: where it stands, why, and what to do.
#[derive(Debug)]
pub(crate) struct Problem {
    place: String,
    why: String,
    hint: Option<String>,
}

impl Problem {
    fn new(place: impl Display, why: String) -> Self {
        Self {
            place: place.to_string(),
            why,
            hint: None,
        }
    }

    fn hint(mut self, hint: String) -> Self {
        self.hint = Some(hint);
        self
    }

    /// Says what is allowed, when there is something to say.
    fn takes(self, name: &str, allowed: &str) -> Self {
        match allowed.is_empty() {
            true => self,
            false => self.hint(format!("{name} takes {allowed}")),
        }
    }

    /// As a person reads it, with a line end behind each line.
    pub(crate) fn render(&self) -> String {
        let mut text = format!(
            "ERROR: {}: {}\n",
            neutralise(&self.place),
            neutralise(&self.why).trim_end()
        );
        if let Some(hint) = &self.hint {
            text.push_str(&format!("  hint: {}\n", neutralise(hint).trim_end()));
        }
        text
    }
}

/// Why there is nothing to run.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Help, or a mistake on the command line, with what is to be known about the settings that took part.
    Line(Box<clap::Error>, String),
    /// A setting is wrong.
    Setting(Problem),
}

impl From<clap::Error> for Stop {
    fn from(e: clap::Error) -> Self {
        Self::Line(Box::new(e), String::new())
    }
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Setting(problem)
    }
}

/// What a line means together with its settings. These are remembered: errors will name them.
///
/// # Errors
/// Help, a mistake on the line, or a setting that is wrong.
pub(crate) fn parse(line: &[OsString], around: &Around) -> Result<Cli, Stop> {
    let root = Cli::command();
    let (_, path) = commands(&loosely(&root, line)?);
    // A mistake that no setting can mend is told as it is, without a look at any file.
    let alone = root.clone().try_get_matches_from(line);
    if let Err(e) = alone.as_ref()
        && e.kind() != ErrorKind::MissingRequiredArgument
    {
        return Err(alone.map(drop).expect_err("an error").into());
    }
    if path.first().is_none_or(|name| keys::WITHOUT.contains(&&**name)) {
        return Ok(Cli::from_arg_matches(&alone?)?);
    }
    let settings = Settings::find(&root, line, around)?;
    let matches = strictly(&root, line, &settings)?;
    let cli = Cli::from_arg_matches(&matches)?;
    crate::verbose::set(cli.global.verbose);
    for warning in &settings.warnings {
        report::to_stderr(&format!("warning: {warning}\n"));
    }
    settings.tell();
    blame::remember(&settings);
    Ok(cli)
}

/// Parses a line with its settings put in.
fn strictly(root: &Command, line: &[OsString], settings: &Settings) -> Result<ArgMatches, Stop> {
    let words = settings.words();
    if words.is_empty() {
        return Ok(root.clone().try_get_matches_from(line)?);
    }
    let at = end_of_commands(root, line, settings.path.len());
    let (head, tail) = line.split_at(at.min(line.len()));
    let whole = [head, &words, tail].concat();
    root.clone().try_get_matches_from(whole).map_err(|e| {
        let said = e.render().to_string();
        Stop::Line(Box::new(e), settings.notes(&said))
    })
}

/// What a line says, whatever else is wrong with it. Help and version stay errors.
fn loosely(root: &Command, line: &[OsString]) -> Result<ArgMatches, clap::Error> {
    root.clone().ignore_errors(true).try_get_matches_from(line)
}

/// The innermost command of a line with its options, and the path to it.
fn commands(matches: &ArgMatches) -> (&ArgMatches, Vec<String>) {
    let (mut inner, mut path) = (matches, Vec::new());
    while let Some((name, sub)) = inner.subcommand() {
        path.push(name.to_owned());
        inner = sub;
    }
    (inner, path)
}

/// Where the word stands that names the command, counted from behind it. Only parsing tells: the word before could be the
/// value of an option.
fn end_of_commands(root: &Command, line: &[OsString], depth: usize) -> usize {
    (1..=line.len())
        .find(|end| {
            let head = line.get(..*end).unwrap_or_default();
            loosely(root, head).is_ok_and(|matches| commands(&matches).1.len() >= depth)
        })
        .unwrap_or(line.len())
}

/// The colours that settings ask for, as far as that is known before a line is understood. What is wrong with them is told
/// later.
pub(crate) fn color(around: &Around) -> Option<When> {
    if let Some(value) = around.var("BK_COLOR") {
        return When::from_str(value.to_str()?, false).ok();
    }
    if around.var("NO_COLOR").is_some() || around.var("CLICOLOR_FORCE").is_some() {
        return None;
    }
    if around.is_true("BK_NO_CONFIG") {
        return None;
    }
    let (path, _) = files::user_file(around)?;
    let text = file::read(&path, true).ok()??;
    let entries = file::entries(&path, &text, &built()).ok()?;
    let entry = entries.iter().find(|entry| entry.dotted() == "color")?;
    When::from_str(entry.values.first()?, false).ok()
}

/// The definition with everything that clap adds to it.
fn built() -> Command {
    let mut root = Cli::command();
    root.build();
    root
}

#[cfg(test)]
mod tests;
