//! Why a path is sent or not: the pattern that decides, and the instructions that need it.
//!
//! The rule: the answer is the filter's own, taken down the same directories that a walk goes.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use bk_build::{BuildError, InputError};
use bk_fsync::{
    FilterOptions, SendObserver, Tree, Utf8Policy, Warning,
    entry::Kind,
    filter::{Decision, DirState, Filter, FilterError, Reason},
    path::{RelPath, clean, show},
    walk::Walk,
};

use super::{
    needs::{Need, Needs},
    view::{ContextView, Ignore, kind_of},
};
use crate::context_tar::local;

/// A pattern of an ignore file that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deciding {
    /// The ignore file.
    pub file: PathBuf,
    /// The line that the pattern stands on, from 1.
    pub line: usize,
    /// The pattern, cleaned as daemons read it; a leading `!` takes back.
    pub pattern: Vec<u8>,
    /// Where it decided: the path itself or, if that settles it, a directory above.
    pub at: Vec<u8>,
}

/// Why a path is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhyNot {
    /// The context does not have it.
    Missing,
    /// The ignore file leaves it out.
    Ignored,
    /// No instruction needs it.
    NotNeeded,
    /// It is a socket; these never travel.
    Socket,
}

/// Whether a path is sent, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Why {
    /// The path from the root of the context.
    pub path: Vec<u8>,
    /// What it is, if it is there.
    pub kind: Option<Kind>,
    /// Why it is not sent. `None`: it is.
    pub not: Option<WhyNot>,
    /// It is a directory that is left out itself, but something below it is sent, so it is sent as well.
    pub holds_sent: bool,
    /// The pattern of the ignore file that had the last word on it, if one had.
    pub by: Option<Deciding>,
    /// The instructions that need it. Empty too when what is needed is not known here.
    pub needed_by: Vec<Need>,
}

impl Why {
    /// Whether the path is sent.
    pub fn sent(&self) -> bool {
        self.not.is_none()
    }
}

/// What one instruction needs.
pub(super) struct NeedFilter {
    /// Which of the instructions.
    at: usize,
    /// `None`: everything.
    filter: Option<Filter>,
}

impl NeedFilter {
    pub(super) fn all(tree: &dyn Tree, needs: &Needs) -> Result<Vec<Self>, FilterError> {
        let instructions = needs.instructions.iter().enumerate();
        instructions
            .map(|(at, need)| {
                if need.paths.iter().any(|p| p == "/") {
                    return Ok(Self { at, filter: None });
                }
                let follow = need.paths.iter().map(|p| p.as_bytes().to_vec()).collect();
                let filter = Filter::new(tree, &FilterOptions::new(Vec::new(), Vec::new(), follow))?;
                Ok(Self {
                    at,
                    filter: Some(filter),
                })
            })
            .collect()
    }
}

struct Quiet;

impl SendObserver for Quiet {
    fn warning(&self, _: &Warning<'_>) {}
}

impl ContextView {
    /// Says of a path below the root of the context whether it is sent, and why. Blocks; of a directory that is left out
    /// itself the context is walked until something below it is seen.
    ///
    /// # Errors
    /// A path that does not lie in the context, or cannot be asked for, is named.
    pub fn why(&self, path: &[u8]) -> Result<Why, BuildError> {
        let rel = RelPath::new(path)
            .map_err(|e| InputError::new("PATH", e.to_string(), "a path inside the context"))?;
        let tree = &*self.source.tree;
        let kind = kind_of(tree, rel)
            .map_err(|e: io::Error| local(&self.source, &show(path), "cannot look at it", e))?;
        let is_dir = kind == Some(Kind::Dir);
        let ask = |filter: &Filter| decide(filter, rel, is_dir);
        let (decision, _) = ask(&self.filter).map_err(|e| self.bad(&e))?;
        let (by_rules, settled) = ask(&self.rules).map_err(|e| self.bad(&e))?;
        let mut needed_by = Vec::new();
        for need in &self.need_filters {
            let needed = match &need.filter {
                None => true,
                Some(filter) => {
                    let (asked, _) = ask(filter).map_err(|e| self.bad(&e))?;
                    asked.visible || self.is_listed(filter, rel, &asked)?
                }
            };
            if needed {
                needed_by.extend(self.needs.instructions.get(need.at).cloned());
            }
        }
        let nothing = self.needs.nothing();
        let holds_sent = !nothing && !decision.visible && self.is_listed(&self.filter, rel, &decision)?;
        let not = match kind {
            None => Some(WhyNot::Missing),
            _ if path.is_empty() && !nothing => None,
            Some(Kind::Socket) => Some(WhyNot::Socket),
            _ if !nothing && (decision.visible || holds_sent) => None,
            _ if !by_rules.visible => Some(WhyNot::Ignored),
            _ => Some(WhyNot::NotNeeded),
        };
        let by = match by_rules.reason {
            Reason::Exclude(at) => self
                .ignore
                .as_ref()
                .and_then(|ignore| self.deciding(ignore, at, settled)),
            _ => None,
        };
        Ok(Why {
            path: path.to_vec(),
            kind,
            not,
            holds_sent,
            by,
            needed_by,
        })
    }

    /// The path, as [`why`](Self::why) takes it, of a file that somebody names from the root of the context, or with its
    /// whole path on this machine.
    ///
    /// # Errors
    /// A path outside the context is named.
    pub fn path_of(&self, named: &Path) -> Result<Vec<u8>, BuildError> {
        let outside = || {
            let why = format!("`{}` is not in the context", named.display());
            InputError::new("PATH", why, "a path from the root of the context")
        };
        let inside = match (named.is_absolute(), self.root()) {
            (false, _) => named,
            (true, Some(root)) => named.strip_prefix(root).map_err(|_| outside())?,
            (true, None) => return Err(outside().into()),
        };
        let path = clean(inside.as_os_str().as_encoded_bytes());
        match &*path {
            b"." => Ok(Vec::new()),
            b".." => Err(outside().into()),
            path if path.starts_with(b"../") => Err(outside().into()),
            _ => Ok(path),
        }
    }

    /// Whether a walk lists a directory that is not visible itself.
    fn is_listed(&self, filter: &Filter, path: RelPath<'_>, decision: &Decision) -> Result<bool, BuildError> {
        if !decision.descend {
            return Ok(false);
        }
        let stop = AtomicBool::new(false);
        for entry in Walk::new(&*self.source.tree, filter, Utf8Policy::Any, &Quiet, &stop) {
            let entry = entry.map_err(|e| self.explain(e))?;
            if entry.path == path.as_bytes() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn deciding(&self, ignore: &Ignore, at: usize, settled: &[u8]) -> Option<Deciding> {
        let pattern = self.rules.excludes()?.patterns().get(at)?;
        let (text, line) = ignore.patterns.get(pattern.index())?;
        Some(Deciding {
            file: ignore.file.clone(),
            line: *line,
            pattern: text.clone(),
            at: settled.to_vec(),
        })
    }
}

/// Decides on a path, going down from the root, and says where it was settled: there, or in a directory above that no walk
/// opens.
fn decide<'a>(filter: &Filter, path: RelPath<'a>, is_dir: bool) -> Result<(Decision, &'a [u8]), FilterError> {
    let (bytes, mut state) = (path.as_bytes(), DirState::default());
    for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'/') {
        let Ok(dir) = RelPath::new(&bytes[..at]) else {
            continue;
        };
        let decision = filter.decide(dir, true, &state)?;
        if !decision.descend {
            let mut hidden = decision;
            hidden.visible = false;
            return Ok((hidden, &bytes[..at]));
        }
        state = decision.state;
    }
    Ok((filter.decide(path, is_dir, &state)?, bytes))
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
