//! The session answers the health checks of real daemons in time, however busy the client is. The oldest end a session for
//! one late answer.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bk_client::{BuildRequest, Context, EventSink, ImageBuilder};
use bk_fsync::{
    path::RelPath,
    tree::{DirTree, Directory, OpenFile, Tree},
};
use bk_testkit::{
    conformance::{fresh_tag, fresh_token},
    events::chain,
    fixture::TreeBuilder,
    live::{Daemon, Engine, Route, Target, say},
    proxy::Proxy,
};

use crate::{LIMIT, bounded, connect_to};

/// How late an answer may be before BuildKit 0.8 ends the session.
const DAEMON_GIVES_UP: Duration = Duration::from_secs(10);
/// How long the disk takes to open a file.
const SLOW: Duration = Duration::from_millis(2);
/// Files of the context.
const FILES: usize = 6000;

/// A tree on a disk that is slow.
struct SlowTree(DirTree);

impl Tree for SlowTree {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        self.0.open_dir(path)
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        // sleep: that is the disk
        std::thread::sleep(SLOW);
        self.0.open(path)
    }
}

/// Threads that use every processor for nothing, until it is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let busy = Arc::new(AtomicBool::new(true));
        let count = std::thread::available_parallelism().map_or(2, usize::from) * 2;
        for _ in 0..count {
            let busy = Arc::clone(&busy);
            std::thread::spawn(move || {
                let mut sum = 0_u64;
                while busy.load(Ordering::Relaxed) {
                    sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
                }
            });
        }
        Self(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

async fn answers_in_time(daemon: Daemon, route: Route) {
    const TEST: &str = "health_under_load";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let proxy = Proxy::start(&target.address).expect("a proxy");
    let client = connect_to(&proxy.address(), route).await;
    let tree = TreeBuilder::new()
        .file("Dockerfile", "FROM scratch\nCOPY tree /out/\n")
        .file("tree/token", fresh_token())
        .big("tree/big", 64 << 20, 5)
        .many("tree/many", FILES)
        .build()
        .expect("fixture");
    let slow = SlowTree(DirTree::open(tree.path()).expect("a tree"));
    let tag = fresh_tag("health");
    let request = BuildRequest::new(Context::Tree(Arc::new(slow))).tag(&tag);
    let busy = Busy::start();
    let built = bounded("the build", LIMIT, client.build(request, EventSink::discard())).await;
    drop(busy);
    built.unwrap_or_else(|e| panic!("{}: {}", target.name(), chain(&e)));
    let engine = Engine::connect(&target.docker).await.expect("engine");
    engine.remove_image(&tag).await.expect("remove image");
    let health = proxy.health();
    say(&format!("{TEST} on {}: {health:?}", target.name()));
    assert!(health.answered > 3, "{}: {health:?}", target.name());
    assert!(
        health.worst < DAEMON_GIVES_UP / 2,
        "{}: {health:?}",
        target.name()
    );
    target.passed(TEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_docker_20_10() {
    answers_in_time(Daemon::Docker20_10, Route::Grpc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn build_docker_20_10() {
    answers_in_time(Daemon::Docker20_10, Route::Build).await;
}
