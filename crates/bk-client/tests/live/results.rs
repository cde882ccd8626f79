//! Results of real builds: what lands in directories, files, registries and engines, byte for byte, and what happens when
//! the place changes meanwhile.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bk_client::{
    BuildError, BuildOutcome, BuildRequest, Change, EngineLoader, ImageBuilder, Output, ReceiveObserver,
    ReceiveOptions, Sink,
};
use bk_testkit::{
    compare::{Rules, compare},
    conformance::{Base, OneRegistry, fresh_token},
    events::{Recorder, chain},
    fixture::{Meta, Tree, TreeBuilder},
    live::{Daemon, Engine, Route, Target},
    snapshot::{ContentDigest, Snapshot},
};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::{Connected, LIMIT, bounded, connect};

const BIG: u64 = 5 << 20;

/// Builds, and fails the test with everything that was said when that fails.
async fn built(at: &Connected, what: &str, request: BuildRequest) -> BuildOutcome {
    tried(at, request)
        .await
        .unwrap_or_else(|e| panic!("{what}: {}", chain(&e)))
}

async fn tried(at: &Connected, request: BuildRequest) -> Result<BuildOutcome, BuildError> {
    bounded(
        "the build",
        LIMIT,
        at.client.build(request, Recorder::new().sink()),
    )
    .await
}

/// A context whose directory `out` becomes the whole result.
fn context() -> Tree {
    TreeBuilder::new()
        .file("Dockerfile", "FROM scratch\nCOPY out /\n")
        .file_with("out/plain", fresh_token(), Meta::mode(0o640))
        .file_with("out/run", "#!", Meta::mode(0o4755).mtime(1_500_000_000, 5))
        .dir_with("out/dir", Meta::mode(0o1777))
        .big("out/dir/big", BIG, 7)
        .hard_link("out/dir/hard", "out/plain")
        .symlink("out/dir/link", "../../outside")
        .build()
        .expect("fixture")
}

/// The files of the result, as the context has them.
fn expected(tree: &Tree) -> Snapshot {
    tree.snapshot().expect("the fixture").below("out")
}

#[track_caller]
fn same(what: &str, expected: &Snapshot, got: &Snapshot) {
    // BuildKit 0.8 does not keep times of directories in copies.
    let mut rules = Rules::exact();
    rules.dir_times = !what.contains("20.10");
    agree(what, expected, got, rules);
}

#[track_caller]
fn agree(what: &str, expected: &Snapshot, got: &Snapshot, mut rules: Rules) {
    // The copy in the build makes files of links to files.
    rules.hard_links = false;
    if let Err(difference) = compare(expected, got, rules) {
        panic!("{what}: {difference}");
    }
}

/// Whether the daemon's image store makes archives of images and pushes by itself.
fn keeps_manifests(target: &Target) -> bool {
    matches!(target.daemon, Daemon::Docker28_5Containerd | Daemon::BuildkitUnix)
}

/// A directory, then only what changed in it; the same files as an archive in a file, and through a writer.
async fn files(daemon: Daemon, route: Route) {
    const TEST: &str = "results::files";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let at = connect(&target).await;
    let name = target.name();
    let tree = context();
    let place = tempfile::tempdir().expect("temp dir");
    let dir = place.path().join("new/dir");
    let request = || BuildRequest::new(tree.path());

    let outcome = built(&at, &name, request().output(Output::local(&dir))).await;
    same(
        &name,
        &expected(&tree),
        &Snapshot::of_dir(&dir).expect("the result"),
    );
    let [report] = &outcome.exports[..] else {
        panic!("{name}: {:?}", outcome.exports)
    };
    assert_eq!(report.path.as_deref(), Some(&*dir), "{name}");
    assert_eq!(
        (report.output, report.created, report.unchanged),
        (0, 6, 0),
        "{name}"
    );
    assert!(report.bytes >= BIG, "{name}: {report:?}");
    assert_eq!((&outcome.image_id, &outcome.digest), (&None, &None), "{name}");

    // What the result does not have stays; of what it has only the change comes.
    fs::write(dir.join("own"), "mine").expect("writable");
    fs::write(tree.join("out/run"), "changed").expect("writable");
    let outcome = built(&at, &name, request().output(Output::local(&dir))).await;
    assert_eq!(fs::read(dir.join("own")).expect("still there"), b"mine", "{name}");
    fs::remove_file(dir.join("own")).expect("removable");
    same(
        &name,
        &expected(&tree),
        &Snapshot::of_dir(&dir).expect("the result"),
    );
    let report = &outcome.exports[0];
    assert_eq!(report.bytes, 7, "{name}: {report:?}");
    assert_eq!(
        (report.created, report.replaced, report.unchanged),
        (0, 1, 5),
        "{name}"
    );

    let file = place.path().join("files.tar");
    let outcome = built(&at, &name, request().output(Output::tar(&*file))).await;
    let size = fs::metadata(&file).expect("the archive").len();
    assert_eq!(outcome.exports[0].bytes, size, "{name}");
    let archive = |path: &Path| Snapshot::of_tar(fs::File::open(path).expect("the archive")).expect("tar");
    // Times in archives are rounded to the nearest second, up too.
    let rules = Rules::exact().without_times();
    agree(&name, &expected(&tree), &archive(&file), rules);

    let (writer, mut reader) = tokio::io::duplex(64 << 10);
    let writer = Mutex::new(Some(writer));
    let sink = Sink::writer(move |_| {
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Box::new(writer.expect("made once")) as Box<dyn AsyncWrite + Send + Unpin>)
    });
    let mut bytes = Vec::new();
    let (_, read) = tokio::join!(
        built(&at, &name, request().output(Output::tar(sink))),
        reader.read_to_end(&mut bytes)
    );
    assert_eq!(read.expect("readable") as u64, size, "{name}");
    let got = Snapshot::of_tar(&bytes[..]).expect("tar");
    agree(&name, &expected(&tree), &got, rules);
    let left: BTreeSet<_> = fs::read_dir(place.path())
        .expect("readable")
        .map(|e| e.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["files.tar", "new"].map(Into::into).into(), "{name}");
    target.supports("Results: a directory, a tar archive");
    target.passed(TEST);
}

/// Each platform gets a directory.
async fn platforms(daemon: Daemon, route: Route) {
    const TEST: &str = "results::platforms";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let at = connect(&target).await;
    let name = target.name();
    let tree = context();
    let dir = tempfile::tempdir().expect("temp dir");
    let request = BuildRequest::new(tree.path())
        .platform("linux/amd64")
        .platform("linux/arm64")
        .output(Output::local(dir.path()));
    let outcome = built(&at, &name, request).await;
    for platform in ["linux_amd64", "linux_arm64"] {
        let got = Snapshot::of_dir(&dir.path().join(platform)).expect("the result");
        same(&name, &expected(&tree), &got);
    }
    assert!(outcome.exports[0].bytes >= 2 * BIG, "{name}: {outcome:?}");
    target.supports("Results: a directory for each platform");
    target.passed(TEST);
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").expect("a digest")
}

fn digest_of(bytes: &[u8]) -> String {
    let hex: String = ContentDigest::of(bytes)
        .0
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// The blobs of an archive by digest; each must be what it says.
fn blobs(what: &str, file: &Path) -> BTreeSet<String> {
    let archive = Snapshot::of_tar(fs::File::open(file).expect("the archive")).expect("tar");
    assert!(archive.entries.contains_key(&b"oci-layout"[..]), "{what}");
    assert!(archive.entries.contains_key(&b"index.json"[..]), "{what}");
    archive
        .entries
        .iter()
        .filter_map(|(path, entry)| {
            let blob = path.strip_prefix(b"blobs/sha256/")?;
            let blob = String::from_utf8(blob.to_vec()).expect("a digest");
            let digest = entry.digest.expect("a file");
            let own: String = digest.0.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(blob, own, "{what}");
            Some(format!("sha256:{blob}"))
        })
        .collect()
}

/// Archives of images, where the daemon makes them; a typed refusal that leaves nothing elsewhere.
async fn archives(daemon: Daemon, route: Route) {
    const TEST: &str = "results::archives";
    const FEATURE: &str = "Results: OCI and Docker archives of an image";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let at = connect(&target).await;
    let name = target.name();
    let tree = context();
    let place = tempfile::tempdir().expect("temp dir");
    let file = place.path().join("image.tar");
    let request = |output| BuildRequest::new(tree.path()).tag("bk-archive:1").output(output);
    if !keeps_manifests(&target) {
        for output in [Output::oci(&*file), Output::docker(&*file)] {
            let error = tried(&at, request(output)).await.expect_err("refused");
            assert!(matches!(error, BuildError::Refused(_)), "{name}: {error:?}");
            target.refuses(FEATURE, &format!("ERROR: {error}"));
        }
        assert_eq!(fs::read_dir(place.path()).expect("readable").count(), 0, "{name}");
        target.passed(TEST);
        return;
    }
    for (output, is_docker) in [(Output::oci(&*file), false), (Output::docker(&*file), true)] {
        let outcome = built(&at, &name, request(output)).await;
        let blobs = blobs(&name, &file);
        let archive = Snapshot::of_tar(fs::File::open(&file).expect("the archive")).expect("tar");
        assert_eq!(
            archive.entries.contains_key(&b"manifest.json"[..]),
            is_docker,
            "{name}"
        );
        if route == Route::Direct || route == Route::Grpc {
            let (digest, config) = (
                outcome.digest.expect("said"),
                outcome.config_digest.expect("said"),
            );
            assert!(blobs.contains(&digest) && blobs.contains(&config), "{name}");
            assert_eq!(outcome.image_id, Some(config), "{name}");
            assert_eq!(outcome.names, ["docker.io/library/bk-archive:1"], "{name}");
            let descriptor = outcome.descriptor.expect("said");
            assert_eq!(descriptor.digest, digest, "{name}");
            assert_eq!(descriptor.platform.as_deref(), Some("linux/amd64"), "{name}");
        }
        assert_eq!(
            outcome.exports[0].bytes,
            fs::metadata(&file).expect("the archive").len(),
            "{name}"
        );
    }
    target.supports(FEATURE);
    target.passed(TEST);
}

/// What the registry has under a name: the manifest's media type and bytes.
fn manifest(base: &Base, repository: &str, reference: &str) -> (String, Vec<u8>) {
    let mut registry = TcpStream::connect(&base.host).expect("the registry");
    let credentials = base64_of(&format!("{}:{}", base.user, base.password));
    write!(
        registry,
        "GET /v2/{repository}/manifests/{reference} HTTP/1.0\r\nHost: {}\r\nAuthorization: Basic {credentials}\r\n\
         Accept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json, \
         application/vnd.oci.image.index.v1+json\r\n\r\n",
        base.host
    )
    .expect("the registry hears");
    let mut answer = Vec::new();
    registry.read_to_end(&mut answer).expect("the registry answers");
    let end = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .expect("an HTTP head");
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    assert!(
        head.starts_with("http/1.0 200") || head.starts_with("http/1.1 200"),
        "{head}"
    );
    let kind = head.lines().find_map(|l| l.strip_prefix("content-type: "));
    (kind.expect("a type").to_owned(), answer[end + 4..].to_vec())
}

/// Base64 with padding: a test needs no crate for a few bytes.
fn base64_of(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    text.as_bytes()
        .chunks(3)
        .flat_map(|chunk| {
            let bits = chunk.iter().fold(0, |bits, b| bits << 8 | usize::from(*b)) << (8 * (3 - chunk.len()));
            (0..4).map(move |at| match at <= chunk.len() {
                true => char::from(LETTERS[bits >> (18 - 6 * at) & 63]),
                false => '=',
            })
        })
        .collect()
}

/// A push to a registry that wants a password: the digest that is told is that of the bytes in the registry.
async fn push(daemon: Daemon, route: Route) {
    const TEST: &str = "results::push";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let at = connect(&target).await;
    let name = target.name();
    let tree = context();
    let repository = format!("pushed/{}", name.to_lowercase().replace(['/', '.'], "-"));
    let image = format!("{}/{repository}:1", target.base.host);
    let request = |output| BuildRequest::new(tree.path()).tag(&*image).output(output);

    // A graph-driver engine pushes what it has by its API, and says what it cannot do.
    let error = tried(&at, request(Output::registry()))
        .await
        .expect_err("no password");
    assert!(
        matches!(&error, BuildError::Auth { .. } | BuildError::Refused(_)),
        "{name}: {error:?}"
    );
    let registry = OneRegistry::new(target.base.clone());
    let outcome = built(
        &at,
        &name,
        request(Output::registry()).credentials(registry.clone()),
    )
    .await;
    assert!(registry.asked() > 0, "{name}");
    let (kind, bytes) = manifest(&target.base, &repository, "1");
    let said = match (&outcome.digest, &outcome.image_id) {
        (Some(digest), _) => digest,
        // The route of Docker's own builds says the image's id only, and that is the digest where manifests are kept.
        (None, id) => id.as_ref().expect("an id"),
    };
    assert_eq!(*said, digest_of(&bytes), "{name}: {kind}");
    let text = String::from_utf8(bytes).expect("JSON");
    if let Some(config) = &outcome.config_digest {
        assert!(text.contains(hex(config)), "{name}: {text}");
    }

    if keeps_manifests(&target) {
        let output = Output::registry()
            .compression(bk_client::Compression::Zstd)
            .force_compression(true)
            .annotation("org.example.key", "some value")
            .oci_mediatypes(true);
        let outcome = built(&at, &name, request(output).credentials(registry.clone())).await;
        let (kind, bytes) = manifest(&target.base, &repository, "1");
        assert_eq!(kind, "application/vnd.oci.image.manifest.v1+json", "{name}");
        let said = outcome.digest.or(outcome.image_id).expect("a digest");
        assert_eq!(said, digest_of(&bytes), "{name}");
        let text = String::from_utf8(bytes).expect("JSON");
        for part in [
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "org.example.key",
            "some value",
        ] {
            assert!(text.contains(part), "{name}: {text}");
        }
    } else {
        let output = Output::registry().push_by_digest(true);
        let error = tried(&at, request(output).credentials(registry.clone()))
            .await
            .expect_err("refused");
        assert!(
            matches!(error, BuildError::Input(_)) && chain(&error).contains("push-by-digest"),
            "{name}: {error:?}"
        );
    }
    target.supports("`--push`");
    target.passed(TEST);
}

/// An image of one daemon in the engine of another: it goes there once.
async fn load() {
    const TEST: &str = "results::load";
    let Some(target) = Target::find(Daemon::BuildkitUnix, Route::Direct, TEST) else {
        return;
    };
    let Some(engine) = Target::find(Daemon::Docker28_5, Route::Grpc, TEST) else {
        return;
    };
    let _turns = (target.turn().await, engine.turn().await);
    let at = connect(&target).await;
    let name = target.name();
    let tree = context();
    let tag = format!("bk-loaded:{}", fresh_token());
    let loader = Arc::new(EngineLoader::new(engine.address.parse().expect("an endpoint")));
    let request = || {
        BuildRequest::new(tree.path())
            .tag(&*tag)
            .output(Output::load_into(loader.clone()))
    };
    let outcome = built(&at, &name, request()).await;
    let there = Engine::connect(&engine.docker).await.expect("the engine");
    let id = there.image_id(&tag).await.expect("the image");
    assert_eq!(outcome.config_digest, Some(id), "{name}");
    let [report] = &outcome.exports[..] else {
        panic!("{name}: {:?}", outcome.exports)
    };
    assert!(report.bytes > 0 && !report.already_there, "{name}: {report:?}");
    let image = there.tree(&tag, "/").await.expect("the image's files");
    let image = image.filter(|path| expected(&tree).entries.contains_key(path));
    agree(&name, &expected(&tree), &image, Rules::exact().without_times());

    let outcome = built(&at, &name, request()).await;
    let report = &outcome.exports[0];
    assert!(report.already_there && report.bytes == 0, "{name}: {report:?}");
    there.remove_image(&tag).await.expect("removable");
    target.supports("`--load` from an endpoint into another engine");
    target.passed(TEST);
}

/// Many small files from a real daemon, and nothing of them the second time.
async fn many(daemon: Daemon, route: Route) {
    const TEST: &str = "results::many";
    const FILES: usize = 50_000;
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let at = connect(&target).await;
    let name = target.name();
    let tree = TreeBuilder::new()
        .file("Dockerfile", "FROM scratch\nCOPY out /\n")
        .many("out/many", FILES)
        .file("out/fresh", fresh_token())
        .build()
        .expect("fixture");
    let dir = tempfile::tempdir().expect("temp dir");
    let request = || BuildRequest::new(tree.path()).output(Output::local(dir.path()));
    let outcome = built(&at, &name, request()).await;
    let report = &outcome.exports[0];
    assert!(report.created >= FILES as u64, "{name}: {report:?}");
    same(
        &name,
        &expected(&tree),
        &Snapshot::of_dir(dir.path()).expect("the result"),
    );
    let outcome = built(&at, &name, request()).await;
    let again = &outcome.exports[0];
    assert_eq!((again.created, again.replaced, again.bytes), (0, 0, 0), "{name}");
    assert_eq!(again.unchanged, report.created, "{name}");
    target.passed(TEST);
}

/// Does something when the first path was made.
struct Once<F>(Mutex<Option<F>>);

impl<F: FnOnce() + Send> ReceiveObserver for Once<F> {
    fn changed(&self, _: &[u8], _: Change) {
        let work = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            work();
        }
    }
}

/// What is done to the destination while it is written to.
fn meddled(dir: PathBuf, outside: PathBuf, how: &str) -> Box<dyn FnOnce() + Send> {
    match how {
        "removed" => Box::new(move || fs::remove_dir_all(&dir).expect("removable")),
        "replaced" => Box::new(move || {
            fs::rename(&dir, dir.with_extension("moved")).expect("movable");
            std::os::unix::fs::symlink(&outside, &dir).expect("a link");
        }),
        _ => unreachable!("no such meddling"),
    }
}

/// The destination goes away or becomes a link elsewhere during the export.
async fn meddling(daemon: Daemon, route: Route) {
    const TEST: &str = "results::meddling";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let at = connect(&target).await;
    let name = target.name();
    let tree = context();
    for how in ["removed", "replaced"] {
        let place = tempfile::tempdir().expect("temp dir");
        let (dir, outside) = (place.path().join("dir"), place.path().join("outside"));
        for made in [&dir, &outside] {
            fs::create_dir(made).expect("writable");
        }
        let once = Once(Mutex::new(Some(meddled(dir.clone(), outside.clone(), how))));
        let options = ReceiveOptions::new().observer(Arc::new(once));
        let request = BuildRequest::new(tree.path()).output(Output::local_with(&dir, options));
        let result = tried(&at, request).await;
        assert_eq!(
            fs::read_dir(&outside).expect("readable").count(),
            0,
            "{name}: {how}: outside was touched"
        );
        match result {
            Err(BuildError::Local(failure)) => {
                assert!(failure.path.starts_with(&dir), "{name}: {how}: {failure:?}");
            }
            other => panic!("{name}: {how}: {other:?}"),
        }
    }
    target.supports("A destination that is removed or replaced meanwhile: nothing is written elsewhere");
    target.passed(TEST);
}

macro_rules! tests {
    ($($module:ident { $($test:ident => $call:expr;)+ })+) => {
        $(mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    Box::pin($call).await;
                }
            )+
        })+
    };
}

tests! {
    results_files {
        build_docker_26_1 => files(Daemon::Docker26_1, Route::Build);
        direct_buildkit_unix => files(Daemon::BuildkitUnix, Route::Direct);
        grpc_docker_20_10 => files(Daemon::Docker20_10, Route::Grpc);
        grpc_docker_28_5_containerd => files(Daemon::Docker28_5Containerd, Route::Grpc);
        h2c_docker_28_5 => files(Daemon::Docker28_5, Route::H2c);
    }
    results_platforms {
        direct_buildkit_unix => platforms(Daemon::BuildkitUnix, Route::Direct);
        grpc_docker_20_10 => platforms(Daemon::Docker20_10, Route::Grpc);
        grpc_docker_28_5 => platforms(Daemon::Docker28_5, Route::Grpc);
    }
    results_archives {
        build_docker_26_1 => archives(Daemon::Docker26_1, Route::Build);
        build_docker_28_5_containerd => archives(Daemon::Docker28_5Containerd, Route::Build);
        direct_buildkit_unix => archives(Daemon::BuildkitUnix, Route::Direct);
        grpc_docker_20_10 => archives(Daemon::Docker20_10, Route::Grpc);
        grpc_docker_28_5 => archives(Daemon::Docker28_5, Route::Grpc);
    }
    results_push {
        build_docker_28_5_containerd => push(Daemon::Docker28_5Containerd, Route::Build);
        direct_buildkit_unix => push(Daemon::BuildkitUnix, Route::Direct);
        grpc_docker_20_10 => push(Daemon::Docker20_10, Route::Grpc);
        h2c_docker_28_5 => push(Daemon::Docker28_5, Route::H2c);
        tar_docker_26_1 => push(Daemon::Docker26_1, Route::Tar);
    }
    results_loaded {
        direct_buildkit_unix => load();
    }
    results_many {
        grpc_docker_20_10 => many(Daemon::Docker20_10, Route::Grpc);
        grpc_docker_28_5 => many(Daemon::Docker28_5, Route::Grpc);
    }
    results_meddling {
        grpc_docker_20_10 => meddling(Daemon::Docker20_10, Route::Grpc);
        h2c_docker_28_5 => meddling(Daemon::Docker28_5, Route::H2c);
    }
}
