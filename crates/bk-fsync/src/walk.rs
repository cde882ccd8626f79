//! Walks a tree and yields what is visible in the order of the wire.
//!
//! The rule: depth first, a directory before what is in it, children sorted by raw bytes, and a hidden
//! directory just before its first visible entry. Entries that vanish are skipped, a directory that cannot be
//! read is an error unless it is hidden, and no depth of nesting uses up the stack or the file descriptors.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::entry::{Entry, Kind, Meta};
use crate::filter::{DirState, Filter, FilterError};
use crate::limits::OPEN_DIRS;
use crate::path::{PathFault, RelPath, check_name, join, show};
use crate::policy::Utf8Policy;
use crate::report::{SendObserver, Warning};
use crate::tree::{Directory, Listed, Tree, vanished};

/// A walk cannot go on: the local file system, the tree, or a pattern is at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// The file system refused something.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was tried, as in "list directory".
        action: &'static str,
        /// The entry, with bytes that are no UTF-8 escaped; `.` for the root.
        path: String,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
    /// A name or the target of a link is no UTF-8, and the daemon accepts nothing else.
    #[error("{what} of {path:?} is not valid UTF-8, which the daemon does not accept")]
    NotUtf8 {
        /// `the name` or `the link target`.
        what: &'static str,
        /// The entry, with bytes that are no UTF-8 escaped.
        path: String,
    },
    /// The tree listed something that is no name.
    #[error("the tree lists {name:?} in {dir:?}, which {fault}")]
    BadName {
        /// The name, with bytes that are no UTF-8 escaped.
        name: String,
        /// The directory that listed it.
        dir: String,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// The lists of the request are at fault.
    #[error("cannot filter the tree")]
    Filter(#[from] FilterError),
}

/// A walk in progress: an iterator over the visible entries. After an error it is over.
pub struct Walk<'a> {
    tree: &'a dyn Tree,
    filter: &'a Filter,
    names: Utf8Policy,
    observer: &'a dyn SendObserver,
    stop: &'a AtomicBool,
    frames: Vec<Frame>,
    /// Handles of the frames that are open; at most [`OPEN_DIRS`].
    open: usize,
    ready: VecDeque<Entry>,
    sockets: u64,
    state: State,
}

#[derive(PartialEq)]
enum State {
    New,
    Running,
    Over,
}

/// A directory on the way down.
struct Frame {
    path: Vec<u8>,
    names: std::vec::IntoIter<Listed>,
    handle: Option<Box<dyn Directory>>,
    filter: DirState,
    /// Its own entry, if it is hidden and nothing below it has been visible so far.
    unsent: Option<Entry>,
}

impl<'a> Walk<'a> {
    /// Starts a walk, which ends early (without an error) once `stop` is set. Each step blocks.
    #[must_use]
    pub fn new(
        tree: &'a dyn Tree,
        filter: &'a Filter,
        names: Utf8Policy,
        observer: &'a dyn SendObserver,
        stop: &'a AtomicBool,
    ) -> Self {
        Walk {
            tree,
            filter,
            names,
            observer,
            stop,
            frames: Vec::new(),
            open: 0,
            ready: VecDeque::new(),
            sockets: 0,
            state: State::New,
        }
    }

    /// Sockets left out so far.
    #[must_use]
    pub fn sockets_skipped(&self) -> u64 {
        self.sockets
    }

    /// Goes on until an entry is ready or everything was seen.
    fn advance(&mut self) -> Result<(), WalkError> {
        if self.state == State::New {
            self.state = State::Running;
            let root = self
                .tree
                .open_dir(RelPath::ROOT)
                .map_err(|e| fail("open directory", b".", e))?;
            self.enter(Vec::new(), root, DirState::default(), None)?;
        }
        while self.ready.is_empty() && self.state == State::Running {
            if self.stop.load(Ordering::Relaxed) {
                self.state = State::Over;
                break;
            }
            let Some(frame) = self.frames.last_mut() else {
                self.state = State::Over;
                break;
            };
            match frame.names.next() {
                Some(listed) => self.visit(listed)?,
                None => self.leave(),
            }
        }
        Ok(())
    }

    /// Takes up one name of the innermost directory.
    fn visit(&mut self, listed: Listed) -> Result<(), WalkError> {
        let Some(frame) = self.frames.last() else {
            return Ok(());
        };
        let path = join(relative(&frame.path), &listed.name);
        if let Err(fault) = check_name(&listed.name) {
            let (name, dir) = (show(&listed.name).into_owned(), show(&frame.path).into_owned());
            return Err(WalkError::BadName { name, dir, fault });
        }
        let mut kind = listed.kind;
        let mut meta = None;
        if kind.is_none() {
            let Some(found) = self.stat(&listed.name, &path)? else {
                return Ok(());
            };
            kind = Some(found.kind);
            meta = Some(found);
        }
        let Some(frame) = self.frames.last() else {
            return Ok(());
        };
        let decision = self
            .filter
            .decide(relative(&path), kind == Some(Kind::Dir), &frame.filter)?;
        if !decision.visible && !decision.descend {
            return Ok(());
        }
        if meta.is_none() {
            meta = match self.stat(&listed.name, &path) {
                // What is hidden may be unreadable.
                Err(WalkError::Io { .. }) if !decision.visible => None,
                other => other?,
            };
        }
        let Some(meta) = meta else { return Ok(()) };
        let is_dir = meta.kind == Kind::Dir;
        if !decision.visible && !is_dir {
            return Ok(());
        }
        if decision.visible {
            if meta.kind == Kind::Socket {
                self.sockets += 1;
                self.observer.warning(&Warning::SocketSkipped { path: &path });
                return Ok(());
            }
            let Some(entry) = self.entry(&listed.name, path.clone(), meta)? else {
                return Ok(());
            };
            self.emit(entry)?;
            if is_dir && decision.descend {
                self.open_child(&listed.name, path, decision.state, None)?;
            }
            return Ok(());
        }
        // Hidden, but something below it may be visible: its entry waits.
        let entry = match self.entry(&listed.name, path.clone(), meta) {
            Err(WalkError::Io { .. }) => None,
            other => other?,
        };
        if let Some(entry) = entry {
            self.open_child(&listed.name, path, decision.state, Some(entry))?;
        }
        Ok(())
    }

    /// Queues an entry, and before it every directory above it that has not been sent.
    fn emit(&mut self, entry: Entry) -> Result<(), WalkError> {
        for frame in &mut self.frames {
            if let Some(above) = frame.unsent.take() {
                self.ready.push_back(above);
            }
        }
        self.ready.push_back(entry);
        for entry in &self.ready {
            match require_utf8(entry) {
                Err(err) if self.names == Utf8Policy::RequireUtf8 => return Err(err),
                Err(_) => self.observer.warning(&Warning::NotUtf8 { path: &entry.path }),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Completes an entry of the innermost directory. `None`: it has vanished.
    fn entry(&mut self, name: &[u8], path: Vec<u8>, meta: Meta) -> Result<Option<Entry>, WalkError> {
        let symlink = meta.kind == Kind::Symlink;
        let Some(dir) = self.handle(&path)? else {
            return Ok(None);
        };
        let target = if symlink {
            dir.read_link(name)
        } else {
            Ok(Vec::new())
        };
        let target = match target {
            Ok(target) => target,
            Err(err) if vanished(&err) => return Ok(None),
            Err(err) => return Err(fail("read link", &path, err)),
        };
        match dir.xattrs(name) {
            Ok(mut xattrs) => {
                xattrs.retain(|(name, _)| crate::policy::sends_xattr(name));
                Ok(Some(Entry {
                    path,
                    meta,
                    target,
                    xattrs,
                }))
            }
            Err(err) if vanished(&err) => Ok(None),
            Err(err) => Err(fail("read the extended attributes of", &path, err)),
        }
    }

    /// The metadata of a name in the innermost directory. `None`: it has vanished.
    fn stat(&mut self, name: &[u8], path: &[u8]) -> Result<Option<Meta>, WalkError> {
        let Some(dir) = self.handle(path)? else {
            return Ok(None);
        };
        match dir.stat(name) {
            Ok(meta) => Ok(Some(meta)),
            Err(err) if vanished(&err) => Ok(None),
            Err(err) => Err(fail("examine", path, err)),
        }
    }

    /// The handle of the innermost directory, opened again if it was closed. `None`: it has vanished.
    fn handle(&mut self, path: &[u8]) -> Result<Option<&dyn Directory>, WalkError> {
        let Some(frame) = self.frames.last_mut() else {
            return Ok(None);
        };
        if frame.handle.is_none() {
            match self.tree.open_dir(relative(&frame.path)) {
                Ok(handle) => {
                    frame.handle = Some(handle);
                    self.open += 1;
                }
                Err(err) if vanished(&err) => return Ok(None),
                Err(err) => return Err(fail("reach", path, err)),
            }
        }
        Ok(frame.handle.as_deref())
    }

    /// Opens a directory in the innermost one and makes it the innermost.
    fn open_child(
        &mut self,
        name: &[u8],
        path: Vec<u8>,
        filter: DirState,
        unsent: Option<Entry>,
    ) -> Result<(), WalkError> {
        let Some(dir) = self.handle(&path)? else {
            return Ok(());
        };
        match dir.open_dir(name) {
            Ok(handle) => self.enter(path, handle, filter, unsent),
            Err(err) => self.tolerate("open directory", &path, err, unsent.is_some()),
        }
    }

    fn enter(
        &mut self,
        path: Vec<u8>,
        mut handle: Box<dyn Directory>,
        filter: DirState,
        unsent: Option<Entry>,
    ) -> Result<(), WalkError> {
        let mut names = match handle.list() {
            Ok(names) => names,
            Err(err) => return self.tolerate("list directory", &path, err, unsent.is_some()),
        };
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if self.open >= OPEN_DIRS
            && let Some(outermost) = self.frames.iter_mut().find(|f| f.handle.is_some())
        {
            outermost.handle = None;
            self.open -= 1;
        }
        self.open += 1;
        self.frames.push(Frame {
            path,
            names: names.into_iter(),
            handle: Some(handle),
            filter,
            unsent,
        });
        Ok(())
    }

    fn leave(&mut self) {
        if let Some(frame) = self.frames.pop()
            && frame.handle.is_some()
        {
            self.open -= 1;
        }
    }

    /// A directory cannot be read: fine if it has vanished, a warning if it is hidden and we lack permission.
    fn tolerate(
        &self,
        action: &'static str,
        path: &[u8],
        err: io::Error,
        hidden: bool,
    ) -> Result<(), WalkError> {
        if vanished(&err) && !path.is_empty() {
            return Ok(());
        }
        if hidden && err.kind() == io::ErrorKind::PermissionDenied {
            self.observer.warning(&Warning::HiddenUnreadable { path });
            return Ok(());
        }
        Err(fail(action, if path.is_empty() { b"." } else { path }, err))
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Entry, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.ready.pop_front() {
            return Some(Ok(entry));
        }
        if let Err(err) = self.advance() {
            self.state = State::Over;
            self.frames.clear();
            self.ready.clear();
            return Some(Err(err));
        }
        self.ready.pop_front().map(Ok)
    }
}

/// Paths of frames and entries are built from checked names only.
fn relative(path: &[u8]) -> RelPath<'_> {
    RelPath::trusted(path)
}

fn require_utf8(entry: &Entry) -> Result<(), WalkError> {
    // The directories above it were entries of their own.
    let name = relative(&entry.path).split().map_or(&[][..], |(_, name)| name);
    for (what, bytes) in [("the name", name), ("the link target", &entry.target)] {
        if std::str::from_utf8(bytes).is_err() {
            return Err(WalkError::NotUtf8 {
                what,
                path: show(&entry.path).into_owned(),
            });
        }
    }
    Ok(())
}

fn fail(action: &'static str, path: &[u8], source: io::Error) -> WalkError {
    WalkError::Io {
        action,
        path: show(path).into_owned(),
        source,
    }
}
