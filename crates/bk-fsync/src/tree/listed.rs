//! A tree whose listings are remembered, so that several walks read it once.
//!
//! The rule: what was answered once is answered the same way again; what failed is asked again. Contents are never kept:
//! a file that changed since it was listed is caught where it is read, as in any walk.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{DirTree, Directory, Listed, OpenFile, Tree};
use crate::entry::{Meta, Xattr};
use crate::limits::LISTED_ENTRIES;
use crate::path::{RelPath, join};

/// A view of a tree for several builds at the same time: each directory is listed once and each entry is asked about once,
/// whoever asks first. All of them see the tree as it was then.
///
/// At most [`LISTED_ENTRIES`] answers are remembered; beyond that the tree is asked each time. Cloning is cheap, and
/// clones share what they know. Dropping the last one forgets it; no directory stays open between walks.
#[derive(Clone)]
pub struct ListedTree(Arc<Shared>);

struct Shared {
    origin: Origin,
    dirs: Mutex<HashMap<Vec<u8>, Arc<Mutex<Known>>>>,
    /// How many answers may still be remembered.
    room: AtomicUsize,
}

enum Origin {
    Tree(Arc<dyn Tree>),
    /// A directory that is opened by who walks first: opening it may block.
    Dir(PathBuf, OnceLock<DirTree>),
}

/// What is known of one directory.
#[derive(Default)]
struct Known {
    /// The directory itself, as long as somebody holds a view of it.
    open: Option<Box<dyn Directory>>,
    views: usize,
    /// Whether it could be opened before.
    seen: bool,
    listed: Option<Vec<Listed>>,
    entries: HashMap<Vec<u8>, Entry>,
}

/// What is known of one entry.
#[derive(Clone, Default)]
struct Entry {
    meta: Option<Meta>,
    link: Option<Vec<u8>>,
    xattrs: Option<Vec<Xattr>>,
    implied: Option<bool>,
}

impl fmt::Debug for ListedTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedTree").finish_non_exhaustive()
    }
}

impl ListedTree {
    /// Remembers what `tree` says. Nothing is read yet.
    #[must_use]
    pub fn new(tree: Arc<dyn Tree>) -> Self {
        Self::of(Origin::Tree(tree))
    }

    /// Remembers what a directory of this machine holds. It is opened by the first walk.
    #[must_use]
    pub fn of_dir(dir: impl Into<PathBuf>) -> Self {
        Self::of(Origin::Dir(dir.into(), OnceLock::new()))
    }

    fn of(origin: Origin) -> Self {
        ListedTree(Arc::new(Shared {
            origin,
            dirs: Mutex::default(),
            room: AtomicUsize::new(LISTED_ENTRIES),
        }))
    }
}

impl Shared {
    fn tree(&self) -> io::Result<&dyn Tree> {
        match &self.origin {
            Origin::Tree(tree) => Ok(&**tree),
            Origin::Dir(dir, opened) => {
                if let Some(tree) = opened.get() {
                    return Ok(tree);
                }
                let tree = DirTree::open(dir).map_err(io::Error::other)?;
                Ok(opened.get_or_init(|| tree))
            }
        }
    }

    /// Takes room for `count` answers; `false` when there is not so much left.
    fn take(&self, count: usize) -> bool {
        let less = |room: usize| room.checked_sub(count);
        self.room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tree for ListedTree {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        let shared = &self.0;
        let known = locked(&shared.dirs).get(path.as_bytes()).cloned();
        let known = match known {
            Some(known) => known,
            None if shared.take(1) => {
                let mut dirs = locked(&shared.dirs);
                dirs.entry(path.as_bytes().to_vec()).or_default().clone()
            }
            // Too much to remember: a view of its own.
            None => Arc::default(),
        };
        let mut state = locked(&known);
        if !state.seen {
            state.open = Some(shared.tree()?.open_dir(path)?);
            state.seen = true;
        }
        state.views += 1;
        drop(state);
        Ok(Box::new(View {
            shared: shared.clone(),
            path: path.as_bytes().to_vec(),
            known,
        }))
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        self.0.tree()?.open(path)
    }

    fn root_meta(&self) -> io::Result<Meta> {
        self.0.tree()?.root_meta()
    }
}

/// One walk's hold on a directory.
struct View {
    shared: Arc<Shared>,
    path: Vec<u8>,
    known: Arc<Mutex<Known>>,
}

impl Drop for View {
    fn drop(&mut self) {
        let mut known = locked(&self.known);
        known.views -= 1;
        if known.views == 0 {
            known.open = None;
        }
    }
}

impl View {
    /// Answers about `name` from what is known, else asks and remembers. Others wait meanwhile instead of asking as well.
    fn answer<T: Clone>(
        &self,
        name: &[u8],
        slot: fn(&mut Entry) -> &mut Option<T>,
        ask: impl FnOnce(&dyn Directory) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut known = locked(&self.known);
        if let Some(answer) = known.entries.get_mut(name).and_then(|e| slot(e).clone()) {
            return Ok(answer);
        }
        let answer = ask(&**self.opened(&mut known)?)?;
        if self.shared.take(1) {
            *slot(known.entries.entry(name.to_vec()).or_default()) = Some(answer.clone());
        }
        Ok(answer)
    }

    fn opened<'a>(&self, known: &'a mut Known) -> io::Result<&'a mut Box<dyn Directory>> {
        match &mut known.open {
            Some(dir) => Ok(dir),
            none => {
                let dir = self.shared.tree()?.open_dir(RelPath::trusted(&self.path))?;
                Ok(none.insert(dir))
            }
        }
    }
}

impl Directory for View {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let mut known = locked(&self.known);
        if let Some(listed) = &known.listed {
            return Ok(listed.clone());
        }
        let listed = self.opened(&mut known)?.list()?;
        if self.shared.take(listed.len()) {
            known.listed = Some(listed.clone());
        }
        Ok(listed)
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        self.answer(name, |e| &mut e.meta, |dir| dir.stat(name))
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        self.answer(name, |e| &mut e.link, |dir| dir.read_link(name))
    }

    fn xattrs(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        self.answer(name, |e| &mut e.xattrs, |dir| dir.xattrs(name))
    }

    fn is_implied(&self, name: &[u8]) -> bool {
        // A directory that cannot be asked is reported by what follows.
        self.answer(name, |e| &mut e.implied, |dir| Ok(dir.is_implied(name)))
            .unwrap_or(false)
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn Directory>> {
        let path = join(RelPath::trusted(&self.path), name);
        ListedTree(self.shared.clone()).open_dir(RelPath::trusted(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_stay_and_failures_are_asked_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("sub")).expect("mkdir");
        std::fs::write(at("sub/a"), "1").expect("write");
        let tree = ListedTree::of_dir(dir.path());
        let sub = RelPath::new(b"sub").expect("a path");
        let names = |tree: &ListedTree| -> Vec<Vec<u8>> {
            let mut view = tree.open_dir(sub).expect("the directory");
            view.list().expect("names").into_iter().map(|l| l.name).collect()
        };
        assert_eq!(names(&tree), [b"a".to_vec()]);
        let size = |tree: &ListedTree, name: &[u8]| tree.open_dir(sub)?.stat(name).map(|m| m.size);
        assert_eq!(size(&tree, b"a").expect("a file"), 1);
        assert!(size(&tree, b"b").is_err());
        std::fs::write(at("sub/a"), "123").expect("write");
        std::fs::write(at("sub/b"), "12").expect("write");
        assert_eq!(names(&tree), [b"a".to_vec()]);
        assert_eq!(
            (size(&tree, b"a").expect("a"), size(&tree, b"b").expect("b")),
            (1, 2)
        );
        assert!(tree.open_dir(RelPath::new(b"gone").expect("a path")).is_err());
        std::fs::create_dir(at("gone")).expect("mkdir");
        assert!(tree.open_dir(RelPath::new(b"gone").expect("a path")).is_ok());
        let known = locked(&tree.0.dirs)[&b"sub"[..]].clone();
        assert!(locked(&known).open.is_none(), "no directory stays open");
    }

    #[test]
    fn without_room_the_tree_is_asked_each_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("a"), "1").expect("write");
        let tree = ListedTree::of_dir(dir.path());
        tree.0.room.store(0, Ordering::Relaxed);
        let size = || tree.open_dir(RelPath::ROOT)?.stat(b"a").map(|m| m.size);
        assert_eq!(size().expect("a"), 1);
        std::fs::write(dir.path().join("a"), "12").expect("write");
        assert_eq!(size().expect("a"), 2);
        assert!(locked(&tree.0.dirs).is_empty());
    }
}
