//! What file policies promise, on live daemons: new content is never missed, nothing that the daemon has is sent again,
//! and `COPY` stays cached. The addresses come from the environment; a daemon that is not there is said loudly.
#![cfg(all(feature = "docker", feature = "buildkitd", unix))]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use bk_client::{
    Backend, BuildEvent, BuildRequest, Client, ConnectOptions, ContentOptions, DockerRoute, Environment,
    EventSink, FilePolicies, ImageBuilder, ModePolicy, SyncPolicy,
};
use bk_testkit::{
    live::{Daemon, Engine, Route, Target, until},
    snapshot::{ContentDigest, Snapshot},
};

/// Every version of BuildKit, by a route with a session.
const PLACES: [(Daemon, Route); 7] = [
    (Daemon::Docker20_10, Route::Grpc),
    (Daemon::Docker20_10, Route::Build),
    (Daemon::Docker26_1, Route::Grpc),
    (Daemon::Docker28_5, Route::Grpc),
    (Daemon::Docker28_5Containerd, Route::Grpc),
    (Daemon::BuildkitUnix, Route::Direct),
    (Daemon::BuildkitTcp, Route::Direct),
];

const DOCKERFILE: &str = "FROM scratch\nCOPY data /data\n";

/// A tick of any file system that times are taken from, and more.
const TICK: Duration = Duration::from_millis(30);

/// Runs `test` on every place that is there, one after the other.
fn everywhere(name: &str, test: impl AsyncFn(&Place<'_>)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    for (daemon, route) in PLACES {
        let Some(target) = Target::find(daemon, route, name) else {
            continue;
        };
        runtime.block_on(async {
            let _turn = target.turn().await;
            let place = Place {
                client: connect(&target).await,
                engine: Engine::connect(&target.docker).await.expect("the engine behind"),
                tag: format!("bk-policies-{}", target.name().replace('/', "-").to_lowercase()),
                target: &target,
            };
            test(&place).await;
            place.engine.remove_image(&place.tag).await.expect("removable");
        });
        let feature = name.rsplit("::").next().unwrap_or(name).replace('_', " ");
        target.supports(&format!("File sync: {feature}"));
        target.passed(name);
    }
}

async fn connect(target: &Target) -> Client {
    let options = ConnectOptions::new()
        .environment(Environment::empty())
        .addr(&target.address);
    let options = match target.route {
        Route::Grpc => options.backend(Backend::Docker).docker_route(DockerRoute::Grpc),
        Route::Build => options.backend(Backend::Docker).docker_route(DockerRoute::Build),
        _ => options.backend(Backend::Buildkitd),
    };
    bk_client::connect_with(options).await.expect("connect")
}

struct Place<'a> {
    target: &'a Target,
    client: Client,
    engine: Engine,
    tag: String,
}

/// What a build did.
#[derive(Debug, Default)]
struct Did {
    /// Files of the context that were sent.
    sent: u64,
    /// Whether `COPY` was answered from the cache.
    cached: bool,
}

impl Place<'_> {
    async fn build(&self, dir: &Path, policies: &FilePolicies, no_cache: bool) -> Did {
        let mut request = BuildRequest::new(dir).tag(&self.tag).no_cache(no_cache);
        request.files = policies.clone();
        let did = Arc::new(Mutex::new(Did::default()));
        let seen = Arc::clone(&did);
        let events = EventSink::from_fn(move |event| {
            let mut did = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                BuildEvent::Transfer(t) if t.done && t.source == "context" => did.sent += t.report.sent_files,
                BuildEvent::VertexCached(v) if v.name.contains("COPY data") => did.cached = true,
                _ => {}
            }
        });
        let built = self.client.build(request, events).await;
        assert!(built.is_ok(), "{}: {built:?}", self.target.name());
        std::mem::take(&mut did.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn id(&self) -> String {
        self.engine.image_id(&self.tag).await.expect("the image")
    }

    async fn data(&self) -> Snapshot {
        self.engine
            .tree(&self.tag, "data")
            .await
            .expect("the image's files")
    }

    fn name(&self) -> String {
        self.target.name()
    }
}

/// Fills `dir` with a context whose files are of this run alone, with these permission bits.
fn fill(dir: &Path, own: &str, text: &str, (file, directory): (u32, u32)) {
    fs::create_dir_all(dir.join("data/sub")).expect("a directory");
    fs::write(dir.join("Dockerfile"), DOCKERFILE).expect("writable");
    for (name, text) in [("data/f", text), ("data/sub/g", "same")] {
        let path = dir.join(name);
        fs::write(&path, format!("{own} {text}")).expect("writable");
        set(&path, file);
    }
    for name in ["data", "data/sub"] {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(directory)).expect("ours");
    }
}

/// Gives a file these permission bits and always the same time.
fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    let time = UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    let file = fs::OpenOptions::new().write(true).open(path).expect("ours");
    file.set_modified(time).expect("ours");
}

/// Lets what was written become older than the tick of a clock.
async fn settle() {
    let begun = std::time::Instant::now();
    until(TICK * 2, TICK / 2, async || begun.elapsed() > TICK).await;
}

/// Something that no other run has in its files.
fn own(place: &Place<'_>) -> String {
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    format!("{} {} {now:030}", place.name(), std::process::id())
}

#[test]
fn an_edit_that_keeps_size_and_time_reaches_the_image() {
    everywhere(
        "policies::an_edit_that_keeps_size_and_time_reaches_the_image",
        async |place| {
            let (temp, own) = (tempfile::tempdir().expect("a directory"), own(place));
            let (dir, policies) = (temp.path(), FilePolicies::new());
            fill(dir, &own, "old", (0o644, 0o755));
            settle().await;
            assert_eq!(
                place.build(dir, &policies, false).await.sent,
                2,
                "{}",
                place.name()
            );
            fs::write(dir.join("data/f"), format!("{own} new")).expect("writable");
            set(&dir.join("data/f"), 0o644);
            let did = place.build(dir, &policies, false).await;
            assert_eq!((did.sent, did.cached), (1, false), "{}", place.name());
            let want = ContentDigest::of(format!("{own} new").as_bytes());
            let data = place.data().await;
            assert_eq!(data.entries[&b"f"[..]].digest, Some(want), "{}", place.name());
            assert_eq!(data.entries[&b"f"[..]].mtime, 1_600_000_000, "{}", place.name());
        },
    );
}

#[test]
fn a_touched_file_is_sent_and_copy_stays_cached() {
    everywhere(
        "policies::a_touched_file_is_sent_and_copy_stays_cached",
        async |place| {
            let (temp, own) = (tempfile::tempdir().expect("a directory"), own(place));
            let (dir, policies) = (temp.path(), FilePolicies::new());
            fill(dir, &own, "text", (0o644, 0o755));
            settle().await;
            place.build(dir, &policies, false).await;
            let (id, data) = (place.id().await, place.data().await);
            let did = place.build(dir, &policies, false).await;
            assert_eq!(
                (did.sent, did.cached),
                (0, true),
                "{}: nothing changed",
                place.name()
            );
            // Same content, same time, but a change of metadata that was taken back.
            for mode in [0o600, 0o644] {
                set(&dir.join("data/f"), mode);
            }
            settle().await;
            let did = place.build(dir, &policies, false).await;
            assert_eq!((did.sent, did.cached), (1, true), "{}", place.name());
            assert_eq!(place.id().await, id, "{}", place.name());
            // A layer made anew is no different: the digits below the second are not in it.
            place.build(dir, &policies, true).await;
            assert_eq!(place.data().await, data, "{}", place.name());
        },
    );
}

#[test]
fn a_fresh_copy_sends_nothing_by_content() {
    everywhere("policies::a_fresh_copy_sends_nothing_by_content", async |place| {
        let (temp, own) = (tempfile::tempdir().expect("a directory"), own(place));
        let dir = temp.path().join("clone");
        let policies = FilePolicies::new().sync(SyncPolicy::Content(ContentOptions::new()));
        fill(&dir, &own, "text", (0o644, 0o755));
        assert_eq!(
            place.build(&dir, &policies, false).await.sent,
            2,
            "{}",
            place.name()
        );
        let id = place.id().await;
        fs::remove_dir_all(&dir).expect("removable");
        fill(&dir, &own, "text", (0o644, 0o755));
        let did = place.build(&dir, &policies, false).await;
        assert_eq!((did.sent, did.cached), (0, true), "{}", place.name());
        assert_eq!(place.id().await, id, "{}", place.name());
        fs::write(dir.join("data/f"), format!("{own} next")).expect("writable");
        assert_eq!(
            place.build(&dir, &policies, false).await.sent,
            1,
            "{}",
            place.name()
        );
        assert_eq!(
            place.data().await.entries[&b"f"[..]].mtime,
            315_619_200,
            "{}",
            place.name()
        );
    });
}

#[test]
fn copy_is_cached_across_umasks_with_the_modes_of_git() {
    everywhere(
        "policies::copy_is_cached_across_umasks_with_the_modes_of_git",
        async |place| {
            for (mode, cached) in [(ModePolicy::Git, true), (ModePolicy::Keep, false)] {
                let (temp, own) = (tempfile::tempdir().expect("a directory"), own(place));
                let policies = FilePolicies::new().mode(mode);
                let (one, two) = (temp.path().join("one"), temp.path().join("two"));
                fill(&one, &own, "text", (0o664, 0o775));
                place.build(&one, &policies, false).await;
                fill(&two, &own, "text", (0o644, 0o755));
                let did = place.build(&two, &policies, false).await;
                assert_eq!((did.sent, did.cached), (2, cached), "{} {mode:?}", place.name());
            }
        },
    );
}
