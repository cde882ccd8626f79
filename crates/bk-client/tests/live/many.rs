//! Many builds: at once, and one after the other.

use std::{sync::Arc, time::Duration};

use bk_client::{BuildRequest, Client, EventSink, ImageBuilder};
use bk_testkit::{
    conformance::{fresh_tag, fresh_token},
    events::chain,
    fixture::{Tree, TreeBuilder},
    live::{Daemon, Engine, Route, Target, say, until},
};
use tokio::runtime::Handle;

use crate::{LIMIT, bounded, connect};

/// Builds that run one after the other in one process.
const THOUSAND: usize = 1000;
/// Builds before memory and files are counted first: caches and pools have their size by then.
const WARM_UP: usize = 50;
/// What a thousand builds may add to the memory of a process that does nothing else, in KiB: allocators keep some.
const MEMORY_SLACK: u64 = 8 * 1024;
/// Set in the environment of the process that does nothing else.
const ALONE: &str = "BK_LIVE_ALONE";

fn tree() -> Tree {
    TreeBuilder::new()
        .file("Dockerfile", "FROM scratch\nCOPY tree /out/\n")
        .file("tree/token", fresh_token())
        .many("tree/many", 200)
        .build()
        .expect("fixture")
}

async fn build(client: &Client, tree: &Tree, tag: &str) -> Result<(), String> {
    let build = client.build(BuildRequest::new(tree.path()).tag(tag), EventSink::discard());
    bounded("a build", LIMIT, build)
        .await
        .map(drop)
        .map_err(|e| chain(&e))
}

/// Ten builds of different contexts through one client and, at the same time, ten through ten clients.
async fn at_once(daemon: Daemon, route: Route) {
    const TEST: &str = "ten_at_once";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let shared = Arc::new(connect(&target).await);
    let mut builds = Vec::new();
    for n in 0..20 {
        let connected = if n % 2 == 0 {
            Arc::clone(&shared)
        } else {
            Arc::new(connect(&target).await)
        };
        builds.push(tokio::spawn(async move {
            let (tree, tag) = (tree(), fresh_tag("at-once"));
            let expected = tree.snapshot().expect("snapshot").below("tree");
            build(&connected.client, &tree, &tag)
                .await
                .map(|()| (tag, expected))
        }));
    }
    let engine = Engine::connect(&target.docker).await.expect("engine");
    for build in builds {
        let built = build.await.expect("task");
        let (tag, expected) = built.unwrap_or_else(|e| panic!("{}: {e}", target.name()));
        let got = engine.tree(&tag, "out").await.expect("image");
        let token =
            |tree: &bk_testkit::snapshot::Snapshot| tree.entries.get(&b"token"[..]).and_then(|e| e.digest);
        assert_eq!(
            token(&got),
            token(&expected),
            "{tag} on {} is another build's image",
            target.name()
        );
        assert_eq!(got.entries.len(), expected.entries.len());
        engine.remove_image(&tag).await.expect("remove image");
    }
    target.passed(TEST);
}

/// Resident memory of this process in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .map(Iterator::count)
        .unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_builds_leave_memory_files_and_tasks_flat() {
    const TEST: &str = "a_thousand_builds";
    let Some(target) = Target::find(Daemon::Docker28_5, Route::Grpc, TEST) else {
        return;
    };
    if std::env::var_os(ALONE).is_none() {
        // Other tests of this process would be counted too: the builds run in a process of their own.
        let _turn = target.turn().await;
        let this = std::env::current_exe().expect("the test binary");
        let name = "many::a_thousand_builds_leave_memory_files_and_tasks_flat";
        let mut alone = tokio::process::Command::new(this);
        alone
            .args(["--exact", name, "--nocapture"])
            .env(ALONE, "1")
            .kill_on_drop(true);
        let status = bounded("a thousand builds", 3 * LIMIT, alone.status())
            .await
            .expect("run");
        assert!(
            status.success(),
            "a thousand builds, in a process of their own: {status}"
        );
        return;
    }
    let connected = connect(&target).await;
    let tree = tree();
    let tag = fresh_tag("thousand");
    let round = async |count: usize| {
        for n in 0..count {
            let built = build(&connected.client, &tree, &tag).await;
            built.unwrap_or_else(|e| panic!("build {n} of {count}: {e}"));
        }
    };
    round(WARM_UP).await;
    let alive = || Handle::current().metrics().num_alive_tasks();
    let (memory_before, files_before, tasks_before) = (memory(), open_files(), alive());
    round(THOUSAND - WARM_UP).await;
    let settled = until(Duration::from_secs(30), Duration::from_millis(50), async || {
        alive() <= tasks_before
    })
    .await;
    let (memory_after, files_after) = (memory(), open_files());
    say(&format!(
        "{THOUSAND} builds: memory {memory_before} -> {memory_after} KiB, files {files_before} -> {files_after}, \
         tasks {tasks_before} -> {}",
        alive()
    ));
    assert!(
        settled,
        "{} tasks are left, {tasks_before} were there before",
        alive()
    );
    assert!(
        memory_after < memory_before + MEMORY_SLACK,
        "memory {memory_before} -> {memory_after} KiB"
    );
    assert!(
        files_after <= files_before,
        "open files {files_before} -> {files_after}"
    );
    let engine = Engine::connect(&target.docker).await.expect("engine");
    engine.remove_image(&tag).await.expect("remove image");
    target.passed(TEST);
}

mod ten_at_once {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn build_docker_28_5() {
        at_once(Daemon::Docker28_5, Route::Build).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn direct_buildkit_tcp() {
        at_once(Daemon::BuildkitTcp, Route::Direct).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn direct_buildkit_unix() {
        at_once(Daemon::BuildkitUnix, Route::Direct).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn grpc_docker_20_10() {
        at_once(Daemon::Docker20_10, Route::Grpc).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn grpc_docker_26_1() {
        at_once(Daemon::Docker26_1, Route::Grpc).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn grpc_docker_28_5_containerd() {
        at_once(Daemon::Docker28_5Containerd, Route::Grpc).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn tar_docker_28_5() {
        at_once(Daemon::Docker28_5, Route::Tar).await;
    }
}
