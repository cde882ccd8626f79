//! The numbers as tables for people, and their places in the document that keeps them.

use super::contexts::Context;
use super::measure::{Cost, median};
use crate::run::Result;
use std::fmt::Write;
use std::path::Path;

/// What the numbers are compared with.
pub(super) const BASE: &str = "docker buildx";

/// The runs of one client.
pub(super) struct Runs {
    pub(super) client: &'static str,
    pub(super) costs: Vec<Cost>,
}

/// One context's table: medians, and in brackets how much of the base's they are.
pub(super) fn table(context: &Context, runs: &[Runs]) -> String {
    let base = runs.iter().find(|r| r.client == BASE).map(|r| median(&r.costs));
    let mut text = format!(
        "**{}** — {}; {} interleaved runs.\n\n\
         | client | wall, s | client CPU, s | peak RSS, MiB | daemon CPU, s |\n|---|---:|---:|---:|---:|\n",
        context.name,
        context.about,
        runs.iter().map(|r| r.costs.len()).max().unwrap_or(0)
    );
    for run in runs {
        let cost = median(&run.costs);
        let cell = |field: fn(&Cost) -> f64, digits: usize| {
            let value = field(&cost);
            match &base {
                Some(base) if run.client != BASE => {
                    format!("{value:.digits$} ({:.2}×)", value / field(base))
                }
                _ => format!("{value:.digits$}"),
            }
        };
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            run.client,
            cell(|c| c.wall, 2),
            cell(|c| c.cpu, 3),
            cell(|c| c.memory, 1),
            cell(|c| c.daemon, 2)
        );
    }
    text
}

/// The processor, memory and kernel of this machine.
pub(super) fn machine(daemon: &str, clients: &[String], memory: bool) -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|l| l.split_once(':'))
            .map_or("?".to_owned(), |(_, v)| v.trim().to_owned())
    };
    let cpu = value(&read("/proc/cpuinfo"), "model name");
    let kib: u64 = value(&read("/proc/meminfo"), "MemTotal")
        .trim_end_matches("kB")
        .trim()
        .parse()
        .unwrap_or(0);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores of {cpu}, {} GiB, Linux {}; daemon: {daemon}; clients: {}. Contexts are {}, the daemon's data \
         in memory.\n",
        kib.div_ceil(1 << 20),
        kernel.trim(),
        clients.join(", "),
        if memory { "in memory" } else { "on disk" }
    )
}

/// Replaces what stands between the marks of `name` in the document; a document without them is left alone.
pub(super) fn keep(document: &Path, name: &str, text: &str) -> Result<()> {
    let old = std::fs::read_to_string(document)?;
    match replaced(&old, name, text) {
        Some(new) => Ok(std::fs::write(document, new)?),
        None => Err(format!("{} has no place for {name}", document.display()).into()),
    }
}

fn replaced(old: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let start = old.find(&begin)? + begin.len();
    let stop = start + old.get(start..)?.find(&end)?;
    Some(format!(
        "{}\n{}\n{}",
        &old[..start],
        text.trim_end(),
        &old[stop..]
    ))
}

#[cfg(test)]
mod tests {
    use super::super::contexts::Kind;
    use super::*;

    #[test]
    fn ratios_are_to_the_base() {
        let cost = |wall| Cost {
            wall,
            cpu: wall,
            memory: 10.0,
            daemon: 1.0,
        };
        let context = Context {
            name: "small-files",
            kind: Kind::Fresh,
            dir: "/x".into(),
            about: "files".to_owned(),
        };
        let runs = [
            Runs {
                client: BASE,
                costs: vec![cost(4.0)],
            },
            Runs {
                client: "bk",
                costs: vec![cost(1.0)],
            },
        ];
        let text = table(&context, &runs);
        assert!(
            text.contains("| docker buildx | 4.00 | 4.000 | 10.0 | 1.00 |"),
            "{text}"
        );
        assert!(
            text.contains("| bk | 1.00 (0.25×) | 1.000 (0.25×) | 10.0 (1.00×) | 1.00 (1.00×) |"),
            "{text}"
        );
    }

    #[test]
    fn only_the_marked_place_changes() {
        let old = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n";
        let new = replaced(old, "x", "new\n").unwrap();
        assert_eq!(
            new,
            "a\n<!-- begin x -->\n\nnew\n\n<!-- end x -->\nb\n".replace("new\n\n", "new\n")
        );
        assert_eq!(replaced(old, "y", ""), None);
    }
}
