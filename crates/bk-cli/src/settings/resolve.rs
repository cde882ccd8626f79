//! Which source has the last word on each option.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
};

use clap::{ArgMatches, Command, parser::ValueSource};

use super::{
    Around, Problem, Stop, commands, explain,
    file::dotted,
    files::{self, CONFIG},
    keys::{self, Key, Kind},
    loosely,
};
use crate::verbose;

/// How far a variable's name may be from ours to be taken for a mistake. Less than for options: others may use the prefix.
const NEAR: usize = 2;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    CommandLine,
    /// A variable of ours.
    Variable(String),
    /// A variable of another program, which is read where the option is used.
    Foreign(&'static str),
    File {
        path: PathBuf,
        line: usize,
        /// As it stands there.
        key: String,
        /// Whether it is that of the context.
        context: bool,
    },
    Default,
}

impl Source {
    /// The strongest is 0.
    fn rank(&self) -> u8 {
        match self {
            Self::CommandLine => 0,
            Self::Variable(_) => 1,
            Self::Foreign(_) => 2,
            Self::File { context: true, .. } => 3,
            Self::File { context: false, .. } => 4,
            Self::Default => 5,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line"),
            Self::Variable(name) => f.write_str(name),
            Self::Foreign(name) => f.write_str(name),
            Self::File { path, line, .. } => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What a source says about an option.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) values: Vec<OsString>,
    pub(super) source: Source,
}

/// An option with what is said about it, the strongest first.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: Key,
    /// Its key in files.
    pub(super) dotted: String,
    pub(super) said: Vec<Said>,
    /// What does not count, since a stronger source names another option that means the same, and the key of that.
    pub(super) displaced: Vec<(Source, String)>,
}

impl Setting {
    fn strongest(&self) -> Option<&Said> {
        self.said.first()
    }

    /// Whether it says more than that something is off.
    fn is_on(&self) -> bool {
        let Some(said) = self.strongest() else {
            return false;
        };
        let off = |value: &OsString| value.to_str().and_then(keys::boolean) == Some(false);
        match self.key.kind {
            Kind::Switch | Kind::Bool => !said.values.iter().all(off),
            _ => said.source != Source::Default,
        }
    }
}

/// All options of a command.
#[derive(Debug)]
pub(super) struct Settings {
    /// The command.
    pub(super) path: Vec<String>,
    pub(super) all: Vec<Setting>,
    /// The files that were read, the strongest first.
    pub(super) files: Vec<PathBuf>,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

impl Settings {
    /// Looks at every source of a line's command.
    ///
    /// # Errors
    /// The line asks for help, or a file or a variable is wrong.
    pub(super) fn find(root: &Command, line: &[OsString], around: &Around) -> Result<Self, Stop> {
        let matches = loosely(root, line)?;
        let (inner, path) = commands(&matches);
        let mut root = root.clone();
        root.build();
        let command = keys::command(&root, &path).unwrap_or(&root);
        let mut all = Vec::new();
        let files = match inner.get_flag("no_config") || around.is_true("BK_NO_CONFIG") {
            true => Vec::new(),
            false => files::read(&root, inner, &path, around)?,
        };
        for key in keys::keys(command) {
            let mut said = Vec::new();
            said.extend(on_line(&key, inner));
            for name in key.variables(&path) {
                said.extend(variable(&key, name, around)?);
            }
            said.extend(foreign(&key, &path, around));
            for file in &files {
                said.extend(file.says(&key, &path, around));
            }
            said.extend(default(&key, inner));
            let command: &[String] = if key.global { &[] } else { &path };
            all.push(Setting {
                dotted: dotted(command, &key.name),
                key,
                said,
                displaced: Vec::new(),
            });
        }
        // As a file has it: those of every command, then those of this one.
        all.sort_by_key(|setting| !setting.key.global);
        displace(command, &mut all);
        Ok(Self {
            warnings: misspelt(&root, around),
            files: files.into_iter().map(|file| file.path).collect(),
            path,
            all,
        })
    }

    /// The settings that have a value, with it.
    pub(super) fn valued(&self) -> impl Iterator<Item = (&Setting, &Said)> {
        self.all
            .iter()
            .filter_map(|setting| Some((setting, setting.strongest()?)))
    }

    /// Those that come from our variables and files.
    pub(super) fn put_in(&self) -> impl Iterator<Item = (&Setting, &Said)> {
        self.valued()
            .filter(|(_, said)| matches!(said.source, Source::Variable(_) | Source::File { .. }))
    }

    /// What has to be added to the line.
    pub(super) fn words(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        for (setting, said) in self.put_in() {
            let flag = setting.key.flag();
            for value in &said.values {
                let text = value.to_str().unwrap_or_default();
                match setting.key.kind {
                    Kind::Switch if keys::boolean(text) == Some(true) => words.push(flag.clone().into()),
                    Kind::Switch => {}
                    Kind::Count => {
                        let times = text.parse::<u8>().unwrap_or_default();
                        words.extend((0..times).map(|_| OsString::from(&flag)));
                    }
                    Kind::Bool => {
                        let on = keys::boolean(text).unwrap_or_default();
                        words.push(format!("{flag}={on}").into());
                    }
                    Kind::One | Kind::Many => {
                        let mut word = OsString::from(format!("{flag}="));
                        word.push(value);
                        words.push(word);
                    }
                }
            }
        }
        words
    }

    /// Says of the options that an error speaks of where they come from, a line each.
    pub(super) fn notes(&self, error: &str) -> String {
        let mut notes = String::new();
        for (setting, said) in self.put_in() {
            let flag = setting.key.flag();
            if error
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                .any(|word| word == flag)
            {
                notes.push_str(&format!("  note: {flag} comes from {}\n", said.source));
            }
        }
        notes
    }

    /// Says on standard error what was read and found, if somebody wants to know.
    pub(super) fn tell(&self) {
        for file in &self.files {
            verbose::say(verbose::DECISIONS, || {
                format!("settings: read {}", file.display())
            });
        }
        for (setting, said) in self.valued().filter(|(_, said)| said.source != Source::Default) {
            verbose::say(verbose::SOURCES, || {
                let value = explain::value(&setting.key, &said.values);
                format!("setting: {} = {value} from {}", setting.dotted, said.source)
            });
        }
    }
}

/// Takes away what is weaker than another option that means the same, and what files say of another daemon.
fn displace(command: &Command, all: &mut [Setting]) {
    for rank in 0..Source::Default.rank() {
        let strong: Vec<(String, Vec<String>, &[&str])> = all
            .iter()
            .filter(|setting| setting.is_on() && setting.strongest().is_some_and(|s| s.source.rank() == rank))
            .map(|setting| {
                let others = keys::alternatives(command, &setting.key);
                (setting.dotted.clone(), others, keys::belongings(&setting.key))
            })
            .collect();
        for (by, others, belongings) in strong {
            for setting in all.iter_mut() {
                let any = others.contains(&setting.key.name);
                let of_files = belongings.contains(&&*setting.key.name);
                let weak = |said: &Said| {
                    let from_file = matches!(said.source, Source::File { .. });
                    said.source.rank() > rank
                        && said.source != Source::Default
                        && (any || of_files && from_file)
                };
                let gone: Vec<_> = setting
                    .said
                    .iter()
                    .filter(|s| weak(s))
                    .map(|s| s.source.clone())
                    .collect();
                setting.said.retain(|said| !weak(said));
                setting
                    .displaced
                    .extend(gone.into_iter().map(|source| (source, by.clone())));
            }
        }
    }
}

fn on_line(key: &Key, matches: &ArgMatches) -> Option<Said> {
    (matches.value_source(&key.id) == Some(ValueSource::CommandLine)).then(|| Said {
        values: given(key, matches),
        source: Source::CommandLine,
    })
}

fn default(key: &Key, matches: &ArgMatches) -> Option<Said> {
    (matches.value_source(&key.id) == Some(ValueSource::DefaultValue)).then(|| Said {
        values: given(key, matches),
        source: Source::Default,
    })
}

fn given(key: &Key, matches: &ArgMatches) -> Vec<OsString> {
    match key.kind {
        Kind::Switch => vec![matches.get_flag(&key.id).to_string().into()],
        Kind::Count => vec![matches.get_count(&key.id).to_string().into()],
        _ => matches
            .get_raw(&key.id)
            .into_iter()
            .flatten()
            .map(OsStr::to_owned)
            .collect(),
    }
}

/// What our variable says: one value, or a line for each of a list.
fn variable(key: &Key, name: String, around: &Around) -> Result<Option<Said>, Problem> {
    let Some(value) = around.var(&name) else {
        return Ok(None);
    };
    let values = match (key.kind, value.to_str()) {
        (Kind::Many, Some(text)) => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(OsString::from)
            .collect(),
        (Kind::Many, None) => return Err(Problem::new(name, "it is not UTF-8".to_owned())),
        _ => vec![value.clone()],
    };
    for value in &values {
        key.check(value)
            .map_err(|why| Problem::new(&name, why).takes(&name, &key.allowed()))?;
    }
    let source = Source::Variable(name);
    Ok(Some(Said { values, source }))
}

/// What a variable of another program says.
fn foreign(key: &Key, path: &[String], around: &Around) -> Option<Said> {
    keys::foreign(path, &key.name).find_map(|name| {
        let value = around.var(name)?.clone();
        let value = match name {
            "NO_COLOR" => "never".into(),
            "CLICOLOR_FORCE" if value == "0" => return None,
            "CLICOLOR_FORCE" => "always".into(),
            _ => value,
        };
        Some(Said {
            values: vec![value],
            source: Source::Foreign(name),
        })
    })
}

/// The variables of the options of a command and of those below it.
fn variables(command: &Command, path: &mut Vec<String>, found: &mut Vec<String>) {
    found.extend(keys::keys(command).iter().flat_map(|key| key.variables(path)));
    for sub in command.get_subcommands() {
        let name = sub.get_name();
        if !keys::WITHOUT.contains(&name) {
            path.push(name.to_owned());
            variables(sub, path, found);
            path.pop();
        }
    }
}

/// What to say of variables that look as if they were meant for us.
fn misspelt(root: &Command, around: &Around) -> Vec<String> {
    let mut known = vec![CONFIG.to_owned()];
    variables(root, &mut Vec::new(), &mut known);
    around
        .0
        .keys()
        .filter(|name| name.starts_with("BK_") && !known.contains(name))
        .filter_map(|name| {
            let near = |other: &&String| strsim::damerau_levenshtein(name, other) <= NEAR;
            let meant = known.iter().find(near)?;
            Some(format!("{name} is not a setting; did you mean {meant}?"))
        })
        .collect()
}
