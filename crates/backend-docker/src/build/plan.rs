//! What goes into an upload: the context after its ignore rules, and a Dockerfile that the daemon will find in it.
//!
//! The rule: without a session nobody but us reads the ignore file, so it is read here the way the daemon's frontend
//! reads it. The Dockerfile and the ignore file are kept even if the rules leave them out, as Docker's own client does;
//! `COPY` can see them then, which is the price of this route. Everything here blocks.

use std::{io, path::Path, sync::Arc};

use bk_build::{BuildError, Dockerfile, InputError, LocalFailure};
use bk_fsync::{
    FilePolicies, FilterOptions, Tree,
    entry::Kind,
    filter::{Filter, FilterError},
    path::{RelPath, show},
    pattern::read_ignore_file,
};
use bk_session::{CONTEXT, DOCKERFILE, Source, Sources};

use bk_solve::chain;

/// The names that the frontend looks for when none is given.
const DEFAULT_NAMES: [&str; 2] = ["Dockerfile", "dockerfile"];
/// The ignore file of a context.
const IGNORE_FILE: &str = ".dockerignore";
/// What is added to a Dockerfile's name to get the ignore file that is its own.
const IGNORE_SUFFIX: &str = ".dockerignore";
/// Under this name a Dockerfile from elsewhere stands in the root of the upload, unless the context has that name. It
/// is always the same, so that `COPY .` of an unchanged context stays cached.
const PLACED_NAME: &str = ".dockerfile.bk";

/// What goes into an upload.
pub(super) struct Plan {
    /// The files.
    pub(super) context: Source,
    /// Which of them.
    pub(super) filter: Filter,
    /// The Dockerfile's path in the upload.
    pub(super) dockerfile: String,
    /// Where that file comes from when it is not in the context: a tree and the name there.
    pub(super) placed: Option<(Arc<dyn Tree>, String)>,
    /// How the files are sent.
    pub(super) policies: FilePolicies,
}

impl Plan {
    pub(super) fn make(sources: &Sources, wanted: &Dockerfile) -> Result<Self, BuildError> {
        let missing = |name: &str| BuildError::Misuse(format!("there is no source `{name}`"));
        let context = sources.get(CONTEXT).ok_or_else(|| missing(CONTEXT))?.clone();
        let beside = sources.get(DOCKERFILE).ok_or_else(|| missing(DOCKERFILE))?;
        let given = sources.dockerfile_name().unwrap_or(DEFAULT_NAMES[0]);
        let name = match sources.dockerfile_name() {
            Some(name) => name,
            None => default_name(beside)?,
        };

        let (ignore_name, excludes) = match ignore_file(beside, &format!("{given}{IGNORE_SUFFIX}"))? {
            Some(found) => found,
            None => ignore_file(&context, IGNORE_FILE)?.unwrap_or_default(),
        };
        let inside = match wanted {
            Dockerfile::Inline(_) => None,
            _ => path_inside(&context, beside, name),
        };
        let (dockerfile, placed) = match inside {
            Some(path) => (path, None),
            None => (free_name(&context)?, Some((beside.tree.clone(), name.to_owned()))),
        };

        let compile = |exclude: Vec<Vec<u8>>| {
            let mut options = FilterOptions::default();
            options.exclude = exclude;
            Filter::new(&*context.tree, &options)
        };
        let bad = |e: FilterError| bad_pattern(&context, &ignore_name, &excludes, &e);
        let patterns: Vec<Vec<u8>> = excludes.iter().map(|(pattern, _)| pattern.clone()).collect();
        let mut filter = compile(patterns.clone()).map_err(bad)?;
        let mut kept = Vec::new();
        for path in [IGNORE_FILE, &dockerfile] {
            let rel = RelPath::new(path.as_bytes())
                .map_err(|e| InputError::new("the Dockerfile", e.to_string(), "a path inside the context"))?;
            if !filter.explain(rel, false).map_err(bad)?.visible {
                kept.push(format!("!{path}").into_bytes());
            }
        }
        if !kept.is_empty() {
            filter = compile([patterns, kept].concat()).map_err(bad)?;
        }
        Ok(Self {
            context,
            filter,
            dockerfile,
            placed,
            policies: sources.policies().clone(),
        })
    }
}

/// The default Dockerfile that is there.
fn default_name(beside: &Source) -> Result<&'static str, BuildError> {
    for name in DEFAULT_NAMES {
        match beside.tree.open(rel(name)) {
            Ok(_) => return Ok(name),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(local(beside, name, "cannot open the Dockerfile", e)),
        }
    }
    let [first, second] = DEFAULT_NAMES;
    let text = format!("no Dockerfile in the context; looked for `{first}` and `{second}`");
    let root = beside.root.clone().unwrap_or_else(|| ".".into());
    Err(LocalFailure::new(root, text)
        .hint("name another file with -f")
        .into())
}

/// An ignore file: its name, and its patterns with their lines.
type Ignored = (String, Vec<(Vec<u8>, usize)>);

/// Reads an ignore file, if it is there.
fn ignore_file(source: &Source, name: &str) -> Result<Option<Ignored>, BuildError> {
    let root = match source.tree.open_dir(RelPath::ROOT) {
        Ok(root) => root,
        Err(e) => return Err(local(source, ".", "cannot open the directory", e)),
    };
    match root.stat(name.as_bytes()) {
        Ok(meta) if meta.kind == Kind::File => {}
        Ok(_) => {
            let e = io::Error::other("it must be a regular file on the Docker route tar");
            return Err(local(source, name, "cannot read the ignore file", e));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(local(source, name, "cannot read the ignore file", e)),
    }
    let file = source
        .tree
        .open(rel(name))
        .map_err(|e| local(source, name, "cannot read the ignore file", e))?;
    let lines =
        read_ignore_file(file).map_err(|e| LocalFailure::new(at(source, name), chain(&e)).caused_by(e))?;
    Ok(Some((
        name.to_owned(),
        lines.into_iter().map(|l| (l.pattern, l.line)).collect(),
    )))
}

/// The Dockerfile's path in the context, if it is a plain file there whose path can stand in a pattern and in a query.
fn path_inside(context: &Source, beside: &Source, name: &str) -> Option<String> {
    let path = match (&context.root, &beside.root) {
        (Some(context), Some(dir)) => {
            let dir = dir.strip_prefix(context).ok()?;
            dir.join(name).to_str()?.to_owned()
        }
        // A context that is no directory holds its Dockerfile itself.
        (None, None) => name.to_owned(),
        _ => return None,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/+@,".contains(&b);
    if !path.bytes().all(plain) {
        return None;
    }
    // Opened without following links: what stands in the upload must be the file itself.
    context
        .tree
        .open(RelPath::new(path.as_bytes()).ok()?)
        .is_ok()
        .then_some(path)
}

/// A name for a Dockerfile from elsewhere that nothing in the context has.
fn free_name(context: &Source) -> Result<String, BuildError> {
    let mut root = context
        .tree
        .open_dir(RelPath::ROOT)
        .map_err(|e| local(context, ".", "cannot open the directory", e))?;
    let taken = root
        .list()
        .map_err(|e| local(context, ".", "cannot list the directory", e))?;
    let mut name = PLACED_NAME.to_owned();
    let mut number = 0_u64;
    while taken.iter().any(|l| l.name == name.as_bytes()) {
        number += 1;
        name = format!("{PLACED_NAME}.{number}");
    }
    Ok(name)
}

fn bad_pattern(context: &Source, file: &str, lines: &[(Vec<u8>, usize)], error: &FilterError) -> BuildError {
    let FilterError::Exclude(pattern) = error else {
        return InputError::new(file, chain(error), "").into();
    };
    let what = match lines.get(pattern.index) {
        Some((_, line)) => format!("{}:{line}", at(context, file).display()),
        None => file.to_owned(),
    };
    InputError::new(what, pattern.to_string(), "").into()
}

/// A path of our own making: one component, or one that was checked.
fn rel(name: &str) -> RelPath<'_> {
    RelPath::new(name.as_bytes()).unwrap_or(RelPath::ROOT)
}

fn at(source: &Source, name: &str) -> std::path::PathBuf {
    source.root.as_deref().unwrap_or(Path::new("")).join(name)
}

fn local(source: &Source, name: &str, what: &str, error: io::Error) -> BuildError {
    let path = if name == "." {
        at(source, "")
    } else {
        at(source, &show(name.as_bytes()))
    };
    LocalFailure::new(path, format!("{what}: {error}"))
        .caused_by(error)
        .into()
}
