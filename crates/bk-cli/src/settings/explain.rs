//! `bk config`: where each value comes from, and which file is the user's. Passwords and keys are not shown.

use std::ffi::OsString;

use bk_progress::neutralise_line;
use clap::{Command, CommandFactory as _};
use serde_json::json;

use super::{
    Around, Problem, Stop, commands, end_of_commands, files,
    keys::{self, Key, Kind},
    loosely,
    resolve::{Settings, Source},
    strictly,
};
use crate::{
    args::{Cli, ConfigCommand},
    report,
};

/// Runs the command and returns its exit code.
///
/// # Errors
/// A line or a setting that is wrong.
pub(crate) fn main(command: &ConfigCommand, line: &[OsString], around: &Around) -> Result<u8, Stop> {
    let text = match command {
        ConfigCommand::Path => path(around)?,
        ConfigCommand::Explain(args) => {
            let line = asked(line, args.json);
            let root = relaxed(Cli::command());
            let settings = Settings::find(&root, &line, around)?;
            if settings
                .path
                .first()
                .is_none_or(|name| keys::WITHOUT.contains(&&**name))
            {
                let why = format!("`bk {}` has no settings", settings.path.join(" "));
                return Err(Problem::new("COMMAND", why).into());
            }
            strictly(&root, &line, &settings)?;
            for warning in &settings.warnings {
                report::to_stderr(&format!("warning: {warning}\n"));
            }
            match args.json {
                true => as_json(&settings),
                false => as_text(&settings),
            }
        }
    };
    Ok(report::to_stdout(&text))
}

fn path(around: &Around) -> Result<String, Problem> {
    match files::user_file(around) {
        Some((path, _)) => Ok(format!("{}\n", path.display())),
        None => Err(Problem::new(
            "bk.toml",
            "there is no place for it: HOME and XDG_CONFIG_HOME are not set".to_owned(),
        )
        .hint("name a file with BK_CONFIG".to_owned())),
    }
}

/// The line that is asked about: what stands before `config` and behind `explain`, as a build unless it names a command.
fn asked(line: &[OsString], json: bool) -> Vec<OsString> {
    let root = Cli::command();
    let config = end_of_commands(&root, line, 1);
    let explain = end_of_commands(&root, line, 2);
    let mut asked = line.get(..config.saturating_sub(1)).unwrap_or_default().to_vec();
    let mut rest = line.get(explain..).unwrap_or_default().to_vec();
    if json && let Some(at) = rest.iter().position(|word| word == "--json") {
        rest.remove(at);
    }
    if rest.first().is_some_and(|word| word == "--") {
        rest.remove(0);
    }
    let at = asked.len();
    asked.extend(rest);
    let names_a_command = loosely(&root, &asked).is_ok_and(|matches| !commands(&matches).1.is_empty());
    if !names_a_command {
        asked.insert(at, "build".into());
    }
    asked
}

/// A definition that can do without what a real run needs, such as the context.
fn relaxed(command: Command) -> Command {
    command
        .mut_args(|arg| arg.required(false))
        .mut_subcommands(relaxed)
}

/// A line for each setting, which could stand in a file.
fn as_text(settings: &Settings) -> String {
    let mut text = String::new();
    for (setting, said) in settings.valued() {
        let value = value(&setting.key, &said.values);
        let mut source = said.source.to_string();
        for weaker in setting
            .said
            .iter()
            .skip(1)
            .filter(|s| s.source != Source::Default)
        {
            source.push_str(&format!(", over {}", weaker.source));
        }
        for (gone, by) in &setting.displaced {
            source.push_str(&format!(", not {gone} because of {by}"));
        }
        let row = format!("{} = {value}  # {source}", setting.dotted);
        text.push_str(&neutralise_line(&row));
        text.push('\n');
    }
    text
}

/// An object on each line.
fn as_json(settings: &Settings) -> String {
    let mut text = String::new();
    for (setting, said) in settings.valued() {
        let over: Vec<_> = setting
            .said
            .iter()
            .skip(1)
            .filter(|weaker| weaker.source != Source::Default)
            .map(|weaker| {
                json!({
                    "value": typed(&setting.key, &weaker.values),
                    "source": source(&weaker.source),
                })
            })
            .collect();
        let row = json!({
            "key": setting.dotted,
            "value": typed(&setting.key, &said.values),
            "source": source(&said.source),
            "over": over,
        });
        text.push_str(&format!("{row}\n"));
    }
    text
}

fn source(source: &Source) -> serde_json::Value {
    match source {
        Source::CommandLine => json!({ "kind": "command-line" }),
        Source::Variable(name) => json!({ "kind": "variable", "name": name }),
        Source::Foreign(name) => json!({ "kind": "variable", "name": name }),
        Source::File { path, line, key, .. } => {
            json!({ "kind": "file", "path": path.display().to_string(), "line": line, "key": key })
        }
        Source::Default => json!({ "kind": "default" }),
    }
}

/// A value as it would stand in a file, without what is secret in it.
pub(super) fn value(key: &Key, values: &[OsString]) -> String {
    match typed(key, values) {
        // `["a", "b"]`, with spaces as people write it.
        serde_json::Value::Array(items) => {
            let items: Vec<_> = items.iter().map(ToString::to_string).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

fn typed(key: &Key, values: &[OsString]) -> serde_json::Value {
    let texts: Vec<String> = values
        .iter()
        .map(|value| redacted(&value.to_string_lossy(), key.pairs))
        .collect();
    let first = texts.first().map(String::as_str).unwrap_or_default();
    match key.kind {
        Kind::Many => json!(texts),
        Kind::Switch | Kind::Bool => json!(keys::boolean(first).unwrap_or_default()),
        Kind::Count => json!(first.parse::<u8>().unwrap_or_default()),
        Kind::One => json!(first),
    }
}

/// A text without passwords: those of addresses, and fields whose names sound like one. `pair` is one field as a whole, else
/// commas stand between them.
fn redacted(text: &str, pair: bool) -> String {
    let fields: Vec<&str> = match pair {
        true => vec![text],
        false => text.split(',').collect(),
    };
    let fields: Vec<String> = fields
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((name, value)) if !value.is_empty() && is_secret(name) => format!("{name}=***"),
            _ => without_password(field),
        })
        .collect();
    fields.join(",")
}

fn is_secret(name: &str) -> bool {
    const MARKS: &[&str] = &[
        "ACCESSKEY",
        "ACCOUNTKEY",
        "APIKEY",
        "AUTH",
        "CREDENTIAL",
        "PASSPHRASE",
        "PASSWD",
        "PASSWORD",
        "PRIVATEKEY",
        "SECRET",
        "TOKEN",
    ];
    let name: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_uppercase())
        .collect();
    MARKS.iter().any(|mark| name.contains(mark))
}

/// `scheme://user:password@host` without the password, and without a user that stands alone, which may be a token.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else {
        return text.to_owned();
    };
    match user.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{host}{path}"),
        None if scheme.ends_with("ssh") => text.to_owned(),
        None => format!("{scheme}://***@{host}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sounds_like_a_secret_is_not_shown() {
        for (text, pair, want) in [
            ("NPM_TOKEN=abc", true, "NPM_TOKEN=***"),
            ("A=1,b=2", true, "A=1,b=2"),
            (
                "HTTP_PROXY=http://u:p@h:1/x",
                true,
                "HTTP_PROXY=http://u:***@h:1/x",
            ),
            (
                "type=s3,bucket=b,secret_access_key=k,access_key_id=i",
                false,
                "type=s3,bucket=b,secret_access_key=***,access_key_id=***",
            ),
            ("id=token,env=TOKEN", false, "id=token,env=TOKEN"),
            ("tcp://u:p@h:1", false, "tcp://u:***@h:1"),
            ("https://ghp_x@h/r.git", false, "https://***@h/r.git"),
            ("ssh://me@h:22", false, "ssh://me@h:22"),
            ("TOKEN=", true, "TOKEN="),
        ] {
            assert_eq!(redacted(text, pair), want);
        }
    }
}
