//! Checks this crate against recorded answers of the upstream implementation, one JSON object a line.
//!
//! Shared by the test and by `examples/vectors.rs`. The rule: what is asked is told by the fields of a line,
//! not by the name of its file, and a line that is not understood counts as a disagreement.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use bk_fsync::MemoryTree;
use bk_fsync::filter::{Filter, FilterOptions};
use bk_fsync::pattern::{PatternError, PatternList, read_ignore_file};
use bk_fsync::policy::Utf8Policy;
use bk_fsync::report::Unobserved;
use bk_fsync::walk::Walk;
use serde_json::Value;

/// How one file of vectors came out.
pub(crate) struct Outcome {
    /// The file.
    pub(crate) file: PathBuf,
    /// Lines on which this crate agrees.
    pub(crate) agreeing: usize,
    /// The others: line number and what differs.
    pub(crate) disagreeing: Vec<(usize, String)>,
}

/// Checks every `*.jsonl` file in `dir`, in order of their names.
pub(crate) fn check_dir(dir: &Path) -> Result<Vec<Outcome>, String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("cannot read {}: {e}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|e| format!("cannot read {}: {e}", dir.display()))?
            .path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("no *.jsonl file in {}", dir.display()));
    }
    files.into_iter().map(check_file).collect()
}

fn check_file(file: PathBuf) -> Result<Outcome, String> {
    let text = fs::read_to_string(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let mut outcome = Outcome {
        file,
        agreeing: 0,
        disagreeing: Vec::new(),
    };
    for (at, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        match check_line(line) {
            Ok(()) => outcome.agreeing += 1,
            Err(what) => outcome.disagreeing.push((at + 1, what)),
        }
    }
    Ok(outcome)
}

fn check_line(line: &str) -> Result<(), String> {
    let vector: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
    if vector.get("tree").is_some() {
        check_walk(&vector)
    } else if vector.get("text").is_some() {
        let text = vector["text"].as_str().ok_or("text is no string")?;
        let got = read_ignore_file(text.as_bytes()).map_err(|e| e.to_string())?;
        let got = got
            .into_iter()
            .map(|l| String::from_utf8_lossy(&l.pattern).into_owned())
            .collect();
        compare(&strings(&vector, "patterns")?, &got, &format!("{text:?}"))
    } else if vector.get("path").is_some() {
        check_match(&vector)
    } else {
        Err("the line is of no known form".to_owned())
    }
}

fn check_match(vector: &Value) -> Result<(), String> {
    let patterns = strings(vector, "patterns")?;
    let path = vector["path"].as_str().ok_or("path is no string")?;
    let refused = vector["error"].as_bool().unwrap_or(false);
    let want = vector["match"].as_bool().unwrap_or(false);
    let ask = || -> Result<bool, PatternError> {
        Ok(PatternList::new(&patterns)?
            .matches_or_parent(path.as_bytes())?
            .matched)
    };
    match ask() {
        Ok(got) if !refused && got == want => Ok(()),
        Err(_) if refused => Ok(()),
        got => Err(format!(
            "{patterns:?} {path:?}: expected match {want}, error {refused}; got {got:?}"
        )),
    }
}

fn check_walk(vector: &Value) -> Result<(), String> {
    let mut tree = MemoryTree::new();
    for entry in vector["tree"].as_array().ok_or("tree is no list")? {
        let path = entry["path"].as_str().ok_or("path is no string")?;
        let added = match entry["kind"].as_str() {
            Some("dir") => tree.add_dir(path, 0o755),
            Some("file") => tree.add_file(path, 0o644, "x"),
            Some("symlink") => tree.add_symlink(path, entry["link"].as_str().unwrap_or_default()),
            other => return Err(format!("kind {other:?} is not known")),
        };
        added.map_err(|e| e.to_string())?;
    }
    let bytes = |key| {
        Ok::<_, String>(
            strings(vector, key)?
                .into_iter()
                .map(String::into_bytes)
                .collect(),
        )
    };
    let options = FilterOptions::new(bytes("include")?, bytes("exclude")?, bytes("follow")?);
    let lists = format!(
        "include {} exclude {} follow {}",
        vector["include"], vector["exclude"], vector["follow"]
    );
    let filter = Filter::new(&tree, &options).map_err(|e| format!("{lists}: {e}"))?;
    let stop = AtomicBool::new(false);
    let mut got = Vec::new();
    for entry in Walk::new(&tree, &filter, Utf8Policy::Any, &Unobserved, &stop) {
        let entry = entry.map_err(|e| format!("{lists}: {e}"))?;
        got.push(String::from_utf8_lossy(&entry.path).into_owned());
    }
    compare(&strings(vector, "emitted")?, &got, &lists)
}

fn compare(want: &Vec<String>, got: &Vec<String>, what: &str) -> Result<(), String> {
    if want == got {
        Ok(())
    } else {
        Err(format!("{what}: expected {want:?}; got {got:?}"))
    }
}

/// A list of strings; absent counts as empty.
fn strings(vector: &Value, key: &str) -> Result<Vec<String>, String> {
    match &vector[key] {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => {
            let text = |v: &Value| {
                v.as_str()
                    .map(str::to_owned)
                    .ok_or(format!("{key} holds no strings"))
            };
            list.iter().map(text).collect()
        }
        _ => Err(format!("{key} is no list")),
    }
}
