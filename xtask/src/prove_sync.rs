//! `cargo xtask prove-sync`: what file sync promises, shown by running `bk` on real daemons as a user would.
//!
//! The rule: every build has files that no build before had, each proof looks at what came out (an error's text, what
//! the image prints, counts, `COPY` in the cache), and the opposite of what is promised fails the job.

use crate::daemons::{self, Place, api};
use crate::demo;
use crate::guard::Guard;
use crate::run::{Result, cargo, check, last_lines, output, show, workspace};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const IMAGE: &str = "bk-prove-sync";
const PRINTING: &str = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY data /data\nCMD [\"/bin/busybox\", \"cat\", \"/data/file\"]\n";
const COPYING: &str = "FROM scratch\nCOPY data /data\n";

/// The time of every file, so that times never tell them apart.
const TIME: Duration = Duration::from_secs(1_600_000_000);

type Proof = fn(&Bench<'_>) -> Result<String>;

/// What is promised, and what shows it.
const PROOFS: [(&str, Proof); 4] = [
    ("an unreadable file is an error that names it", unreadable),
    (
        "new content of the same size and time is in the image",
        same_size_and_time,
    ),
    ("a fresh copy with --sync=content sends no file", fresh_copy),
    ("umask 002 and 022 share COPY with --context-mode=git", umasks),
];

/// The job itself.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    if !arguments.is_empty() {
        return Err("usage: cargo xtask prove-sync".into());
    }
    check(cargo().args(["build", "--quiet", "--package", "bk-cli"]))?;
    let guard = if daemons::places().is_empty() {
        Some(Guard::new(&["daemons".to_owned(), "down".to_owned()])?)
    } else {
        None
    };
    let outcome = prove();
    let cleaned = guard.map_or(Ok(()), Guard::close);
    outcome.and(cleaned)
}

/// Runs every proof on every daemon that is up or named; on all of them, if none is.
fn prove() -> Result<()> {
    if daemons::places().is_empty() {
        daemons::up_all()?;
    }
    // Beside this program, whatever the build directory is.
    let bk = std::env::current_exe()?.with_file_name("bk");
    let scratch = Scratch::new()?;
    let (mut shown, mut failed) = (0, 0);
    for place in daemons::places() {
        println!("{} ({})", place.name, place.version);
        for (number, (promise, proof)) in PROOFS.iter().enumerate() {
            let bench = Bench {
                bk: &bk,
                place: &place,
                dir: scratch.0.join(format!("{}-{number}", place.name)),
                own: own(place.name, number),
            };
            fs::create_dir(&bench.dir)?;
            let outcome = proof(&bench);
            // Not every proof leaves an image.
            drop(api::delete(&place.engine, &format!("/images/{IMAGE}?force=1")));
            match outcome {
                Ok(seen) => println!("  ok      {promise}: {seen}"),
                Err(error) => {
                    println!("  FAILED  {promise}: {error}");
                    failed += 1;
                }
            }
            shown += 1;
        }
    }
    println!("{} of {shown} proofs hold", shown - failed);
    if failed == 0 {
        Ok(())
    } else {
        Err(format!("{failed} proofs failed").into())
    }
}

/// A directory that goes away with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        let dir = workspace().join("target/prove-sync");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is only disk below `target`, and the next run removes it.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Text of a fixed length that no other build has in its files.
fn own(place: &str, number: usize) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!(
        "{place} {number} {:010} {:030}",
        std::process::id(),
        now.as_nanos()
    )
}

/// Where one proof takes place.
struct Bench<'a> {
    bk: &'a Path,
    place: &'a Place,
    dir: PathBuf,
    own: String,
}

/// What `bk` did.
struct Built {
    success: bool,
    said: String,
    /// The report of the transfers, after a success.
    report: Value,
}

impl Built {
    /// Files of the context that were sent.
    fn sent(&self) -> Result<u64> {
        let transfers = self.report["transfers"]
            .as_array()
            .ok_or("the report has no transfers")?;
        let context = transfers.iter().filter(|t| t["source"] == "context");
        let sent: Option<Vec<u64>> = context.map(|t| t["sentFiles"].as_u64()).collect();
        let sent = sent.ok_or("the report has no counts")?;
        if sent.is_empty() {
            return Err("the report has no transfer of the context".into());
        }
        Ok(sent.iter().sum())
    }

    /// Whether `COPY data` was answered from the cache.
    fn copy_cached(&self) -> Result<bool> {
        let mut seen = None;
        for line in self.said.lines().filter(|line| line.starts_with('{')) {
            let message: Value = serde_json::from_str(line)?;
            for vertex in message["vertexes"].as_array().into_iter().flatten() {
                if vertex["name"]
                    .as_str()
                    .is_some_and(|name| name.contains("COPY data"))
                {
                    seen = Some(seen == Some(true) || vertex["cached"] == true);
                }
            }
        }
        seen.ok_or_else(|| "no step COPY data was seen".into())
    }
}

impl Bench<'_> {
    /// Fills a new context in `name`, whose files belong to this proof alone.
    fn context(&self, name: &str, dockerfile: &str, text: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(dir.join("data/sub"))?;
        fs::copy(daemons::demo_busybox()?, dir.join("busybox"))?;
        for (name, text) in [("data/file", text), ("data/sub/same", "same")] {
            write(&dir.join(name), &format!("{} {text}\n", self.own_line(name)))?;
        }
        write(&dir.join("Dockerfile"), dockerfile)?;
        Ok(dir)
    }

    fn own_line(&self, name: &str) -> String {
        format!("{} {name}", self.own)
    }

    /// Runs `bk build`, which draws JSON, and reads what it reports.
    fn build(&self, context: &Path, flags: &[&str]) -> Result<Built> {
        // Root reads everything, unless it gives up the two capabilities that let it.
        let without = "-dac_override,-dac_read_search";
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--bounding-set={without}"))
            .arg(format!("--inh-caps={without}"))
            .arg(self.bk)
            .args(["--backend", self.place.backend, "--addr", &self.place.address])
            .args(["build", "--progress", "rawjson", "-t", IMAGE, "--transfer-report"])
            .arg(self.dir.join("report.json"))
            .args(flags)
            .arg(context)
            .env("XDG_CACHE_HOME", self.dir.join("cache"))
            .env_remove("SOURCE_DATE_EPOCH")
            .stdin(Stdio::null());
        let output = command
            .output()
            .map_err(|e| format!("cannot start {}: {e}", show(&command)))?;
        let success = output.status.success();
        let report = if success {
            serde_json::from_str(&fs::read_to_string(self.dir.join("report.json"))?)?
        } else {
            Value::Null
        };
        Ok(Built {
            success,
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
            report,
        })
    }

    /// As [`Bench::build`], for a build that has to succeed.
    fn built(&self, context: &Path, flags: &[&str]) -> Result<Built> {
        let built = self.build(context, flags)?;
        if built.success {
            Ok(built)
        } else {
            Err(format!("the build failed:\n{}", last_lines(&built.said, 15)).into())
        }
    }

    /// What the image prints: the content of `data/file` in it.
    fn printed(&self) -> Result<String> {
        Ok(demo::output_of_image(&self.place.engine, IMAGE)?
            .trim()
            .to_owned())
    }
}

/// Writes a file and gives it the time that all files have.
fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    let file = fs::OpenOptions::new().write(true).open(path)?;
    Ok(file.set_modified(UNIX_EPOCH + TIME)?)
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, seen: &T, wanted: &T) -> Result<()> {
    if seen == wanted {
        Ok(())
    } else {
        Err(format!("{what}: {seen:?}, not {wanted:?}").into())
    }
}

fn unreadable(bench: &Bench<'_>) -> Result<String> {
    let context = bench.context("context", COPYING, "text")?;
    fs::set_permissions(context.join("data/file"), fs::Permissions::from_mode(0o000))?;
    let built = bench.build(&context, &[])?;
    expect("the build succeeded", &built.success, &false)?;
    let error = built.said.lines().find(|line| line.starts_with("ERROR: "));
    let error = error.ok_or_else(|| format!("no error was told:\n{}", last_lines(&built.said, 15)))?;
    for part in ["data/file", "denied"] {
        if !error.contains(part) {
            return Err(format!("the error does not say {part}: {error}").into());
        }
    }
    // It is of no concern when nobody wants it.
    write(&context.join(".dockerignore"), "data/file\n")?;
    bench.built(&context, &[])?;
    Ok(error.replace(&bench.dir.display().to_string(), ""))
}

fn same_size_and_time(bench: &Bench<'_>) -> Result<String> {
    let context = bench.context("context", PRINTING, "old")?;
    bench.built(&context, &[])?;
    let old = bench.printed()?;
    write(
        &context.join("data/file"),
        &format!("{} new\n", bench.own_line("data/file")),
    )?;
    let built = bench.built(&context, &[])?;
    let new = bench.printed()?;
    expect("the image printed first", &old.ends_with(" old"), &true)?;
    expect(
        "the image prints",
        &new,
        &format!("{} new", bench.own_line("data/file")),
    )?;
    expect("files sent", &built.sent()?, &1)?;
    Ok("1 file was sent, and the image prints it".to_owned())
}

fn fresh_copy(bench: &Bench<'_>) -> Result<String> {
    let flags = ["--sync=content"];
    let first = bench.context("context", COPYING, "text")?;
    let sent = bench.built(&first, &flags)?.sent()?;
    // As a build machine does it: away with the checkout, and another one in its place.
    fs::rename(&first, bench.dir.join("kept"))?;
    output(
        Command::new("cp")
            .arg("-R")
            .arg(bench.dir.join("kept"))
            .arg(&first),
    )?;
    let again = bench.built(&first, &flags)?;
    expect("files sent", &again.sent()?, &0)?;
    expect("COPY cached", &again.copy_cached()?, &true)?;
    // Not because nothing is ever sent.
    write(
        &first.join("data/file"),
        &format!("{} next\n", bench.own_line("data/file")),
    )?;
    expect(
        "files sent after an edit",
        &bench.built(&first, &flags)?.sent()?,
        &1,
    )?;
    Ok(format!("{sent} files were sent, then 0, then 1 after an edit"))
}

fn umasks(bench: &Bench<'_>) -> Result<String> {
    for (mode, cached) in [("git", true), ("keep", false)] {
        let source = bench.context(&format!("{mode}-source"), COPYING, mode)?;
        let flag = format!("--context-mode={mode}");
        let mut seen = Vec::new();
        for umask in ["002", "022"] {
            let copy = bench.dir.join(format!("{mode}-{umask}"));
            let script = "umask \"$0\" && cp -R --no-preserve=mode \"$1\" \"$2\"";
            output(
                Command::new("sh")
                    .args(["-c", script, umask])
                    .args([&source, &copy]),
            )?;
            seen.push(bench.built(&copy, &[&flag])?.copy_cached()?);
        }
        expect(&format!("COPY cached with {flag}"), &seen, &vec![false, cached])?;
    }
    Ok("COPY is cached for the second; it is not with --context-mode=keep".to_owned())
}
