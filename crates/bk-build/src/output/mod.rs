//! What comes out of a build, and where it goes.
//!
//! The rule: an output says what the daemon shall make (its kind and attributes) and, apart from that, where on this
//! machine the bytes go. Nothing about this machine is ever sent to the daemon.

mod sink;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bk_fsync::ReceiveOptions;

use crate::InputError;

pub use sink::{ImageLoader, Loaded, ResultInfo, ResultStream, Sink, WriterFactory};

/// One thing that a build shall yield. A request may hold several, if the daemon can make several (BuildKit 0.13).
///
/// Attributes are those that the daemon's exporters know. The setters cover the usual ones; [`attr`](Self::attr) sets
/// any. A boolean attribute is sent as `true` or `false`.
#[derive(Clone)]
#[non_exhaustive]
pub struct Output {
    /// What is made.
    pub kind: OutputKind,
    /// Where its bytes go.
    pub sink: Sink,
    /// Attributes for the daemon's exporter. Default: none.
    pub attrs: BTreeMap<String, String>,
}

/// What is made of the build's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutputKind {
    /// An image in the daemon's own store, in a registry, or in both.
    Image,
    /// An archive that `docker load` takes: one platform. With [`Sink::Engine`] an image in a Docker Engine.
    Docker,
    /// An archive with an OCI image layout.
    Oci,
    /// The files of the result as one tar archive.
    Tar,
    /// The files of the result in a directory.
    Local,
    /// Nothing: the build fills the cache only. Without a meaning beside other outputs.
    CacheOnly,
}

impl OutputKind {
    /// Its name on the wire and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Docker => "docker",
            Self::Oci => "oci",
            Self::Tar => "tar",
            Self::Local => "local",
            Self::CacheOnly => "cacheonly",
        }
    }

    /// Whether it is an image: it has a name, layers and a digest.
    pub fn is_image(self) -> bool {
        matches!(self, Self::Image | Self::Docker | Self::Oci)
    }
}

impl fmt::Display for OutputKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How layers are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    Uncompressed,
    /// Gzip, the daemon's default.
    Gzip,
    /// Gzip that can be read in part. Implies OCI media types.
    Estargz,
    /// Zstandard. Implies OCI media types.
    Zstd,
}

impl Compression {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uncompressed => "uncompressed",
            Self::Gzip => "gzip",
            Self::Estargz => "estargz",
            Self::Zstd => "zstd",
        }
    }
}

impl Output {
    /// An output of that kind with its bytes in that place and no attributes.
    pub fn new(kind: OutputKind, sink: Sink) -> Self {
        Self {
            kind,
            sink,
            attrs: BTreeMap::new(),
        }
    }

    /// An image in the daemon's own store.
    pub fn image() -> Self {
        Self::new(OutputKind::Image, Sink::Daemon)
    }

    /// An image that is pushed to the registries that its names say; credentials are the request's.
    pub fn registry() -> Self {
        Self::image().push(true)
    }

    /// An image in a Docker Engine: the one that builds, else the one that the client knows. It goes there as a stream,
    /// and not at all when the engine has it already.
    pub fn load() -> Self {
        Self::new(OutputKind::Docker, Sink::Engine(None))
    }

    /// An image in the Docker Engine that `loader` reaches.
    pub fn load_into(loader: Arc<dyn ImageLoader>) -> Self {
        Self::new(OutputKind::Docker, Sink::Engine(Some(loader)))
    }

    /// An archive that `docker load` takes.
    pub fn docker(sink: impl Into<Sink>) -> Self {
        Self::new(OutputKind::Docker, sink.into())
    }

    /// An archive with an OCI image layout.
    pub fn oci(sink: impl Into<Sink>) -> Self {
        Self::new(OutputKind::Oci, sink.into())
    }

    /// An OCI image layout in the directory `dir`, which is made when it is missing: no archive, and what the layout has
    /// already is not sent again. Other images there stay. One such output a request; since BuildKit 0.11.
    pub fn oci_layout(dir: impl Into<PathBuf>) -> Self {
        let (path, options) = (dir.into(), ReceiveOptions::new());
        Self::new(OutputKind::Oci, Sink::Dir { path, options }).flag("tar", false)
    }

    /// The files of the result as one tar archive.
    pub fn tar(sink: impl Into<Sink>) -> Self {
        Self::new(OutputKind::Tar, sink.into())
    }

    /// The files of the result in the directory `dir`, which is made when it is missing. Files there that the result
    /// does not have stay.
    pub fn local(dir: impl Into<PathBuf>) -> Self {
        Self::local_with(dir, ReceiveOptions::new())
    }

    /// [`local`](Self::local) with options of the receiving side, for instance to remove other files.
    pub fn local_with(dir: impl Into<PathBuf>, options: ReceiveOptions) -> Self {
        let path = dir.into();
        Self::new(OutputKind::Local, Sink::Dir { path, options })
    }

    /// Nothing: the build fills the cache only.
    pub fn cache_only() -> Self {
        Self::new(OutputKind::CacheOnly, Sink::Daemon)
    }

    /// Sets an attribute of the daemon's exporter; the default is none.
    #[must_use]
    pub fn attr(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attrs.insert(key.into(), value.into());
        self
    }

    fn flag(self, key: &str, yes: bool) -> Self {
        self.attr(key, if yes { "true" } else { "false" })
    }

    /// Sets the image's names, each `repository[:tag]`; the default is the request's tags, which win when there are any.
    #[must_use]
    pub fn names<N: AsRef<str>>(self, names: impl IntoIterator<Item = N>) -> Self {
        let names: Vec<_> = names.into_iter().map(|n| n.as_ref().to_owned()).collect();
        self.attr("name", names.join(","))
    }

    /// Sets whether the image is pushed to the registries that its names say; the default is no.
    #[must_use]
    pub fn push(self, yes: bool) -> Self {
        self.flag("push", yes)
    }

    /// Sets whether the image is pushed without its tag, to be found by digest only; the default is no. Implies nothing:
    /// set [`push`](Self::push) too. Not on Docker Engine with graph drivers.
    #[must_use]
    pub fn push_by_digest(self, yes: bool) -> Self {
        self.flag("push-by-digest", yes)
    }

    /// Sets whether the registry may be reached without TLS or with a bad certificate; the default is no.
    #[must_use]
    pub fn insecure_registry(self, yes: bool) -> Self {
        self.flag("registry.insecure", yes)
    }

    /// Sets whether the image goes into the daemon's image store; the default is yes where the daemon has one.
    #[must_use]
    pub fn store(self, yes: bool) -> Self {
        self.flag("store", yes)
    }

    /// Sets whether the image's layers are unpacked in the daemon's store; the default is no.
    #[must_use]
    pub fn unpack(self, yes: bool) -> Self {
        self.flag("unpack", yes)
    }

    /// Sets whether the name gets the digest added (`name@sha256:…`); the default is no.
    #[must_use]
    pub fn name_canonical(self, yes: bool) -> Self {
        self.flag("name-canonical", yes)
    }

    /// Sets the prefix of the name that an image without a name gets (`prefix@sha256:…`); the default is none.
    #[must_use]
    pub fn dangling_name_prefix(self, prefix: impl Into<String>) -> Self {
        self.attr("dangling-name-prefix", prefix)
    }

    /// Sets how new layers are compressed; the default is gzip. Layers that exist stay as they are, see
    /// [`force_compression`](Self::force_compression).
    #[must_use]
    pub fn compression(self, compression: Compression) -> Self {
        self.attr("compression", compression.name())
    }

    /// Sets the level of the compression: 0 to 9 for gzip and estargz, 0 to 22 for zstd; the default is the daemon's.
    #[must_use]
    pub fn compression_level(self, level: u32) -> Self {
        self.attr("compression-level", level.to_string())
    }

    /// Sets whether layers that exist are compressed again when they are compressed differently; the default is no.
    #[must_use]
    pub fn force_compression(self, yes: bool) -> Self {
        self.flag("force-compression", yes)
    }

    /// Sets whether media types are those of OCI instead of Docker's; the default is the daemon's.
    #[must_use]
    pub fn oci_mediatypes(self, yes: bool) -> Self {
        self.flag("oci-mediatypes", yes)
    }

    /// Sets an annotation of the image's manifests; the default is none. Others are set as attributes:
    /// `annotation-index.KEY`, `annotation-manifest-descriptor.KEY`, `annotation[linux/amd64].KEY`. Since BuildKit 0.11.
    #[must_use]
    pub fn annotation(self, key: impl AsRef<str>, value: impl Into<String>) -> Self {
        let key = format!("annotation.{}", key.as_ref());
        self.attr(key, value)
    }

    /// Sets whether times of files inside layers become `SOURCE_DATE_EPOCH` at the latest; the default is no. Since
    /// BuildKit 0.13.
    #[must_use]
    pub fn rewrite_timestamp(self, yes: bool) -> Self {
        self.flag("rewrite-timestamp", yes)
    }

    /// Sets whether each platform gets a directory of its own (`linux_amd64/`); the default is yes for several platforms.
    /// For files only.
    #[must_use]
    pub fn platform_split(self, yes: bool) -> Self {
        self.flag("platform-split", yes)
    }

    /// Whether this output asks for a push. A value that is not a boolean counts as yes, so that the daemon can say
    /// what is wrong with it.
    pub fn is_push(&self) -> bool {
        self.attrs
            .get("push")
            .is_some_and(|v| parse_bool(v) != Some(false))
    }

    /// Whether this output asks for a push without tags. A value that is not a boolean counts as yes, as for
    /// [`is_push`](Self::is_push).
    pub fn is_push_by_digest(&self) -> bool {
        let asked = self.attrs.get("push-by-digest");
        self.is_push() && asked.is_some_and(|v| parse_bool(v) != Some(false))
    }

    fn is_layout(&self) -> bool {
        let tar = self.attrs.get("tar").and_then(|v| parse_bool(v));
        matches!(self.kind, OutputKind::Docker | OutputKind::Oci) && tar == Some(false)
    }

    /// The directory of an output that is an image layout and no archive (`tar=false`).
    pub fn layout_dir(&self) -> Option<&Path> {
        match &self.sink {
            Sink::Dir { path, .. } if self.is_layout() => Some(path),
            _ => None,
        }
    }

    /// Checks what can be checked without a daemon.
    ///
    /// # Errors
    /// An [`InputError`] that names the attribute or the kind.
    pub fn validate(&self) -> Result<(), InputError> {
        let bad = |message: String, allowed: &str| Err(InputError::new("--output", message, allowed));
        let kind = self.kind;
        for key in ["type", "dest"] {
            if self.attrs.contains_key(key) {
                return bad(
                    format!("`{key}` is not an attribute of the daemon's exporter"),
                    "",
                );
            }
        }
        if self.attrs.keys().any(String::is_empty) {
            return bad("a key must not be empty".to_owned(), "KEY=VALUE");
        }
        if kind == OutputKind::Local && self.attrs.get("mode").is_some_and(|m| m != "copy") {
            let text = "`mode` is set by the options of the receiving side".to_owned();
            return bad(text, "");
        }
        if self.layout_dir().is_some() {
            return Ok(());
        }
        if self.is_layout() {
            return bad(
                format!("`tar=false` of type {kind} cannot go to {}", self.sink.name()),
                "a directory for `tar=false`",
            );
        }
        if !kind.is_image() && self.is_push() {
            return bad(format!("type {kind} cannot be pushed"), "push for the type image");
        }
        let fits = matches!(
            (&self.sink, kind),
            (Sink::Daemon, OutputKind::Image | OutputKind::CacheOnly)
                | (Sink::Dir { .. }, OutputKind::Local)
                | (
                    Sink::File(_) | Sink::Writer(_),
                    OutputKind::Docker | OutputKind::Oci | OutputKind::Tar
                )
                | (Sink::Engine(_), OutputKind::Docker)
        );
        if !fits {
            let text = format!("type {kind} cannot go to {}", self.sink.name());
            return bad(
                text,
                "image: the daemon; local: a directory; docker, oci, tar: a file or stream",
            );
        }
        Ok(())
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("kind", &self.kind)
            .field("sink", &self.sink)
            .field("attrs", &self.attrs)
            .finish()
    }
}

/// A boolean as the daemon's own language reads it.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setters_are_the_daemons_words() {
        let output = Output::registry()
            .names(["a:1", "b"])
            .push_by_digest(true)
            .insecure_registry(false)
            .store(true)
            .unpack(false)
            .name_canonical(true)
            .dangling_name_prefix("p")
            .compression(Compression::Zstd)
            .compression_level(3)
            .force_compression(true)
            .oci_mediatypes(true)
            .annotation("k.x", "v")
            .rewrite_timestamp(true);
        let attrs: Vec<_> = output.attrs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            attrs,
            [
                "annotation.k.x=v",
                "compression=zstd",
                "compression-level=3",
                "dangling-name-prefix=p",
                "force-compression=true",
                "name=a:1,b",
                "name-canonical=true",
                "oci-mediatypes=true",
                "push=true",
                "push-by-digest=true",
                "registry.insecure=false",
                "rewrite-timestamp=true",
                "store=true",
                "unpack=false",
            ]
        );
        assert!(output.validate().is_ok() && output.is_push());
        assert!(!Output::image().push(false).is_push() && Output::image().attr("push", "").is_push());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let fails = |output: Output| output.validate().expect_err("refused").to_string();
        for output in [
            Output::image(),
            Output::load(),
            Output::cache_only(),
            Output::local("out"),
            Output::tar(PathBuf::from("f")),
            Output::oci(PathBuf::from("f")),
            Output::docker(PathBuf::from("f")),
            Output::oci_layout("d"),
        ] {
            assert!(output.validate().is_ok(), "{output:?}");
        }
        assert!(fails(Output::image().attr("dest", "x")).contains("`dest`"));
        assert!(fails(Output::tar(Sink::Daemon)).contains("type tar cannot go to"));
        assert!(
            fails(Output::new(OutputKind::Image, Sink::File("f".into()))).contains("type image cannot go to")
        );
        assert!(fails(Output::oci(PathBuf::from("f")).attr("tar", "false")).contains("`tar=false`"));
        assert!(fails(Output::load().attr("tar", "0")).contains("cannot go to a Docker Engine"));
        assert!(
            fails(Output::oci_layout("d").attr("tar", "true")).contains("type oci cannot go to a directory")
        );
        assert!(fails(Output::local("out").push(true)).contains("cannot be pushed"));
        assert!(fails(Output::local("out").attr("mode", "delete")).contains("`mode`"));
        assert!(fails(Output::image().attr("", "x")).contains("empty"));
    }
}
