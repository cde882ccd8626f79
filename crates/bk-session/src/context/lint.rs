//! What is questionable about a context and its ignore file.
//!
//! The rule: a finding names a line or a path, and is about this tree as it is: a pattern that merely could be wrong is none.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read as _},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use bk_build::BuildError;
use bk_fsync::{
    Utf8Policy,
    entry::{Entry, Kind},
    filter::{Filter, FilterError},
    path::{RelPath, show},
    pattern::{PatternError, PatternList},
    walk::Walk,
};

use super::{
    mistakes::mistakes,
    secrets::{Suspect, suspect},
    view::{ContextView, Ignore, Warn},
};
use crate::{
    context_tar::local,
    limits::{HUGE_BYTES, HUGE_SHARE_BYTES, MAX_DOCKERFILE, MAX_FINDINGS, SECRET_PROBE},
    sources::Source,
};

/// Directories that tools fill, and that are hardly ever meant to be sent.
pub(crate) const FILLED: [&str; 14] = [
    ".cache",
    ".git",
    ".gradle",
    ".hg",
    ".idea",
    ".next",
    ".svn",
    ".terraform",
    ".tox",
    ".venv",
    "__pycache__",
    "node_modules",
    "target",
    "venv",
];

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LintKind {
    /// A pattern matches nothing.
    DeadPattern,
    /// An exception changes nothing: what it matches was not ignored before it, or is ignored again after it.
    NoEffect,
    /// Other tools read a pattern in another way.
    Differs,
    /// A file that looks like a secret is about to be sent.
    Secret,
    /// Much of what is sent is what a tool left behind.
    Huge,
}

/// Whether so many bytes in directories that tools fill are worth a word.
pub(crate) fn is_much(bytes: u64, of: u64) -> bool {
    bytes >= HUGE_BYTES || (bytes >= HUGE_SHARE_BYTES && bytes >= of / 4)
}

/// Something questionable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LintFinding {
    /// What it is about.
    pub kind: LintKind,
    /// The ignore file and the line, from 1, if it is about a pattern.
    pub place: Option<(PathBuf, usize)>,
    /// The path in the context, if it is about one.
    pub path: Option<Vec<u8>>,
    /// What there is to say, in one line. Names in it may hold any characters.
    pub message: String,
}

impl ContextView {
    /// Looks for what is questionable: patterns first, by line, then what would be sent. At most
    /// [`MAX_FINDINGS`](crate::limits::MAX_FINDINGS) files are named, and one finding says how many there are more. Walks
    /// the whole directory, what is ignored included, and looks into a few files. Blocks.
    ///
    /// # Errors
    /// As [`list`](Self::list); and a file that cannot be read is named.
    pub fn lint(
        &self,
        stop: &AtomicBool,
        warn: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Vec<LintFinding>, BuildError> {
        let mut patterns = Patterns::of(self)?;
        let mut sent = Sent::default();
        self.list(stop, warn, |entry| {
            patterns.sent(&entry.path);
            sent.add(self, entry)
        })?;
        if !patterns.all.is_empty() {
            let everything = Filter::default();
            // What is odd about files that are sent was told by the first walk.
            let observer = Warn(&|_| {});
            for entry in Walk::new(&*self.source.tree, &everything, Utf8Policy::Any, &observer, stop) {
                let entry = entry.map_err(|e| self.explain(e))?;
                patterns
                    .seen(&entry.path)
                    .map_err(|e| self.bad(&FilterError::Exclude(e)))?;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(BuildError::Cancelled);
            }
        }
        let mut findings = match &self.ignore {
            Some(ignore) => patterns.findings(&self.source, ignore)?,
            None => Vec::new(),
        };
        findings.extend(sent.findings());
        Ok(findings)
    }
}

/// What is found out about a pattern.
struct One {
    /// Its place in the list.
    index: usize,
    text: Vec<u8>,
    takes_back: bool,
    /// The pattern alone.
    alone: PatternList,
    hit: bool,
    decided: bool,
    /// A path below the root that has its name and is sent.
    deeper: Option<Vec<u8>>,
}

struct Patterns<'a> {
    all: Vec<One>,
    list: Option<&'a PatternList>,
}

impl<'a> Patterns<'a> {
    fn of(view: &'a ContextView) -> Result<Self, BuildError> {
        let list = view.rules.excludes();
        let mut all = Vec::new();
        for pattern in list.map_or(&[][..], PatternList::patterns) {
            let alone = PatternList::new([pattern.text()]).map_err(|mut e| {
                e.index = pattern.index();
                view.bad(&FilterError::Exclude(e))
            })?;
            all.push(One {
                index: pattern.index(),
                text: pattern.text().to_vec(),
                takes_back: pattern.is_exception(),
                alone,
                hit: false,
                decided: false,
                deeper: None,
            });
        }
        Ok(Self { all, list })
    }

    /// Takes note of something that is there.
    fn seen(&mut self, path: &[u8]) -> Result<(), PatternError> {
        let Some(list) = self.list else { return Ok(()) };
        for one in self.all.iter_mut().filter(|one| !one.hit) {
            let asked = one.alone.matches_or_parent(path).map_err(|mut e| {
                e.index = one.index;
                e
            })?;
            one.hit = asked.matched;
        }
        if list.has_exceptions()
            && let Some(by) = list.matches_or_parent(path)?.decided_by
            && let Some(one) = self.all.get_mut(by)
        {
            one.decided = true;
        }
        Ok(())
    }

    /// Takes note of something that is sent.
    fn sent(&mut self, path: &[u8]) {
        let Some(at) = path.iter().rposition(|b| *b == b'/') else {
            return;
        };
        let name = &path[at + 1..];
        for one in self
            .all
            .iter_mut()
            .filter(|one| !one.takes_back && one.deeper.is_none())
        {
            if one.text == name {
                one.deeper = Some(path.to_vec());
            }
        }
    }

    fn findings(self, context: &Source, ignore: &Ignore) -> Result<Vec<LintFinding>, BuildError> {
        let lines = raw_lines(ignore)?;
        let mut findings = Vec::new();
        let texts: Vec<Vec<u8>> = ignore
            .patterns
            .iter()
            .map(|(pattern, _)| pattern.clone())
            .collect();
        let mistakes = mistakes(context, &texts);
        for one in self.all {
            let Some((given, line)) = ignore.patterns.get(one.index) else {
                continue;
            };
            let given = show(given);
            let mut say = |kind, message: String| {
                findings.push(LintFinding {
                    kind,
                    place: Some((ignore.file.clone(), *line)),
                    path: None,
                    message,
                });
            };
            let mistake = mistakes.iter().find(|mistake| mistake.index == one.index);
            if let Some(mistake) = mistake {
                say(mistake.kind, mistake.message.clone());
            } else if !one.hit {
                say(LintKind::DeadPattern, format!("`{given}` matches nothing"));
            } else if one.takes_back && !one.decided {
                let why = "what it matches is not ignored above it, or is ignored again below it";
                say(LintKind::NoEffect, format!("`{given}` changes nothing: {why}"));
            }
            if let Some(deeper) = &one.deeper {
                let deeper = show(deeper);
                say(
                    LintKind::Differs,
                    format!(
                        "`{given}` holds in the root only, and `{deeper}` is sent; Git ignores both, and so does `**/{given}` here"
                    ),
                );
            }
            for what in lines.get(line - 1).map(|raw| oddities(raw)).unwrap_or_default() {
                say(LintKind::Differs, format!("`{given}`: {what}"));
            }
        }
        Ok(findings)
    }
}

/// The lines of an ignore file as they stand there.
fn raw_lines(ignore: &Ignore) -> Result<Vec<Vec<u8>>, BuildError> {
    let fail = |e| local(&ignore.from, &ignore.name, "cannot read the ignore file", e);
    let path = RelPath::new(ignore.name.as_bytes()).unwrap_or(RelPath::ROOT);
    let file = ignore.from.tree.open(path).map_err(fail)?;
    let lines = BufReader::new(file.take(MAX_DOCKERFILE)).split(b'\n');
    lines.collect::<io::Result<_>>().map_err(fail)
}

/// In what ways other tools read a line differently.
fn oddities(raw: &[u8]) -> Vec<&'static str> {
    let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
    let raw = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw);
    let mut found = Vec::new();
    let mut say = |what| found.push(what);
    let text = raw.trim_ascii();
    if raw.first().is_some_and(u8::is_ascii_whitespace) {
        say("white space in front is cut here; Git takes it for a part of the name");
        if text.first() == Some(&b'#') {
            say("a comment starts in the first column; this is a pattern");
        }
    }
    if raw.last().is_some_and(u8::is_ascii_whitespace) {
        say("white space at the end is cut here; some tools take it for a part of the name");
    }
    let (text, bang) = match text.strip_prefix(b"!") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    if bang && text.first().is_some_and(u8::is_ascii_whitespace) {
        say("white space after the `!` is cut here; Git takes it for a part of the name");
    }
    if text.len() > 1 && text.starts_with(b"/") {
        say("a `/` in front means nothing here; some tools match nothing then");
    }
    if text.len() > 1 && text.ends_with(b"/") {
        say("a `/` at the end means nothing here, so that files match too; Git matches directories only");
    }
    if text.contains(&b'\\') {
        say("a backslash escapes the next character here; on Windows it may be a separator");
    }
    let mut parts = text.split(|b| *b == b'/');
    if parts.any(|part| part != b"**" && part.windows(2).any(|two| two == b"**")) {
        say("a `**` beside other characters goes through directories here; in Git it is a `*`");
    }
    found
}

/// What is found out about what is sent.
#[derive(Default)]
struct Sent {
    secrets: Vec<LintFinding>,
    more_secrets: u64,
    bytes: u64,
    /// By the name of a directory: bytes, files, and the first such directory.
    filled: BTreeMap<&'static str, (u64, u64, Vec<u8>)>,
}

impl Sent {
    fn add(&mut self, view: &ContextView, entry: &Entry) -> Result<(), BuildError> {
        if entry.meta.kind != Kind::File {
            return Ok(());
        }
        let size = entry.meta.size;
        self.bytes += size;
        let mut end = 0;
        for part in entry.path.split(|b| *b == b'/') {
            end += part.len();
            if end < entry.path.len()
                && let Some(name) = FILLED.iter().find(|name| name.as_bytes() == part)
            {
                let first = || (0, 0, entry.path[..end].to_vec());
                let (bytes, files, _) = self.filled.entry(name).or_insert_with(first);
                *bytes += size;
                *files += 1;
                break;
            }
            end += 1;
        }
        let what = match suspect(&entry.path) {
            None => return Ok(()),
            Some(Suspect::ByName(what)) => what,
            Some(Suspect::Holding(texts, what)) => match holds(view, entry, texts)? {
                true => what,
                false => return Ok(()),
            },
        };
        if self.secrets.len() >= MAX_FINDINGS {
            self.more_secrets += 1;
            return Ok(());
        }
        self.secrets.push(LintFinding {
            kind: LintKind::Secret,
            place: None,
            path: Some(entry.path.clone()),
            message: format!("`{}` looks like {what}, and is sent", show(&entry.path)),
        });
        Ok(())
    }

    fn findings(self) -> Vec<LintFinding> {
        let mut findings = self.secrets;
        let about = |kind, path, message| LintFinding {
            kind,
            place: None,
            path,
            message,
        };
        if self.more_secrets > 0 {
            let message = format!("{} more files look like secrets, and are sent", self.more_secrets);
            findings.push(about(LintKind::Secret, None, message));
        }
        let mut filled: Vec<_> = self.filled.into_iter().collect();
        filled.sort_by_key(|(_, (bytes, ..))| std::cmp::Reverse(*bytes));
        for (name, (bytes, files, first)) in filled {
            if is_much(bytes, self.bytes) {
                let share = bytes.saturating_mul(100) / self.bytes.max(1);
                let message = format!(
                    "directories `{name}` are {share} % of what is sent: {bytes} bytes in {files} files, the first in `{}`",
                    show(&first)
                );
                findings.push(about(LintKind::Huge, Some(first), message));
            }
        }
        findings
    }
}

/// Whether the start of a file holds one of the texts.
fn holds(view: &ContextView, entry: &Entry, texts: &[&str]) -> Result<bool, BuildError> {
    let fail = |e| local(&view.source, &show(&entry.path), "cannot read the file", e);
    let path = RelPath::new(&entry.path).unwrap_or(RelPath::ROOT);
    let file = view.source.tree.open(path).map_err(fail)?;
    let mut start = Vec::new();
    file.take(SECRET_PROBE).read_to_end(&mut start).map_err(fail)?;
    let found = |text: &&str| start.windows(text.len()).any(|w| w == text.as_bytes());
    Ok(texts.iter().any(found))
}
