//! Follows the symbolic links in paths that the daemon wants, so that what they lead to is sent as well.
//!
//! The rule: answer as upstream does, including its loop guard, by which the first path through a link decides
//! what is followed behind it. Excludes play no part, and nothing outside of the root is ever asked about.

use std::collections::BTreeSet;
use std::io;

use crate::entry::Kind;
use crate::limits::FOLLOW_MAX;
use crate::path::{RelPath, clean, join, show};
use crate::pattern::name_matches;
use crate::tree::{Tree, vanished};

/// A path could not be followed.
#[derive(Debug, thiserror::Error)]
#[error("cannot follow {path:?}")]
#[non_exhaustive]
pub struct FollowError {
    /// The path at which it failed, with bytes that are no UTF-8 escaped.
    pub path: String,
    /// What the file system says.
    #[source]
    pub source: io::Error,
}

/// Resolves `paths` in `tree` to patterns for a list of includes: each path with every link on the way and
/// what the links lead to, sorted, without those that lie below another. `None`: the root itself is wanted, so
/// there is no restriction. Blocks.
///
/// # Errors
/// [`FollowError`] if a directory or link on the way cannot be read. What does not exist is no error.
pub fn follow_links<P: AsRef<[u8]>>(
    tree: &dyn Tree,
    paths: impl IntoIterator<Item = P>,
) -> Result<Option<Vec<Vec<u8>>>, FollowError> {
    let mut found = BTreeSet::new();
    let mut links = 0;
    // What is still to be resolved, the next one last: each path is finished before the one given after it.
    let mut open = Vec::new();
    for path in paths {
        open.push(path.as_ref().to_vec());
        while let Some(path) = open.pop() {
            let targets = resolve(tree, &path, &mut found)?;
            links += targets.len();
            if links > FOLLOW_MAX {
                let source = io::Error::other("it leads through too many links");
                return Err(FollowError {
                    path: show(&path).into_owned(),
                    source,
                });
            }
            open.extend(targets.into_iter().rev());
        }
    }
    Ok(dedupe(found.into_iter().collect()))
}

/// Drops every path that lies below the one kept before it. `None`: one of them is the root.
///
/// Upstream runs this on lists that are not sorted too, so its reading of "the one before" is kept, including
/// that nothing may start with `/` before the first one is kept.
pub(crate) fn dedupe(paths: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let mut kept: Vec<Vec<u8>> = Vec::with_capacity(paths.len());
    for path in paths {
        if path == b"." {
            return None;
        }
        let last = kept.last().map_or(&b""[..], Vec::as_slice);
        if path
            .strip_prefix(last)
            .is_some_and(|rest| rest.first() == Some(&b'/'))
        {
            continue;
        }
        kept.push(path);
    }
    Some(kept)
}

/// Goes down one path to its end or to its first link, and returns what that link leads to.
fn resolve(tree: &dyn Tree, path: &[u8], found: &mut BTreeSet<Vec<u8>>) -> Result<Vec<Vec<u8>>, FollowError> {
    let path = clean(&[b"./", path].concat());
    let mut parts = path.split(|b| *b == b'/');
    let mut current = b".".to_vec();
    while let Some(part) = parts.next() {
        current = if current == b"." {
            part.to_vec()
        } else {
            [&current[..], b"/", part].concat()
        };
        let targets = targets(tree, &current)?;
        if !targets.is_empty() {
            if !found.insert(current) {
                return Ok(Vec::new());
            }
            let rest = parts.collect::<Vec<_>>().join(&b'/');
            return Ok(targets
                .into_iter()
                .map(|t| clean(&[&t[..], b"/", &rest].concat()))
                .collect());
        }
    }
    found.insert(current);
    Ok(Vec::new())
}

/// Where the link at `path` leads, from the root; with wildcards in the last component, where each of the
/// matching links does. Empty: it is no link.
fn targets(tree: &dyn Tree, path: &[u8]) -> Result<Vec<Vec<u8>>, FollowError> {
    let Ok(path) = RelPath::new(path) else {
        return Ok(Vec::new());
    };
    let Some((dir, base)) = path.split() else {
        return Ok(Vec::new());
    };
    let ask = || -> io::Result<Vec<Vec<u8>>> {
        let mut handle = tree.open_dir(dir)?;
        let mut names = Vec::new();
        if has_wildcards(base) {
            names.extend(
                handle
                    .list()?
                    .into_iter()
                    .filter(|l| name_matches(base, &l.name) == Ok(true))
                    .map(|l| l.name),
            );
            names.sort_unstable();
        } else {
            names.push(base.to_vec());
        }
        let mut found = Vec::new();
        for name in names {
            match handle.stat(&name).and_then(|meta| match meta.kind {
                Kind::Symlink => handle.read_link(&name).map(Some),
                _ => Ok(None),
            }) {
                Ok(Some(target)) => found.push(from_root(dir, &target)),
                Ok(None) => {}
                Err(err) if vanished(&err) => {}
                Err(err) => return Err(err),
            }
        }
        Ok(found)
    };
    match ask() {
        Err(err) if vanished(&err) => Ok(Vec::new()),
        other => other.map_err(|source| FollowError {
            path: path.display().into_owned(),
            source,
        }),
    }
}

/// The target of a link in `dir`, as a path that starts with `/` at the root of the tree and cannot leave it.
fn from_root(dir: RelPath<'_>, target: &[u8]) -> Vec<u8> {
    if target.first() == Some(&b'/') {
        clean(target)
    } else {
        clean(&[b"/", &join(dir, target)[..]].concat())
    }
}

fn has_wildcards(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::MemoryTree;

    fn follow(tree: &MemoryTree, paths: &[&str]) -> Option<Vec<String>> {
        let found = follow_links(tree, paths).unwrap()?;
        Some(found.into_iter().map(|p| show(&p).into_owned()).collect())
    }

    #[test]
    fn links_are_resolved_inside_the_root() {
        let mut tree = MemoryTree::new();
        tree.add_file("real/x", 0o644, "").unwrap();
        tree.add_symlink("a", "real").unwrap();
        tree.add_symlink("d/up", "../../../real/x").unwrap();
        tree.add_symlink("abs", "/real").unwrap();
        tree.add_symlink("loop", "loop/loop").unwrap();
        tree.add_symlink("top", ".").unwrap();
        assert_eq!(follow(&tree, &["a/x"]).unwrap(), ["a", "real/x"]);
        assert_eq!(follow(&tree, &["/d/up"]).unwrap(), ["d/up", "real/x"]);
        assert_eq!(follow(&tree, &["abs"]).unwrap(), ["abs", "real"]);
        assert_eq!(follow(&tree, &["loop/y"]).unwrap(), ["loop"]);
        assert_eq!(follow(&tree, &["a*"]).unwrap(), ["a*", "real"]);
        assert_eq!(follow(&tree, &["none/at/all"]).unwrap(), ["none/at/all"]);
        assert_eq!(follow(&tree, &["../out"]).unwrap(), ["../out"]);
        assert_eq!(follow(&tree, &["top"]), None);
        assert_eq!(follow(&tree, &["/"]), None);
    }

    #[test]
    fn what_lies_below_a_kept_path_is_dropped() {
        let paths = |list: &[&str]| list.iter().map(|p| p.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(dedupe(paths(&["a", "a/b", "a-b"])), Some(paths(&["a", "a-b"])));
        assert_eq!(
            dedupe(paths(&["/x", "a", "b", "a/c"])),
            Some(paths(&["a", "b", "a/c"]))
        );
        assert_eq!(dedupe(paths(&["a", "."])), None);
    }
}
