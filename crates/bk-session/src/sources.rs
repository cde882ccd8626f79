//! The local sources of a build, by the names under which the daemon's frontend asks for them.

use std::{
    collections::BTreeMap,
    fs::Metadata,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bk_build::{BuildError, BuildRequest, Context, Dockerfile, Frontend, InputError, LocalFailure};
use bk_fsync::FilePolicies;
use bk_fsync::tree::{DirTree, FilesTree, MemoryTree, Tree};

use bk_proto::Id;

use crate::archive::ArchiveStream;
use crate::context_tar::IGNORE_FILE;
use crate::service::upload::Offered;
use crate::shared_key::{host_name, shared_key};

/// The source that `COPY` and `ADD` see.
pub const CONTEXT: &str = "context";
/// The source that the Dockerfile comes from.
pub const DOCKERFILE: &str = "dockerfile";

/// The frontend's default name, and the one it tries next.
const DEFAULT_NAMES: [&str; 2] = ["Dockerfile", "dockerfile"];

/// One local source: a tree, and where it lies on disk if it does.
#[derive(Clone)]
#[non_exhaustive]
pub struct Source {
    /// The files.
    pub tree: Arc<dyn Tree>,
    /// Its root on this machine, for messages.
    pub root: Option<PathBuf>,
}

/// The local sources of a build.
#[derive(Clone, Default)]
pub struct Sources {
    pub(crate) by_name: BTreeMap<String, Source>,
    dockerfile_name: Option<String>,
    pub(crate) attrs: BTreeMap<String, String>,
    pub(crate) shared_key: String,
    /// A context that is sent as it is.
    pub(crate) archive: Option<Offered>,
    policies: FilePolicies,
}

impl Sources {
    /// No sources at all: the daemon gets no files.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a source under the name by which the daemon will ask for it.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, tree: Arc<dyn Tree>, root: Option<PathBuf>) -> Self {
        self.by_name.insert(name.into(), Source { tree, root });
        self
    }

    /// Sets how the files of all sources are sent. Default: that of each policy.
    #[must_use]
    pub fn with_policies(mut self, policies: FilePolicies) -> Self {
        self.policies = policies;
        self
    }

    /// How the files of all sources are sent.
    #[must_use]
    pub fn policies(&self) -> &FilePolicies {
        &self.policies
    }

    /// The context and the Dockerfile of a request. Reads directories, off the async threads.
    ///
    /// # Errors
    /// [`BuildError::Local`] names a context that is missing or no directory, and the Dockerfile names that were
    /// looked for.
    pub async fn of(request: &BuildRequest) -> Result<Self, BuildError> {
        let request = request.clone();
        tokio::task::spawn_blocking(move || Self::collected(&request))
            .await
            .unwrap_or_else(|e| Err(BuildError::Misuse(format!("the runtime was shut down: {e}"))))
    }

    /// The same, on this thread.
    pub(crate) fn collected(request: &BuildRequest) -> Result<Self, BuildError> {
        let (context, dockerfile) = (&request.context, &request.dockerfile);
        let named = &request.named_contexts;
        let definition = matches!(request.frontend, Frontend::Definition(_));
        let mut sources = match definition {
            true => Self::none(),
            false => Self::collect(context, dockerfile, request.shared_key.clone())?,
        };
        sources.add_named(named, definition)?;
        Ok(sources.with_policies(request.files.clone()))
    }

    fn collect(context: &Context, dockerfile: &Dockerfile, key: Option<String>) -> Result<Self, BuildError> {
        let mut this = Self::none();
        let mut context_dir = None;
        match context {
            Context::Dir(path) | Context::DirThrough(path, _) => {
                let dir = canonical_dir(path)?;
                let ignore = dir.join(IGNORE_FILE);
                check_kind(&ignore, std::fs::symlink_metadata(&ignore))?;
                let tree = DirTree::open(&dir)
                    .map_err(|e| LocalFailure::new(path, "cannot open the context directory").caused_by(e))?;
                let tree: Arc<dyn Tree> = match context {
                    Context::DirThrough(_, through) => through.clone(),
                    _ => Arc::new(tree),
                };
                this = this.with(CONTEXT, tree, Some(dir.clone()));
                this.shared_key = shared_key(&dir, &host_name());
                context_dir = Some(dir);
            }
            Context::Tree(tree) => this = this.with(CONTEXT, tree.clone(), None),
            Context::None => this = this.with(CONTEXT, Arc::new(MemoryTree::new()), None),
            Context::Remote(_) => {}
            Context::Archive(archive) => this.offer(ArchiveStream::open(archive)?),
            _ => {
                return Err(BuildError::Misuse(
                    "this kind of context is not supported".to_owned(),
                ));
            }
        }
        if let Some(key) = key {
            this.shared_key = key;
        }
        match dockerfile {
            Dockerfile::InContext(path) => this.dockerfile_inside(path, context_dir.as_deref())?,
            Dockerfile::Default if matches!(context, Context::Remote(_) | Context::Archive(_)) => {}
            Dockerfile::Default => match &context_dir {
                Some(dir) => {
                    if !DEFAULT_NAMES.iter().any(|n| exists(&dir.join(n))) {
                        return Err(missing_default(dir).into());
                    }
                    this.add_dockerfile_dir(dir, DEFAULT_NAMES[0])?;
                }
                None => {
                    let tree = this.by_name[CONTEXT].tree.clone();
                    this = this.with(DOCKERFILE, tree, None);
                }
            },
            Dockerfile::Path(path) => {
                let name = path.file_name().ok_or_else(|| {
                    InputError::new("--file", format!("`{}` names no file", path.display()), "a path")
                })?;
                let name = name.to_str().ok_or_else(|| {
                    InputError::new(
                        "--file",
                        format!("`{}` is not UTF-8", path.display()),
                        "a file name in UTF-8",
                    )
                })?;
                if !exists(path) {
                    return Err(LocalFailure::new(path, "there is no such Dockerfile")
                        .hint(
                            "the path given with -f is relative to the current directory, not to the context",
                        )
                        .into());
                }
                if path.is_dir() {
                    return Err(LocalFailure::new(path, "is a directory, not a Dockerfile")
                        .hint("name the file in it with -f")
                        .into());
                }
                let dir = path
                    .parent()
                    .filter(|p| !p.as_os_str().is_empty())
                    .unwrap_or(Path::new("."));
                let dir = canonical_dir(dir)?;
                this.dockerfile_name = Some(name.to_owned());
                this.add_dockerfile_dir(&dir, name)?;
            }
            Dockerfile::Inline(text) => {
                let mut tree = MemoryTree::new();
                tree.add_file(DEFAULT_NAMES[0], 0o644, text.clone())
                    .map_err(|e| InputError::new("the Dockerfile", e.to_string(), ""))?;
                this = this.with(DOCKERFILE, Arc::new(tree), None);
            }
            _ => {
                return Err(BuildError::Misuse(
                    "this kind of Dockerfile is not supported".to_owned(),
                ));
            }
        }
        Ok(this)
    }

    /// Makes a context of an archive, under an address that nothing else has.
    fn offer(&mut self, stream: ArchiveStream) {
        let id = Id::random().to_string();
        self.attrs
            .insert("context".to_owned(), format!("http://buildkit-session/{id}"));
        self.archive = Some(Offered {
            id,
            stream: Arc::new(Mutex::new(Some(stream))),
        });
    }

    /// The archive that is the context, for a route that sends it in its own way. The session does not send it then.
    pub fn take_archive(&mut self) -> Option<ArchiveStream> {
        let offered = self.archive.take()?;
        self.attrs.remove("context");
        let mut stream = offered.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.take()
    }

    /// A Dockerfile that the context holds.
    fn dockerfile_inside(&mut self, path: &str, dir: Option<&Path>) -> Result<(), BuildError> {
        let rel = bk_fsync::path::RelPath::new(path.as_bytes())
            .map_err(|e| InputError::new("--file", format!("`{path}`: {e}"), "a path inside the context"))?;
        match (dir, self.by_name.get(CONTEXT).cloned()) {
            // Only its own directory is served, as for a path on this machine.
            (Some(dir), _) => {
                let file = dir.join(path);
                if !exists(&file) {
                    return Err(LocalFailure::new(file, "there is no such Dockerfile").into());
                }
                let place = file.parent().unwrap_or(dir).to_owned();
                let name = path.rsplit('/').next().unwrap_or(path).to_owned();
                self.add_dockerfile_dir(&place, &name)?;
                self.dockerfile_name = Some(name);
            }
            (None, Some(context)) => {
                context.tree.open(rel).map_err(|e| {
                    LocalFailure::new(path, "there is no such Dockerfile in the context").caused_by(e)
                })?;
                self.by_name.insert(DOCKERFILE.to_owned(), context);
                self.dockerfile_name = Some(path.to_owned());
            }
            // The daemon looks for it in what it has fetched.
            (None, None) => self.dockerfile_name = Some(path.to_owned()),
        }
        Ok(())
    }

    /// Serves the files that the frontend looks for beside a Dockerfile, and nothing else: the directory is not listed.
    fn add_dockerfile_dir(&mut self, dir: &Path, name: &str) -> Result<(), BuildError> {
        let mut names = vec![name.to_owned(), format!("{name}.dockerignore")];
        if name == DEFAULT_NAMES[0] {
            names.push(DEFAULT_NAMES[1].to_owned());
        }
        for name in &names {
            let file = dir.join(name);
            check_kind(&file, std::fs::metadata(&file))?;
        }
        let tree = FilesTree::in_dir(dir, &names)
            .map_err(|e| InputError::new("--file", e.to_string(), "a file name"))?;
        self.by_name.insert(
            DOCKERFILE.to_owned(),
            Source {
                tree: Arc::new(tree),
                root: Some(dir.to_owned()),
            },
        );
        Ok(())
    }

    /// The Dockerfile's name inside its source, when it is not the frontend's default.
    pub fn dockerfile_name(&self) -> Option<&str> {
        self.dockerfile_name.as_deref()
    }

    /// Attributes for the frontend that say which sources stand behind the names of contexts.
    pub fn frontend_attrs(&self) -> BTreeMap<String, String> {
        self.attrs.clone()
    }

    /// A source by name.
    pub fn get(&self, name: &str) -> Option<&Source> {
        self.by_name.get(name)
    }

    /// The key under which the daemon keeps what was transferred; empty when there is no directory to tell apart.
    pub fn shared_key(&self) -> &str {
        &self.shared_key
    }
}

pub(crate) fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// Refuses what is no file where a daemon looks for text: it would wait at a named pipe for ever.
fn check_kind(path: &Path, found: io::Result<Metadata>) -> Result<(), LocalFailure> {
    let Ok(kind) = found.map(|found| found.file_type()) else {
        return Ok(());
    };
    if kind.is_file() || kind.is_dir() || kind.is_symlink() {
        return Ok(());
    }
    Err(LocalFailure::new(
        path,
        "is a named pipe, a socket or a device, and has to be a file",
    ))
}

fn missing_default(dir: &Path) -> LocalFailure {
    let [first, second] = DEFAULT_NAMES;
    LocalFailure::new(
        dir,
        format!("no Dockerfile in the context; looked for `{first}` and `{second}`"),
    )
    .hint("name another file with -f")
}

pub(crate) fn canonical_dir(path: &Path) -> Result<PathBuf, LocalFailure> {
    let dir = path.canonicalize().map_err(|e| {
        let what = match e.kind() {
            io::ErrorKind::NotFound => "there is no such directory",
            _ => "cannot be reached",
        };
        LocalFailure::new(path, what).caused_by(e)
    })?;
    if !dir.is_dir() {
        return Err(LocalFailure::new(path, "is not a directory").hint("the context must be a directory"));
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn failure(request: BuildRequest) -> String {
        match Sources::of(&request).await {
            Err(e) => e.to_string(),
            Ok(_) => panic!("must fail"),
        }
    }

    #[tokio::test]
    async fn names_what_is_missing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path();
        let text = failure(BuildRequest::new(path)).await;
        assert!(
            text.contains("looked for `Dockerfile` and `dockerfile`"),
            "{text}"
        );
        let gone = path.join("gone");
        assert_eq!(
            failure(BuildRequest::new(gone.as_path())).await,
            format!("{}: there is no such directory", gone.display())
        );
        let file = path.join("file");
        std::fs::write(&file, "x").expect("write");
        assert!(
            failure(BuildRequest::new(file.as_path()))
                .await
                .ends_with("is not a directory")
        );
        let other = path.join("Other");
        let request = BuildRequest::new(path).dockerfile(Dockerfile::Path(other.clone()));
        assert_eq!(
            failure(request).await,
            format!("{}: there is no such Dockerfile", other.display())
        );
    }

    #[tokio::test]
    async fn the_key_is_stable_per_canonical_directory() {
        let dir = tempfile::tempdir().expect("temp dir");
        let real = dir.path().join("real");
        std::fs::create_dir(&real).expect("mkdir");
        std::fs::write(real.join("dockerfile"), "FROM scratch").expect("write");
        std::os::unix::fs::symlink("real", dir.path().join("link")).expect("link");
        let a = Sources::of(&BuildRequest::new(real.as_path()))
            .await
            .expect("sources");
        let b = Sources::of(&BuildRequest::new(dir.path().join("link").as_path()))
            .await
            .expect("sources");
        assert_eq!(a.shared_key(), b.shared_key());
        assert!(!a.shared_key().is_empty());
        assert_eq!(a.dockerfile_name(), None);
        let c = Sources::of(&BuildRequest::new(real.as_path()).shared_key("mine"))
            .await
            .expect("sources");
        assert_eq!(c.shared_key(), "mine");
    }
}
