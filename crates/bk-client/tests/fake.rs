//! The client against the fake daemon: the conformance suite, everything a daemon can do wrong, and endpoints that are
//! no daemon. No live daemon is needed.
#![cfg(feature = "buildkitd")]

#[path = "fake/call.rs"]
mod call;
#[path = "fake/faults.rs"]
mod faults;
#[path = "fake/garbage.rs"]
mod garbage;
#[path = "fake/headers.rs"]
mod headers;
#[path = "fake/inspect.rs"]
mod inspect;
#[path = "fake/lifecycle.rs"]
mod lifecycle;
#[path = "fake/program.rs"]
mod program;
#[path = "fake/spans.rs"]
mod spans;
#[path = "fake/suite.rs"]
mod suite;

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use bk_client::{Backend, BuildRequest, Client, ConnectOptions, Environment, EventSink, ImageBuilder};
use bk_testkit::{
    fake::{FakeDaemon, Script},
    fixture::{Tree, TreeBuilder},
};

/// Nothing here takes longer, even on a busy machine with two cores.
const LIMIT: Duration = Duration::from_secs(60);

/// Fails the test, instead of hanging it, when `work` does not end in time.
async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work)
        .await
        .unwrap_or_else(|_| panic!("{what} did not end within {LIMIT:?}"))
}

fn fake(script: Script) -> FakeDaemon {
    FakeDaemon::start(script).expect("fake daemon")
}

async fn client(address: &str) -> Client {
    let options = ConnectOptions::new()
        .environment(Environment::empty())
        .addr(address)
        .backend(Backend::Buildkitd);
    bounded("connecting", Box::pin(bk_client::connect_with(options)))
        .await
        .expect("connect")
}

/// A small context that copies everything.
fn small() -> Tree {
    TreeBuilder::new()
        .file("Dockerfile", "FROM scratch\nCOPY . /out/\n")
        .file("a", "a\n")
        .file("b/c", "c\n".repeat(40_000))
        .build()
        .expect("fixture")
}

/// A context whose build runs until it is cancelled.
fn endless() -> Tree {
    TreeBuilder::new()
        .file(
            "Dockerfile",
            "FROM scratch\nCOPY sh /bin/sh\nRUN echo begun && sleep 100000\n",
        )
        .file("sh", "shell\n")
        .build()
        .expect("fixture")
}

/// Builds `tree` under `tag` on a task of its own, so that it can be dropped from outside.
fn spawn_build(client: &Client, tree: &Arc<Tree>, tag: &str) -> tokio::task::JoinHandle<Result<(), String>> {
    let (client, tree, request) = (
        client.clone(),
        Arc::clone(tree),
        BuildRequest::new(tree.path()).tag(tag),
    );
    tokio::spawn(async move {
        let result = client.build(request, EventSink::discard()).await;
        drop(tree);
        result.map(drop).map_err(|e| bk_testkit::events::chain(&e))
    })
}

/// A file that stands for a shell: the fake daemon only copies it.
fn shell() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("sh");
    std::fs::write(&path, "not a shell\n").expect("write");
    (dir, path)
}
