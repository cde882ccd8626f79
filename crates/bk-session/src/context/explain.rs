//! What this machine adds to a failure: the reason why a source was not found, the line of an ignore file, and the place
//! in the Dockerfile where a daemon does not show it.
//!
//! The rule: the daemon's own words and its own copy of the Dockerfile stand; what it leaves out is taken from the files
//! that it was sent. Whatever goes wrong on the way changes nothing.

use std::{path::PathBuf, sync::atomic::AtomicBool};

use bk_build::{
    BuildError, BuildRequest, DockerfileFailure, InputError, LineRange, SourceSnippet, StepFailure,
};
use bk_fsync::{path::clean, report::Unobserved};

use super::{absence::Absence, view::ContextView};
use crate::{limits::ABSENCE_ENTRIES, service::file_sync::BAD_LIST};

/// Adds to a failure what the files of `request` on this machine have to say: why a source of an instruction was not found,
/// which line of the ignore file cannot be read, and the place in the Dockerfile where the daemon does not show it. Whatever
/// goes wrong on the way changes nothing. Files are looked at on a blocking thread.
pub async fn explain_failure(request: &BuildRequest, error: BuildError) -> BuildError {
    let lacks = match &error {
        BuildError::Dockerfile(_) => true,
        BuildError::Step(step) => step.snippets.is_empty(),
        BuildError::Input(e) => is_about_ignore_file(e),
        _ => false,
    };
    if !lacks {
        return error;
    }
    let request = request.clone();
    let looking = tokio::task::spawn_blocking(move || match error {
        BuildError::Dockerfile(mut failure) => {
            dockerfile(&request, &mut failure);
            failure.into()
        }
        BuildError::Step(mut step) => {
            if let Ok(view) = ContextView::of(&request, None) {
                place_step(&OwnCopy::of(&view), &mut step);
            }
            step.into()
        }
        BuildError::Input(e) => exact_line(&request).unwrap_or(e).into(),
        other => other,
    });
    looking
        .await
        .unwrap_or_else(|e| BuildError::Misuse(format!("the runtime was shut down: {e}")))
}

/// Whether an error is about some line of an ignore file, and does not say which.
fn is_about_ignore_file(error: &InputError) -> bool {
    error.what == "the ignore file" || error.what == BAD_LIST
}

/// The line of the ignore file that cannot be read. Some patterns show it only when something is matched with them.
fn exact_line(request: &BuildRequest) -> Option<InputError> {
    let error = match ContextView::of(request, None) {
        Ok(view) => {
            let stop = AtomicBool::new(false);
            let mut entries = view.walk(&Unobserved, &stop).take(ABSENCE_ENTRIES);
            view.explain(entries.find_map(Result::err)?)
        }
        Err(e) => e,
    };
    match error {
        BuildError::Input(exact) if !is_about_ignore_file(&exact) => Some(exact),
        _ => None,
    }
}

fn dockerfile(request: &BuildRequest, failure: &mut DockerfileFailure) {
    let view = match ContextView::of(request, None) {
        Ok(view) => view,
        Err(e) => {
            // It knows the names of the stages.
            if failure.message.contains("target stage") {
                failure.hint = failure.hint.take().or_else(|| e.hint());
            }
            return;
        }
    };
    let copy = OwnCopy::of(&view);
    copy.fill(&mut failure.snippets);
    if is_lost_walk(&failure.message) {
        return lost_walk(&view, &copy, failure);
    }
    let Some(asked) = missing_path(&failure.message).map(str::to_owned) else {
        return;
    };
    let line = match instruction(failure) {
        Some(line) => Some(line),
        // Old daemons do not say which instruction it is: one of those that need this path.
        None => {
            let mut needs = view.needs().instructions.iter();
            let need = needs.find(|need| need.paths.contains(&asked));
            match need.map(|need| need.line).or_else(|| copy.line_with(&asked)) {
                Some(line) => {
                    failure.snippets = vec![copy.at(line)];
                    instruction(failure)
                }
                None => None,
            }
        }
    };
    if let Some(line) = line
        && let Some(absence) = why_absent(request, view, &asked, &line)
    {
        failure.hint = Some(absence.to_string());
    }
}

/// Why an instruction found nothing under `asked`.
fn why_absent(request: &BuildRequest, view: ContextView, asked: &str, line: &str) -> Option<Absence> {
    let from = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("--from="));
    let view = match from {
        None => view,
        Some(name) if request.named_contexts.contains_key(name) => {
            ContextView::of(request, Some(name)).ok()?
        }
        // The files of stages and images are not here.
        Some(name) => {
            return Some(Absence::NotInStage {
                asked: asked.to_owned(),
                stage: name.to_owned(),
            });
        }
    };
    let outside = line
        .split_whitespace()
        .find(|word| word.starts_with("../"))
        .filter(|word| clean(word.as_bytes()).starts_with(b"../"));
    match outside {
        Some(word) => Some(Absence::Outside {
            asked: word.to_owned(),
            root: view.root().map(PathBuf::from),
        }),
        None => view.absence(asked.as_bytes()).ok()?,
    }
}

/// Whether a daemon stumbled over a path of its own copy of the context. BuildKit 0.8 does now and then, and says the path
/// on its own disk: that of the directory, or where a link leads.
fn is_lost_walk(message: &str) -> bool {
    message.contains("failed to walk ")
        && message.contains("/buildkit-mount")
        && message.contains("no such file or directory")
}

/// Finds the source that is not there, and says it as the daemon does otherwise.
fn lost_walk(view: &ContextView, copy: &OwnCopy, failure: &mut DockerfileFailure) {
    for need in &view.needs().instructions {
        for path in &need.paths {
            let Ok(Some(absence)) = view.absence(path.as_bytes()) else {
                continue;
            };
            failure.message = format!("failed to compute cache key: \"{path}\" not found: not found");
            failure.snippets = vec![copy.at(need.line)];
            failure.hint = Some(absence.to_string());
            return;
        }
    }
}

/// The path that a daemon did not find, from its words: the first in quotes that begins with a slash.
fn missing_path(message: &str) -> Option<&str> {
    if !message.contains("not found") {
        return None;
    }
    let start = message.find("\"/")? + 1;
    let rest = message.get(start..)?;
    rest.get(..rest.find('"')?)
}

/// The lines of the instruction that failed, as one.
fn instruction(failure: &DockerfileFailure) -> Option<String> {
    let snippet = failure.snippets.first()?;
    let range = snippet.ranges.first()?;
    let (start, end) = (
        usize::try_from(range.start).ok()?,
        usize::try_from(range.end).ok()?,
    );
    let text = String::from_utf8_lossy(&snippet.data);
    let lines: Vec<&str> = text
        .lines()
        .skip(start.checked_sub(1)?)
        .take(end.checked_sub(start)? + 1)
        .collect();
    (!lines.is_empty()).then(|| lines.join(" ").replace('\\', " "))
}

/// The place of a step that a daemon tells by its name only, `[2/3] RUN make`.
fn place_step(copy: &OwnCopy, step: &mut StepFailure) {
    let Some((_, instruction)) = step.name.split_once("] ") else {
        return;
    };
    if let Some(line) = copy.only_line(|text| text.split_whitespace().eq(instruction.split_whitespace())) {
        step.snippets = vec![copy.at(line)];
    }
}

/// The Dockerfile as it lies on this machine.
struct OwnCopy {
    name: String,
    text: Vec<u8>,
}

impl OwnCopy {
    fn of(view: &ContextView) -> Self {
        let (name, text) = view.dockerfile_text();
        Self {
            name: name.rsplit('/').next().unwrap_or(name).to_owned(),
            text: text.to_vec(),
        }
    }

    /// The instruction that begins on a line, from 1.
    fn at(&self, line: usize) -> SourceSnippet {
        let text = String::from_utf8_lossy(&self.text);
        let more = text.lines().skip(line.saturating_sub(1));
        let more = more.take_while(|line| line.trim_end().ends_with('\\')).count();
        let number = |line: usize| i32::try_from(line).unwrap_or(i32::MAX);
        let range = LineRange {
            start: number(line),
            end: number(line + more),
        };
        SourceSnippet::new(&*self.name, self.text.clone(), vec![range])
    }

    /// Adds the text to places of which only the line is known.
    fn fill(&self, snippets: &mut [SourceSnippet]) {
        for snippet in snippets {
            let same = snippet.filename.rsplit('/').next() == Some(&*self.name);
            if snippet.data.is_empty() && same {
                snippet.data = self.text.clone().into();
            }
        }
    }

    /// The only instruction that takes this path, from wherever.
    fn line_with(&self, asked: &str) -> Option<usize> {
        self.only_line(|text| {
            let mut words = text.split_whitespace();
            let copies = words
                .next()
                .is_some_and(|w| w.eq_ignore_ascii_case("COPY") || w.eq_ignore_ascii_case("ADD"));
            copies
                && words.any(|word| {
                    let path = clean(word.as_bytes());
                    path.strip_prefix(b"/").unwrap_or(&path) == asked.trim_start_matches('/').as_bytes()
                })
        })
    }

    fn only_line(&self, test: impl Fn(&str) -> bool) -> Option<usize> {
        let text = String::from_utf8_lossy(&self.text);
        let mut found = text.lines().enumerate().filter(|(_, line)| test(line));
        let (at, _) = found.next()?;
        found.next().is_none().then_some(at + 1)
    }
}
