//! `bk completion` and `bk man`: what is made from the definition of the command line, so that it is never out of date.

use std::{fs, path::Path};

use bk_client::{BuildError, InputError, LocalFailure};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use roff::{Roff, roman};

use crate::{
    args::{Cli, CompletionArgs, ManArgs},
    exit, files, report,
};

/// Prints a shell's completions and returns the exit code.
pub(crate) fn completion(args: &CompletionArgs) -> u8 {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bk", &mut text);
    report::to_stdout(&String::from_utf8_lossy(&text))
}

/// Prints a page, or writes all of them, and returns the exit code.
pub(crate) fn man(args: &ManArgs) -> u8 {
    let done = match &args.dir {
        Some(dir) => write_all(dir).map(|()| exit::SUCCESS),
        None => page_of(&args.command).map(|text| report::to_stdout(&text)),
    };
    done.unwrap_or_else(|e| {
        report::to_stderr(&report::render(&e, false));
        exit::of(&e)
    })
}

/// The definition with everything that clap adds to it, but `bk help`, which has no page.
fn definition() -> Command {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    root
}

fn page_of(path: &[String]) -> Result<String, BuildError> {
    let root = definition();
    let (mut command, mut parents) = (&root, Vec::new());
    for name in path {
        parents.push(command);
        command = command.find_subcommand(name).ok_or_else(|| {
            let names: Vec<_> = visible(command).map(Command::get_name).collect();
            let allowed = match names.is_empty() {
                true => String::new(),
                false => format!("one of {}", names.join(", ")),
            };
            InputError::new("COMMAND", format!("there is no command `{name}`"), allowed)
        })?;
    }
    Ok(page(command, parents.last().copied()))
}

fn write_all(dir: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(dir).map_err(|e| LocalFailure::new(dir, "cannot make this directory").caused_by(e))?;
    let root = definition();
    let mut waiting = vec![(&root, None)];
    while let Some((command, parent)) = waiting.pop() {
        files::write(
            &dir.join(format!("{}.1", name(command))),
            page(command, parent).as_bytes(),
        )?;
        waiting.extend(visible(command).map(|sub| (sub, Some(command))));
    }
    Ok(())
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set())
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// One page. What stands behind the options in the help has sections of its own, with lines as they are.
fn page(command: &Command, parent: Option<&Command>) -> String {
    let man = Man::new(command.clone())
        .source(concat!("bk ", env!("CARGO_PKG_VERSION")))
        .manual("bk");
    let mut text = Vec::new();
    // A vector takes everything: these cannot fail.
    drop(man.render_title(&mut text));
    drop(man.render_name_section(&mut text));
    drop(synopsis(command).to_writer(&mut text));
    drop(man.render_description_section(&mut text));
    drop(man.render_options_section(&mut text));
    if visible(command).next().is_some() {
        drop(man.render_subcommands_section(&mut text));
    }
    let mut more = Roff::new();
    let behind = command
        .get_after_long_help()
        .or_else(|| command.get_after_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    for part in behind.split("\n\n").filter(|part| !part.trim().is_empty()) {
        match part.split_once(":\n") {
            Some((heading, lines)) if !heading.contains('\n') => {
                let heading = match heading {
                    "Exit codes" => "EXIT STATUS".to_owned(),
                    other => other.to_uppercase(),
                };
                more.control("SH", [&*heading]);
                more.control("nf", []);
                for line in lines.lines() {
                    more.text([roman(line)]);
                }
                more.control("fi", []);
            }
            _ => {
                more.control("SH", ["NOTES"]);
                more.text([roman(part)]);
            }
        }
    }
    let related: Vec<_> = parent
        .into_iter()
        .chain(visible(command))
        .map(|other| format!("{}(1)", name(other)))
        .collect();
    if !related.is_empty() {
        more.control("SH", ["SEE ALSO"]);
        more.text([roman(related.join(", "))]);
    }
    drop(more.to_writer(&mut text));
    ascii(&String::from_utf8_lossy(&text))
}

/// The usage as the help has it. A list of all options would be a page by itself.
fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    for (row, line) in usage.trim_start_matches("Usage: ").lines().enumerate() {
        if row > 0 {
            roff.control("br", []);
        }
        roff.text([roman(line.trim())]);
    }
    roff
}

/// Not every troff reads UTF-8.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_ascii() {
            true => out.push(c),
            false => out.push_str(&format!("\\[u{:04X}]", u32::from(c))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_help_and_its_examples_line_by_line() {
        let page = page_of(&["ctx".to_owned(), "tar".to_owned()]).expect("a page");
        let version = env!("CARGO_PKG_VERSION");
        assert!(
            page.contains(&format!(".TH bk-ctx-tar 1  \"bk {version}\" bk\n")),
            "{page}"
        );
        assert!(
            page.contains(".SH SYNOPSIS\nbk ctx tar [OPTIONS] <DIR>\n"),
            "{page}"
        );
        assert!(
            page.contains(".SH EXAMPLES\n.nf\n  bk ctx tar . | tar \\-tv"),
            "{page}"
        );
        assert!(page.ends_with(".fi\n.SH \"SEE ALSO\"\nbk\\-ctx(1)\n"), "{page}");
        let page = page_of(&["build".to_owned()]).expect("a page");
        assert!(
            page.contains(".SH \"EXIT STATUS\"\n.nf\n  0    the build succeeded\n"),
            "{page}"
        );
        let root = page_of(&[]).expect("a page");
        assert!(
            root.contains("bk\\-build(1), bk\\-bake(1), bk\\-ctx(1)"),
            "{root}"
        );
        assert!(!root.contains("bk\\-help"), "{root}");
    }

    #[test]
    fn a_command_that_there_is_not_is_named() {
        let error = page_of(&["ctx".to_owned(), "sl".to_owned()]).expect_err("no such command");
        assert_eq!(error.to_string(), "COMMAND: there is no command `sl`");
        assert_eq!(
            error.hint().as_deref(),
            Some("COMMAND takes one of ls, du, why, lint, hash, diff, tar")
        );
    }
}
