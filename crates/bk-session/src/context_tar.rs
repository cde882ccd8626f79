//! A context as an archive: what is left of it after its ignore rules, and a Dockerfile that the daemon will find in it.
//!
//! The rule: where no session serves the files, nobody but us reads the ignore file, so it is read here the way the daemon's
//! frontend reads it. The Dockerfile and the ignore file are kept even if the rules leave them out, as Docker's own client
//! does; `COPY` can see them then, which is the price of an archive. Everything here blocks.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use bk_build::{BuildError, BuildRequest, Dockerfile, InputError, LocalFailure, Warning};
use bk_fsync::{
    FilePolicies, FilterOptions, MemoryTree, OverlayTree, SendObserver, Tree,
    entry::Kind,
    filter::{Filter, FilterError},
    path::{RelPath, show},
    pattern::read_ignore_file,
    tar::{TarError, TarWriter},
    walk::WalkError,
};

use crate::{
    context::mistakes::warnings,
    service::stream::chain,
    sources::{CONTEXT, DOCKERFILE, Source, Sources},
    unsent::{unreadable, unsent},
};

/// The names that the frontend looks for when none is given.
pub(crate) const DEFAULT_NAMES: [&str; 2] = ["Dockerfile", "dockerfile"];
/// The ignore file of a context.
pub(crate) const IGNORE_FILE: &str = ".dockerignore";
/// What is added to a Dockerfile's name to get the ignore file that is its own.
pub(crate) const IGNORE_SUFFIX: &str = ".dockerignore";
/// Under this name a Dockerfile from elsewhere stands in the root of the upload, unless the context has that name. It
/// is always the same, so that `COPY .` of an unchanged context stays cached.
const PLACED_NAME: &str = ".dockerfile.bk";

/// What goes into the archive of a context.
pub struct ContextTar {
    context: Source,
    /// Which of the context's files.
    filter: Filter,
    /// The Dockerfile's path in the archive.
    dockerfile: String,
    /// Where that file comes from when it is not in the context: a tree and the name there.
    placed: Option<(Arc<dyn Tree>, String)>,
    policies: FilePolicies,
    warnings: Vec<Warning>,
}

impl ContextTar {
    /// Reads what a request says of its context, its Dockerfile and its files. Blocks.
    ///
    /// # Errors
    /// A context or Dockerfile that is missing, or a bad ignore file, is named.
    pub fn of(request: &BuildRequest) -> Result<Self, BuildError> {
        Self::make(&Sources::collected(request)?, &request.dockerfile)
    }

    /// The same for sources that are there already. Blocks.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn make(sources: &Sources, wanted: &Dockerfile) -> Result<Self, BuildError> {
        let missing = |name: &str| BuildError::Misuse(format!("there is no source `{name}`"));
        let context = sources.get(CONTEXT).ok_or_else(|| missing(CONTEXT))?.clone();
        let beside = sources.get(DOCKERFILE).ok_or_else(|| missing(DOCKERFILE))?;
        let given = sources.dockerfile_name().unwrap_or(DEFAULT_NAMES[0]);
        let name = match sources.dockerfile_name() {
            Some(name) => name,
            None => default_name(beside)?,
        };

        let ignored = holding(&context, beside, given)?;
        let warnings = match &ignored {
            Some((from, (name, patterns))) => warnings(&context, &at(from, name), patterns),
            None => Vec::new(),
        };
        let (ignore_name, excludes) = ignored.map(|(_, found)| found).unwrap_or_default();
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
            warnings,
        })
    }

    /// What the user should know of the ignore file: patterns that cannot be what was meant.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The Dockerfile's path in the archive.
    pub fn dockerfile(&self) -> &str {
        &self.dockerfile
    }

    /// Whether the Dockerfile is not one of the context's own files, but stands in the archive under a name of its own.
    pub fn dockerfile_is_placed(&self) -> bool {
        self.placed.is_some()
    }

    /// The directory of this machine that the context is, if it is one.
    pub fn root(&self) -> Option<&Path> {
        self.context.root.as_deref()
    }

    /// Leaves out a file of this machine, such as the archive itself while it is written. Without effect if it is not in the
    /// context.
    pub fn leave_out(&mut self, file: &Path) {
        let Some(inside) = self.root().and_then(|root| file.strip_prefix(root).ok()) else {
            return;
        };
        let tree = OverlayTree::new(Arc::new(MemoryTree::new()), self.context.tree.clone());
        if let Ok(tree) = tree.hide(inside.as_os_str().as_encoded_bytes()) {
            self.context.tree = Arc::new(tree);
        }
    }

    /// Writes the archive and returns `out`, flushed. Ends soon after `stop` was set.
    ///
    /// # Errors
    /// [`TarError`]; what was written has no end mark then.
    pub fn write<W: Write>(
        &self,
        out: W,
        observer: &dyn SendObserver,
        stop: &AtomicBool,
    ) -> Result<W, TarError> {
        let mut tar = TarWriter::new(out)?.policies(self.policies.clone());
        if let Some((tree, name)) = &self.placed {
            let (from, to) = (rel(name), rel(&self.dockerfile));
            tar.append_file(&**tree, from, to, observer, stop)?;
        }
        tar.append_tree(&*self.context.tree, &self.filter, observer, stop)?;
        tar.finish()
    }

    /// Writes the archive to `out`, which messages call `name`, and returns it, flushed. What is left out or odd is told to
    /// `warn`. Ends with [`BuildError::Cancelled`] soon after `stop` was set. Blocks.
    ///
    /// # Errors
    /// What cannot be read or written is named; what was written has no end mark then.
    pub fn save<W: Write>(
        &self,
        out: W,
        name: &Path,
        stop: &AtomicBool,
        warn: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<W, BuildError> {
        struct Warn<'a>(&'a (dyn Fn(&str) + Send + Sync));
        impl SendObserver for Warn<'_> {
            fn warning(&self, warning: &bk_fsync::Warning<'_>) {
                (self.0)(&warning.to_string());
            }
        }
        self.write(out, &Warn(warn), stop).map_err(|error| match error {
            TarError::Write(e) => LocalFailure::new(name, "cannot write the archive")
                .caused_by(e)
                .into(),
            TarError::Stopped => BuildError::Cancelled,
            other => {
                let text = chain(&other);
                explain_tar_error(other, self.root()).unwrap_or(BuildError::Misuse(text))
            }
        })
    }
}

/// The cause on this machine of an archive that could not be written; none when nobody wanted more of it, or it was
/// stopped. `root` is where the context lies.
pub fn explain_tar_error(error: TarError, root: Option<&Path>) -> Option<BuildError> {
    let at = |path: &str| root.unwrap_or(Path::new("")).join(path);
    match error {
        TarError::File(e) => Some(unsent(at(&e.path), e.fault).into()),
        TarError::List(WalkError::Io { action, path, source }) => {
            Some(unreadable(at(&path), action, source).into())
        }
        TarError::List(WalkError::Filter(e)) => {
            Some(InputError::new("the ignore file", chain(&e), "").into())
        }
        TarError::List(e) => Some(LocalFailure::new(at(""), chain(&e)).caused_by(e).into()),
        _ => None,
    }
}

/// The default Dockerfile that is there.
pub(crate) fn default_name(beside: &Source) -> Result<&'static str, BuildError> {
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
pub(crate) type Ignored = (String, Vec<(Vec<u8>, usize)>);

/// The ignore file that holds for a context, and where it lies: the Dockerfile's own, `given` being the Dockerfile's name
/// in `beside`, else that of the context.
pub(crate) fn holding<'a>(
    context: &'a Source,
    beside: &'a Source,
    given: &str,
) -> Result<Option<(&'a Source, Ignored)>, BuildError> {
    Ok(match ignore_file(beside, &format!("{given}{IGNORE_SUFFIX}"))? {
        Some(found) => Some((beside, found)),
        None => ignore_file(context, IGNORE_FILE)?.map(|found| (context, found)),
    })
}

/// Reads an ignore file, if it is there.
pub(crate) fn ignore_file(source: &Source, name: &str) -> Result<Option<Ignored>, BuildError> {
    let root = match source.tree.open_dir(RelPath::ROOT) {
        Ok(root) => root,
        Err(e) => return Err(local(source, ".", "cannot open the directory", e)),
    };
    match root.stat(name.as_bytes()) {
        Ok(meta) if meta.kind == Kind::File => {}
        Ok(_) => {
            let e = io::Error::other("it must be a regular file for an archive of the context");
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

pub(crate) fn bad_pattern(
    context: &Source,
    file: &str,
    lines: &[(Vec<u8>, usize)],
    error: &FilterError,
) -> BuildError {
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
pub(crate) fn rel(name: &str) -> RelPath<'_> {
    RelPath::new(name.as_bytes()).unwrap_or(RelPath::ROOT)
}

pub(crate) fn at(source: &Source, name: &str) -> PathBuf {
    source.root.as_deref().unwrap_or(Path::new("")).join(name)
}

pub(crate) fn local(source: &Source, name: &str, what: &str, error: io::Error) -> BuildError {
    let path = if name == "." {
        at(source, "")
    } else {
        at(source, &show(name.as_bytes()))
    };
    let mut failure = LocalFailure::new(path, format!("{what}: {error}"));
    if error.kind() == io::ErrorKind::PermissionDenied {
        failure = failure.hint("make it readable for the user who builds");
    }
    failure.caused_by(error).into()
}
