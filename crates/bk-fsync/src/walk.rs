//! Walks a tree and yields what is visible in the order of the wire.
//!
//! The rule: depth first, a directory before what is in it, children sorted by raw bytes, and a hidden
//! directory just before its first visible entry. Entries that vanish are skipped, a directory that cannot be
//! read is an error unless it is hidden, and no depth of nesting uses up the stack or the file descriptors.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;

use crate::ahead::Ahead;
use crate::entry::{Entry, Kind};
use crate::filter::{DirState, Filter, FilterError};
use crate::limits::{OPEN_DIRS, SCAN_NAMES};
use crate::path::{PathFault, RelPath, show};
use crate::policy::Utf8Policy;
use crate::report::{SendObserver, Warning};
use crate::scan::{Found, Scanned, Unlisted, examine, fail, scan};
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
    helpers: Option<Helpers<'a>>,
    frames: Vec<Frame>,
    /// Handles of the frames that are open; at most [`OPEN_DIRS`].
    open: usize,
    ready: VecDeque<Entry>,
    sockets: u64,
    /// Names to examine together.
    together: usize,
    state: State,
}

#[derive(PartialEq)]
enum State {
    New,
    Running,
    Over,
}

/// Threads that scan directories before the walk comes to them.
struct Helpers<'a> {
    ahead: Arc<Ahead<'a>>,
    /// Starts one more.
    start: Box<dyn Fn(Arc<Ahead<'a>>) + 'a>,
}

impl Drop for Helpers<'_> {
    fn drop(&mut self) {
        self.ahead.close();
    }
}

/// A directory on the way down.
struct Frame {
    path: Vec<u8>,
    found: std::vec::IntoIter<Result<Found, WalkError>>,
    /// Names that were not examined yet.
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
            helpers: None,
            frames: Vec::new(),
            open: 0,
            ready: VecDeque::new(),
            sockets: 0,
            together: 1,
            state: State::New,
        }
    }

    /// Lets up to [`WALK_HELPERS`](crate::limits::WALK_HELPERS) threads of `scope` list and examine directories before the
    /// walk comes to them. What it yields, and in which order, stays the same; the memory of what they are ahead is
    /// bounded. They start when there is something to do, and end with the walk: drop it before the scope ends.
    #[must_use]
    pub fn helped<'scope>(self, scope: &'scope Scope<'scope, 'a>) -> Walk<'scope>
    where
        'a: 'scope,
    {
        let ahead = Ahead::new(self.tree, self.filter, self.stop);
        Walk {
            tree: self.tree,
            filter: self.filter,
            names: self.names,
            observer: self.observer,
            stop: self.stop,
            helpers: Some(Helpers {
                ahead,
                start: Box::new(move |ahead: Arc<Ahead<'scope>>| {
                    scope.spawn(move || ahead.help());
                }),
            }),
            frames: self.frames,
            open: self.open,
            ready: self.ready,
            sockets: self.sockets,
            together: self.together,
            state: self.state,
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
            self.enter(Vec::new(), DirState::default(), None)?;
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
            match frame.found.next() {
                Some(found) => self.visit(found?)?,
                None if frame.names.len() > 0 => self.examine_more()?,
                None => self.leave(),
            }
        }
        Ok(())
    }

    /// Takes up one find of the innermost directory.
    fn visit(&mut self, found: Found) -> Result<(), WalkError> {
        let Found {
            entry,
            visible,
            below,
        } = found;
        if !visible {
            // Hidden, but something below it may be visible: its entry waits.
            return match below {
                Some(below) => self.enter(entry.path.clone(), below, Some(entry)),
                None => Ok(()),
            };
        }
        if entry.meta.kind == Kind::Socket {
            self.sockets += 1;
            self.observer
                .warning(&Warning::SocketSkipped { path: &entry.path });
            return Ok(());
        }
        let path = below.map(|below| (entry.path.clone(), below));
        self.emit(entry)?;
        match path {
            Some((path, below)) => self.enter(path, below, None),
            None => Ok(()),
        }
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

    /// Examines further names of the innermost directory.
    fn examine_more(&mut self) -> Result<(), WalkError> {
        let open = self.reopen()?;
        let count = self.names_at_once();
        let Some(frame) = self.frames.last_mut() else {
            return Ok(());
        };
        if !open {
            // It has vanished, and its names with it.
            frame.names = Vec::new().into_iter();
            return Ok(());
        }
        let Some(dir) = &frame.handle else { return Ok(()) };
        let Frame { path, names, .. } = frame;
        let names = names.by_ref().take(count);
        let found = examine(self.filter, &**dir, path, &frame.filter, names, self.stop);
        self.get_help(&found);
        if let Some(frame) = self.frames.last_mut() {
            frame.found = found.into_iter();
        }
        Ok(())
    }

    /// How many names to examine together: few at first, so that the first entries are there at once.
    fn names_at_once(&mut self) -> usize {
        let count = self.together;
        self.together = (count * 2).min(SCAN_NAMES);
        count
    }

    /// Opens the innermost directory again if it was closed. Whether it is open.
    fn reopen(&mut self) -> Result<bool, WalkError> {
        let Some(frame) = self.frames.last_mut() else {
            return Ok(false);
        };
        if frame.handle.is_none() {
            match self.tree.open_dir(relative(&frame.path)) {
                Ok(handle) => {
                    frame.handle = Some(handle);
                    self.open += 1;
                }
                Err(err) if vanished(&err) => return Ok(false),
                Err(err) => return Err(fail("open directory", &frame.path, err)),
            }
        }
        Ok(true)
    }

    /// Has the directories among `found` scanned by others.
    fn get_help(&self, found: &[Result<Found, WalkError>]) {
        if let Some(helpers) = &self.helpers
            && found.iter().flatten().any(|found| found.below.is_some())
            && helpers.ahead.queue(found)
        {
            (helpers.start)(Arc::clone(&helpers.ahead));
        }
    }

    /// Makes the directory at `path` the innermost one.
    fn enter(&mut self, path: Vec<u8>, below: DirState, unsent: Option<Entry>) -> Result<(), WalkError> {
        let scanned = self.helpers.as_ref().and_then(|h| h.ahead.take(&path));
        let by_helper = scanned.is_some();
        let scanned = match scanned {
            Some(scanned) => scanned,
            None => {
                let count = self.names_at_once();
                let above = self.frames.last().and_then(|frame| frame.handle.as_deref());
                let name = relative(&path).split().map(|(_, name)| name);
                let opened = match (above, name) {
                    (Some(above), Some(name)) => above.open_dir(name),
                    _ => self.tree.open_dir(relative(&path)),
                };
                scan(self.filter, &path, &below, opened, count, self.stop)
            }
        };
        let Scanned { handle, found, names } = match scanned {
            Ok(scanned) => scanned,
            Err(Unlisted { action, source }) => {
                return self.tolerate(action, &path, source, unsent.is_some());
            }
        };
        if !by_helper {
            // A helper has queued them already.
            self.get_help(&found);
        }
        if handle.is_some()
            && self.open >= OPEN_DIRS
            && let Some(outermost) = self.frames.iter_mut().find(|f| f.handle.is_some())
        {
            outermost.handle = None;
            self.open -= 1;
        }
        self.open += usize::from(handle.is_some());
        self.frames.push(Frame {
            path,
            found: found.into_iter(),
            names,
            handle,
            filter: below,
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
