//! What the program was asked for. Words that `cargo test` passes on select it by name or are not for it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::scenario::Kind;

/// Runs of the short selection: one of each kind.
const SHORT_RUNS: usize = Kind::ALL.len();
/// The seed of the short selection, so that it fails for nobody by chance alone.
const SHORT_SEED: u64 = 1;

/// What to do.
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// Random runs on a real daemon.
    pub(crate) runs: usize,
    /// The kind of all runs, if not any.
    pub(crate) only: Option<Kind>,
    pub(crate) hostile: bool,
    pub(crate) long: bool,
    pub(crate) load: bool,
}

/// What to do, or nothing at all.
pub(crate) enum Parsed {
    Run(Options),
    Nothing,
}

impl Options {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Parsed, String> {
        let mut options = Options {
            seed: SHORT_SEED,
            runs: SHORT_RUNS,
            only: None,
            hostile: true,
            long: false,
            load: false,
        };
        let mut arguments = arguments.peekable();
        let (mut filters, mut seeded) = (Vec::new(), false);
        while let Some(argument) = arguments.next() {
            let mut number = |name: &str| -> Result<u64, String> {
                let value = arguments.next().ok_or(format!("{name} needs a number"))?;
                value
                    .parse()
                    .map_err(|_| format!("{name}: `{value}` is no number"))
            };
            match argument.as_str() {
                "--seed" => (options.seed, seeded) = (number("--seed")?, true),
                "--runs" => {
                    options.runs = usize::try_from(number("--runs")?).map_err(|e| e.to_string())?;
                    if !seeded {
                        options.seed = now();
                    }
                }
                "--only" => {
                    let name = arguments.next().ok_or("--only needs a kind")?;
                    if name == "hostile" {
                        options.runs = 0;
                    } else {
                        options.only = Some(Kind::parse(&name)?);
                        options.hostile = false;
                    }
                }
                "--long" => options.long = true,
                "--load" => options.load = true,
                "--no-live" => options.runs = 0,
                "--no-hostile" => options.hostile = false,
                "--list" => return Ok(Parsed::Nothing),
                flag if flag.starts_with('-') => {}
                filter => filters.push(filter.to_owned()),
            }
        }
        let selected = filters.is_empty() || filters.iter().any(|f| "faults".contains(f.as_str()));
        Ok(if selected {
            Parsed::Run(options)
        } else {
            Parsed::Nothing
        })
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |t| t.as_secs())
}
