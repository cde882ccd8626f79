//! `--explain`: which files made an instruction run again, from the manifest of the last build of the same context.
//!
//! The rule: only what was compared is claimed. A step that ran although nothing it takes has changed is said to be one.

use std::sync::atomic::AtomicBool;

use bk_client::{
    BuildRequest, ContextChanges, ContextDifference, ContextHistory, ContextRecord, ContextView, Differs,
    Dockerfile, Need, Needs,
};
use bk_progress::neutralise_line;

use crate::{limits::EXPLAINED_FILES, policies, request::Surroundings};

/// What is known before the build, to be told after it.
pub(crate) struct Explanation {
    /// The target, where there are others too.
    name: Option<String>,
    record: ContextRecord,
    needs: Needs,
}

/// The manifests of contexts; nowhere without a home.
pub(crate) fn history(around: &impl Surroundings) -> Option<ContextHistory> {
    policies::cache_dir(around, "contexts").map(ContextHistory::in_dir)
}

impl Explanation {
    /// Looks at the context of a build, which has a name where there are others too. What cannot be looked at is warned of,
    /// and nothing is explained then. Blocks.
    pub(crate) fn before(
        request: &BuildRequest,
        name: Option<&str>,
        around: &impl Surroundings,
    ) -> Option<Self> {
        let whose = name.map(|name| format!("{name}: ")).unwrap_or_default();
        let Some(history) = history(around) else {
            around.warn("--explain: there is no place for manifests: neither XDG_CACHE_HOME nor HOME is set");
            return None;
        };
        let look = || {
            let view = ContextView::of(request, None)?;
            let stop = AtomicBool::new(false);
            // What is odd about files is told by the build.
            let target = match (&request.dockerfile, name) {
                // Only the name tells two of these apart.
                (Dockerfile::Inline(_), Some(name)) => Some(name),
                _ => request.target.as_deref(),
            };
            let record = history.record(&view, target, &stop, &|_| {})?;
            Ok(Self {
                name: name.map(str::to_owned),
                record,
                needs: view.needs().clone(),
            })
        };
        look()
            .map_err(|e: bk_client::BuildError| around.warn(&format!("--explain: {whose}{e}")))
            .ok()
    }

    /// What there is to say when the build has ended; `steps` are those that ended, with whether each was cached.
    pub(crate) fn tell(&self, steps: &[(String, bool)]) -> String {
        let whose = match &self.name {
            Some(name) => format!("{}: ", neutralise_line(name)),
            None => String::new(),
        };
        let Some(changes) = self.record.changes() else {
            return format!(
                "explain: {whose}no earlier build of this context is known; the next one is compared with this one\n"
            );
        };
        let mut text = String::new();
        // Steps of one target of several begin with its name.
        let label = self
            .name
            .as_ref()
            .map(|name| format!("[{name} "))
            .unwrap_or_default();
        let own = steps.iter().filter(|(step, _)| step.starts_with(&label));
        for (name, _) in own.filter(|(_, cached)| !cached) {
            if let Some(need) = self.needs.instructions.iter().find(|need| is_of(name, need)) {
                text.push_str(&told(name, need, changes));
            }
        }
        if text.is_empty() && changes.list.is_empty() {
            text.push_str(&format!(
                "explain: {whose}nothing in the context has changed since the last build\n"
            ));
        }
        if changes.more > 0 {
            text.push_str(&format!(
                "explain: {whose}{} more files of the context have changed\n",
                changes.more
            ));
        }
        text
    }

    /// Keeps what the context is now for the next build.
    pub(crate) fn keep(self, around: &impl Surroundings) {
        if let Err(e) = self.record.keep() {
            around.warn(&format!("--explain: {e}"));
        }
    }
}

/// Whether a step `[2/3] COPY src /src` is that instruction.
fn is_of(step: &str, need: &Need) -> bool {
    let Some((_, instruction)) = step.split_once("] ") else {
        return false;
    };
    if instruction
        .split_whitespace()
        .eq(need.text.trim_end_matches('\\').split_whitespace())
    {
        return true;
    }
    // With values in place of variables, or on several lines.
    let words: Vec<&str> = instruction
        .split_whitespace()
        .map(|word| word.trim_start_matches("./").trim_matches('/'))
        .collect();
    let verb = need.text.split_whitespace().next().unwrap_or_default();
    let copies = words.first().is_some_and(|word| word.eq_ignore_ascii_case(verb));
    copies && !instruction.contains("--from=") && {
        let mut paths = need.paths.iter().map(|path| path.trim_matches('/'));
        paths.all(|path| {
            words
                .iter()
                .any(|word| *word == path || path.is_empty() && *word == ".")
        })
    }
}

fn told(name: &str, need: &Need, changes: &ContextChanges) -> String {
    let taken = changes.taken_by(need);
    let name = neutralise_line(name);
    if taken.is_empty() {
        return format!(
            "explain: {name}: nothing that it takes has changed since the last build: a step before it has, or the daemon's \
             cache lost it\n"
        );
    }
    let mut text = format!("explain: {name}: {}\n", counts(&taken));
    for change in taken.iter().take(EXPLAINED_FILES) {
        let (sign, note) = match change.what {
            Differs::Added => ('+', ""),
            Differs::Removed => ('-', ""),
            Differs::Kind => ('K', " (another kind of file)"),
            Differs::Mode => ('M', " (only its mode)"),
            Differs::Owner => ('O', " (only its owner)"),
            _ => ('C', ""),
        };
        let path = neutralise_line(&String::from_utf8_lossy(&change.path));
        text.push_str(&format!("  {sign} {path}{note}\n"));
    }
    let more = taken.len().saturating_sub(EXPLAINED_FILES);
    if more > 0 {
        text.push_str(&format!("  and {more} more; `bk ctx diff` lists them\n"));
    }
    text
}

fn counts(taken: &[&ContextDifference]) -> String {
    let count = |test: fn(Differs) -> bool| taken.iter().filter(|change| test(change.what)).count();
    let all = [
        (
            count(|d| matches!(d, Differs::Content | Differs::Kind)),
            "changed",
        ),
        (count(|d| d == Differs::Added), "added"),
        (count(|d| d == Differs::Removed), "removed"),
        (count(|d| d == Differs::Mode), "only modes"),
        (count(|d| d == Differs::Owner), "only owners"),
    ];
    let parts: Vec<String> = all
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    parts.join(", ")
}
