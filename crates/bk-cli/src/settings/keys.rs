//! What can be set, and how: read off clap's definition, so that a new option is a new setting.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, Command, builder::ValueParser, error::ErrorKind};

use super::file::dotted;

/// Commands without settings: they have to work when a settings file does not, or are about these files.
pub(super) const WITHOUT: &[&str] = &["completion", "config", "help", "man"];

/// Commands that take settings of `bk build`: what they look at is such a build, or they run many of these. A test holds
/// the names against both.
const SHARED: &[(&str, &[&str])] = &[
    (
        "bake",
        &[
            "context-mode",
            "context-owner",
            "on-change",
            "progress",
            "retries",
            "stall-timeout",
            "sync",
        ],
    ),
    (
        "ctx",
        &[
            "build-arg",
            "build-context",
            "context-mode",
            "context-owner",
            "file",
            "on-change",
            "platform",
            "sync",
            "target",
        ],
    ),
];

/// Options that have no meaning in a file, since they say whether files are read.
const NOT_IN_FILES: &[&str] = &["no-config"];

/// Options that are no settings: what removes things is said where it happens, by who wants it.
const NEVER: &[&str] = &["force", "all"];

/// Options that mean the same thing in different words although clap does not know it: one that somebody says overrules
/// what a weaker source says about the others.
const ALTERNATIVES: &[&[&str]] = &[&["progress", "quiet"], &["call", "check"], &["addr", "builder"]];

/// Options that name a daemon, and what a file may say about the daemon that it has in mind: a certificate must not be shown
/// to another one that somebody names.
const DAEMON: (&[&str], &[&str]) = (
    &["addr", "builder"],
    &[
        "affinity",
        "affinity-header",
        "backend",
        "tls",
        "tlscacert",
        "tlscert",
        "tlsdir",
        "tlskey",
        "tlsservername",
    ],
);

/// Variables of other programs that stand for an option, and the commands where they do; `""` is every command. They are
/// read where the option is used: here they only count as a source that is stronger than files.
const FOREIGN: &[(&str, &str, &[&str])] = &[
    ("", "addr", &["BUILDKIT_HOST", "DOCKER_HOST", "DOCKER_CONTEXT"]),
    ("", "builder", &["BUILDX_BUILDER"]),
    ("", "color", &["NO_COLOR", "CLICOLOR_FORCE"]),
    ("build", "progress", &["BUILDKIT_PROGRESS"]),
    ("bake", "progress", &["BUILDKIT_PROGRESS"]),
    (
        "build",
        "source-policy-file",
        &["EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"],
    ),
    ("bake", "file", &["BUILDX_BAKE_FILE"]),
];

/// How often an option takes a value, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is there or not.
    Switch,
    /// True or false.
    Bool,
    /// How often it is there.
    Count,
    /// One value.
    One,
    /// A list.
    Many,
}

/// One option of a command as a setting.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// Clap's name.
    pub(super) id: String,
    /// Its name in files: the long flag without `--`.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Whether every command has it.
    pub(super) global: bool,
    /// Whether its values are paths, as a whole.
    pub(super) is_path: bool,
    /// Whether a table `{ KEY = "VALUE" }` can stand for a list of `KEY=VALUE`.
    pub(super) pairs: bool,
    parser: ValueParser,
    possible: Vec<String>,
}

impl Key {
    fn of(arg: &Arg) -> Option<Self> {
        let parser = arg.get_value_parser().clone();
        let possible: Vec<String> = arg
            .get_possible_values()
            .iter()
            .map(|v| v.get_name().to_owned())
            .collect();
        let kind = match arg.get_action() {
            ArgAction::SetTrue => Kind::Switch,
            ArgAction::Count => Kind::Count,
            ArgAction::Append => Kind::Many,
            ArgAction::Set if possible == ["true", "false"] => Kind::Bool,
            ArgAction::Set => Kind::One,
            _ => return None,
        };
        let pairs = arg.get_value_names().unwrap_or_default().iter().any(|name| {
            name.contains("KEY=VALUE") || name.contains("KEY[=VALUE]") || name.contains("NAME=VALUE")
        });
        let name = arg.get_long()?.to_owned();
        if NEVER.contains(&&*name) {
            return None;
        }
        Some(Self {
            id: arg.get_id().to_string(),
            name,
            kind,
            global: arg.is_global_set(),
            is_path: parser.type_id() == ValueParser::path_buf().type_id(),
            pairs: pairs && kind == Kind::Many,
            parser,
            possible,
        })
    }

    /// The variables for it in a command, the strongest first, by its keys in files: `BK_NO_CACHE` for `--no-cache` of
    /// `bk build`, `BK_BAKE_JOBS` for `--jobs` of `bk bake`, and for what the latter shares both.
    pub(super) fn variables(&self, path: &[String]) -> Vec<String> {
        let general = self.global || shares(path, &self.name);
        let own = !self.global && path != ["build"];
        let named = |command: &[String]| {
            let words = dotted(command, &self.name).to_uppercase();
            format!("BK_{}", words.replace(['-', '.'], "_"))
        };
        let own = own.then(|| named(path));
        own.into_iter().chain(general.then(|| named(&[]))).collect()
    }

    /// The option as it is written on the command line.
    pub(super) fn flag(&self) -> String {
        format!("--{}", self.name)
    }

    /// What it takes, in words; empty when only trying tells.
    pub(super) fn allowed(&self) -> String {
        match self.kind {
            Kind::Switch | Kind::Bool => "true or false".to_owned(),
            Kind::Count => "a number".to_owned(),
            _ if self.possible.is_empty() => String::new(),
            _ => format!("one of {}", self.possible.join(", ")),
        }
    }

    /// Checks one value as the command line would.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn check(&self, value: &OsStr) -> Result<(), String> {
        let text = value.to_str();
        let shown = value.to_string_lossy();
        let fine = match self.kind {
            Kind::Switch | Kind::Bool => text.is_some_and(|t| boolean(t).is_some()),
            Kind::Count => text.is_some_and(|t| t.parse::<u8>().is_ok()),
            _ if !self.possible.is_empty() => text.is_some_and(|t| self.possible.iter().any(|p| p == t)),
            _ => return self.try_out(value),
        };
        if fine {
            return Ok(());
        }
        let near = nearest(&shown, self.possible.iter().map(String::as_str));
        let meant = match near.filter(|_| !matches!(self.kind, Kind::Switch | Kind::Bool)) {
            Some(name) => format!("; did you mean `{name}`?"),
            None => String::new(),
        };
        Err(format!("`{shown}` is not allowed{meant}"))
    }

    /// What clap says of a value, with a definition of nothing else.
    fn try_out(&self, value: &OsStr) -> Result<(), String> {
        let arg = Arg::new("value")
            .long("value")
            .value_parser(self.parser.clone())
            .allow_hyphen_values(true);
        let mut word = OsString::from("--value=");
        word.push(value);
        let tried = Command::new("bk")
            .no_binary_name(true)
            .arg(arg)
            .try_get_matches_from([word]);
        tried.map(drop).map_err(|e| {
            let shown = value.to_string_lossy();
            match (e.kind(), std::error::Error::source(&e)) {
                (ErrorKind::InvalidUtf8, _) => "it is not UTF-8".to_owned(),
                (_, Some(why)) => format!("`{shown}` is not allowed: {why}"),
                (_, None) if value.is_empty() => "it must not be empty".to_owned(),
                (_, None) => format!("`{shown}` is not allowed"),
            }
        })
    }
}

/// What other tools take for true and false.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The options of a command that can be set, global ones included, in the order of their definition.
pub(super) fn keys(command: &Command) -> Vec<Key> {
    command
        .get_arguments()
        .filter(|arg| !arg.is_positional())
        .filter_map(Key::of)
        .collect()
}

/// Whether files may have that key.
pub(super) fn in_files(key: &Key) -> bool {
    !NOT_IN_FILES.contains(&&*key.name)
}

/// Whether a command takes that setting of `bk build`; so does `bk build` itself.
pub(super) fn shares(path: &[String], name: &str) -> bool {
    match path.first().map(String::as_str) {
        Some("build") => true,
        Some(first) => SHARED
            .iter()
            .any(|(command, names)| *command == first && names.contains(&name)),
        None => false,
    }
}

/// The other options that one overrules, by their names.
pub(super) fn alternatives(command: &Command, key: &Key) -> Vec<String> {
    let by_clap = command
        .get_arguments()
        .find(|arg| arg.get_id().as_str() == key.id)
        .map(|arg| command.get_arg_conflicts_with(arg))
        .unwrap_or_default();
    let by_meaning = ALTERNATIVES.iter().filter(|group| group.contains(&&*key.name));
    by_clap
        .into_iter()
        .filter_map(Arg::get_long)
        .chain(by_meaning.flat_map(|group| group.iter().copied()))
        .filter(|name| *name != key.name)
        .map(str::to_owned)
        .collect()
}

/// What a file says about a daemon, which does not count when a stronger source names one by this option.
pub(super) fn belongings(key: &Key) -> &'static [&'static str] {
    let (naming, belongings) = DAEMON;
    match naming.contains(&&*key.name) {
        true => belongings,
        false => &[],
    }
}

/// Variables of other programs for an option of a command, the strongest first.
pub(super) fn foreign(path: &[String], name: &str) -> impl Iterator<Item = &'static str> {
    let first = path.first().map(String::as_str).unwrap_or_default();
    FOREIGN
        .iter()
        .filter(move |(command, key, _)| *key == name && (command.is_empty() || *command == first))
        .flat_map(|(_, _, variables)| variables.iter().copied())
}

/// The name that was meant, if there is one near.
pub(super) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(far, name)| *far <= (word.chars().count().max(name.len()) / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// The definition of a command, by its path below the root; the root itself for none.
pub(super) fn command<'a>(root: &'a Command, path: &[String]) -> Option<&'a Command> {
    path.iter()
        .try_fold(root, |command, name| command.find_subcommand(name))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    fn names(path: &[&str]) -> Vec<String> {
        let mut root = Cli::command();
        root.build();
        let path: Vec<_> = path.iter().map(|p| (*p).to_owned()).collect();
        keys(command(&root, &path).expect("a command"))
            .into_iter()
            .map(|key| key.name)
            .collect()
    }

    #[test]
    fn the_tables_name_what_there_is() {
        let build = names(&["build"]);
        for (command, shared) in SHARED {
            let mut root = Cli::command();
            root.build();
            let definition = root.find_subcommand(command).expect("a command");
            let mut own = names(&[command]);
            for sub in definition
                .get_subcommands()
                .filter(|sub| sub.get_name() != "help")
            {
                own.extend(names(&[command, sub.get_name()]));
            }
            for name in *shared {
                assert!(build.iter().any(|n| n == name), "bk build has no --{name}");
                assert!(own.iter().any(|n| n == name), "bk {command} has no --{name}");
            }
        }
        for (command, name, _) in FOREIGN.iter().filter(|(command, ..)| !command.is_empty()) {
            assert!(
                names(&[command]).iter().any(|n| n == name),
                "bk {command} --{name}"
            );
        }
        for path in [&["prune"][..], &["history", "rm"]] {
            assert!(
                NEVER.iter().all(|name| !names(path).iter().any(|n| n == name)),
                "{path:?}"
            );
        }
        for name in NOT_IN_FILES.iter().chain(DAEMON.0).chain(DAEMON.1) {
            assert!(build.iter().any(|n| n == name), "--{name}");
        }
    }

    #[test]
    fn kinds_are_those_of_the_options() {
        let mut root = Cli::command();
        root.build();
        let all = keys(root.find_subcommand("build").expect("a command"));
        let of = |name: &str| {
            let key = all.iter().find(|key| key.name == name).expect(name);
            (key.kind, key.pairs, key.is_path, key.global)
        };
        assert_eq!(of("tag"), (Kind::Many, false, false, false));
        assert_eq!(of("build-arg"), (Kind::Many, true, false, false));
        assert_eq!(of("no-cache"), (Kind::Bool, false, false, false));
        assert_eq!(of("verbose"), (Kind::Count, false, false, true));
        assert_eq!(of("iidfile"), (Kind::One, false, true, false));
        assert_eq!(of("progress"), (Kind::One, false, false, false));
        assert_eq!(of("no-config"), (Kind::Switch, false, false, true));
    }

    #[test]
    fn values_are_checked_with_the_words_of_the_option() {
        let mut root = Cli::command();
        root.build();
        let all = keys(root.find_subcommand("build").expect("a command"));
        let said = |name: &str, value: &str| {
            let key = all.iter().find(|key| key.name == name).expect(name);
            (key.check(value.as_ref()).err().unwrap_or_default(), key.allowed())
        };
        let modes = "one of auto, tty, plain, ordered, grouped, json, rawjson, quiet".to_owned();
        assert_eq!(said("progress", "plain"), (String::new(), modes.clone()));
        assert_eq!(
            said("progress", "plian"),
            ("`plian` is not allowed; did you mean `plain`?".to_owned(), modes)
        );
        let bool = "true or false".to_owned();
        assert_eq!(said("no-cache", "1"), (String::new(), bool.clone()));
        assert_eq!(said("no-cache", "yes"), ("`yes` is not allowed".to_owned(), bool));
        assert_eq!(
            said("cpu-shares", "many"),
            (
                "`many` is not allowed: invalid digit found in string".to_owned(),
                String::new()
            )
        );
        assert_eq!(said("cpu-quota", "-1").0, "");
        assert_eq!(said("iidfile", "").0, "it must not be empty");
    }
}
