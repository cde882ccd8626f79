//! What is asked of a builder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
};

use bk_fsync::{ChangePolicy, FilePolicies, ModePolicy, OwnerPolicy, SyncPolicy, tree::Tree};
use bytes::Bytes;

use crate::{
    Annotation, Archive, Attestation, Cache, CallHeaders, CredentialProvider, Entitlement, Frontend,
    InputError, Inspect, NamedContext, Output, OutputKind, Patience, PolicyVerifier, SecretProvider,
    SecretSource, SessionExporter, Sink, SourcePolicy, SshForward, StepOptions, TraceContext, cache, named,
};

/// One build: a context, a Dockerfile and what to do with them. Only the context is mandatory.
///
/// Fields are public to be read and changed; the setters chain. Flags mean what they mean in `docker buildx build`.
#[derive(Clone)]
#[non_exhaustive]
pub struct BuildRequest {
    /// The files that `COPY` and `ADD` see.
    pub context: Context,
    /// Where the Dockerfile is. Default: `Dockerfile` (or `dockerfile`) in the context's root.
    pub dockerfile: Dockerfile,
    /// Names for the image, each `repository[:tag]`. Default: none (the image has only its id).
    pub tags: Vec<String>,
    /// Build arguments. Default: none.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build: a name or an index. Default: the last one.
    pub target: Option<String>,
    /// Platforms, each `os/arch[/variant]`. Default: the daemon's own.
    pub platforms: Vec<String>,
    /// Whether every step runs again. Default: no.
    pub no_cache: bool,
    /// Whether base images are looked up again in their registry. Default: no.
    pub pull: bool,
    /// Labels for the image. Default: none.
    pub labels: BTreeMap<String, String>,
    /// What comes out. Default: none, which means an image in the daemon's own store.
    pub outputs: Vec<Output>,
    /// Who answers for registry credentials. Default: the builder's own answer (see the backend), else anonymous.
    pub credentials: Option<Arc<dyn CredentialProvider>>,
    /// Secrets by id, given to steps that mount them and to git and http sources that ask for the well-known ids
    /// (`GIT_AUTH_TOKEN`, `GIT_AUTH_HEADER`, also with `.HOST` behind; `HTTP_AUTH_TOKEN_HOST`). Default: none.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Who is asked for secrets that [`secrets`](Self::secrets) does not name. Default: nobody, they do not exist.
    pub secret_provider: Option<Arc<dyn SecretProvider>>,
    /// SSH agents and keys by id, for steps that mount them and for git over SSH. Default: none.
    pub ssh: BTreeMap<String, SshForward>,
    /// The key under which the daemon keeps what was transferred, so that the next build sends differences only.
    /// Default: derived from the canonical context directory and the host. Visible to the daemon: never put a secret
    /// in it.
    pub shared_key: Option<String>,
    /// How the files of the context and the Dockerfile are sent. Default: that of each policy.
    pub files: FilePolicies,
    /// Contexts by name, beside the main one. Default: none.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// Stages whose steps run again. Default: none.
    pub no_cache_filter: Vec<String>,
    /// What `RUN` steps see of the machine they run on. Default: what the daemon gives them.
    pub steps: StepOptions,
    /// What steps may do beyond the usual. Default: nothing.
    pub entitlements: BTreeSet<Entitlement>,
    /// Statements about the image that the daemon makes and keeps beside it. Default: none.
    pub attestations: Vec<Attestation>,
    /// Annotations of the image's manifests and index. Default: none.
    pub annotations: Vec<Annotation>,
    /// Caches in which steps are looked up. Default: none but the daemon's own.
    pub cache_from: Vec<Cache>,
    /// Caches to which steps are written. Default: none but the daemon's own.
    pub cache_to: Vec<Cache>,
    /// Rules for what the build may fetch. Default: none.
    pub source_policy: Option<SourcePolicy>,
    /// Who decides about each source while the build runs. Default: nobody.
    pub policy_verifier: Option<Arc<dyn PolicyVerifier>>,
    /// Who adds outputs when the result is known. Default: nobody.
    pub session_exporter: Option<Arc<dyn SessionExporter>>,
    /// What is asked of the daemon when the build has succeeded. Default: nothing.
    pub inspect: Inspect,
    /// What turns the request into steps. Default: the daemon's own reader of Dockerfiles.
    pub frontend: Frontend,
    /// Further frontend attributes, sent as they are and winning over those made from the fields above. Default: none.
    /// Not available on the Docker routes `build` and `tar`.
    pub frontend_attrs: BTreeMap<String, String>,
    /// Headers for every gRPC call of this build and every request of Docker's API, for proxies and balancers between here
    /// and the daemon; they win over those of the client. Default: none.
    pub headers: CallHeaders,
    /// The trace that the daemon's spans of this build belong to. Default: the client's, else none.
    pub trace: Option<TraceContext>,
    /// What is done about a daemon that falls silent or is lost. Default: see there.
    pub patience: Patience,
}

impl BuildRequest {
    /// Builds from a context: a directory path, or any [`Tree`].
    pub fn new(context: impl Into<Context>) -> Self {
        Self {
            context: context.into(),
            dockerfile: Dockerfile::Default,
            tags: Vec::new(),
            build_args: BTreeMap::new(),
            target: None,
            platforms: Vec::new(),
            no_cache: false,
            pull: false,
            labels: BTreeMap::new(),
            outputs: Vec::new(),
            credentials: None,
            secrets: BTreeMap::new(),
            secret_provider: None,
            ssh: BTreeMap::new(),
            shared_key: None,
            files: FilePolicies::new(),
            named_contexts: BTreeMap::new(),
            no_cache_filter: Vec::new(),
            steps: StepOptions::default(),
            entitlements: BTreeSet::new(),
            attestations: Vec::new(),
            annotations: Vec::new(),
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            source_policy: None,
            policy_verifier: None,
            session_exporter: None,
            inspect: Inspect::new(),
            frontend: Frontend::Dockerfile,
            frontend_attrs: BTreeMap::new(),
            headers: CallHeaders::new(),
            trace: None,
            patience: Patience::default(),
        }
    }

    /// Sets where the Dockerfile is; the default is `Dockerfile` in the context's root.
    #[must_use]
    pub fn dockerfile(mut self, dockerfile: Dockerfile) -> Self {
        self.dockerfile = dockerfile;
        self
    }

    /// Adds a name for the image; the default is none.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Sets a build argument; the default is none.
    #[must_use]
    pub fn build_arg(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.build_args.insert(key.into(), value.into());
        self
    }

    /// Sets the stage to build; the default is the last one.
    #[must_use]
    pub fn target(mut self, stage: impl Into<String>) -> Self {
        self.target = Some(stage.into());
        self
    }

    /// Adds a platform; the default is the daemon's own.
    #[must_use]
    pub fn platform(mut self, platform: impl Into<String>) -> Self {
        self.platforms.push(platform.into());
        self
    }

    /// Sets whether every step runs again; the default is no.
    #[must_use]
    pub fn no_cache(mut self, yes: bool) -> Self {
        self.no_cache = yes;
        self
    }

    /// Sets whether base images are looked up again in their registry; the default is no.
    #[must_use]
    pub fn pull(mut self, yes: bool) -> Self {
        self.pull = yes;
        self
    }

    /// Sets a label of the image; the default is none.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Adds something that comes out; with none it is an image in the daemon's own store. Several at once need a daemon
    /// that can (BuildKit 0.13), else the build is refused before anything is sent.
    #[must_use]
    pub fn output(mut self, output: Output) -> Self {
        self.outputs.push(output);
        self
    }

    /// What the daemon shall make, each with its place in [`outputs`](Self::outputs): those, without
    /// [`OutputKind::CacheOnly`], or an image when there are none at all.
    pub fn effective_outputs(&self) -> Vec<(usize, Output)> {
        if self.outputs.is_empty() {
            return vec![(0, Output::image())];
        }
        let made = |(_, o): &(usize, &Output)| o.kind != OutputKind::CacheOnly;
        let all = self.outputs.iter().enumerate().filter(made);
        all.map(|(i, o)| (i, o.clone())).collect()
    }

    /// Sets who answers for registry credentials; the default is the builder's own answer.
    #[must_use]
    pub fn credentials(mut self, provider: Arc<dyn CredentialProvider>) -> Self {
        self.credentials = Some(provider);
        self
    }

    /// Sets what stands behind the id of a secret; the default is that there is none.
    #[must_use]
    pub fn secret(mut self, id: impl Into<String>, source: SecretSource) -> Self {
        self.secrets.insert(id.into(), source);
        self
    }

    /// Sets who is asked for secrets that no [`secret`](Self::secret) names; the default is nobody.
    #[must_use]
    pub fn secret_provider(mut self, provider: Arc<dyn SecretProvider>) -> Self {
        self.secret_provider = Some(provider);
        self
    }

    /// Sets what stands behind the id of an SSH mount; [`DEFAULT_SSH_ID`](crate::DEFAULT_SSH_ID) is the one that is
    /// meant when a step names none. The default is that there is none.
    #[must_use]
    pub fn ssh(mut self, id: impl Into<String>, forward: SshForward) -> Self {
        self.ssh.insert(id.into(), forward);
        self
    }

    /// Sets the key under which the daemon keeps what was transferred; the default is derived from the context.
    #[must_use]
    pub fn shared_key(mut self, key: impl Into<String>) -> Self {
        self.shared_key = Some(key.into());
        self
    }

    /// Sets how the daemon tells which files it lacks; the default is [`SyncPolicy::Exact`], which never leaves an old
    /// file in an image. Without a meaning on the Docker route `tar`, which sends everything, but for the fixed time of
    /// [`SyncPolicy::Content`].
    #[must_use]
    pub fn sync(mut self, policy: SyncPolicy) -> Self {
        self.files.sync = policy;
        self
    }

    /// Sets which permission bits the files have for `COPY` and its cache; the default is [`ModePolicy::Keep`].
    #[must_use]
    pub fn context_mode(mut self, policy: ModePolicy) -> Self {
        self.files.mode = policy;
        self
    }

    /// Sets who owns the files for `COPY` and its cache; the default is [`OwnerPolicy::Reset`] (0:0).
    #[must_use]
    pub fn context_owner(mut self, policy: OwnerPolicy) -> Self {
        self.files.owner = policy;
        self
    }

    /// Sets what happens when a file changes while it is sent; the default is [`ChangePolicy::Error`].
    #[must_use]
    pub fn on_change(mut self, policy: ChangePolicy) -> Self {
        self.files.change = policy;
        self
    }

    /// Sets one frontend attribute as it is; the default is none.
    #[must_use]
    pub fn frontend_attr(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.frontend_attrs.insert(key.into(), value.into());
        self
    }

    /// Sets a header for every call of this build; the default is none. [`validate`](Self::validate) refuses names
    /// that the protocol uses itself.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.set(name, value);
        self
    }

    /// Sets the trace that the daemon's spans of this build belong to; the default is the client's, else none.
    #[must_use]
    pub fn trace(mut self, context: TraceContext) -> Self {
        self.trace = Some(context);
        self
    }

    /// Checks what can be checked without files or a daemon.
    ///
    /// # Errors
    /// An [`InputError`] names the field (by its command-line flag) and what is allowed.
    pub fn validate(&self) -> Result<(), InputError> {
        for tag in &self.tags {
            check_tag(tag)?;
        }
        for platform in &self.platforms {
            check_platform(platform)?;
        }
        for output in &self.outputs {
            output.validate()?;
            if output.is_push() && self.tags.is_empty() && !output.attrs.contains_key("name") {
                let why = "an image that is pushed needs a name";
                return Err(InputError::new("--push", why, "--tag, or `name` of the output"));
            }
        }
        let loads = self.outputs.iter().filter(|o| matches!(o.sink, Sink::Engine(_)));
        if loads.count() > 1 {
            return Err(InputError::new(
                "--output",
                "an image can be loaded once only",
                "",
            ));
        }
        if self.outputs.iter().filter(|o| o.layout_dir().is_some()).count() > 1 {
            let why = "only one result can be an image layout (`tar=false`)";
            return Err(InputError::new("--output", why, "archives for the others"));
        }
        for (flag, map) in [("--build-arg", &self.build_args), ("--label", &self.labels)] {
            if map.keys().any(String::is_empty) {
                return Err(InputError::new(flag, "a key must not be empty", "KEY=VALUE"));
            }
        }
        if self.no_cache && !self.no_cache_filter.is_empty() {
            let why = "cannot be used together with --no-cache, which runs every stage again";
            return Err(InputError::new("--no-cache-filter", why, ""));
        }
        if let Some(stage) = self
            .no_cache_filter
            .iter()
            .find(|s| s.is_empty() || s.contains(','))
        {
            let why = format!("`{stage}` is no name of a stage");
            return Err(InputError::new("--no-cache-filter", why, "the name of a stage"));
        }
        self.headers.check()?;
        named::check(&self.named_contexts)?;
        cache::check(&self.cache_from, &self.cache_to)?;
        for (id, source) in &self.secrets {
            source.check(id)?;
        }
        for (id, forward) in &self.ssh {
            forward.check(id)?;
        }
        Ok(())
    }
}

impl fmt::Debug for BuildRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Build arguments often hold tokens although they should not: only their names are shown.
        f.debug_struct("BuildRequest")
            .field("context", &self.context)
            .field("dockerfile", &self.dockerfile)
            .field("tags", &self.tags)
            .field("build_args", &self.build_args.keys())
            .field("target", &self.target)
            .field("platforms", &self.platforms)
            .field("no_cache", &self.no_cache)
            .field("pull", &self.pull)
            .field("outputs", &self.outputs)
            .field("secrets", &self.secrets)
            .field("ssh", &self.ssh)
            .field("files", &self.files)
            .field("named_contexts", &self.named_contexts)
            .field("steps", &self.steps)
            .field("cache_from", &self.cache_from)
            .field("cache_to", &self.cache_to)
            .field("frontend", &self.frontend)
            .field("headers", &self.headers)
            .field("trace", &self.trace)
            .finish_non_exhaustive()
    }
}

/// The files that `COPY` and `ADD` see.
#[derive(Clone)]
#[non_exhaustive]
pub enum Context {
    /// A directory on this machine. A symlink to a directory is followed.
    Dir(PathBuf),
    /// A directory on this machine, seen through a tree over it, for instance [`bk_fsync::tree::ListedTree`]: everything
    /// holds as for [`Dir`](Self::Dir), and the files of the context come from the tree.
    DirThrough(PathBuf, Arc<dyn Tree>),
    /// Files from anywhere, for instance [`bk_fsync::tree::MemoryTree`].
    Tree(Arc<dyn Tree>),
    /// A Git or HTTP(S) address that the daemon fetches: `https://host/repository.git#ref:directory`, or a tar archive.
    /// No ignore file is read for it.
    Remote(String),
    /// A tar archive that is read as a stream and sent as it is. The Dockerfile is looked for in it.
    Archive(Archive),
    /// No files at all.
    None,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(path) => f.debug_tuple("Dir").field(path).finish(),
            Self::DirThrough(path, _) => f.debug_tuple("DirThrough").field(path).finish_non_exhaustive(),
            Self::Tree(_) => f.write_str("Tree(..)"),
            // An address may hold a password.
            Self::Remote(_) => f.write_str("Remote(..)"),
            Self::Archive(archive) => f.debug_tuple("Archive").field(archive).finish(),
            Self::None => f.write_str("None"),
        }
    }
}

impl From<Archive> for Context {
    fn from(archive: Archive) -> Self {
        Self::Archive(archive)
    }
}

impl From<PathBuf> for Context {
    fn from(path: PathBuf) -> Self {
        Self::Dir(path)
    }
}

impl From<&std::path::Path> for Context {
    fn from(path: &std::path::Path) -> Self {
        Self::Dir(path.to_owned())
    }
}

impl From<&str> for Context {
    fn from(path: &str) -> Self {
        Self::Dir(path.into())
    }
}

impl From<String> for Context {
    fn from(path: String) -> Self {
        Self::Dir(path.into())
    }
}

impl From<Arc<dyn Tree>> for Context {
    fn from(tree: Arc<dyn Tree>) -> Self {
        Self::Tree(tree)
    }
}

/// Where the Dockerfile is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Dockerfile {
    /// `Dockerfile`, else `dockerfile`, in the context's root.
    #[default]
    Default,
    /// A file on this machine, inside the context or not. Its directory is never walked. `<name>.dockerignore` beside
    /// it, when there is one, replaces the context's `.dockerignore`.
    Path(PathBuf),
    /// A file inside the context, by its path there. The way to name one in a context that is no directory here.
    InContext(String),
    /// The text itself. The context's `.dockerignore` holds.
    Inline(Bytes),
}

/// The longest tag that an image reference may have (the reference grammar of the distribution specification).
const MAX_TAG: usize = 128;

fn check_tag(tag: &str) -> Result<(), InputError> {
    const ALLOWED: &str =
        "[HOST[:PORT]/]NAME[:TAG], lower case, for instance registry.example.com/team/app:1.0";
    let bad = |why: &str| Err(InputError::new("--tag", format!("`{tag}`: {why}"), ALLOWED));
    if tag.is_empty() {
        return bad("a tag must not be empty");
    }
    if tag.contains('@') {
        return bad("a digest cannot be chosen");
    }
    let last = tag.rfind('/').map_or(0, |i| i + 1);
    let (name, version) = match tag[last..].find(':') {
        Some(i) => (&tag[..last + i], Some(&tag[last + i + 1..])),
        None => (tag, None),
    };
    if let Some(version) = version {
        let mut bytes = version.bytes();
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if !bytes.next().is_some_and(word) || !bytes.all(|b| word(b) || b == b'.' || b == b'-') {
            return bad("the part behind `:` has a character that a tag cannot have");
        }
        if version.len() > MAX_TAG {
            return bad("the part behind `:` is longer than 128 characters");
        }
    }
    let mut parts = name.split('/').peekable();
    let host = name.contains('/')
        && parts.peek().is_some_and(|p| {
            p.contains(['.', ':']) || *p == "localhost" || p.chars().any(|c| c.is_ascii_uppercase())
        });
    if host {
        let host = parts.next().unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
        if host.is_empty() || !host.bytes().all(plain) {
            return bad("the registry host has a character that a host cannot have");
        }
    }
    for part in parts {
        let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = part.as_bytes();
        if bytes.is_empty() {
            return bad("a name part is empty");
        }
        if bytes.iter().any(u8::is_ascii_uppercase) {
            return bad("a name must be lower case");
        }
        let inner = |b: &u8| edge(*b) || b"._-".contains(b);
        let ends = bytes.first().is_some_and(|b| edge(*b)) && bytes.last().is_some_and(|b| edge(*b));
        if !ends || !bytes.iter().all(inner) {
            return bad("the name has a character that it cannot have there");
        }
    }
    Ok(())
}

fn check_platform(platform: &str) -> Result<(), InputError> {
    let parts: Vec<&str> = platform.split('/').collect();
    let word = |p: &&str| {
        !p.is_empty()
            && p.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-()+".contains(&b))
    };
    if parts.len() <= 3 && parts.iter().all(word) {
        return Ok(());
    }
    Err(InputError::new(
        "--platform",
        format!("`{platform}` is not a platform"),
        "OS/ARCH[/VARIANT], for instance linux/amd64 or linux/arm/v7",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_checked_like_references() {
        for good in [
            "app",
            "app:1.0",
            "team/app:latest",
            "localhost/app",
            "localhost:5000/a/b_c/d-e:T.1",
            "Registry.Example.com/app",
            "127.0.0.1:5000/base/busybox:1",
            "[::1]:5000/x",
            "a__b",
        ] {
            assert!(BuildRequest::new(".").tag(good).validate().is_ok(), "{good}");
        }
        for bad in [
            "",
            "App",
            "app:",
            "app:-x",
            "a b",
            "app@sha256:00",
            "/app",
            "app/",
            "team//app",
            "-a",
            "a/é",
        ] {
            let e = BuildRequest::new(".").tag(bad).validate().expect_err(bad);
            assert_eq!(e.what, "--tag");
        }
        assert!(
            BuildRequest::new(".")
                .tag(format!("a:{}", "x".repeat(129)))
                .validate()
                .is_err()
        );
    }

    #[test]
    fn platforms_are_checked() {
        for good in ["linux/amd64", "linux/arm/v7", "linux"] {
            assert!(BuildRequest::new(".").platform(good).validate().is_ok(), "{good}");
        }
        for bad in ["", "linux/", "linux/arm/v7/x", "linux amd64", "linux,darwin"] {
            assert!(BuildRequest::new(".").platform(bad).validate().is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_build_arg_value() {
        let text = format!("{:?}", BuildRequest::new(".").build_arg("TOKEN", "hunter2"));
        assert!(text.contains("TOKEN") && !text.contains("hunter2"), "{text}");
    }
}
