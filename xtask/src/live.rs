//! `cargo xtask live --addr ADDR`: the conformance suite on any daemon that a person names, and what works there.
//!
//! Nothing is started and nothing but caches is left on the daemon: results come back as archives. A daemon on another
//! machine will do. The suite itself is the test `named` of `bk-client`.

use crate::daemons;
use crate::run::{Result, cargo, workspace};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

const USAGE: &str = "\
usage: cargo xtask live --addr ADDR [--backend KIND] [--docker-route ROUTE] [--busybox FILE]
  --addr ADDR           as bk takes it: unix://, tcp://, ssh://, docker-container://, …
  --backend KIND        auto, docker or buildkitd
  --docker-route ROUTE  auto, h2c, grpc, build or tar
  --busybox FILE        a static busybox of the daemon's architecture; default: Debian's for this machine
A base image behind a password is tried when BK_LIVE_REGISTRY, …_BASE, …_USER and …_PASSWORD name one.";

/// The job itself.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let asked = Asked::of(arguments)?;
    let busybox = match asked.busybox {
        Some(file) => std::path::absolute(file)?,
        None => daemons::demo_busybox()?,
    };
    let ledger = workspace().join("target/live-named");
    fs::create_dir_all(workspace().join("target"))?;
    fs::write(&ledger, "")?;
    let mut tests = cargo();
    tests
        .args([
            "test",
            "--quiet",
            "--package",
            "bk-client",
            "--test",
            "named",
            "--",
            "--nocapture",
        ])
        .env("BK_LIVE_ADDR", asked.addr)
        .env("BK_LIVE_BUSYBOX", busybox)
        .env("BK_LIVE_LEDGER", &ledger);
    for (variable, value) in [
        ("BK_LIVE_ADDR_BACKEND", asked.backend),
        ("BK_LIVE_ADDR_ROUTE", asked.route),
    ] {
        match value {
            Some(value) => tests.env(variable, value),
            None => tests.env_remove(variable),
        };
    }
    let passed = tests.status()?.success();
    print!("{}", table(&fs::read_to_string(&ledger)?));
    if passed {
        Ok(())
    } else {
        Err("it does not all hold there".into())
    }
}

/// The options.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    addr: String,
    backend: Option<String>,
    route: Option<String>,
    busybox: Option<PathBuf>,
}

impl Asked {
    fn of(arguments: &[String]) -> Result<Asked> {
        let mut asked = Asked::default();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => {
                    let value = words
                        .next()
                        .ok_or_else(|| format!("{word} needs a value\n{USAGE}"))?;
                    (word.as_str(), value.clone())
                }
            };
            match name {
                "--addr" => asked.addr = value,
                "--backend" => asked.backend = Some(value),
                "--docker-route" => asked.route = Some(value),
                "--busybox" => asked.busybox = Some(value.into()),
                _ => return Err(format!("there is no option {name}\n{USAGE}").into()),
            }
        }
        if asked.addr.is_empty() {
            return Err(USAGE.into());
        }
        Ok(asked)
    }
}

/// Features, and what became of each: one row a line of the ledger, reasons below.
fn table(ledger: &str) -> String {
    let rows: Vec<[&str; 4]> = ledger
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                [target, "support", verdict, feature, text] => Some([target, verdict, feature, text]),
                _ => None,
            }
        })
        .collect();
    let Some(first) = rows.first() else {
        return "nothing was tried\n".to_owned();
    };
    let width = rows.iter().map(|row| row[2].chars().count()).max().unwrap_or(0);
    let mut drawn = format!("\n{:width$}  {}\n", "", first[0]);
    for [_, verdict, feature, text] in rows {
        let word = match verdict {
            "but" => "yes",
            "none" => "not tried",
            "fails" => "FAILS",
            other => other,
        };
        let _ = write!(drawn, "{feature:width$}  {word}");
        if !text.is_empty() {
            let _ = write!(drawn, ": {text}");
        }
        drawn.push('\n');
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn options_are_read_with_and_without_an_equals_sign() {
        let asked = Asked::of(&words("--addr tcp://h:1 --backend=docker --docker-route tar")).expect("right");
        assert_eq!(
            asked,
            Asked {
                addr: "tcp://h:1".to_owned(),
                backend: Some("docker".to_owned()),
                route: Some("tar".to_owned()),
                busybox: None
            }
        );
        for wrong in ["--addr", "--addr= --backend docker", "--to x", "x"] {
            assert!(Asked::of(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_table_has_a_row_for_each_feature() {
        let ledger = "buildkitd/v1\tsupport\tyes\tSecrets\t\n\
            buildkitd/v1\tsupport\tnone\tA base\tno registry was named\n\
            buildkitd/v1\tsupport\tfails\tLinks\ttwo differences\n";
        assert_eq!(
            table(ledger),
            "\n         buildkitd/v1\n\
             Secrets  yes\n\
             A base   not tried: no registry was named\n\
             Links    FAILS: two differences\n"
        );
        assert_eq!(table(""), "nothing was tried\n");
    }
}
