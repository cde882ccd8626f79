//! Limits, failures and cancelling, with a builder that walks contexts instead of building.

use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bk_fsync::{
    entry::Meta,
    path::RelPath,
    tree::{Directory, Listed, MemoryTree, OpenFile},
};
use tokio::sync::Semaphore;

use super::*;
use crate::BuilderInfo;

/// A tree that counts what it is asked.
struct Counting {
    tree: MemoryTree,
    lists: Arc<AtomicUsize>,
    stats: Arc<AtomicUsize>,
}

struct CountingDir {
    dir: Box<dyn Directory>,
    lists: Arc<AtomicUsize>,
    stats: Arc<AtomicUsize>,
}

impl Tree for Counting {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        Ok(Box::new(CountingDir {
            dir: self.tree.open_dir(path)?,
            lists: self.lists.clone(),
            stats: self.stats.clone(),
        }))
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        self.tree.open(path)
    }
}

impl Directory for CountingDir {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.dir.list()
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        self.stats.fetch_add(1, Ordering::SeqCst);
        self.dir.stat(name)
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        self.dir.read_link(name)
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn Directory>> {
        self.dir.open_dir(name)
    }
}

/// Counts what runs; ends a build when it gets a permit. The target `bad` fails without one.
struct Gate {
    permits: Semaphore,
    running: AtomicUsize,
    most: AtomicUsize,
    begun: Mutex<Vec<String>>,
}

impl Gate {
    fn new(permits: usize) -> Self {
        Self {
            permits: Semaphore::new(permits),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            begun: Mutex::default(),
        }
    }

    fn begun(&self) -> Vec<String> {
        self.begun.lock().expect("no panic").clone()
    }
}

struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn walk(dir: &mut dyn Directory) -> io::Result<()> {
    for listed in dir.list()? {
        if dir.stat(&listed.name)?.kind == bk_fsync::entry::Kind::Dir {
            walk(&mut *dir.open_dir(&listed.name)?)?;
        }
    }
    Ok(())
}

#[async_trait]
impl ImageBuilder for Gate {
    async fn build(&self, request: BuildRequest, _: EventSink) -> Result<BuildOutcome, BuildError> {
        let name = request.target.clone().unwrap_or_default();
        self.begun.lock().expect("no panic").push(name.clone());
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(&self.running);
        self.most.fetch_max(now, Ordering::SeqCst);
        match &request.context {
            Context::Tree(tree) | Context::DirThrough(_, tree) => {
                walk(&mut *tree.open_dir(RelPath::ROOT).expect("a root")).expect("a walk");
            }
            _ => {}
        }
        // So that the others begin as well before this one ends.
        tokio::task::yield_now().await;
        if name == "bad" {
            return Err(BuildError::Cancelled);
        }
        self.permits.acquire().await.expect("open").forget();
        Ok(BuildOutcome::default())
    }

    fn info(&self) -> BuilderInfo {
        BuilderInfo::new("gate", "here")
    }
}

fn set(names: &[&str]) -> BuildSet {
    let add = |set: BuildSet, name: &&str| set.target(*name, BuildRequest::new(Context::None).target(*name));
    names.iter().fold(BuildSet::new(), add)
}

fn ends(results: &[SetResult]) -> Vec<String> {
    let word = |end: &SetEnd| match end {
        SetEnd::Built(_) => "built",
        SetEnd::Failed(_) => "failed",
        SetEnd::Stopped => "stopped",
        SetEnd::NotBegun => "not begun",
    };
    results
        .iter()
        .map(|r| format!("{} {}", r.name, word(&r.end)))
        .collect()
}

#[tokio::test]
async fn no_more_run_than_may_and_all_in_order() {
    let gate = Gate::new(100);
    let mut asked = Vec::new();
    let results = set(&["a", "b", "c", "d", "e"])
        .limit(2)
        .run(&gate, |name| {
            asked.push(name.to_owned());
            EventSink::discard()
        })
        .await
        .expect("a set");
    assert_eq!(
        ends(&results),
        ["a built", "b built", "c built", "d built", "e built"]
    );
    assert_eq!((asked, gate.most.load(Ordering::SeqCst)), (gate.begun(), 2));
}

#[tokio::test]
async fn a_failure_stops_the_others_or_not() {
    let gate = Gate::new(0);
    let results = set(&["bad", "b", "c"])
        .limit(2)
        .run(&gate, |_| EventSink::discard())
        .await;
    assert_eq!(
        ends(&results.expect("a set")),
        ["bad failed", "b stopped", "c not begun"]
    );
    assert_eq!(gate.running.load(Ordering::SeqCst), 0, "what runs is dropped");

    let gate = Gate::new(100);
    let going = set(&["bad", "b", "c"]).limit(1).keep_going(true);
    let results = going.run(&gate, |_| EventSink::discard()).await.expect("a set");
    assert_eq!(ends(&results), ["bad failed", "b built", "c built"]);
    assert!(!results[0].end.is_built() && results[2].end.is_built());
}

#[tokio::test]
async fn dropping_the_set_drops_every_build() {
    let gate = Gate::new(0);
    let running = set(&["a", "b"]).run(&gate, |_| EventSink::discard());
    tokio::select! {
        biased;
        _ = running => panic!("nothing lets them end"),
        () = std::future::ready(()) => {}
    }
    assert_eq!((gate.begun().len(), gate.running.load(Ordering::SeqCst)), (2, 0));
}

#[tokio::test]
async fn a_shared_tree_is_walked_once() {
    let mut tree = MemoryTree::new();
    for path in ["a/b/c", "a/d", "e"] {
        tree.add_file(path, 0o644, "x").expect("a path");
    }
    let (lists, stats) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counting = Counting {
        tree,
        lists: lists.clone(),
        stats: stats.clone(),
    };
    let context: Arc<dyn Tree> = Arc::new(counting);
    let mut set = BuildSet::new();
    for name in ["one", "two", "three"] {
        set = set.target(name, BuildRequest::new(context.clone()));
    }
    let results = set
        .run(&Gate::new(3), |_| EventSink::discard())
        .await
        .expect("a set");
    assert!(results.iter().all(|r| r.end.is_built()));
    // The root, a and a/b; a, e, a/b, a/d and a/b/c.
    assert_eq!(
        (lists.load(Ordering::SeqCst), stats.load(Ordering::SeqCst)),
        (3, 5)
    );
}

#[test]
fn only_what_is_shared_is_remembered() {
    let set = BuildSet::new()
        .target("a", BuildRequest::new("x"))
        .target("b", BuildRequest::new("y"))
        .target("c", BuildRequest::new("x"));
    let shared: Vec<_> = share_walks(set.targets)
        .iter()
        .map(|(_, r)| matches!(r.context, Context::DirThrough(..)))
        .collect();
    assert_eq!(shared, [true, false, true]);
}

#[tokio::test]
async fn a_wrong_set_begins_nothing() {
    let gate = Gate::new(9);
    for (set, what) in [
        (set(&["a", "a"]), "target"),
        (set(&[""]), "target"),
        (set(&["a"]).limit(0), "limit"),
        (
            set(&["a"]).target("b", BuildRequest::new(Context::None).tag("A")),
            "--tag",
        ),
    ] {
        let e = set.run(&gate, |_| EventSink::discard()).await.expect_err(what);
        assert_eq!(e.what, what);
    }
    assert!(gate.begun().is_empty());
}
