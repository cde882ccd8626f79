//! Which entries of a tree the daemon gets to see: includes, excludes and followed paths.
//!
//! The rule: there is one decision ([`Filter::decide`]) and everything asks it — what is listed can be
//! requested, and an explanation of why a path is hidden tells the same truth. It answers as upstream does for
//! what is visible; directories in which nothing can be visible are pruned, by upstream's rule (which changes
//! answers in corners) and by one of our own (which does not).

use crate::follow::{FollowError, dedupe, follow_links};
use crate::path::RelPath;
use crate::pattern::{ParentMatches, Pattern, PatternError, PatternList, Verdict};
use crate::tree::Tree;

/// The three lists that come with a request for a tree. An empty list does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterOptions {
    /// Only what matches one of these is visible.
    pub include: Vec<Vec<u8>>,
    /// What matches these is not visible.
    pub exclude: Vec<Vec<u8>>,
    /// Paths whose links are followed and which are then included.
    pub follow: Vec<Vec<u8>>,
}

impl FilterOptions {
    /// The three lists: what to include, what to exclude, and whose links to follow.
    #[must_use]
    pub fn new(include: Vec<Vec<u8>>, exclude: Vec<Vec<u8>>, follow: Vec<Vec<u8>>) -> Self {
        FilterOptions {
            include,
            exclude,
            follow,
        }
    }
}

/// The filter cannot be made: the lists or the tree are at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// An include pattern is malformed.
    #[error("in the list of includes")]
    Include(#[source] PatternError),
    /// An exclude pattern is malformed.
    #[error("in the list of excludes")]
    Exclude(#[source] PatternError),
    /// A path could not be followed.
    #[error("in the list of paths to follow")]
    Follow(#[source] FollowError),
}

/// A compiled filter.
#[derive(Debug, Default)]
pub struct Filter {
    include: Option<PatternList>,
    exclude: Option<PatternList>,
    /// No include has a wildcard other than at its end, so upstream prunes by prefix.
    plain_includes: bool,
    /// The same for the exceptions among the excludes.
    plain_exceptions: bool,
}

/// What the patterns said about a directory, for deciding on its children.
#[derive(Debug, Clone, Default)]
pub struct DirState {
    include: ParentMatches,
    exclude: ParentMatches,
}

/// Why a path is visible or hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Nothing spoke against it.
    Unfiltered,
    /// This pattern of the includes decided (see [`Filter::includes`]).
    Include(usize),
    /// There are includes, and none of them matched.
    NotIncluded,
    /// This pattern of the excludes decided (see [`Filter::excludes`]).
    Exclude(usize),
}

/// The decision on one path.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Decision {
    /// Whether the entry itself is sent. A hidden directory is still sent if something below it is visible.
    pub visible: bool,
    /// For a directory: whether anything below it can be visible, so that it has to be opened.
    pub descend: bool,
    /// What decided on `visible`.
    pub reason: Reason,
    /// For a directory: what its children are decided with.
    pub state: DirState,
}

impl Filter {
    /// Compiles the lists; paths to follow are resolved in `tree` now. Blocks.
    ///
    /// # Errors
    /// [`FilterError`] for a malformed pattern, or if `tree` cannot be read on the way of a followed path.
    pub fn new(tree: &dyn Tree, options: &FilterOptions) -> Result<Self, FilterError> {
        let mut include = options.include.clone();
        if !options.follow.is_empty()
            && let Some(targets) = follow_links(tree, &options.follow).map_err(FilterError::Follow)?
        {
            include.extend(targets);
            include = dedupe(include).unwrap_or_default();
        }
        let mut filter = Filter {
            plain_includes: true,
            plain_exceptions: true,
            ..Filter::default()
        };
        if !include.is_empty() {
            let list = PatternList::new(&include).map_err(FilterError::Include)?;
            filter.plain_includes = list.patterns().iter().filter(|p| !p.is_exception()).all(is_plain);
            filter.include = Some(list);
        }
        if !options.exclude.is_empty() {
            let list = PatternList::new(&options.exclude).map_err(FilterError::Exclude)?;
            filter.plain_exceptions = list.patterns().iter().filter(|p| p.is_exception()).all(is_plain);
            filter.exclude = Some(list);
        }
        Ok(filter)
    }

    /// The includes in use, followed paths among them, if there are any.
    #[must_use]
    pub fn includes(&self) -> Option<&PatternList> {
        self.include.as_ref()
    }

    /// The excludes in use, if there are any.
    #[must_use]
    pub fn excludes(&self) -> Option<&PatternList> {
        self.exclude.as_ref()
    }

    /// Decides on `path`, given the state of the directory that holds it (the default value at the top).
    ///
    /// # Errors
    /// [`FilterError`] if a pattern turns out to be malformed only now.
    pub fn decide(
        &self,
        path: RelPath<'_>,
        is_dir: bool,
        parent: &DirState,
    ) -> Result<Decision, FilterError> {
        let path = path.as_bytes();
        let mut decision = Decision {
            visible: true,
            descend: is_dir,
            reason: Reason::Unfiltered,
            state: DirState::default(),
        };
        if let Some(list) = &self.include {
            let verdict = ask(list, path, is_dir, &parent.include, &mut decision.state.include)
                .map_err(FilterError::Include)?;
            decision.visible = verdict.matched;
            decision.reason = verdict.decided_by.map_or(Reason::NotIncluded, Reason::Include);
            if !verdict.matched {
                let wanted = |p: &Pattern| !p.is_exception();
                decision.descend &= !self.plain_includes || any_has_prefix(list, path, wanted);
                decision.descend &= list
                    .patterns()
                    .iter()
                    .any(|p| wanted(p) && p.may_match_below(path));
                if is_dir && !decision.descend {
                    return Ok(decision);
                }
            }
        }
        if let Some(list) = &self.exclude {
            let verdict = ask(list, path, is_dir, &parent.exclude, &mut decision.state.exclude)
                .map_err(FilterError::Exclude)?;
            if let Some(by) = verdict.decided_by
                && decision.visible
            {
                decision.reason = Reason::Exclude(by);
            }
            if verdict.matched {
                decision.visible = false;
                decision.descend &=
                    !self.plain_exceptions || any_has_prefix(list, path, Pattern::is_exception);
                // Only an exception after the pattern that decided can still change the answer below.
                let after = verdict.decided_by.map_or(0, |by| by + 1);
                let later = list.patterns().iter().skip(after);
                decision.descend &= later
                    .filter(|p| p.is_exception())
                    .any(|p| p.may_match_below(path));
            }
        }
        Ok(decision)
    }

    /// Decides on a single path without a walk, by deciding on every directory above it. The answer is the
    /// same as a walk's: hidden too if a directory above it is pruned.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    pub fn explain(&self, path: RelPath<'_>, is_dir: bool) -> Result<Decision, FilterError> {
        let mut state = DirState::default();
        let bytes = path.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            if *byte == b'/'
                && let Ok(dir) = RelPath::new(&bytes[..at])
            {
                let decision = self.decide(dir, true, &state)?;
                if !decision.descend {
                    return Ok(Decision {
                        visible: false,
                        ..decision
                    });
                }
                state = decision.state;
            }
        }
        self.decide(path, is_dir, &state)
    }
}

fn ask(
    list: &PatternList,
    path: &[u8],
    is_dir: bool,
    parent: &ParentMatches,
    own: &mut ParentMatches,
) -> Result<Verdict, PatternError> {
    if !is_dir {
        return list.matches_leaf(path, parent);
    }
    let (verdict, matches) = list.matches_below(path, parent)?;
    *own = matches;
    Ok(verdict)
}

/// Whether upstream takes the pattern for one without wildcards that matter to pruning.
fn is_plain(pattern: &Pattern) -> bool {
    !pattern
        .without_trailing_glob()
        .iter()
        .any(|b| b"*[]?^\\".contains(b))
}

/// Whether a chosen pattern lies in `dir` or is `dir`, which is upstream's test for opening a hidden directory.
fn any_has_prefix(list: &PatternList, dir: &[u8], chosen: impl Fn(&Pattern) -> bool) -> bool {
    list.patterns().iter().filter(|p| chosen(p)).any(|p| {
        let text = p.without_trailing_glob();
        text.strip_prefix(dir)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::MemoryTree;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let bytes = |list: &[&str]| list.iter().map(|p| p.as_bytes().to_vec()).collect();
        let options = FilterOptions {
            include: bytes(include),
            exclude: bytes(exclude),
            follow: Vec::new(),
        };
        Filter::new(&MemoryTree::new(), &options).unwrap()
    }

    fn explain(filter: &Filter, path: &str) -> Decision {
        filter
            .explain(RelPath::new(path.as_bytes()).unwrap(), true)
            .unwrap()
    }

    #[test]
    fn the_reason_is_the_deciding_pattern() {
        let filter = filter(&["src", "doc/*.md"], &["**/*.o", "!src/keep.o"]);
        assert_eq!(explain(&filter, "src/a.o").reason, Reason::Exclude(0));
        let kept = explain(&filter, "src/keep.o");
        assert!(kept.visible);
        assert_eq!(kept.reason, Reason::Exclude(1));
        assert_eq!(explain(&filter, "src/a.rs").reason, Reason::Include(0));
        assert_eq!(explain(&filter, "other").reason, Reason::NotIncluded);
        assert!(!explain(&filter, "other").descend);
        assert!(explain(&filter, "doc").descend);
    }

    #[test]
    fn directories_that_cannot_hold_anything_visible_are_pruned() {
        let plain = filter(&[], &["a", "node_modules", "!a/b/c"]);
        assert!(explain(&plain, "a").descend);
        assert!(!explain(&plain, "node_modules").descend);
        assert!(!explain(&plain, "a/x").descend);
        // An exception with a wildcard opens only the directories that it can reach into.
        let wild = filter(&[], &["*", "!src/*.rs"]);
        assert!(explain(&wild, "src").descend);
        assert!(!explain(&wild, "target").descend);
        // An exception before the pattern that decides has no say.
        let early = filter(&[], &["!**/x", "a"]);
        assert!(!explain(&early, "a").descend);
    }

    #[test]
    fn malformed_lists_say_which() {
        let options = FilterOptions {
            exclude: vec![b"a[".to_vec()],
            ..FilterOptions::default()
        };
        let err = Filter::new(&MemoryTree::new(), &options).unwrap_err();
        assert!(
            matches!(err, FilterError::Exclude(ref p) if p.pattern == "a["),
            "{err}"
        );
    }
}
