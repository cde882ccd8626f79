//! The contexts that are sent, made fresh for every job and removed at its end.
//!
//! Contents come from a counter, so that every machine sends the same bytes; only `real` depends on the machine.

use crate::run::{Result, output};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file that every context has at its top.
const TINY: &str = "tiny";

/// The names of all contexts, in the order of the tables.
pub(super) const NAMES: [&str; 6] = ["small-files", "large-file", "unchanged", "real", "cached", "many"];

/// How a context is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The daemon has forgotten everything before each run.
    Fresh,
    /// The daemon has every file.
    Unchanged,
    /// The daemon has every file and the whole result, and there is next to nothing to look at.
    Cached,
}

/// A directory to be built from.
pub(super) struct Context {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) dir: PathBuf,
    /// What it holds, for people.
    pub(super) about: String,
}

/// Makes the context called `name` below `base`, or a hundredth of it.
pub(super) fn make(name: &'static str, base: &Path, small: bool) -> Result<Context> {
    let dir = base.join(if name == "unchanged" { "small-files" } else { name });
    let share = |count: u64| if small { count / 100 } else { count };
    let mut kind = Kind::Fresh;
    let about;
    let fresh = !dir.exists();
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(TINY), "tiny\n")?;
    match name {
        "small-files" | "unchanged" => {
            let count = share(50_000);
            if fresh {
                small_files(&dir, count, |n| 512 + n * 7919 % 7680)?;
            }
            about = format!("{count} files of 0.5 to 8 KiB");
            if name == "unchanged" {
                kind = Kind::Unchanged;
            }
        }
        "many" => {
            let count = share(500_000);
            small_files(&dir, count, |_| 0)?;
            about = format!("{count} empty files");
        }
        "large-file" => {
            let size = share(2 << 30);
            large_file(&dir.join("large"), size)?;
            about = format!("one file of {} MiB", size >> 20);
        }
        "real" => {
            let wanted = share(10_000);
            let (count, bytes) = real(&dir, wanted)?;
            about = format!(
                "{count} files, {} MiB: sources and documentation of Rust",
                bytes >> 20
            );
        }
        _ => {
            kind = Kind::Cached;
            about = "one small file, nothing to do: start-up".to_owned();
        }
    }
    Ok(Context {
        name,
        kind,
        dir,
        about,
    })
}

/// Directories of fifty files, ten of them in each at the top.
fn small_files(dir: &Path, count: u64, size: impl Fn(u64) -> u64) -> Result<()> {
    let mut bytes = vec![0u8; 8192];
    for number in 0..count {
        let part = number / 50;
        let place = dir.join(format!("top{:03}/part{part:05}", part / 10));
        if number % 50 == 0 {
            fs::create_dir_all(&place)?;
        }
        let size = usize::try_from(size(number))?;
        fill(&mut bytes[..size], number);
        fs::write(place.join(format!("file{number:06}.txt")), &bytes[..size])?;
    }
    Ok(())
}

fn large_file(file: &Path, size: u64) -> Result<()> {
    const PIECE: u64 = 1 << 20;
    let mut out = File::create(file)?;
    let mut bytes = vec![0u8; 1 << 20];
    let mut left = size;
    while left > 0 {
        let piece = left.min(PIECE);
        fill(&mut bytes, left);
        out.write_all(&bytes[..usize::try_from(piece)?])?;
        left -= piece;
    }
    Ok(())
}

/// Bytes that no file system stores in less room, different for each seed.
fn fill(bytes: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for piece in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        piece.copy_from_slice(&state.to_le_bytes()[..piece.len()]);
    }
}

/// Copies trees that every reader of this has until there are `wanted` files: the sources of crates, then the
/// toolchain's documentation. Returns files and bytes.
fn real(dir: &Path, wanted: u64) -> Result<(u64, u64)> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let docs = Path::new(sysroot.trim()).join("share/doc/rust/html");
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let mut sources: Vec<PathBuf> = home.into_iter().map(|h| h.join("registry/src")).collect();
    sources.extend(["alloc", "core", "std"].map(|part| docs.join(part)));
    let (mut files, mut bytes) = (0, 0);
    for (at, source) in sources.iter().enumerate().filter(|(_, source)| source.is_dir()) {
        if files >= wanted {
            break;
        }
        output(
            Command::new("cp")
                .arg("-r")
                .arg(source)
                .arg(dir.join(format!("part{at}"))),
        )?;
        (files, bytes) = count(dir)?;
    }
    if files < wanted {
        small_files(&dir.join("generated"), wanted - files, |n| 512 + n * 7919 % 7680)?;
        (files, bytes) = count(dir)?;
    }
    Ok((files, bytes))
}

/// Files below `dir` and their bytes.
fn count(dir: &Path) -> Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            let below = count(&entry.path())?;
            (files, bytes) = (files + below.0, bytes + below.1);
        } else {
            (files, bytes) = (files + 1, bytes + meta.len());
        }
    }
    Ok((files, bytes))
}
