//! Several outputs at once, outputs that a program adds, times that are rewritten, and a disk that is full.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bk_client::{
    BuildError, BuildOutcome, BuildRequest, BuiltResult, ImageBuilder, Output, PolicyDecision, PolicySource,
    PolicyVerifier, ProgramError, SessionExporter,
};
use bk_testkit::{
    compare::{Rules, compare},
    conformance::fresh_token,
    events::{Recorder, chain},
    fixture::{Meta, Tree, TreeBuilder},
    live::{Daemon, Engine, Route, Target},
    snapshot::Snapshot,
};

use crate::{Connected, LIMIT, bounded, connect};

async fn tried(at: &Connected, request: BuildRequest) -> Result<BuildOutcome, BuildError> {
    bounded(
        "the build",
        LIMIT,
        at.client.build(request, Recorder::new().sink()),
    )
    .await
}

async fn built(at: &Connected, what: &str, request: BuildRequest) -> BuildOutcome {
    tried(at, request)
        .await
        .unwrap_or_else(|e| panic!("{what}: {}", chain(&e)))
}

fn context() -> Tree {
    TreeBuilder::new()
        .file("Dockerfile", "FROM scratch\nCOPY out /\n")
        .file_with(
            "out/token",
            fresh_token(),
            Meta::mode(0o644).mtime(1_500_000_000, 0),
        )
        .big("out/big", 3 << 20, 3)
        .build()
        .expect("fixture")
}

#[track_caller]
fn same(what: &str, tree: &Tree, got: &Snapshot) {
    let expected = tree.snapshot().expect("the fixture").below("out");
    if let Err(difference) = compare(&expected, got, Rules::exact().without_times()) {
        panic!("{what}: {difference}");
    }
}

fn tar(path: &Path) -> Snapshot {
    Snapshot::of_tar(fs::File::open(path).expect("the archive")).expect("tar")
}

/// A directory, an archive, an image in the daemon's store and, where it can, an archive of the image, from one build.
async fn several(daemon: Daemon, route: Route) {
    const TEST: &str = "exporters::several";
    const FEATURE: &str = "Several outputs at once";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let at = connect(&target).await;
    let (name, tree) = (target.name(), context());
    let place = tempfile::tempdir().expect("temp dir");
    let (dir, file, oci) = (
        place.path().join("dir"),
        place.path().join("tar"),
        place.path().join("oci"),
    );
    let tag = format!("bk-several-{}", name.replace(['/', '.'], "-").to_lowercase());
    let keeps = matches!(daemon, Daemon::Docker28_5Containerd | Daemon::BuildkitUnix);
    let mut request = BuildRequest::new(tree.path())
        .tag(&*tag)
        .output(Output::local(&dir))
        .output(Output::tar(&*file))
        .output(Output::image());
    if keeps {
        request = request.output(Output::oci(&*oci));
    }
    if daemon == Daemon::Docker20_10 || route == Route::Build {
        let error = tried(&at, request).await.expect_err("refused");
        match route {
            Route::Build => assert!(matches!(error, BuildError::Input(_)), "{name}: {error:?}"),
            _ => assert!(matches!(error, BuildError::TooOld(_)), "{name}: {error:?}"),
        }
        assert_eq!(fs::read_dir(place.path()).expect("readable").count(), 0, "{name}");
        target.refuses(FEATURE, &format!("ERROR: {error}"));
        target.passed(TEST);
        return;
    }
    let outcome = built(&at, &name, request).await;
    same(&name, &tree, &Snapshot::of_dir(&dir).expect("the directory"));
    same(&name, &tree, &tar(&file));
    let mut places: Vec<_> = [(0, dir), (1, file)].into();
    if keeps {
        assert!(tar(&oci).entries.contains_key(&b"index.json"[..]), "{name}");
        places.push((3, oci));
    }
    let reported: Vec<_> = outcome
        .exports
        .iter()
        .map(|e| (e.output, e.path.clone().expect("a place")))
        .collect();
    assert_eq!(reported, places, "{name}");
    let engine = Engine::connect(&target.docker).await.expect("the engine behind");
    assert_eq!(
        Some(engine.image_id(&tag).await.expect("the image")),
        outcome.image_id,
        "{name}"
    );
    engine.remove_image(&tag).await.expect("removable");
    target.supports(FEATURE);
    target.passed(TEST);
}

/// Adds a directory and an archive, named after what it is told.
struct Adding {
    place: std::path::PathBuf,
    archive: bool,
    seen: Mutex<Option<BuiltResult>>,
    answer: Mutex<Option<BTreeMap<String, String>>>,
}

#[async_trait]
impl SessionExporter for Adding {
    async fn find(&self, result: &BuiltResult) -> Result<Vec<Output>, ProgramError> {
        *self.seen.lock().expect("no panic") = Some(result.clone());
        let mut outputs = vec![Output::local(self.place.join("dir"))];
        outputs.push(match self.archive {
            true => Output::oci(self.place.join("archive")),
            false => Output::tar(self.place.join("archive")),
        });
        Ok(outputs)
    }

    async fn finalize(&self, answer: &BTreeMap<String, String>) -> Result<(), ProgramError> {
        *self.answer.lock().expect("no panic") = Some(answer.clone());
        Ok(())
    }
}

async fn added(daemon: Daemon, route: Route) {
    const TEST: &str = "exporters::added";
    const FEATURE: &str = "Outputs that a program adds when the result is known (`SessionExporter`)";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let at = connect(&target).await;
    let (name, tree) = (target.name(), context());
    let place = tempfile::tempdir().expect("temp dir");
    let exporter = Arc::new(Adding {
        place: place.path().to_owned(),
        archive: matches!(daemon, Daemon::Docker28_5Containerd | Daemon::BuildkitUnix),
        seen: Mutex::default(),
        answer: Mutex::default(),
    });
    let own = place.path().join("own");
    for outputs in [vec![Output::cache_only()], vec![Output::tar(&*own)]] {
        let (first, known) = (outputs.len(), outputs[0].kind.name());
        let mut request = BuildRequest::new(tree.path()).session_exporter(exporter.clone());
        request.outputs = outputs;
        if daemon == Daemon::Docker20_10 || daemon == Daemon::Docker26_1 || route == Route::Build {
            let error = tried(&at, request).await.expect_err("refused");
            assert!(chain(&error).contains("a session exporter"), "{name}: {error:?}");
            assert_eq!(fs::read_dir(place.path()).expect("readable").count(), 0, "{name}");
            target.refuses(FEATURE, &format!("ERROR: {error}"));
            continue;
        }
        let outcome = built(&at, &format!("{name}: {known}"), request).await;
        let dir = Snapshot::of_dir(&place.path().join("dir")).expect("the directory");
        same(&name, &tree, &dir);
        let archive = tar(&place.path().join("archive"));
        match exporter.archive {
            true => assert!(archive.entries.contains_key(&b"oci-layout"[..]), "{name}"),
            false => same(&name, &tree, &archive),
        }
        let numbers: Vec<_> = outcome.exports.iter().map(|e| e.output).collect();
        match known {
            "tar" => {
                same(&name, &tree, &tar(&own));
                assert_eq!(numbers, [0, first, first + 1], "{name}");
            }
            _ => assert_eq!(numbers, [first, first + 1], "{name}"),
        }
        let seen = exporter
            .seen
            .lock()
            .expect("no panic")
            .take()
            .expect("it was asked");
        let config = &seen.metadata["containerimage.config"];
        assert!(
            String::from_utf8_lossy(config).contains("\"architecture\""),
            "{name}"
        );
        assert_eq!(seen.refs.len(), 1, "{name}");
        // BuildKit 0.32 and later tell what came of it; these do not.
        assert_eq!(*exporter.answer.lock().expect("no panic"), None, "{name}");
        fs::remove_dir_all(place.path().join("dir")).expect("removable");
        fs::remove_file(place.path().join("archive")).expect("removable");
        target.supports(FEATURE);
    }
    target.passed(TEST);
}

/// Adds what cannot be had.
struct Failing(Option<Output>);

#[async_trait]
impl SessionExporter for Failing {
    async fn find(&self, _: &BuiltResult) -> Result<Vec<Output>, ProgramError> {
        match &self.0 {
            Some(output) => Ok(vec![output.clone()]),
            None => Err(ProgramError::new("the list is not there")),
        }
    }
}

/// A program that fails when it is asked fails the build, and is told as the cause.
async fn not_added(daemon: Daemon, route: Route) {
    const TEST: &str = "exporters::not_added";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let at = connect(&target).await;
    let (name, tree) = (target.name(), context());
    let place = tempfile::tempdir().expect("temp dir");
    let nowhere = Output::tar(place.path().join("no/such/file"));
    let odd = Output::image().attr("push", "perhaps");
    for (output, why) in [
        (None, "the list is not there"),
        (Some(nowhere), "cannot put the result there"),
        (Some(odd), "push"),
        (Some(Output::registry()), "needs a name"),
    ] {
        let request = BuildRequest::new(tree.path())
            .output(Output::tar(place.path().join("own")))
            .session_exporter(Arc::new(Failing(output)));
        let error = tried(&at, request).await.expect_err("it fails");
        let local = matches!(
            error,
            BuildError::Local(_) | BuildError::Input(_) | BuildError::Refused(_)
        );
        assert!(local && chain(&error).contains(why), "{name}: {why}: {error:?}");
        assert_eq!(
            fs::read_dir(place.path()).expect("readable").count(),
            0,
            "{name}: {why}"
        );
    }
    target.passed(TEST);
}

/// Allows everything.
struct Allowing;

#[async_trait]
impl PolicyVerifier for Allowing {
    async fn check(&self, _: &PolicySource) -> Result<PolicyDecision, ProgramError> {
        Ok(PolicyDecision::Allow)
    }
}

/// No daemon here is new enough: each refuses or is found out.
async fn decided(daemon: Daemon, route: Route) {
    const TEST: &str = "exporters::decided";
    const FEATURE: &str = "Decisions of a program about sources (`PolicyVerifier`)";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let at = connect(&target).await;
    let (name, tree) = (target.name(), context());
    let place = tempfile::tempdir().expect("temp dir");
    let request = BuildRequest::new(tree.path())
        .output(Output::tar(place.path().join("tar")))
        .policy_verifier(Arc::new(Allowing));
    let error = tried(&at, request).await.expect_err("refused");
    assert!(matches!(error, BuildError::TooOld(_)), "{name}: {error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("a policy verifier needs BuildKit 0.26"),
        "{name}: {text}"
    );
    assert_eq!(fs::read_dir(place.path()).expect("readable").count(), 0, "{name}");
    target.refuses(FEATURE, &format!("ERROR: {error}"));
    target.passed(TEST);
}

/// A small disk of its own; unmounted when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, said loudly, when this process may not mount.
    fn new(test: &str, bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().expect("temp dir");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        bk_testkit::live::say(&format!("NOT RUN: {test}: this process may not mount a disk"));
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A test that fails holds no file open here by now; a lazy unmount makes sure.
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

async fn full(daemon: Daemon, route: Route) {
    const TEST: &str = "exporters::full";
    const FEATURE: &str = "A full disk here is named, and nothing half-written stays";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let Some(disk) = SmallDisk::new(TEST, 1 << 20) else {
        return;
    };
    let _turn = target.turn().await;
    let at = connect(&target).await;
    let (name, tree) = (target.name(), context());
    let root = disk.0.path();
    let file = root.join("file");
    fs::write(&file, "old").expect("room for that");
    let dir = root.join("dir");
    for output in [Output::tar(&*file), Output::local(&dir)] {
        let kind = output.kind.name();
        let error = tried(&at, BuildRequest::new(tree.path()).output(output))
            .await
            .expect_err("the disk is full");
        let BuildError::Local(failure) = &error else {
            panic!("{name}: {kind}: {error:?}")
        };
        assert!(failure.path.starts_with(root), "{name}: {failure:?}");
        let text = chain(&error).to_lowercase();
        assert!(
            text.contains("no space") || text.contains("storage"),
            "{name}: {text}"
        );
        assert_eq!(fs::read(&file).expect("still there"), b"old", "{name}: {kind}");
        let mut left = Vec::new();
        for place in [root, &dir] {
            let entries = fs::read_dir(place).into_iter().flatten().flatten();
            left.extend(entries.map(|e| e.file_name()));
        }
        left.retain(|found| found != "file" && found != "dir" && found != "token");
        assert!(left.is_empty(), "{name}: {kind}: {left:?}");
    }
    target.supports(FEATURE);
    target.passed(TEST);
}

macro_rules! tests {
    ($($test:ident => $call:expr;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            Box::pin($call).await;
        })+
    };
}

tests! {
    build_docker_28_5_several => several(Daemon::Docker28_5, Route::Build);
    direct_buildkit_unix_several => several(Daemon::BuildkitUnix, Route::Direct);
    grpc_docker_20_10_several => several(Daemon::Docker20_10, Route::Grpc);
    grpc_docker_26_1_several => several(Daemon::Docker26_1, Route::Grpc);
    grpc_docker_28_5_containerd_several => several(Daemon::Docker28_5Containerd, Route::Grpc);
    h2c_docker_28_5_several => several(Daemon::Docker28_5, Route::H2c);

    build_docker_28_5_added => added(Daemon::Docker28_5, Route::Build);
    direct_buildkit_unix_added => added(Daemon::BuildkitUnix, Route::Direct);
    grpc_docker_20_10_added => added(Daemon::Docker20_10, Route::Grpc);
    grpc_docker_26_1_added => added(Daemon::Docker26_1, Route::Grpc);
    grpc_docker_28_5_added => added(Daemon::Docker28_5, Route::Grpc);
    grpc_docker_28_5_containerd_added => added(Daemon::Docker28_5Containerd, Route::Grpc);

    direct_buildkit_unix_not_added => not_added(Daemon::BuildkitUnix, Route::Direct);
    grpc_docker_28_5_not_added => not_added(Daemon::Docker28_5, Route::Grpc);

    direct_buildkit_unix_decided => decided(Daemon::BuildkitUnix, Route::Direct);
    grpc_docker_20_10_decided => decided(Daemon::Docker20_10, Route::Grpc);
    grpc_docker_28_5_decided => decided(Daemon::Docker28_5, Route::Grpc);

    build_docker_26_1_full => full(Daemon::Docker26_1, Route::Build);
    direct_buildkit_unix_full => full(Daemon::BuildkitUnix, Route::Direct);
    grpc_docker_20_10_full => full(Daemon::Docker20_10, Route::Grpc);
    h2c_docker_28_5_full => full(Daemon::Docker28_5, Route::H2c);
}
