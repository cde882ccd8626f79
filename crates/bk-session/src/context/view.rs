//! A context as a daemon would see it: its files, its ignore file, and what the Dockerfile needs of it.
//!
//! The rule: the lists are those that the daemon's frontend would send along with its request, so that the walk is that of a
//! transfer. Everything here blocks.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use bk_build::{AskedFor, BuildError, BuildRequest, Context, Frontend, InputError, LocalFailure};
use bk_fsync::{
    FilePolicies, FilterOptions, MemoryTree, SendObserver, Tree, Utf8Policy,
    entry::{Entry, Kind},
    filter::{Filter, FilterError},
    path::RelPath,
    walk::{Walk, WalkError},
};

use super::{
    needs::{Given, Needs, needs},
    why::NeedFilter,
};
use crate::{
    context_tar::{
        DEFAULT_NAMES, IGNORE_FILE, at, bad_pattern, default_name, holding, ignore_file, local, rel,
    },
    limits::MAX_DOCKERFILE,
    service::stream::chain,
    sources::{CONTEXT, DOCKERFILE, Source, Sources},
};

/// An ignore file that holds.
pub(super) struct Ignore {
    /// Where it lies, for messages.
    pub(super) file: PathBuf,
    /// Where it is read from, and its name there.
    pub(super) from: Source,
    pub(super) name: String,
    /// Its patterns with their lines.
    pub(super) patterns: Vec<(Vec<u8>, usize)>,
}

/// What a build would send of one of its contexts.
///
/// The lists are those of the Dockerfile frontend: the patterns of the ignore file, and the sources of the instructions that
/// the target needs. Where these cannot be known without a daemon, [`warning`](Self::warning) says so, and everything that
/// the ignore file leaves counts as needed.
pub struct ContextView {
    pub(super) source: Source,
    pub(super) ignore: Option<Ignore>,
    /// By the ignore file and the needs.
    pub(super) filter: Filter,
    /// By the ignore file alone.
    pub(super) rules: Filter,
    pub(super) needs: Needs,
    /// One for each of the instructions that need something.
    pub(super) need_filters: Vec<NeedFilter>,
    policies: FilePolicies,
    /// The Dockerfile, if it lies on this machine.
    dockerfile: Option<PathBuf>,
    /// Its name in its source, and its text.
    text: (String, Vec<u8>),
    /// What is walked when nothing is needed.
    empty: MemoryTree,
}

impl ContextView {
    /// Looks at the main context of a request, or at the one named `look`. Reads the Dockerfile and the ignore file; blocks.
    ///
    /// Of several platforms only the first one counts.
    ///
    /// # Errors
    /// A context, Dockerfile or target that is missing, a bad ignore file, and a context that is not on this machine, are
    /// named.
    pub fn of(request: &BuildRequest, look: Option<&str>) -> Result<Self, BuildError> {
        if !matches!(request.frontend, Frontend::Dockerfile) {
            let why = "only contexts of Dockerfiles can be looked at";
            return Err(InputError::new("--frontend", why, "dockerfile.v0").into());
        }
        let sources = Sources::collected(request)?;
        let source = match look {
            None => sources.get(CONTEXT).ok_or_else(|| {
                let why = match &request.context {
                    Context::Archive(_) => "an archive is sent as it is",
                    _ => "it is fetched by the daemon, and never passes this machine",
                };
                InputError::new("the context", why, "a directory on this machine")
            })?,
            Some(name) => named(&sources, name)?,
        };
        let source = source.clone();
        let beside = sources
            .get(DOCKERFILE)
            .ok_or_else(|| BuildError::Misuse("there is no source for the Dockerfile".to_owned()))?;
        let name = match sources.dockerfile_name() {
            Some(name) => name,
            None => default_name(beside)?,
        };
        let text = dockerfile(beside, name)?;
        let given = Given {
            target: request.target.as_deref(),
            build_args: &request.build_args,
            platform: request.platforms.first().map(String::as_str),
            contexts: request.named_contexts.keys().map(String::as_str).collect(),
            look,
        };
        let needs = needs(&text, &given)?;
        let ignored = match look {
            None => {
                let given = sources.dockerfile_name().unwrap_or(DEFAULT_NAMES[0]);
                holding(&source, beside, given)?
            }
            Some(_) => ignore_file(&source, IGNORE_FILE)?.map(|found| (&source, found)),
        };
        let bad = |e: FilterError| match &ignored {
            Some((from, (file, patterns))) => bad_pattern(from, file, patterns, &e),
            None => InputError::new("the Dockerfile", chain(&e), "").into(),
        };
        let exclude: Vec<Vec<u8>> = ignored
            .iter()
            .flat_map(|(_, (_, patterns))| patterns.iter().map(|(pattern, _)| pattern.clone()))
            .collect();
        let tree = &*source.tree;
        let options = FilterOptions::new(Vec::new(), exclude.clone(), needs.follow());
        let filter = Filter::new(tree, &options).map_err(bad)?;
        let rules = Filter::new(tree, &FilterOptions::new(Vec::new(), exclude, Vec::new())).map_err(bad)?;
        let need_filters = NeedFilter::all(tree, &needs).map_err(bad)?;
        let ignore = ignored.map(|(from, (file, patterns))| Ignore {
            file: at(from, &file),
            from: from.clone(),
            name: file,
            patterns,
        });
        Ok(Self {
            ignore,
            filter,
            rules,
            needs,
            need_filters,
            policies: request.files.clone(),
            dockerfile: beside.root.as_ref().map(|root| root.join(name)),
            text: (name.to_owned(), text),
            empty: MemoryTree::new(),
            source,
        })
    }

    /// A view of a tree by lists as they are; the patterns stand on the lines from 1.
    #[cfg(test)]
    pub(super) fn by_lists(tree: MemoryTree, options: &FilterOptions) -> Result<Self, FilterError> {
        let only = FilterOptions::new(Vec::new(), options.exclude.clone(), Vec::new());
        let (filter, rules) = (Filter::new(&tree, options)?, Filter::new(&tree, &only)?);
        let source = Source {
            tree: std::sync::Arc::new(tree),
            root: None,
        };
        let lines = options.exclude.iter().cloned();
        Ok(Self {
            filter,
            rules,
            ignore: Some(Ignore {
                file: IGNORE_FILE.into(),
                from: source.clone(),
                name: IGNORE_FILE.to_owned(),
                patterns: lines.enumerate().map(|(at, p)| (p, at + 1)).collect(),
            }),
            source,
            needs: Needs {
                unknown: Some("lists".to_owned()),
                ..Needs::default()
            },
            need_filters: Vec::new(),
            policies: FilePolicies::default(),
            dockerfile: None,
            text: Default::default(),
            empty: MemoryTree::new(),
        })
    }

    /// The directory of this machine that the context is, if it is one.
    pub fn root(&self) -> Option<&Path> {
        self.source.root.as_deref()
    }

    /// The Dockerfile, if it lies on this machine.
    pub fn dockerfile(&self) -> Option<&Path> {
        self.dockerfile.as_deref()
    }

    /// The Dockerfile's name in its source, and its text.
    pub(super) fn dockerfile_text(&self) -> (&str, &[u8]) {
        (&self.text.0, &self.text.1)
    }

    /// The ignore file that holds, if there is one.
    pub fn ignore_file(&self) -> Option<&Path> {
        self.ignore.as_ref().map(|i| &*i.file)
    }

    /// What the instructions need.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// What is not exact about the view, in one line.
    pub fn warning(&self) -> Option<String> {
        let why = self.needs.unknown.as_deref()?;
        Some(format!(
            "{why}; everything that the ignore file leaves counts as needed"
        ))
    }

    /// The lists that a daemon would ask with; `None` if it would not ask, because nothing is needed.
    pub fn asked(&self) -> Option<AskedFor> {
        let exclude: Vec<&[u8]> = self
            .ignore
            .iter()
            .flat_map(|i| i.patterns.iter().map(|(pattern, _)| &**pattern))
            .collect();
        let follow = self.needs.follow();
        let follow: Vec<&[u8]> = follow.iter().map(Vec::as_slice).collect();
        (!self.needs.nothing()).then(|| AskedFor::new(&[], &exclude, &follow))
    }

    /// The files that may be walked.
    pub(super) fn tree(&self) -> &dyn Tree {
        match self.needs.nothing() {
            true => &self.empty,
            false => &*self.source.tree,
        }
    }

    /// How files are sent: which mode bits and owners go out.
    pub fn policies(&self) -> &FilePolicies {
        &self.policies
    }

    /// The entries that would be sent, in the order of the wire. Each step blocks; it ends early, without an error, once
    /// `stop` is set.
    pub fn walk<'a>(&'a self, observer: &'a dyn SendObserver, stop: &'a AtomicBool) -> Walk<'a> {
        Walk::new(self.tree(), &self.filter, Utf8Policy::Any, observer, stop)
    }

    /// Calls `each` with every entry that would be sent, in the order of the wire. What is odd is told to `warn`. Blocks.
    ///
    /// # Errors
    /// What `each` ends with, a directory that cannot be read, or [`BuildError::Cancelled`] soon after `stop` was set.
    pub fn list<E: From<BuildError>>(
        &self,
        stop: &AtomicBool,
        warn: &(dyn Fn(&str) + Send + Sync),
        mut each: impl FnMut(&Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let observer = Warn(warn);
        for entry in self.walk(&observer, stop) {
            each(&entry.map_err(|e| self.explain(e))?)?;
        }
        match stop.load(Ordering::Relaxed) {
            true => Err(BuildError::Cancelled.into()),
            false => Ok(()),
        }
    }

    /// The cause on this machine of a walk that could not go on.
    pub fn explain(&self, error: WalkError) -> BuildError {
        match error {
            WalkError::Io { action, path, source } => {
                LocalFailure::new(at(&self.source, &path), format!("cannot {action}: {source}"))
                    .caused_by(source)
                    .into()
            }
            WalkError::Filter(e) => self.bad(&e),
            e => LocalFailure::new(at(&self.source, ""), chain(&e))
                .caused_by(e)
                .into(),
        }
    }

    /// A pattern that turned out to be bad.
    pub(super) fn bad(&self, error: &FilterError) -> BuildError {
        match &self.ignore {
            Some(ignore) => bad_pattern(&ignore.from, &ignore.name, &ignore.patterns, error),
            None => InputError::new("the Dockerfile", chain(error), "").into(),
        }
    }
}

/// Tells warnings as text.
pub(super) struct Warn<'a>(pub(super) &'a (dyn Fn(&str) + Send + Sync));

impl SendObserver for Warn<'_> {
    fn warning(&self, warning: &bk_fsync::Warning<'_>) {
        (self.0)(&warning.to_string());
    }
}

/// A context by name.
fn named<'a>(sources: &'a Sources, name: &str) -> Result<&'a Source, BuildError> {
    let attrs = sources.frontend_attrs();
    let source = attrs
        .get(&format!("context:{name}"))
        .and_then(|value| value.strip_prefix("local:"));
    source.and_then(|source| sources.get(source)).ok_or_else(|| {
        let why = format!("`{name}` is no context on this machine");
        InputError::new("--build-context", why, "NAME=DIRECTORY beside NAME").into()
    })
}

/// The text of the Dockerfile.
fn dockerfile(beside: &Source, name: &str) -> Result<Vec<u8>, BuildError> {
    let file = beside
        .tree
        .open(rel(name))
        .map_err(|e| local(beside, name, "cannot open the Dockerfile", e))?;
    let mut text = Vec::new();
    file.take(MAX_DOCKERFILE + 1)
        .read_to_end(&mut text)
        .map_err(|e| local(beside, name, "cannot read the Dockerfile", e))?;
    if text.len() as u64 > MAX_DOCKERFILE {
        let e = io::Error::other(format!("it is longer than {} MiB", MAX_DOCKERFILE >> 20));
        return Err(local(beside, name, "cannot read the Dockerfile", e));
    }
    Ok(text)
}

/// What stands at a path of a tree, not through a link.
pub(super) fn kind_of(tree: &dyn Tree, path: RelPath<'_>) -> io::Result<Option<Kind>> {
    let Some((dir, name)) = path.split() else {
        return Ok(Some(Kind::Dir));
    };
    match tree.open_dir(dir).and_then(|dir| dir.stat(name)) {
        Ok(meta) => Ok(Some(meta.kind)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}
