//! Several builds at once: how many, what happens when one fails, and one walk of what they share.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use bk_fsync::tree::{ListedTree, Tree};
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use crate::{
    BuildError, BuildOutcome, BuildRequest, Context, EventSink, ImageBuilder, InputError, limits::SET_BUILDS,
};

/// Builds that belong together, each under a name of its own.
///
/// Requests with the same context (the same path as it was given, or the same [`Tree`] by its address) share one walk:
/// each directory is listed once and each entry asked about once for all of them, as long as the set runs, up to
/// [`LISTED_ENTRIES`](bk_fsync::limits::LISTED_ENTRIES) answers. All of them see the tree as the first one found it. What
/// the daemon lacks it asks for build by build.
///
/// ```no_run
/// # async fn example(builder: &dyn bk_build::ImageBuilder) -> Result<(), bk_build::InputError> {
/// use bk_build::{BuildRequest, BuildSet, EventSink, SetEnd};
///
/// let set = BuildSet::new()
///     .target("web", BuildRequest::new(".").target("web").tag("web"))
///     .target("worker", BuildRequest::new(".").target("worker").tag("worker"))
///     .limit(2);
/// for result in set.run(builder, |_name| EventSink::discard()).await? {
///     match result.end {
///         SetEnd::Built(outcome) => assert!(outcome.image_id.is_some()),
///         SetEnd::Failed(error) => eprintln!("{}: {error}", result.name),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BuildSet {
    targets: Vec<(String, BuildRequest)>,
    limit: usize,
    keep_going: bool,
}

impl Default for BuildSet {
    fn default() -> Self {
        Self::new()
    }
}

/// A build of a set, and how it ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct SetResult {
    /// The name under which it was added.
    pub name: String,
    /// How it ended.
    pub end: SetEnd,
}

/// How one build of a set ended.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one a build, and most of them succeed"
)]
#[non_exhaustive]
pub enum SetEnd {
    /// It succeeded.
    Built(BuildOutcome),
    /// It failed.
    Failed(BuildError),
    /// It was cancelled because another one had failed.
    Stopped,
    /// It was not begun because another one had failed.
    NotBegun,
}

impl SetEnd {
    /// Whether the build succeeded.
    pub fn is_built(&self) -> bool {
        matches!(self, Self::Built(_))
    }
}

impl BuildSet {
    /// No builds yet; [`SET_BUILDS`] at once, and the first failure stops the others.
    pub fn new() -> Self {
        Self {
            targets: Vec::new(),
            limit: SET_BUILDS,
            keep_going: false,
        }
    }

    /// Adds a build. They begin in the order in which they were added.
    #[must_use]
    pub fn target(mut self, name: impl Into<String>, request: BuildRequest) -> Self {
        self.targets.push((name.into(), request));
        self
    }

    /// Sets how many builds run at the same time; the default is [`SET_BUILDS`].
    #[must_use]
    pub fn limit(mut self, builds: usize) -> Self {
        self.limit = builds;
        self
    }

    /// Sets whether the others go on when one has failed; the default is no.
    #[must_use]
    pub fn keep_going(mut self, yes: bool) -> Self {
        self.keep_going = yes;
        self
    }

    /// Runs all of them; `events` gives the sink of each one by its name, when it begins. Results come in the order in
    /// which the builds were added, whatever became of them.
    ///
    /// Dropping the future cancels every build that runs.
    ///
    /// # Errors
    /// An [`InputError`] when a name is empty or stands there twice, when a request is wrong as
    /// [`BuildRequest::validate`] finds, or when the limit is 0: nothing was begun then.
    pub async fn run(
        self,
        builder: &dyn ImageBuilder,
        mut events: impl FnMut(&str) -> EventSink,
    ) -> Result<Vec<SetResult>, InputError> {
        self.check()?;
        let (limit, keep_going) = (self.limit, self.keep_going);
        let mut results = Vec::new();
        let mut waiting = Vec::new();
        for (index, (name, request)) in share_walks(self.targets).into_iter().enumerate() {
            results.push(SetResult {
                name,
                end: SetEnd::NotBegun,
            });
            waiting.push((index, request));
        }
        let mut waiting = waiting.into_iter();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < limit
                && let Some((index, request)) = waiting.next()
            {
                let result = &mut results[index];
                result.end = SetEnd::Stopped;
                let sink = events(&result.name);
                running.push(async move { (index, builder.build(request, sink).await) });
            }
            let Some((index, result)) = running.next().await else {
                return Ok(results);
            };
            let failed = result.is_err();
            results[index].end = match result {
                Ok(outcome) => SetEnd::Built(outcome),
                Err(error) => SetEnd::Failed(error),
            };
            if failed && !keep_going {
                // Dropping them cancels them.
                drop(running);
                return Ok(results);
            }
        }
    }

    fn check(&self) -> Result<(), InputError> {
        if self.limit == 0 {
            return Err(InputError::new("limit", "no build could ever begin", "1 or more"));
        }
        let mut names = BTreeSet::new();
        for (name, request) in &self.targets {
            if name.is_empty() || !names.insert(name) {
                let why = format!("`{name}` is empty or stands there twice");
                return Err(InputError::new("target", why, "a name of its own for each build"));
            }
            request.validate().map_err(|mut e| {
                e.message = format!("target `{name}`: {}", e.message);
                e
            })?;
        }
        Ok(())
    }
}

/// Puts one view that remembers in place of each context that several requests have.
fn share_walks(mut targets: Vec<(String, BuildRequest)>) -> Vec<(String, BuildRequest)> {
    #[derive(PartialEq, Eq, Hash)]
    enum Key {
        Dir(PathBuf),
        /// By the address of a tree that the requests keep alive.
        Tree(usize),
    }
    let key = |context: &Context| match context {
        Context::Dir(path) => Some(Key::Dir(path.clone())),
        Context::Tree(tree) => Some(Key::Tree(Arc::as_ptr(tree).cast::<()>() as usize)),
        _ => None,
    };
    let mut uses: HashMap<Key, usize> = HashMap::new();
    for key in targets.iter().filter_map(|(_, request)| key(&request.context)) {
        *uses.entry(key).or_default() += 1;
    }
    let mut views: HashMap<Key, ListedTree> = HashMap::new();
    for (_, request) in &mut targets {
        let Some(key) = key(&request.context).filter(|key| uses.get(key).is_some_and(|n| *n > 1)) else {
            continue;
        };
        request.context = match std::mem::replace(&mut request.context, Context::None) {
            Context::Dir(path) => {
                let view = views
                    .entry(key)
                    .or_insert_with(|| ListedTree::of_dir(&path))
                    .clone();
                Context::DirThrough(path, Arc::new(view))
            }
            Context::Tree(tree) => {
                let view = views.entry(key).or_insert_with(|| ListedTree::new(tree)).clone();
                Context::Tree(Arc::new(view) as Arc<dyn Tree>)
            }
            other => other,
        };
    }
    targets
}

#[cfg(test)]
mod tests;
