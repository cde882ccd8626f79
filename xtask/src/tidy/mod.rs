//! `cargo xtask tidy`: the habits of this code base that no compiler checks.
//!
//! Each check is a function of text to findings, so that its tests need no tree. Files are those of the work tree, not
//! only of the index: a new file is checked before it is committed.

mod layers;
mod manifest;
mod source;

use crate::run::{Result, cargo, output, workspace};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Something to mend.
#[derive(Debug, PartialEq)]
pub(crate) struct Finding {
    /// The file, from the root of the workspace.
    pub(crate) file: String,
    /// The line, from 1; 0 for the file as a whole.
    pub(crate) line: usize,
    /// What is wrong, and what would be right.
    pub(crate) text: String,
    /// Whether it fails the check; otherwise it is only shown.
    pub(crate) fails: bool,
}

impl Finding {
    /// A finding that fails the check.
    pub(crate) fn new(file: &str, line: usize, text: impl Into<String>) -> Finding {
        Finding {
            file: file.to_owned(),
            line,
            text: text.into(),
            fails: true,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = if self.fails { "" } else { "note: " };
        match self.line {
            0 => write!(f, "{}: {note}{}", self.file, self.text),
            line => write!(f, "{}:{line}: {note}{}", self.file, self.text),
        }
    }
}

/// The job itself.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    if !arguments.is_empty() {
        return Err("usage: cargo xtask tidy".into());
    }
    let root = workspace();
    let mut files = Vec::new();
    collect(&root, &root, &mut files)?;
    files.sort();
    let mut findings = Vec::new();
    for file in &files {
        // Test data may be in any encoding; what is not text has no style.
        let Ok(text) = String::from_utf8(fs::read(root.join(file))?) else {
            continue;
        };
        findings.extend(source::check(file, &text));
    }
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = layers::packages(&metadata, &root)?;
    findings.extend(layers::check(&packages));
    for package in &packages {
        findings.extend(manifest::check(
            &package.manifest,
            &fs::read_to_string(root.join(&package.manifest))?,
        ));
    }
    for finding in &findings {
        println!("{finding}");
    }
    let failures = findings.iter().filter(|finding| finding.fails).count();
    println!(
        "tidy: {} files, {failures} to mend, {} notes",
        files.len(),
        findings.len() - failures
    );
    if failures == 0 {
        Ok(())
    } else {
        Err(format!("{failures} things to mend").into())
    }
}

/// All files below `dir` that people write, as paths from `root`.
fn collect(root: &Path, dir: &Path, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            if !SKIPPED_DIRS.contains(&name.as_str()) {
                collect(root, &path, files)?;
            }
        } else if entry.file_type()?.is_file() && is_written(&path, &name) {
            files.push(path.strip_prefix(root)?.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Build output, the repository itself, and what fuzzing collects.
const SKIPPED_DIRS: [&str; 5] = ["target", ".git", "corpus", "artifacts", "vectors"];

fn is_written(path: &Path, name: &str) -> bool {
    let extension = path.extension().map(PathBuf::from).unwrap_or_default();
    let known = ["rs", "toml", "md", "yml", "proto", "sh"];
    known.iter().any(|known| extension == Path::new(known)) || ["run", "Dockerfile"].contains(&name)
}
