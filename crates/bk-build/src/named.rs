//! Contexts by name: what `FROM name` and `COPY --from=name` find beside stages and images.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use bk_fsync::tree::Tree;

use crate::{BuildRequest, InputError};

/// What stands behind the name of a further context.
#[derive(Clone)]
#[non_exhaustive]
pub enum NamedContext {
    /// A directory on this machine. Its own `.dockerignore` holds.
    Dir(PathBuf),
    /// One file on this machine, in the root of a context that holds nothing else.
    File(PathBuf),
    /// Files from anywhere.
    Tree(Arc<dyn Tree>),
    /// An image of a registry, or `scratch`.
    Image(String),
    /// A Git or HTTP(S) address that the daemon fetches.
    Remote(String),
    /// An image in an OCI layout directory on this machine.
    OciLayout(OciReference),
}

/// An image in an OCI layout directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciReference {
    /// The directory that holds `oci-layout` and `index.json`.
    pub dir: PathBuf,
    /// Its tag there, or the full name of the image. Default: `latest`, or the only image that is there, unless there is a
    /// digest.
    pub tag: Option<String>,
    /// Its digest. Default: that of the tag.
    pub digest: Option<String>,
}

impl fmt::Debug for NamedContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(path) => f.debug_tuple("Dir").field(path).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Tree(_) => f.write_str("Tree(..)"),
            Self::Image(image) => f.debug_tuple("Image").field(image).finish(),
            // An address may hold a password.
            Self::Remote(_) => f.write_str("Remote(..)"),
            Self::OciLayout(reference) => f.debug_tuple("OciLayout").field(reference).finish(),
        }
    }
}

impl NamedContext {
    /// Reads what `--build-context NAME=…` takes behind the `=`: `docker-image://REF`, `oci-layout://DIR[:TAG][@DIGEST]`,
    /// `file:PATH`, a Git or HTTP(S) address, or a directory.
    ///
    /// # Errors
    /// An [`InputError`] when nothing follows a scheme, or when the scheme has a meaning in other places only.
    pub fn parse(text: &str) -> Result<Self, InputError> {
        const FLAG: &str = "--build-context";
        let bad = |why: &str, allowed: &str| InputError::new(FLAG, format!("`{text}`: {why}"), allowed);
        if let Some(image) = text.strip_prefix("docker-image://") {
            if image.is_empty() {
                return Err(bad("no image is named", "docker-image://NAME[:TAG][@DIGEST]"));
            }
            return Ok(Self::Image(image.to_owned()));
        }
        if let Some(rest) = text.strip_prefix("oci-layout://") {
            let (rest, digest) = match rest.split_once('@') {
                Some((rest, digest)) => (rest, Some(digest.to_owned())),
                None => (rest, None),
            };
            // A colon of the path is followed by a slash sooner or later, that of a tag never.
            let (dir, tag) = match rest.rsplit_once(':') {
                Some((dir, tag)) if !tag.contains('/') => (dir, Some(tag.to_owned())),
                _ => (rest, None),
            };
            let empty = |part: &Option<String>| part.as_ref().is_some_and(String::is_empty);
            if dir.is_empty() || empty(&tag) || empty(&digest) {
                return Err(bad("a part of it is empty", "oci-layout://DIR[:TAG][@DIGEST]"));
            }
            return Ok(Self::OciLayout(OciReference {
                dir: dir.into(),
                tag,
                digest,
            }));
        }
        if text.starts_with("target:") {
            return Err(bad(
                "the result of another target can only be used in a bake file",
                "",
            ));
        }
        if is_remote(text) {
            return Ok(Self::Remote(text.to_owned()));
        }
        match text.strip_prefix("file:") {
            Some("") => Err(bad("no file is named", "file:PATH")),
            Some(path) => Ok(Self::File(path.into())),
            None if text.is_empty() => Err(bad("nothing is named", "a directory, an address or a reference")),
            None => Ok(Self::Dir(text.into())),
        }
    }
}

/// Whether a text is what `docker buildx build` takes for a remote context: a Git or HTTP(S) address.
pub fn is_remote(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// A context's name as frontends look it up: an image name without what Docker Hub adds, and without `:latest`.
pub fn context_name(name: &str) -> &str {
    let name = ["docker.io/", "index.docker.io/"]
        .iter()
        .find_map(|host| name.strip_prefix(host))
        .map_or(name, |rest| rest.strip_prefix("library/").unwrap_or(rest));
    name.strip_suffix(":latest").unwrap_or(name)
}

/// The names of contexts are checked here; what stands behind them is looked at when the build starts.
pub(crate) fn check(contexts: &BTreeMap<String, NamedContext>) -> Result<(), InputError> {
    for name in contexts.keys() {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(InputError::new(
                "--build-context",
                format!("`{name}` cannot name a context"),
                "a name made like that of a stage or an image",
            ));
        }
    }
    Ok(())
}

impl BuildRequest {
    /// Adds a context by name; the default is none. `FROM name` and `COPY --from=name` find it; the name of an image
    /// stands in for that image.
    #[must_use]
    pub fn named_context(mut self, name: impl AsRef<str>, context: NamedContext) -> Self {
        self.named_contexts
            .insert(context_name(name.as_ref()).to_owned(), context);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        match NamedContext::parse(text) {
            Ok(context) => format!("{context:?}"),
            Err(e) => format!("error: {e}"),
        }
    }

    #[test]
    fn values_are_told_apart() {
        assert_eq!(parsed("../lib"), r#"Dir("../lib")"#);
        assert_eq!(parsed("file:a/b.txt"), r#"File("a/b.txt")"#);
        assert_eq!(parsed("docker-image://alpine:3"), r#"Image("alpine:3")"#);
        for remote in [
            "https://h/x.git#main:sub",
            "git@h:a/b",
            "github.com/a/b",
            "ssh://git@h/a",
            "http://h/x.tar",
        ] {
            assert_eq!(parsed(remote), "Remote(..)", "{remote}");
        }
        for (text, dir, tag, digest) in [
            ("oci-layout://d", "d", None, None),
            ("oci-layout:///a/d:1", "/a/d", Some("1"), None),
            ("oci-layout://C:/d", "C:/d", None, None),
            ("oci-layout://d@sha256:ab", "d", None, Some("sha256:ab")),
            ("oci-layout://d:t@sha256:ab", "d", Some("t"), Some("sha256:ab")),
        ] {
            let Ok(NamedContext::OciLayout(found)) = NamedContext::parse(text) else {
                panic!("{text}: {}", parsed(text));
            };
            assert_eq!(found.dir, PathBuf::from(dir));
            assert_eq!(
                (found.tag.as_deref(), found.digest.as_deref()),
                (tag, digest),
                "{text}"
            );
        }
        for bad in [
            "",
            "docker-image://",
            "oci-layout://",
            "oci-layout://d:",
            "oci-layout://d@",
            "file:",
            "target:x",
        ] {
            assert!(parsed(bad).starts_with("error: --build-context"), "{bad}");
        }
    }

    #[test]
    fn names_are_those_that_frontends_look_up() {
        for (given, name) in [
            ("src", "src"),
            ("alpine:latest", "alpine"),
            ("docker.io/library/alpine:3", "alpine:3"),
            ("docker.io/me/app", "me/app"),
            ("ghcr.io/library/x", "ghcr.io/library/x"),
        ] {
            assert_eq!(context_name(given), name);
        }
        let request = BuildRequest::new(".").named_context("a b", NamedContext::Dir(".".into()));
        assert!(request.validate().is_err());
    }
}
