//! Scans the directories that a walk will come to, on other threads.
//!
//! The rule: the next directory in the order of the walk is always scanned first, and what was scanned and not taken yet
//! is bounded. A walk takes what is there, waits for what is being scanned, and scans the rest itself, so it never
//! waits for a thread that waits for it; and what it finds does not depend on the threads.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::filter::{DirState, Filter};
use crate::limits::{PATH_MAX, SCAN_NAMES, SCANNED_AHEAD, SCANS_QUEUED, WALK_HELPERS};
use crate::path::{RelPath, compare};
use crate::scan::{Found, Scanned, Unlisted, scan};
use crate::tree::Tree;
use crate::walk::WalkError;

/// What a walk and its helpers share.
pub(crate) struct Ahead<'a> {
    tree: &'a dyn Tree,
    filter: &'a Filter,
    stop: &'a AtomicBool,
    state: Mutex<State>,
    /// There is something to do for a helper, or nothing any more.
    work: Condvar,
    /// A scan has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    queued: BTreeMap<InOrder, DirState>,
    running: HashSet<Vec<u8>>,
    done: HashMap<Vec<u8>, Result<Scanned, Unlisted>>,
    /// Entries in `done`, and one for each directory.
    entries: usize,
    helpers: usize,
    idle: usize,
    closed: bool,
}

/// A path in the order of a walk.
#[derive(PartialEq, Eq)]
struct InOrder(Vec<u8>);

impl Ord for InOrder {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for InOrder {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> Ahead<'a> {
    pub(crate) fn new(tree: &'a dyn Tree, filter: &'a Filter, stop: &'a AtomicBool) -> Arc<Self> {
        Arc::new(Ahead {
            tree,
            filter,
            stop,
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the directories among `found` scanned. Says whether one more helper would be of use.
    pub(crate) fn queue(&self, found: &[Result<Found, WalkError>]) -> bool {
        let mut state = self.state();
        state.queue(found);
        if state.queued.is_empty() {
            return false;
        }
        if state.idle > 0 {
            self.work.notify_all();
        }
        let wanted = state.idle == 0 && state.helpers < WALK_HELPERS;
        state.helpers += usize::from(wanted);
        wanted
    }

    /// What was found in the directory at `path`, waiting for whoever scans it. `None`: nobody does, nor will.
    pub(crate) fn take(&self, path: &[u8]) -> Option<Result<Scanned, Unlisted>> {
        let mut state = self.state();
        // The walk is here: whatever was queued before this path will not be asked for again.
        while let Some(first) = state.queued.first_entry()
            && compare(&first.key().0, path) != Ordering::Greater
        {
            first.remove();
        }
        while state.running.contains(path) {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let scanned = state.done.remove(path)?;
        let full = state.entries >= SCANNED_AHEAD;
        state.entries -= weight(&scanned);
        if full {
            self.work.notify_all();
        }
        Some(scanned)
    }

    /// Lets every helper end.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.work.notify_all();
    }

    /// What a helper does until the end.
    pub(crate) fn help(&self) {
        loop {
            let mut state = self.state();
            let (path, below) = loop {
                if state.closed {
                    return;
                }
                if state.entries < SCANNED_AHEAD
                    && let Some((InOrder(path), below)) = state.queued.pop_first()
                {
                    break (path, below);
                }
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            };
            state.running.insert(path.clone());
            drop(state);
            // Ends the wait of the walk even if the tree panics.
            let running = Running { ahead: self, path };
            let opened = self.tree.open_dir(RelPath::trusted(&running.path));
            let mut scanned = scan(self.filter, &running.path, &below, opened, SCAN_NAMES, self.stop);
            if let Ok(scanned) = &mut scanned
                && scanned.names.len() == 0
            {
                // Many may wait, and file descriptors are few.
                scanned.handle = None;
            }
            running.done(scanned);
        }
    }
}

impl State {
    fn queue(&mut self, found: &[Result<Found, WalkError>]) {
        for found in found.iter().flatten() {
            if self.queued.len() >= SCANS_QUEUED {
                return;
            }
            // Beyond that a path is opened component by component, which only the walk itself need not do.
            if let Some(below) = &found.below
                && found.entry.path.len() < PATH_MAX
            {
                self.queued
                    .insert(InOrder(found.entry.path.clone()), below.clone());
            }
        }
    }
}

/// What the result of a scan counts.
fn weight(scanned: &Result<Scanned, Unlisted>) -> usize {
    1 + scanned.as_ref().map_or(0, |s| s.found.len() + s.names.len())
}

/// A scan by a helper.
struct Running<'a, 'b> {
    ahead: &'b Ahead<'a>,
    path: Vec<u8>,
}

impl Running<'_, '_> {
    fn done(mut self, scanned: Result<Scanned, Unlisted>) {
        let mut state = self.ahead.state();
        if let Ok(scanned) = &scanned {
            state.queue(&scanned.found);
            if state.idle > 0 && !state.queued.is_empty() {
                self.ahead.work.notify_all();
            }
        }
        state.running.remove(&self.path);
        state.entries += weight(&scanned);
        state.done.insert(std::mem::take(&mut self.path), scanned);
        // Dropping this wakes the walk.
        drop(state);
    }
}

impl Drop for Running<'_, '_> {
    fn drop(&mut self) {
        self.ahead.state().running.remove(&self.path);
        self.ahead.ended.notify_all();
    }
}
