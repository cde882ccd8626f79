//! What only a real daemon can prove: caches, cancellation, loss.

use std::{sync::Arc, time::Duration};

use bk_client::{BuildError, BuildEvent, BuildRequest, EventSink, ImageBuilder};
use bk_testkit::{
    conformance::{fresh_tag, fresh_token},
    events::{Recorder, chain},
    fixture::{Tree, TreeBuilder},
    live::{Daemon, Engine, Route, Target, until},
    proxy::Proxy,
};
use tokio::{runtime::Handle, sync::Notify};

use crate::{LIMIT, bounded, connect, connect_to};

/// A context of a few MiB with content that no other build has.
fn unique_tree() -> Tree {
    TreeBuilder::new()
        .file("Dockerfile", "FROM scratch\nCOPY tree /out/\n")
        .file("tree/token", fresh_token())
        .big("tree/big", 4 << 20, u64::from(std::process::id()))
        .many("tree/many", 300)
        .build()
        .expect("fixture")
}

/// A context whose build sleeps until it is cancelled; the sleep is recognised by its own odd number of seconds.
fn sleeping_tree(target: &Target, seconds: &str) -> Tree {
    let dockerfile = format!(
        "FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/busybox\nRUN echo {} && /bin/busybox sleep {seconds}\n",
        fresh_token()
    );
    TreeBuilder::new()
        .file("Dockerfile", dockerfile)
        .program("busybox", &target.busybox)
        .and_then(TreeBuilder::build)
        .expect("fixture")
}

/// Whether a process on this machine has exactly these last two words on its command line.
fn sleeps(seconds: &str) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return false;
    };
    let wanted = format!("sleep\0{seconds}\0");
    processes.filter_map(Result::ok).any(|process| {
        // Processes come and go while they are listed.
        std::fs::read(process.path().join("cmdline")).is_ok_and(|line| line.ends_with(wanted.as_bytes()))
    })
}

async fn unchanged(daemon: Daemon, route: Route) {
    const TEST: &str = "unchanged_context";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let front =
        (route == Route::H2c).then(|| bk_testkit::front::Front::start(&target.docker).expect("front"));
    let upstream = front
        .as_ref()
        .map_or_else(|| target.address.clone(), |f| f.address());
    let proxy = Proxy::start(&upstream).expect("proxy");
    let client = connect_to(&proxy.address(), route).await;
    let engine = Engine::connect(&target.docker).await.expect("engine");
    let tree = unique_tree();
    let content = tree.snapshot().expect("snapshot").below("tree").content_bytes();
    let build = async || {
        let before = proxy.bytes_to_daemon();
        let (tag, recorder) = (fresh_tag("unchanged"), Recorder::new());
        let request = BuildRequest::new(tree.path()).tag(&tag);
        let outcome = bounded("the build", LIMIT, client.build(request, recorder.sink())).await;
        let outcome = outcome.unwrap_or_else(|e| panic!("{}: {}", target.name(), chain(&e)));
        engine.remove_image(&tag).await.expect("remove image");
        let (context, dockerfile) = (
            recorder.transferred("context"),
            recorder.transferred("dockerfile"),
        );
        let mut both = context;
        both.add(&dockerfile);
        assert_eq!(both, outcome.transfer, "events and outcome differ");
        (context, dockerfile, proxy.bytes_to_daemon() - before)
    };
    let dockerfile_bytes = std::fs::metadata(tree.join("Dockerfile"))
        .expect("Dockerfile")
        .len();
    let (first, dockerfile, wire) = build().await;
    assert_eq!(
        (first.sent_bytes, dockerfile.sent_bytes),
        (content, dockerfile_bytes),
        "{first:?}"
    );
    assert!(wire >= content, "{wire} bytes on the wire");

    let (second, dockerfile, wire) = build().await;
    assert_eq!((second.sent_bytes, second.requested_files), (0, 0), "{second:?}");
    assert_eq!(second.entries, first.entries);
    // Upstream asks for the Dockerfile itself again each time (BuildKit 0.8 does not).
    let again = if daemon == Daemon::Docker20_10 {
        0
    } else {
        dockerfile_bytes
    };
    assert_eq!(dockerfile.sent_bytes, again, "{dockerfile:?}");
    // Metadata of some 300 entries, headers and the build itself.
    assert!(
        wire < 256 * 1024,
        "{wire} bytes went to the daemon for an unchanged context"
    );

    std::fs::write(tree.join("tree/token"), "changed").expect("write");
    let (third, ..) = build().await;
    assert_eq!((third.sent_files, third.sent_bytes), (1, 7), "{third:?}");
    target.supports("An unchanged context sends no file again");
    target.passed(TEST);
}

async fn cancelled(daemon: Daemon, route: Route, seconds: &str) {
    const TEST: &str = "cancelled_build";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let connected = connect(&target).await;
    let tree = sleeping_tree(&target, seconds);
    let alive = || Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let begun = Arc::new(Notify::new());
    let told = Arc::clone(&begun);
    let recorder = Recorder::new();
    let sink = recorder.sink_and(move |event| {
        if matches!(event, BuildEvent::Log(_)) {
            told.notify_one();
        }
    });
    let build = connected
        .client
        .build(BuildRequest::new(tree.path()).tag(fresh_tag("cancelled")), sink);
    tokio::select! {
        ended = build => panic!("{}: the sleeping build ended: {ended:?}", target.name()),
        () = bounded("the step's output", LIMIT, begun.notified()) => {}
    }
    let gone = until(Duration::from_secs(60), Duration::from_millis(100), async || {
        !sleeps(seconds)
    })
    .await;
    assert!(
        gone,
        "{}: `sleep {seconds}` still runs a minute after the build was dropped",
        target.name()
    );
    let ended = until(Duration::from_secs(30), Duration::from_millis(20), async || {
        alive() <= before
    })
    .await;
    assert!(
        ended,
        "{}: {} tasks are left, {before} were there before",
        target.name(),
        alive()
    );
    // The daemon takes the next build of the same client.
    let tree = TreeBuilder::new()
        .file("Dockerfile", "FROM scratch\nCOPY a /a\n")
        .file("a", "a")
        .build()
        .expect("tree");
    let next = connected
        .client
        .build(BuildRequest::new(tree.path()), EventSink::discard());
    bounded("the next build", LIMIT, next).await.expect("build");
    target.supports("A dropped build ends on the daemon");
    target.passed(TEST);
}

async fn lost(daemon: Daemon, route: Route, seconds: &str) {
    const TEST: &str = "lost_daemon";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let proxy = Proxy::start(&target.address).expect("proxy");
    let client = connect_to(&proxy.address(), route).await;
    let tree = sleeping_tree(&target, seconds);
    let alive = || Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let begun = Arc::new(Notify::new());
    let told = Arc::clone(&begun);
    let recorder = Recorder::new();
    let sink = recorder.sink_and(move |event| {
        if matches!(event, BuildEvent::Log(_)) {
            told.notify_one();
        }
    });
    let build = client.build(BuildRequest::new(tree.path()).tag(fresh_tag("lost")), sink);
    let cut = async {
        bounded("the step's output", LIMIT, begun.notified()).await;
        proxy.kill();
    };
    let (result, ()) = tokio::join!(bounded("the build", LIMIT, build), cut);
    let error = result.expect_err("the daemon is gone");
    assert!(
        matches!(error, BuildError::SessionLost(_)),
        "{}: {error:?}",
        target.name()
    );
    assert!(error.is_retryable());
    recorder.check(false).expect("events");
    let ended = until(Duration::from_secs(30), Duration::from_millis(20), async || {
        alive() <= before
    })
    .await;
    assert!(
        ended,
        "{}: {} tasks are left, {before} were there before",
        target.name(),
        alive()
    );
    let gone = until(Duration::from_secs(60), Duration::from_millis(100), async || {
        !sleeps(seconds)
    })
    .await;
    assert!(
        gone,
        "{}: `sleep {seconds}` still runs a minute after the connection was cut",
        target.name()
    );
    target.supports("A daemon that is killed fails the build");
    target.passed(TEST);
}

/// The image runs, and holds what was built into it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_runs() {
    const TEST: &str = "image_runs";
    for daemon in [
        Daemon::Docker20_10,
        Daemon::Docker28_5,
        Daemon::Docker28_5Containerd,
        Daemon::BuildkitUnix,
    ] {
        let route = if daemon == Daemon::BuildkitUnix {
            Route::Direct
        } else {
            Route::Grpc
        };
        let Some(target) = Target::find(daemon, route, TEST) else {
            continue;
        };
        let _turn = target.turn().await;
        let connected = connect(&target).await;
        let token = fresh_token();
        let tree = TreeBuilder::new()
            .file(
                "Dockerfile",
                "FROM scratch\nCOPY busybox /bin/sh\nARG T\nRUN echo built-$T > /made\n",
            )
            .program("busybox", &target.busybox)
            .and_then(TreeBuilder::build)
            .expect("fixture");
        let tag = fresh_tag("runs");
        let request = BuildRequest::new(tree.path())
            .tag(&tag)
            .build_arg("T", &token)
            .label("who", "bk");
        let outcome = connected
            .client
            .build(request, EventSink::discard())
            .await
            .expect("build");
        let engine = Engine::connect(&target.docker).await.expect("engine");
        let ran = engine
            .run(&tag, &["/bin/sh", "-c", "read -r line < /made; echo \"$line\""])
            .await
            .expect("run");
        assert_eq!(
            (ran.code, ran.stdout.trim()),
            (0, format!("built-{token}").as_str()),
            "{ran:?}"
        );
        // What the outcome calls the image is what the engine calls it.
        let id = engine.image_id(&tag).await.expect("image");
        assert_eq!(
            outcome.image_id.as_deref(),
            Some(id.as_str()),
            "{}",
            target.name()
        );
        engine.remove_image(&tag).await.expect("remove image");
        target.passed(TEST);
    }
}

macro_rules! tests {
    ($($module:ident { $($test:ident => $call:expr;)+ })+) => {
        $(mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    $call.await;
                }
            )+
        })+
    };
}

tests! {
    unchanged_context {
        build_docker_26_1 => unchanged(Daemon::Docker26_1, Route::Build);
        direct_buildkit_unix => unchanged(Daemon::BuildkitUnix, Route::Direct);
        direct_buildkit_tcp => unchanged(Daemon::BuildkitTcp, Route::Direct);
        grpc_docker_20_10 => unchanged(Daemon::Docker20_10, Route::Grpc);
        grpc_docker_28_5 => unchanged(Daemon::Docker28_5, Route::Grpc);
        grpc_docker_28_5_containerd => unchanged(Daemon::Docker28_5Containerd, Route::Grpc);
        h2c_docker_28_5 => unchanged(Daemon::Docker28_5, Route::H2c);
    }
    cancelled_build {
        build_docker_20_10 => cancelled(Daemon::Docker20_10, Route::Build, "100001");
        build_docker_28_5 => cancelled(Daemon::Docker28_5, Route::Build, "100002");
        direct_buildkit_tcp => cancelled(Daemon::BuildkitTcp, Route::Direct, "100003");
        direct_buildkit_unix => cancelled(Daemon::BuildkitUnix, Route::Direct, "100004");
        grpc_docker_20_10 => cancelled(Daemon::Docker20_10, Route::Grpc, "100005");
        grpc_docker_26_1 => cancelled(Daemon::Docker26_1, Route::Grpc, "100006");
        grpc_docker_28_5 => cancelled(Daemon::Docker28_5, Route::Grpc, "100007");
        grpc_docker_28_5_containerd => cancelled(Daemon::Docker28_5Containerd, Route::Grpc, "100008");
        h2c_docker_28_5 => cancelled(Daemon::Docker28_5, Route::H2c, "100009");
        tar_docker_28_5 => cancelled(Daemon::Docker28_5, Route::Tar, "100010");
    }
    lost_daemon {
        build_docker_28_5 => lost(Daemon::Docker28_5, Route::Build, "100021");
        direct_buildkit_tcp => lost(Daemon::BuildkitTcp, Route::Direct, "100022");
        grpc_docker_20_10 => lost(Daemon::Docker20_10, Route::Grpc, "100023");
        grpc_docker_28_5 => lost(Daemon::Docker28_5, Route::Grpc, "100024");
        tar_docker_28_5 => lost(Daemon::Docker28_5, Route::Tar, "100025");
    }
}
