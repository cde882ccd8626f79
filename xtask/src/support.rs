//! `docs/support.md`: which feature works on which daemon by which route, as a full test run saw it.
//!
//! Live tests note it in the ledger. Every full run draws the table again and fails when the one in the tree says
//! something else; messages of daemons are left out of the comparison, since they change with every patch of a daemon.

use crate::run::{Result, workspace};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// Names in the ledger and headings, in the order of the columns.
const DAEMONS: [(&str, &str); 7] = [
    ("docker-20.10", "Docker 20.10"),
    ("docker-26.1", "Docker 26.1"),
    ("docker-28.5", "Docker 28.5"),
    ("docker-28.5-containerd", "Docker 28.5, containerd store"),
    ("buildkit-unix", "BuildKit 0.25, `unix://`"),
    ("buildkit-tcp", "BuildKit 0.25, `tcp://`"),
    ("buildkit-tcp-26.1", "BuildKit 0.13, `tcp://`"),
];
const ROUTES: [&str; 5] = ["h2c", "grpc", "build", "tar", "direct"];

const HEAD: &str = "\
# What works where

Drawn by `cargo xtask test` from what the live tests saw on real daemons; `cargo xtask support` writes it here. A cell
names the routes to a Docker Engine (see `--docker-route`) for which it holds; without a name it holds for all that
were tried. A dash: not applicable, or not tried. Numbers lead to the messages and reasons below the table.

BuildKit endpoints are the same engines behind `docker buildx dial-stdio`.
";

/// The job itself: copies the table of the last full run into the tree, or draws it from a ledger.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let table = match arguments {
        [] => fs::read_to_string(drawn())
            .map_err(|e| format!("no full test run drew a table (cargo xtask test): {e}"))?,
        [ledger] => draw(&read(&fs::read_to_string(ledger)?)?),
        _ => return Err("usage: cargo xtask support [LEDGER]".into()),
    };
    fs::write(in_tree(), table)?;
    Ok(())
}

/// Draws the table of a full run and holds the one in the tree against it.
pub(crate) fn check(ledger: &str) -> Result<()> {
    let table = draw(&read(ledger)?);
    fs::write(drawn(), &table)?;
    let known = fs::read_to_string(in_tree())?;
    match difference(&known, &table) {
        None => Ok(()),
        Some(rows) => Err(format!(
            "docs/support.md is not what this run saw; `cargo xtask support` writes it. The rows that differ:\n{rows}"
        )
        .into()),
    }
}

fn in_tree() -> PathBuf {
    workspace().join("docs/support.md")
}

fn drawn() -> PathBuf {
    workspace().join("target/support.md")
}

/// Verdict and text by daemon and route, by feature.
type Features = BTreeMap<String, BTreeMap<(usize, usize), (String, String)>>;

fn read(ledger: &str) -> Result<Features> {
    let mut features = Features::new();
    for line in ledger.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [target, "support", verdict, feature, text] = fields[..] else {
            continue;
        };
        let place = target.split_once('/').and_then(|(daemon, route)| {
            let daemon = DAEMONS.iter().position(|(name, _)| *name == daemon)?;
            Some((daemon, ROUTES.iter().position(|name| *name == route)?))
        });
        let Some(place) = place else {
            return Err(format!("the ledger names an unknown target: {line}").into());
        };
        let noted = (verdict.to_owned(), text.to_owned());
        let cells = features.entry(feature.to_owned()).or_default();
        if let Some(before) = cells.insert(place, noted.clone())
            && before.0 != noted.0
        {
            return Err(format!(
                "two tests disagree about {feature:?} on {target}: {before:?} and {noted:?}"
            )
            .into());
        }
    }
    Ok(features)
}

fn draw(features: &Features) -> String {
    let mut notes: Vec<&str> = Vec::new();
    let mut table = format!("{HEAD}\n| Feature |");
    for (_, heading) in DAEMONS {
        let _ = write!(table, " {heading} |");
    }
    table.push_str("\n| --- |");
    table.push_str(&" --- |".repeat(DAEMONS.len()));
    table.push('\n');
    for (feature, cells) in features {
        let _ = write!(table, "| {} |", plain(feature));
        for daemon in 0..DAEMONS.len() {
            let _ = write!(table, " {} |", cell(cells, daemon, &mut notes));
        }
        table.push('\n');
    }
    table.push('\n');
    for (number, note) in notes.iter().enumerate() {
        let _ = writeln!(table, "{}. {}", number + 1, plain(&without_addresses(note)));
    }
    table
}

fn cell<'a>(
    cells: &'a BTreeMap<(usize, usize), (String, String)>,
    daemon: usize,
    notes: &mut Vec<&'a str>,
) -> String {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for (route, name) in ROUTES.iter().enumerate() {
        let Some((verdict, text)) = cells.get(&(daemon, route)) else {
            continue;
        };
        let word = match verdict.as_str() {
            "but" => "yes",
            "none" => "–",
            other => other,
        };
        let word = match text.as_str() {
            "" => word.to_owned(),
            text => {
                let known = notes.iter().position(|note| *note == text);
                let number = known.unwrap_or_else(|| {
                    notes.push(text);
                    notes.len() - 1
                });
                format!("{word}<sup>{}</sup>", number + 1)
            }
        };
        match groups.iter_mut().find(|(known, _)| *known == word) {
            Some((_, routes)) => routes.push(name),
            None => groups.push((word, vec![name])),
        }
    }
    match &groups[..] {
        [] => "–".to_owned(),
        [(word, _)] => word.clone(),
        many => {
            let many = many
                .iter()
                .map(|(word, routes)| format!("{}: {word}", routes.join(", ")));
            many.collect::<Vec<_>>().join("<br>")
        }
    }
}

/// A message without the addresses of the daemons of this run.
fn without_addresses(note: &str) -> String {
    let words = note.split(' ').map(|word| match word.split_once("://") {
        Some((scheme @ ("unix" | "tcp"), _)) => format!("{scheme}://…"),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Text that Markdown takes as it is.
fn plain(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// The rows that are not in both, without what they say of messages; `None` when there are none.
fn difference(known: &str, seen: &str) -> Option<String> {
    let rows = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| line.starts_with('|'))
            .map(bare)
            .collect()
    };
    let (known, seen) = (rows(known), rows(seen));
    let lost = known
        .iter()
        .filter(|row| !seen.contains(row))
        .map(|row| format!("- {row}"));
    let new = seen
        .iter()
        .filter(|row| !known.contains(row))
        .map(|row| format!("+ {row}"));
    let rows: Vec<_> = lost.chain(new).collect();
    (!rows.is_empty()).then(|| rows.join("\n"))
}

/// A row without the numbers of its notes.
fn bare(row: &str) -> String {
    let mut parts = row.split("<sup>");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |row, part| {
        row + part.split_once("</sup>").map_or(part, |(_, rest)| rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = "docker-28.5\tgrpc::x\tok\n\
        docker-28.5/grpc\tsupport\tyes\tSecrets\t\n\
        docker-28.5/h2c\tsupport\tyes\tSecrets\t\n\
        docker-28.5/tar\tsupport\trefused\tSecrets\tno session | no secrets at unix:///a/b here\n\
        docker-20.10/grpc\tsupport\tbut\tSecrets\tslowly\n\
        buildkit-tcp/direct\tsupport\tnone\tA <b>\tof no use\n";

    #[test]
    fn cells_join_routes_and_number_their_notes() {
        let table = draw(&read(LEDGER).expect("a ledger"));
        let rows: Vec<_> = table
            .lines()
            .skip_while(|line| !line.starts_with("| ---"))
            .skip(1)
            .collect();
        assert_eq!(
            rows,
            [
                "| A &lt;b> | – | – | – | – | – | –<sup>1</sup> | – |",
                "| Secrets | yes<sup>2</sup> | – | h2c, grpc: yes<br>tar: refused<sup>3</sup> | – | – | – | – |",
                "",
                "1. of no use",
                "2. slowly",
                "3. no session \\| no secrets at unix://… here",
            ]
        );
    }

    #[test]
    fn only_messages_may_differ() {
        let table = draw(&read(LEDGER).expect("a ledger"));
        let other = draw(&read(&LEDGER.replace("slowly", "slower")).expect("a ledger"));
        assert_eq!(difference(&table, &other), None);
        let other = draw(&read(&LEDGER.replace("but\tSecrets\tslowly", "yes\tSecrets\t")).expect("a ledger"));
        assert_eq!(difference(&table, &other), None, "a yes with a reserve is a yes");
        let other = draw(&read(&LEDGER.replace("yes", "refused")).expect("a ledger"));
        let rows = difference(&table, &other).expect("a difference");
        assert_eq!(rows.lines().count(), 2, "{rows}");
        assert!(
            rows.contains("+ | Secrets | yes | – | h2c, grpc: refused<br>tar: refused |"),
            "{rows}"
        );
    }

    #[test]
    fn tests_that_disagree_and_unknown_targets_are_failures() {
        let twice = format!("{LEDGER}docker-28.5/grpc\tsupport\trefused\tSecrets\tno\n");
        assert!(read(&twice).is_err_and(|e| e.to_string().contains("two tests disagree")));
        assert!(read("docker-99/grpc\tsupport\tyes\tX\t\n").is_err());
    }
}
