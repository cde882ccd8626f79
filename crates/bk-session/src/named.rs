//! Contexts by name: which local source stands behind which name, and what the frontend is told of it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bk_build::{BuildError, InputError, LocalFailure, NamedContext};
use bk_fsync::tree::{DirTree, FilesTree, Tree};

use crate::{
    shared_key::{host_name, shared_key},
    sources::{CONTEXT, DOCKERFILE, Source, Sources, canonical_dir, exists},
};

impl Sources {
    /// Adds the named contexts that are files on this machine. With `plain` they keep their names, because steps that
    /// were made elsewhere name them.
    ///
    /// # Errors
    /// A directory or file that is not there is named.
    pub(crate) fn add_named(
        &mut self,
        contexts: &BTreeMap<String, NamedContext>,
        plain: bool,
    ) -> Result<(), BuildError> {
        for (name, context) in contexts {
            let (tree, root): (Arc<dyn Tree>, _) = match context {
                NamedContext::Dir(path) => {
                    let dir = canonical_dir(path)?;
                    let tree = DirTree::open(&dir)
                        .map_err(|e| LocalFailure::new(path, "cannot open the directory").caused_by(e))?;
                    if self.shared_key.is_empty() {
                        // The main context has no place of its own that could tell builds apart.
                        self.shared_key = shared_key(&dir, &host_name());
                    }
                    (Arc::new(tree), Some(dir))
                }
                NamedContext::File(path) => {
                    let (tree, dir) = single_file(path)?;
                    (tree, Some(dir))
                }
                NamedContext::Tree(tree) => (tree.clone(), None),
                // The daemon fetches these; layouts are not sources but stores.
                _ => continue,
            };
            let source = match &**name {
                _ if plain => name.clone(),
                // These names have a meaning of their own.
                CONTEXT | DOCKERFILE => format!("_{name}_"),
                _ => name.clone(),
            };
            if !plain {
                self.attrs
                    .insert(format!("context:{name}"), format!("local:{source}"));
            }
            self.by_name.insert(source, Source { tree, root });
        }
        Ok(())
    }
}

/// A tree that holds one file of this machine.
fn single_file(path: &Path) -> Result<(Arc<dyn Tree>, std::path::PathBuf), BuildError> {
    let bad = |why: &str| {
        InputError::new(
            "--build-context",
            format!("`file:{}`: {why}", path.display()),
            "file:PATH of a file whose name is UTF-8",
        )
    };
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| bad("it names no file"))?;
    if !exists(path) {
        return Err(LocalFailure::new(path, "there is no such file").into());
    }
    if path.is_dir() {
        return Err(bad("it is a directory").into());
    }
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => canonical_dir(parent)?,
        _ => canonical_dir(Path::new("."))?,
    };
    let tree = FilesTree::in_dir(&dir, &[name.to_owned()]).map_err(|e| bad(&e.to_string()))?;
    Ok((Arc::new(tree), dir))
}

#[cfg(test)]
mod tests {
    use bk_build::{BuildRequest, Context, Definition, Dockerfile};
    use bk_fsync::tree::MemoryTree;

    use super::*;

    #[tokio::test]
    async fn names_lead_to_sources() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("one"), "1").expect("write");
        let mut tree = MemoryTree::new();
        tree.add_file("f", 0o644, "x").expect("a file");
        let request = BuildRequest::new(Context::None)
            .dockerfile(Dockerfile::Inline("FROM scratch".into()))
            .named_context("src", NamedContext::Dir(dir.path().to_owned()))
            .named_context("context", NamedContext::Tree(Arc::new(tree)))
            .named_context("one", NamedContext::File(dir.path().join("one")))
            .named_context("base", NamedContext::Image("x".to_owned()));
        let sources = Sources::of(&request).await.expect("sources");
        let attrs: Vec<_> = sources.frontend_attrs().into_iter().collect();
        let said = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(
            attrs,
            [
                said("context:context", "local:_context_"),
                said("context:one", "local:one"),
                said("context:src", "local:src")
            ]
        );
        assert!(!sources.shared_key().is_empty());
        let names = |source: &str| -> Vec<String> {
            let source = sources.get(source).expect(source);
            let mut root = source
                .tree
                .open_dir(bk_fsync::path::RelPath::ROOT)
                .expect("a root");
            let list = root.list().expect("a list");
            list.iter()
                .map(|l| String::from_utf8_lossy(&l.name).into_owned())
                .collect()
        };
        assert_eq!(
            (names("one"), names("_context_")),
            (vec!["one".to_owned()], vec!["f".to_owned()])
        );
        assert!(sources.get("base").is_none());
    }

    #[tokio::test]
    async fn steps_made_elsewhere_name_their_sources() {
        let dir = tempfile::tempdir().expect("temp dir");
        let request = BuildRequest::from_definition(Definition::default())
            .named_context("context", NamedContext::Dir(dir.path().to_owned()));
        let sources = Sources::of(&request).await.expect("sources");
        assert!(sources.get("context").is_some() && sources.get("dockerfile").is_none());
        assert!(sources.frontend_attrs().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_there_is_named() {
        for (context, part) in [
            (
                NamedContext::Dir("/no/such/dir".into()),
                "/no/such/dir: there is no such directory",
            ),
            (
                NamedContext::File("/no/such/file".into()),
                "/no/such/file: there is no such file",
            ),
            (NamedContext::File("/".into()), "names no file"),
            (NamedContext::File("/usr".into()), "is a directory"),
        ] {
            let request = BuildRequest::new(Context::None)
                .dockerfile(Dockerfile::Inline("FROM scratch".into()))
                .named_context("x", context);
            let Err(error) = Sources::of(&request).await else {
                panic!("{part}");
            };
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn a_dockerfile_can_lie_inside_of_any_context() {
        let mut tree = MemoryTree::new();
        tree.add_file("sub/D", 0o644, "FROM scratch").expect("a file");
        let context: Arc<dyn Tree> = Arc::new(tree);
        let inside = |path: &str| {
            BuildRequest::new(context.clone()).dockerfile(Dockerfile::InContext(path.to_owned()))
        };
        let sources = Sources::of(&inside("sub/D")).await.expect("sources");
        assert_eq!(sources.dockerfile_name(), Some("sub/D"));
        assert!(Sources::of(&inside("sub/E")).await.is_err());
        let remote = BuildRequest::new(Context::Remote("https://h/r.git".to_owned()));
        let sources = Sources::of(&remote.clone().dockerfile(Dockerfile::InContext("D".to_owned())))
            .await
            .expect("sources");
        assert_eq!(sources.dockerfile_name(), Some("D"));
        assert!(sources.get(CONTEXT).is_none() && sources.get(DOCKERFILE).is_none());
        let sources = Sources::of(&remote).await.expect("sources");
        assert!(sources.get(DOCKERFILE).is_none() && sources.dockerfile_name().is_none());
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir(dir.path().join("sub")).expect("mkdir");
        std::fs::write(dir.path().join("sub/D"), "FROM scratch").expect("write");
        let request = BuildRequest::new(dir.path()).dockerfile(Dockerfile::InContext("sub/D".to_owned()));
        let sources = Sources::of(&request).await.expect("sources");
        assert_eq!(sources.dockerfile_name(), Some("D"));
    }
}
