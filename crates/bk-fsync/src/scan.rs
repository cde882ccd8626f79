//! What a walk finds in one directory.
//!
//! The rule: nothing here depends on what else was found, so directories can be scanned in any order and on any thread,
//! and a walk that puts the results in order yields the same entries.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::entry::{Entry, Kind, Meta};
use crate::filter::{DirState, Filter};
use crate::path::{RelPath, check_name, join, show};
use crate::tree::{Directory, Listed, vanished};
use crate::walk::WalkError;

/// A name that may matter.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) entry: Entry,
    pub(crate) visible: bool,
    /// For a directory in which something may be visible: what its names are decided with.
    pub(crate) below: Option<DirState>,
}

/// A directory that was opened and listed, and whose first names were examined.
pub(crate) struct Scanned {
    /// Open for as long as there are names to examine, or the walk itself has opened it.
    pub(crate) handle: Option<Box<dyn Directory>>,
    /// What the first names turned out to be, in order. Ends at the first that cannot be examined.
    pub(crate) found: Vec<Result<Found, WalkError>>,
    /// The names behind them, in order.
    pub(crate) names: std::vec::IntoIter<Listed>,
}

/// A directory that cannot be listed.
#[derive(Debug)]
pub(crate) struct Unlisted {
    /// What was tried.
    pub(crate) action: &'static str,
    pub(crate) source: io::Error,
}

/// Scans the directory at `path`, which `opened` opened, and examines its first `count` names.
pub(crate) fn scan(
    filter: &Filter,
    path: &[u8],
    state: &DirState,
    opened: io::Result<Box<dyn Directory>>,
    count: usize,
    stop: &AtomicBool,
) -> Result<Scanned, Unlisted> {
    let failed = |action| move |source| Unlisted { action, source };
    let mut handle = opened.map_err(failed("open directory"))?;
    let mut names = handle.list().map_err(failed("list directory"))?;
    names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut names = names.into_iter();
    let found = examine(filter, &*handle, path, state, names.by_ref().take(count), stop);
    Ok(Scanned {
        handle: Some(handle),
        found,
        names,
    })
}

/// Examines `names` of the directory at `path`.
pub(crate) fn examine(
    filter: &Filter,
    dir: &dyn Directory,
    path: &[u8],
    state: &DirState,
    names: impl Iterator<Item = Listed>,
    stop: &AtomicBool,
) -> Vec<Result<Found, WalkError>> {
    let mut found = Vec::new();
    for listed in names {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match examine_one(filter, dir, path, state, listed) {
            Ok(None) => {}
            Ok(Some(one)) => found.push(Ok(one)),
            Err(err) => {
                found.push(Err(err));
                break;
            }
        }
    }
    found
}

/// `None`: it is hidden, or has vanished.
fn examine_one(
    filter: &Filter,
    dir: &dyn Directory,
    above: &[u8],
    state: &DirState,
    listed: Listed,
) -> Result<Option<Found>, WalkError> {
    let Listed { name, kind } = listed;
    if let Err(fault) = check_name(&name) {
        let (name, dir) = (show(&name).into_owned(), show(above).into_owned());
        return Err(WalkError::BadName { name, dir, fault });
    }
    let path = join(RelPath::trusted(above), &name);
    let mut meta = None;
    if kind.is_none() {
        meta = stat(dir, &name, &path)?;
        if meta.is_none() {
            return Ok(None);
        }
    }
    let kind = kind.or(meta.as_ref().map(|meta| meta.kind));
    let decision = filter.decide(RelPath::trusted(&path), kind == Some(Kind::Dir), state)?;
    if !decision.visible && !decision.descend {
        return Ok(None);
    }
    if meta.is_none() {
        meta = match stat(dir, &name, &path) {
            // What is hidden may be unreadable.
            Err(WalkError::Io { .. }) if !decision.visible => None,
            other => other?,
        };
    }
    let Some(meta) = meta else { return Ok(None) };
    let is_dir = meta.kind == Kind::Dir;
    if !decision.visible && !is_dir {
        return Ok(None);
    }
    let entry = match entry(dir, &name, path, meta) {
        Err(WalkError::Io { .. }) if !decision.visible => None,
        other => other?,
    };
    Ok(entry.map(|entry| Found {
        entry,
        visible: decision.visible,
        below: (is_dir && decision.descend).then_some(decision.state),
    }))
}

/// The metadata of a name. `None`: it has vanished.
fn stat(dir: &dyn Directory, name: &[u8], path: &[u8]) -> Result<Option<Meta>, WalkError> {
    match dir.stat(name) {
        Ok(meta) => Ok(Some(meta)),
        Err(err) if vanished(&err) => Ok(None),
        Err(err) => Err(fail("examine", path, err)),
    }
}

/// Completes an entry. `None`: it has vanished.
fn entry(dir: &dyn Directory, name: &[u8], path: Vec<u8>, meta: Meta) -> Result<Option<Entry>, WalkError> {
    if meta.kind == Kind::Socket {
        // Never sent.
        return Ok(Some(Entry {
            path,
            meta,
            target: Vec::new(),
            xattrs: Vec::new(),
        }));
    }
    let target = if meta.kind == Kind::Symlink {
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

pub(crate) fn fail(action: &'static str, path: &[u8], source: io::Error) -> WalkError {
    WalkError::Io {
        action,
        path: show(path).into_owned(),
        source,
    }
}
