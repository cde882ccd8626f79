//! Every option is a setting, and the strongest source holds.

use std::{fs, path::Path};

use super::{
    keys::{Key, Kind},
    resolve::Source,
    *,
};

fn around(vars: &[(&str, &str)]) -> Around {
    Around(vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect())
}

fn line(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// A value that an option takes, and how a file has it.
fn sample(key: &Key) -> (String, String) {
    let quoted = |text: &str| (text.to_owned(), format!("\"{text}\""));
    match key.kind {
        Kind::Switch | Kind::Bool => ("true".to_owned(), "true".to_owned()),
        Kind::Count => ("2".to_owned(), "2".to_owned()),
        Kind::Many => {
            assert_eq!(key.check("linux/7=7".as_ref()), Ok(()), "--{}", key.name);
            ("linux/7=7".to_owned(), "[\"linux/7=7\"]".to_owned())
        }
        // Words, numbers and paths: an absolute path stays what it is.
        Kind::One if key.is_path => quoted("/7"),
        Kind::One => match key.allowed().strip_prefix("one of ") {
            Some(words) => quoted(words.split(", ").last().expect("a word")),
            None => ("7".to_owned(), "7".to_owned()),
        },
    }
}

/// What the line of a build is understood as, by clap.
fn matched(settings: &Settings, words: &[OsString]) -> ArgMatches {
    let matches = match strictly(&Cli::command(), words, settings) {
        Ok(matches) => matches,
        Err(Stop::Line(e, notes)) => panic!("{e}{notes}"),
        Err(Stop::Setting(e)) => panic!("{}", e.render()),
    };
    matches.subcommand().expect("a command").1.clone()
}

fn raw(matches: &ArgMatches, key: &Key) -> String {
    match key.kind {
        Kind::Switch => matches.get_flag(&key.id).to_string(),
        Kind::Count => matches.get_count(&key.id).to_string(),
        _ => {
            let values = matches.get_raw(&key.id).into_iter().flatten();
            values.map(|v| v.to_string_lossy()).collect::<Vec<_>>().join("|")
        }
    }
}

#[test]
fn every_option_of_bk_build_can_come_from_a_variable_and_from_a_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("own.toml");
    let place = file.to_str().expect("UTF-8");
    let words = line(&["bk", "build", dir.path().to_str().expect("UTF-8")]);
    let root = built();
    let all = keys::keys(root.find_subcommand("build").expect("a command"));
    assert!(all.len() > 50, "{}", all.len());
    for key in &all {
        let (value, in_file) = sample(key);
        let (mut vars, mut text) = (vec![], String::new());
        let mut partner = |name: &str| {
            vars.push((format!("BK_{}", name.to_uppercase()), "/7".to_owned()));
            text.push_str(&format!("{name} = \"/7\"\n"));
        };
        match &*key.name {
            "tlscert" => partner("tlskey"),
            "tlskey" => partner("tlscert"),
            _ => {}
        }
        let variable = key.variables(&["build".to_owned()]).concat();
        vars.push((variable.clone(), value.clone()));
        if !key.global {
            text.push_str("[build]\n");
        }
        text.push_str(&format!("{} = {in_file}\n", key.name));

        let vars: Vec<_> = vars.iter().map(|(k, v)| (&**k, &**v)).collect();
        let settings = found(&words, &around(&vars));
        assert_eq!(
            source_of(&settings, &key.name),
            Some(&Source::Variable(variable.clone()))
        );
        assert_eq!(raw(&matched(&settings, &words), key), value, "{variable}");

        fs::write(&file, &text).expect("writable");
        if !keys::in_files(key) {
            continue;
        }
        let settings = found(&words, &around(&[("BK_CONFIG", place)]));
        match source_of(&settings, &key.name) {
            Some(Source::File { path, line, .. }) => {
                assert_eq!((&**path, *line), (&*file, text.lines().count()), "{text}");
            }
            other => panic!("--{}: {other:?}", key.name),
        }
        assert_eq!(raw(&matched(&settings, &words), key), value, "{text}");
    }
}

fn found(words: &[OsString], around: &Around) -> Settings {
    match Settings::find(&Cli::command(), words, around) {
        Ok(settings) => settings,
        Err(Stop::Setting(e)) => panic!("{}", e.render()),
        Err(Stop::Line(e, _)) => panic!("{e}"),
    }
}

fn source_of<'a>(settings: &'a Settings, name: &str) -> Option<&'a Source> {
    let mut all = settings.valued();
    all.find(|(setting, _)| setting.key.name == name)
        .map(|(_, said)| &said.source)
}

#[test]
fn a_context_may_set_what_the_table_allows_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = dir.path().join("bk.toml");
    let words = line(&["bk", "build", dir.path().to_str().expect("UTF-8")]);
    let mut root = built();
    root.build();
    let mut waiting = vec![(Vec::new(), &root)];
    let (mut allowed, mut refused) = (0, 0);
    while let Some((path, command)) = waiting.pop() {
        for sub in command
            .get_subcommands()
            .filter(|s| !keys::WITHOUT.contains(&s.get_name()))
        {
            let mut path: Vec<String> = path.clone();
            path.push(sub.get_name().to_owned());
            waiting.push((path, sub));
        }
        for key in keys::keys(command) {
            if key.global != path.is_empty() || !keys::in_files(&key) {
                continue;
            }
            let (mut value, mut in_file) = sample(&key);
            if key.name == "build-context" {
                (value, in_file) = ("a=https://b/".to_owned(), "[\"a=https://b/\"]".to_owned());
            }
            if key.name == "file" && path == ["build"] {
                (value, in_file) = ("7".to_owned(), "\"7\"".to_owned());
            }
            let dotted = file::dotted(&path, &key.name);
            fs::write(&place, format!("\n{dotted} = {in_file}\n")).expect("writable");
            let said = Settings::find(&Cli::command(), &words, &Around::default());
            let row = trust::ALLOWED.iter().any(|(name, ..)| *name == dotted);
            match (row, said) {
                (true, Ok(_)) => allowed += 1,
                (false, Err(Stop::Setting(e))) => {
                    refused += 1;
                    assert_eq!(
                        e.render(),
                        format!(
                            "ERROR: {}:2: {dotted}: the bk.toml of a context may not set this\n  hint: a context may come \
                             from a stranger; if you want this, say it on the command line or in a file that BK_CONFIG \
                             names, or let --no-config leave such files alone\n",
                            place.display()
                        )
                    );
                }
                (row, said) => panic!("{dotted} = {value}: in the table: {row}, but {said:?}"),
            }
        }
    }
    assert_eq!(allowed, trust::ALLOWED.len());
    assert!(refused > 40, "{refused}");
}

#[test]
fn the_word_of_a_command_is_found_whatever_stands_before_it() {
    let root = Cli::command();
    for (words, depth, want) in [
        (&["bk", "build", "."][..], 1, 2),
        (&["bk", "--addr", "build", "build", "."], 1, 4),
        (&["bk", "-v", "ctx", "ls"], 2, 4),
        (&["bk", "ctx", "--color", "never", "ls", "ls"], 2, 5),
    ] {
        assert_eq!(end_of_commands(&root, &line(words), depth), want, "{words:?}");
    }
}

#[test]
fn the_user_s_file_is_where_programs_keep_theirs() {
    let at = |vars: &[(&str, &str)]| {
        files::user_file(&around(vars)).map(|(path, named)| (path.display().to_string(), named))
    };
    let home = ("HOME", "/h");
    assert_eq!(at(&[]), None);
    assert_eq!(at(&[home]), Some(("/h/.config/bk/bk.toml".to_owned(), false)));
    assert_eq!(
        at(&[home, ("XDG_CONFIG_HOME", "/x")]),
        Some(("/x/bk/bk.toml".to_owned(), false))
    );
    assert_eq!(
        at(&[home, ("XDG_CONFIG_HOME", "x")]),
        Some(("/h/.config/bk/bk.toml".to_owned(), false))
    );
    assert_eq!(
        at(&[home, ("BK_CONFIG", "own.toml")]),
        Some(("own.toml".to_owned(), true))
    );
}

#[test]
fn paths_of_a_file_are_meant_from_where_it_is() {
    let resolve = |value: &str| {
        let path = file::resolve(value, Path::new("/c/bk/bk.toml"), Some(Path::new("/h")));
        path.display().to_string()
    };
    assert_eq!(resolve("ca.pem"), "/c/bk/ca.pem");
    assert_eq!(resolve("/etc/ca.pem"), "/etc/ca.pem");
    assert_eq!(resolve("~/ca.pem"), "/h/ca.pem");
    assert_eq!(resolve("-"), "-");
    let beside = file::resolve("D", Path::new("bk.toml"), None);
    assert_eq!(beside, Path::new("D"));
}

/// Texts by chance, from a seed that stays the same: a context's file may come from anybody.
#[test]
fn whatever_a_file_holds_it_is_read_or_refused_with_its_line() {
    const GOOD: &str = "addr = \"ssh://me@b\"\n[build]\nprogress = 'plain'\nbuild-arg = { A = \"1\", \"b.c\" = 2 }\n\
                        platform = [\"linux/amd64\"]\npull = true\n[bake]\nsync = \"mtime\"\n";
    const PIECES: [&str; 20] = [
        "[",
        "]",
        "[[",
        "=",
        "\"",
        "'''",
        "\"\"\"",
        "\n",
        "#",
        ".",
        "{",
        "}",
        ",",
        "build",
        "pull",
        "0x",
        "\\u",
        "é",
        "1979-05-27",
        "\r",
    ];
    let (root, path) = (Cli::command(), Path::new("bk.toml"));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).expect("31 bits") % limit
    };
    let (mut good, mut bad) = (0, 0);
    for round in 0..400 {
        let mut text: Vec<char> = GOOD.chars().collect();
        for _ in 0..below(4) {
            let at = below(text.len());
            match below(3) {
                0 => drop(text.drain(at..(at + 8).min(text.len()))),
                1 => drop(text.splice(at..at, PIECES[below(PIECES.len())].chars())),
                _ => {
                    let other = below(text.len());
                    text.swap(at, other);
                }
            }
        }
        let text: String = text.into_iter().collect();
        let lines = text.split('\n').count();
        let line = match file::entries(path, &text, &root) {
            Ok(entries) => {
                good += 1;
                entries.iter().map(|entry| entry.line).max().unwrap_or(1)
            }
            Err(e) => {
                bad += 1;
                let said = e.render();
                let line = said
                    .strip_prefix("ERROR: bk.toml:")
                    .and_then(|rest| rest.split(':').next());
                let line = line.and_then(|line| line.parse().ok());
                line.unwrap_or_else(|| panic!("round {round}: {said}"))
            }
        };
        assert!((1..=lines).contains(&line), "round {round}, line {line}: {text}");
    }
    assert!(good > 40 && bad > 100, "{good} and {bad}");
    // As deep as a file can be.
    let most = usize::try_from(crate::limits::SETTINGS_BYTES).expect("small") / 2 - 16;
    for text in [
        format!("a = {}", "[".repeat(most)),
        format!("{}a = 1", "a.".repeat(most)),
        format!("[{}a]", "a.".repeat(most)),
        format!("a = {}", "{a=".repeat(most / 2)),
    ] {
        let said = file::entries(path, &text, &root)
            .expect_err("no setting")
            .render();
        assert!(
            said.starts_with("ERROR: bk.toml:1"),
            "{}",
            said.chars().take(200).collect::<String>()
        );
    }
}
