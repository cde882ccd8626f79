//! Builds that are cancelled, lost or many: nothing stays behind on either side.

use std::{sync::Arc, time::Duration};

use bk_client::{BuildEvent, BuildRequest, EventSink, ImageBuilder};
use bk_testkit::{
    events::Recorder,
    fake::{Fault, Script},
    live::until,
};
use tokio::{runtime::Handle, sync::Notify};

use crate::{LIMIT, bounded, client, endless, fake, small, spawn_build};

/// Waits until no more than `tasks` tasks live in this runtime.
async fn tasks_at_most(tasks: usize) {
    let alive = || Handle::current().metrics().num_alive_tasks();
    let ended = until(LIMIT, Duration::from_millis(20), async || alive() <= tasks).await;
    assert!(ended, "{} tasks are left, {tasks} were there before", alive());
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .map(Iterator::count)
        .unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_build_ends_on_the_daemon_and_leaves_no_task() {
    let daemon = fake(Script::healthy());
    let client = client(&daemon.address()).await;
    let tree = endless();
    let before = Handle::current().metrics().num_alive_tasks();
    let begun = Arc::new(Notify::new());
    let told = Arc::clone(&begun);
    let sink = Recorder::new().sink_and(move |event| {
        if matches!(event, BuildEvent::Log(_)) {
            told.notify_one();
        }
    });
    let build = client.build(BuildRequest::new(tree.path()).tag("endless:1"), sink);
    tokio::select! {
        ended = build => panic!("the endless build ended: {ended:?}"),
        () = bounded("the step's output", begun.notified()) => {}
    }
    daemon
        .wait_idle(1, LIMIT)
        .await
        .expect("no build and no session on the daemon");
    tasks_at_most(before).await;
    // The same client still builds.
    let tree = small();
    client
        .build(
            BuildRequest::new(tree.path()).tag("after:1"),
            EventSink::discard(),
        )
        .await
        .expect("build");
    assert!(daemon.image("after:1").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_can_be_dropped_at_any_moment() {
    for fault in [Fault::SilentSolve, Fault::NeverReads, Fault::SilentStatus] {
        let daemon = fake(Script::healthy().fault(fault.clone()));
        let client = client(&daemon.address()).await;
        let tree = Arc::new(if fault == Fault::SilentStatus {
            endless()
        } else {
            small()
        });
        let before = Handle::current().metrics().num_alive_tasks();
        let build = spawn_build(&client, &tree, "dropped:1");
        daemon.wait_builds(1, LIMIT).await.expect("a build");
        build.abort();
        assert!(build.await.expect_err("aborted").is_cancelled(), "{fault:?}");
        daemon
            .wait_idle(1, LIMIT)
            .await
            .unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        tasks_at_most(before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_dies_fails_the_build_at_once() {
    let daemon = fake(Script::healthy());
    let client = client(&daemon.address()).await;
    let before = Handle::current().metrics().num_alive_tasks();
    let build = spawn_build(&client, &Arc::new(endless()), "dies:1");
    daemon.wait_builds(1, LIMIT).await.expect("a build");
    daemon.cut();
    let error = bounded("the build", build)
        .await
        .expect("task")
        .expect_err("no daemon");
    assert!(error.starts_with("lost the daemon at unix://"), "{error}");
    tasks_at_most(before).await;
    // It is back: the next build connects anew.
    let tree = small();
    let again = client.build(BuildRequest::new(tree.path()).tag("back:1"), EventSink::discard());
    bounded("the next build", again).await.expect("build");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_builds_at_once_through_one_client_and_through_ten() {
    let daemon = fake(Script::healthy());
    let one = client(&daemon.address()).await;
    let mut builds = Vec::new();
    for n in 0..10 {
        builds.push(spawn_build(&one, &Arc::new(small()), &format!("one:{n}")));
        builds.push(spawn_build(
            &client(&daemon.address()).await,
            &Arc::new(small()),
            &format!("ten:{n}"),
        ));
    }
    for build in builds {
        bounded("a build", build).await.expect("task").expect("build");
    }
    for n in 0..10 {
        assert!(daemon.image(&format!("one:{n}")).is_some() && daemon.image(&format!("ten:{n}")).is_some());
    }
    assert_eq!(daemon.seen().sessions.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_builds_leave_files_and_tasks_flat() {
    let daemon = fake(Script::healthy());
    let client = client(&daemon.address()).await;
    let tree = small();
    let build = async || {
        let request = BuildRequest::new(tree.path()).tag("many:1");
        client.build(request, EventSink::discard()).await.expect("build");
    };
    for _ in 0..5 {
        build().await;
    }
    daemon.wait_idle(1, LIMIT).await.expect("idle");
    let (files, tasks) = (open_files(), Handle::current().metrics().num_alive_tasks());
    for _ in 0..100 {
        build().await;
    }
    daemon.wait_idle(1, LIMIT).await.expect("idle");
    tasks_at_most(tasks).await;
    // Other tests of this binary run in the same process and open files of their own.
    assert!(
        open_files() < files + 80,
        "{} files are open, {files} were before",
        open_files()
    );
}
