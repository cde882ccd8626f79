//! Several builds of one context as a set: each target's image is right, and the context is walked once.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bk_client::{BuildRequest, BuildSet, DirTree, SetEnd, Tree};
use bk_fsync::{
    entry::Meta,
    path::RelPath,
    tree::{Directory, Listed, OpenFile},
};
use bk_testkit::{
    events::{Recorder, chain},
    fixture::TreeBuilder,
    live::{Daemon, Engine, Route, Target},
    snapshot::ContentDigest,
};

use crate::{LIMIT, bounded, connect};

const TEXT: &str =
    "FROM scratch AS one\nCOPY a /x\nFROM scratch AS two\nCOPY b/c /x\nFROM scratch AS bad\nCOPY gone /\n";

/// A directory of this machine that counts how often directories are listed and entries described. What is not there is
/// asked for again by each build, and not counted.
struct Counting {
    tree: DirTree,
    asked: Arc<AtomicUsize>,
}

struct CountingDir(Box<dyn Directory>, Arc<AtomicUsize>);

impl Tree for Counting {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        Ok(Box::new(CountingDir(
            self.tree.open_dir(path)?,
            self.asked.clone(),
        )))
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        self.tree.open(path)
    }
}

impl Directory for CountingDir {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let names = self.0.list()?;
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(names)
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        let meta = self.0.stat(name)?;
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(meta)
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        self.0.read_link(name)
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn Directory>> {
        Ok(Box::new(CountingDir(self.0.open_dir(name)?, self.1.clone())))
    }
}

async fn set(daemon: Daemon, route: Route) {
    const TEST: &str = "set";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let engine = Engine::connect(&target.docker).await.expect("the engine");
    let connected = connect(&target).await;
    let token = bk_testkit::conformance::fresh_token();
    let tree = TreeBuilder::new()
        .file("Dockerfile", TEXT)
        .file("a", format!("a {token}"))
        .file("b/c", format!("c {token}"))
        .build()
        .expect("fixture");
    let run = async |context: &dyn Fn() -> bk_client::Context, names: &[&str]| {
        let mut set = BuildSet::new().keep_going(true);
        for name in names {
            let tag = format!("bk-set-{token}-{name}");
            set = set.target(*name, BuildRequest::new(context()).target(*name).tag(tag));
        }
        let recorders: Vec<_> = names.iter().map(|_| Recorder::new()).collect();
        let sink = |name: &str| {
            let at = names.iter().position(|n| *n == name).expect("a name of the set");
            recorders[at].sink()
        };
        let results = bounded("the set", LIMIT, Box::pin(set.run(&connected.client, sink))).await;
        let results = results.expect("a set");
        for (recorder, result) in recorders.iter().zip(&results) {
            recorder
                .check(result.end.is_built())
                .unwrap_or_else(|e| panic!("{}: {e}", result.name));
        }
        results
    };

    let dir = tree.path().to_owned();
    for result in run(&|| dir.clone().into(), &["one", "two", "bad"]).await {
        let tag = format!("bk-set-{token}-{}", result.name);
        match (&*result.name, &result.end) {
            ("bad", SetEnd::Failed(bk_client::BuildError::Dockerfile(_))) => {}
            ("one" | "two", SetEnd::Built(outcome)) => {
                let id = engine.image_id(&tag).await.expect("the image");
                assert_eq!(outcome.image_id.as_deref(), Some(&*id));
                let found = engine.tree(&tag, "/").await.expect("its files");
                let text = format!("{} {token}", if result.name == "one" { "a" } else { "c" });
                let digest = found.entries.get(&b"x"[..]).and_then(|file| file.digest);
                assert_eq!(digest, Some(ContentDigest::of(text.as_bytes())), "{found:?}");
                engine.remove_image(&tag).await.expect("removable");
            }
            (name, SetEnd::Failed(e)) => panic!("{name}: {}", chain(e)),
            (name, end) => panic!("{name}: {end:?}"),
        }
    }

    let count = async |names: &[&str]| {
        let asked = Arc::new(AtomicUsize::new(0));
        let counting: Arc<dyn Tree> = Arc::new(Counting {
            tree: DirTree::open(&dir).expect("the directory"),
            asked: asked.clone(),
        });
        for result in run(&|| counting.clone().into(), names).await {
            assert!(result.end.is_built(), "{result:?}");
            let tag = format!("bk-set-{token}-{}", result.name);
            engine.remove_image(&tag).await.expect("removable");
        }
        asked.load(Ordering::SeqCst)
    };
    let all = count(&["one", "two"]).await;
    // Listed: the root and b. Described: Dockerfile, a, b and b/c.
    assert!((2..=6).contains(&all), "{all} questions");
    target.supports("Sets of builds (`BuildSet`)");
    target.passed(TEST);
}

#[tokio::test]
async fn grpc_docker_20_10_builds_sets() {
    set(Daemon::Docker20_10, Route::Grpc).await;
}

#[tokio::test]
async fn grpc_docker_28_5_builds_sets() {
    set(Daemon::Docker28_5, Route::Grpc).await;
}

#[tokio::test]
async fn direct_buildkit_unix_builds_sets() {
    set(Daemon::BuildkitUnix, Route::Direct).await;
}
