//! The definition holds together, and its examples are what the program understands.

use clap::{Command as Definition, CommandFactory as _, Parser as _, error::ErrorKind};

use super::*;

fn definition() -> Definition {
    let mut root = Cli::command();
    root.build();
    root
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

/// The lines of the help that begin with `bk`, without what is said about them.
fn examples(command: &Definition) -> Vec<String> {
    let behind = command
        .get_after_long_help()
        .or_else(|| command.get_after_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    behind
        .lines()
        .skip_while(|line| *line != "Examples:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .map(|line| {
            line.trim_start()
                .split("  ")
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

/// What a shell makes of a line: its commands, without redirections.
fn words(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![vec![String::new()]];
    let mut quote = None;
    // What stands behind a command is a remark.
    let line = line.split(" #").next().unwrap_or_default();
    for c in line.chars() {
        let words = commands.last_mut().expect("one");
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, ' ') => words.push(String::new()),
            (None, '|' | '&') => commands.push(vec![String::new()]),
            _ => words.last_mut().expect("one").push(c),
        }
    }
    for words in &mut commands {
        words.retain(|word| !word.is_empty());
        if let Some(at) = words.iter().position(|word| word.starts_with(['<', '>'])) {
            words.truncate(at);
        }
    }
    commands.retain(|words| !words.is_empty());
    commands
}

#[test]
fn every_command_has_examples_and_all_of_them_are_understood() {
    let root = definition();
    let mut waiting = vec![&root];
    while let Some(command) = waiting.pop() {
        let name = command.get_display_name().unwrap_or("bk").replace('-', " ");
        waiting.extend(command.get_subcommands().filter(|sub| sub.get_name() != "help"));
        let examples = examples(command);
        if command.get_subcommands().next().is_none() {
            assert!(
                !examples.is_empty(),
                "`{name}` has no examples: add #[command(after_help = \"Examples:\\n  {name} …\")] to its arguments, with two \
                 spaces before each line and before what is said about it"
            );
        }
        let of_ours = |line: &String| {
            words(line)
                .iter()
                .any(|words| words.first().is_some_and(|word| word == "bk"))
        };
        assert!(
            examples.is_empty() || examples.iter().any(of_ours),
            "no example of `{name}` begins with bk"
        );
        for line in examples {
            let ours: Vec<_> = words(&line)
                .into_iter()
                .filter(|words| words.first().is_some_and(|word| word == "bk"))
                .collect();
            for words in ours {
                match Cli::try_parse_from(words) {
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::DisplayHelp => {}
                    Err(e) => panic!("an example of `{name}` is not understood: {line}\n{e}"),
                }
            }
        }
    }
}

/// Pages whose commands need daemons and files that are nowhere: as far as they can be checked anywhere.
#[test]
fn every_command_of_the_readme_and_the_page_on_deploying_is_understood() {
    for (page, least) in [
        (include_str!("../../../../README.md"), 20),
        (include_str!("../../../../docs/deploying.md"), 12),
    ] {
        let mut count = 0;
        for line in page
            .lines()
            .map(str::trim_start)
            .filter(|line| line.starts_with("bk "))
        {
            let commands = words(line);
            assert!(!commands.is_empty(), "{line}");
            for words in commands {
                count += 1;
                if let Err(e) = Cli::try_parse_from(words) {
                    panic!("not understood: {line}\n{e}");
                }
            }
        }
        assert!(count >= least, "{count} commands");
    }
}

fn said(line: &[&str]) -> String {
    let error = Cli::try_parse_from(line).expect_err("a mistake");
    let text = error.render().to_string();
    let end = text
        .find("\nUsage:")
        .or_else(|| text.find("\nFor more"))
        .unwrap_or(text.len());
    text.get(..end).unwrap_or_default().to_owned()
}

#[test]
fn what_was_meant_is_suggested() {
    assert_eq!(
        said(&["bk", "biuld", "."]),
        "error: unrecognized subcommand 'biuld'\n\n  tip: a similar subcommand exists: 'build'\n"
    );
    assert_eq!(
        said(&["bk", "ctx", "lnit"]),
        "error: unrecognized subcommand 'lnit'\n\n  tip: a similar subcommand exists: 'lint'\n"
    );
    assert_eq!(
        said(&["bk", "build", "--platfrom", "linux/amd64", "."]),
        "error: unexpected argument '--platfrom' found\n\n  tip: a similar argument exists: '--platform'\n"
    );
    assert_eq!(
        said(&["bk", "build", "--progress", "plian", "."]),
        "error: invalid value 'plian' for '--progress <MODE>'\n  [possible values: auto, tty, plain, ordered, grouped, json, \
         rawjson, quiet]\n\n  tip: a similar value exists: 'plain'\n"
    );
    assert_eq!(
        said(&["bk", "build", "--adr", "x", "."]),
        "error: unexpected argument '--adr' found\n\n  tip: a similar argument exists: '--addr'\n"
    );
}

#[test]
fn how_much_is_said_and_colours_stand_anywhere() {
    let cli = Cli::try_parse_from(["bk", "-v", "ctx", "ls", "--color=never"]).expect("understood");
    assert_eq!((cli.global.verbose, cli.global.color), (1, When::Never));
    let cli = Cli::try_parse_from(["bk", "build", "-vv", "-q", "."]).expect("understood");
    assert_eq!((cli.global.verbose, cli.global.color), (2, When::Auto));
}
