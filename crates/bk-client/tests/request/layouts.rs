//! Layouts on this machine: images made by another tool as contexts, caches that `docker buildx` and this client read of
//! each other, and results that are no archive. What the engine has kept of a step is forgotten by name, so that only the
//! cache in the directory can know it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output as Ran},
};

use bk_client::{BuildError, BuildRequest, Cache, Dockerfile, NamedContext, Output};
use bk_testkit::{
    events::chain,
    live::{Daemon, Route, Support, umoci_program},
    snapshot::ContentDigest,
};
use sha2::{Digest as _, Sha256};

use crate::{Did, Place, context, on};

const CONTEXTS: &str = "OCI layouts as contexts";
const CACHES: &str = "Caches in local directories";
const RESULTS: &str = "OCI layout as result (`tar=false`)";

/// The oldest and the newest daemon, and those that have the store for it.
const PLACES: [(Daemon, Route); 6] = [
    (Daemon::Docker20_10, Route::Grpc),
    (Daemon::Docker26_1, Route::Grpc),
    (Daemon::Docker28_5, Route::Grpc),
    (Daemon::Docker28_5, Route::Build),
    (Daemon::Docker28_5Containerd, Route::Grpc),
    (Daemon::BuildkitUnix, Route::Direct),
];

/// Whether the engine's image store has layouts and caches.
fn keeps_blobs(place: &Place<'_>) -> bool {
    matches!(
        place.target.daemon,
        Daemon::Docker28_5Containerd | Daemon::BuildkitUnix
    )
}

/// Docker's own client on the engine behind a place.
fn docker(place: &Place<'_>, args: &[&str]) -> Option<Ran> {
    let (cli, config) = (
        std::env::var_os("BK_LIVE_DOCKER_CLI")?,
        std::env::var_os("BK_LIVE_DOCKER_CLI_CONFIG")?,
    );
    let ran = Command::new(cli)
        .env("DOCKER_CONFIG", config)
        .env("DOCKER_HOST", format!("unix://{}", place.target.docker.display()))
        .args(args)
        .output()
        .expect("docker runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    Some(ran)
}

/// Makes the engine forget what it built with `token` in its command, and nothing else.
fn forget(place: &Place<'_>, token: &str) -> bool {
    let filter = format!("description~={token}");
    docker(
        place,
        &["buildx", "prune", "--force", "--all", "--filter", &filter],
    )
    .is_some()
}

/// A layout of another tool, with a file in the image `tag`.
fn foreign_layout(umoci: &Path, dir: &Path, tag: &str, text: &str) -> PathBuf {
    let layout = dir.join("layout");
    let said = dir.join("said");
    fs::write(&said, text).expect("writable");
    let image = format!("{}:{tag}", layout.display());
    let path = |p: &Path| p.to_str().expect("UTF-8").to_owned();
    for args in [
        vec!["init".to_owned(), "--layout".to_owned(), path(&layout)],
        vec!["new".to_owned(), "--image".to_owned(), image.clone()],
        vec![
            "insert".to_owned(),
            "--image".to_owned(),
            image.clone(),
            path(&said),
            "/said".to_owned(),
        ],
    ] {
        let ran = Command::new(umoci).args(&args).output().expect("umoci runs");
        assert!(
            ran.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
    layout
}

#[test]
fn a_layout_of_another_tool_is_a_base_image() {
    const TEST: &str = "request::a_layout_of_another_tool_is_a_base_image";
    let Some(umoci) = umoci_program(TEST) else {
        return;
    };
    on(&PLACES, TEST, async |place| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let text = format!("{}\n", place.tag);
        let layout = foreign_layout(&umoci, dir.path(), "first", &text);
        let name = place.target.name();
        let main = dir.path().join("main");
        fs::create_dir(&main).expect("a directory");
        fs::write(main.join("one"), "one\n").expect("writable");
        let request = |layout: &str| {
            let text = "FROM base\nCOPY one /one\nCOPY --from=base /said /again\n";
            BuildRequest::new(main.as_path())
                .dockerfile(Dockerfile::Inline(text.into()))
                .tag(&place.tag)
                .named_context("base", NamedContext::parse(layout).expect("a context"))
        };
        let address = format!("oci-layout://{}", layout.display());
        if !keeps_blobs(place) {
            let error = place.failed(request(&address)).await;
            let text = chain(&error);
            let expected = match (place.target.daemon, place.target.route) {
                (_, Route::Build) => "--build-context",
                (Daemon::Docker20_10, _) => "--build-context oci-layout:// needs BuildKit 0.11",
                _ => "unknown scheme oci-layout",
            };
            assert!(text.contains(expected), "{name}: {text}");
            // What stands before it has a digest that is another one each time.
            let said = text.split_once(expected).map_or("", |(_, rest)| rest);
            place.target.refuses(CONTEXTS, &format!("{expected}{said}"));
            return;
        }
        // Without a tag it is the only one.
        for reference in [address.clone(), format!("{address}:first")] {
            place.built(request(&reference)).await;
            let image = place.engine.tree(&place.tag, "").await.expect("the image");
            for (path, text) in [("said", &*text), ("again", &text), ("one", "one\n")] {
                let found = image.entries.get(path.as_bytes()).and_then(|e| e.digest);
                assert_eq!(found, Some(ContentDigest::of(text.as_bytes())), "{name}: {path}");
            }
        }
        let error = place.failed(request(&format!("{address}:second"))).await;
        assert!(matches!(error, BuildError::Input(_)), "{error:?}");
        assert!(
            chain(&error).contains("has no image with the tag `second`; there are first"),
            "{name}"
        );
        place.target.supports(CONTEXTS);
    });
}

/// A context whose last step has `token` in its command.
fn with_step(place: &Place<'_>, token: &str) -> tempfile::TempDir {
    context(place.target, &format!("RUN : {token} && echo made > /made\n"))
}

/// Whether the step with `token` came from a cache.
fn was_cached(did: &Did, token: &str) -> bool {
    did.cached.iter().any(|name| name.contains(token))
}

fn token_of(place: &Place<'_>, part: &str) -> String {
    let tag: String = place.tag.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{part}{tag}")
}

#[test]
fn a_cache_in_a_directory_knows_what_the_engine_forgot() {
    on(
        &PLACES,
        "request::a_cache_in_a_directory_knows_what_the_engine_forgot",
        async |place| {
            let name = place.target.name();
            let token = token_of(place, "ours");
            let dir = with_step(place, &token);
            let caches = tempfile::tempdir().expect("a temporary directory");
            let cache = caches.path().join("cache");
            let request = || BuildRequest::new(dir.path()).tag(&place.tag);
            let to = || Cache::local(&cache).attr("mode", "max");
            if !keeps_blobs(place) {
                let text = chain(&place.failed(request().cache_to(to())).await);
                let expected = match place.target.route {
                    Route::Build => "--cache-to",
                    _ => "unknown cache exporter: \"local\"",
                };
                assert!(text.contains(expected), "{name}: {text}");
                assert!(!cache.exists(), "{name}: nothing was written");
                place.target.refuses(CACHES, &text);
                return;
            }
            let (outcome, did) = place.built(request().cache_to(to())).await;
            assert!(!was_cached(&did, &token), "{name}: {:?}", did.cached);
            let manifest = outcome.cache_manifest.expect("a cache");
            let index = read_json(&cache.join("index.json"));
            assert_eq!(index["manifests"][0]["digest"], manifest.digest, "{name}");
            assert_eq!(
                index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"],
                "latest"
            );
            verify(&cache);
            if !forget(place, &token) {
                return;
            }
            // The engine does not know it any more; the directory does.
            let (_, did) = place.built(request()).await;
            assert!(!was_cached(&did, &token), "{name}: {:?}", did.cached);
            assert!(forget(place, &token));
            let from = || Cache::local(&cache);
            let (_, did) = place.built(request().cache_from(from())).await;
            assert!(was_cached(&did, &token), "{name}: {:?}", did.cached);
            let image = place.engine.tree(&place.tag, "").await.expect("the image");
            let made = image.entries.get(&b"made"[..]).and_then(|e| e.digest);
            assert_eq!(made, Some(ContentDigest::of(b"made\n")), "{name}");

            // Read and written at once, kept small; another tag goes, this one stays whole.
            let other = Cache::local(&cache).attr("tag", "other").attr("mode", "max");
            let more = with_step(place, &token_of(place, "more"));
            let other_step = BuildRequest::new(more.path()).tag(&place.tag);
            place.built(other_step.cache_from(from()).cache_to(other)).await;
            assert_eq!(tags(&cache), ["latest", "other"], "{name}");
            let small = to().max_size(1);
            place.built(request().cache_from(from()).cache_to(small)).await;
            assert_eq!(tags(&cache), ["latest"], "{name}");
            verify(&cache);

            // A directory that has nothing is a warning.
            let none = Cache::local(caches.path().join("none"));
            place.built(request().cache_from(none)).await;
            place.target.supports(CACHES);
        },
    );
}

#[test]
fn caches_are_exchanged_with_buildx() {
    let places = [(Daemon::Docker28_5Containerd, Route::Grpc)];
    on(
        &places,
        "request::caches_are_exchanged_with_buildx",
        async |place| {
            let caches = tempfile::tempdir().expect("a temporary directory");
            let name = place.target.name();
            for (part, ours_first) in [("ourstotheirs", true), ("theirstoours", false)] {
                let token = token_of(place, part);
                let dir = with_step(place, &token);
                let cache = caches.path().join(part);
                let field = |key: &str| format!("type=local,{key}={}", cache.display());
                let path = dir.path().to_str().expect("UTF-8");
                let request = || BuildRequest::new(dir.path()).tag(&place.tag);
                let buildx = |flag: &str, value: &str| {
                    let args = ["buildx", "build", "--progress=plain", "--provenance=false"];
                    docker(
                        place,
                        &[&args[..], &["-t", &place.tag, flag, value, path]].concat(),
                    )
                };
                let cached = |ran: &Ran| {
                    let text = String::from_utf8_lossy(&ran.stderr).into_owned();
                    let step = text.lines().find(|l| l.contains(&token) && l.contains("RUN"));
                    let number = step
                        .and_then(|l| l.split(' ').next())
                        .expect("the step")
                        .to_owned();
                    text.contains(&format!("{number} CACHED"))
                };
                if ours_first {
                    place
                        .built(request().cache_to(Cache::local(&cache).attr("mode", "max")))
                        .await;
                    if !forget(place, &token) {
                        return;
                    }
                    let ran = buildx("--cache-from", &field("src")).expect("docker");
                    assert!(cached(&ran), "{name}: {}", String::from_utf8_lossy(&ran.stderr));
                } else {
                    let dest = format!("{},mode=max", field("dest"));
                    let ran = buildx("--cache-to", &dest).expect("docker");
                    assert!(!cached(&ran), "{name}");
                    assert!(forget(place, &token));
                    let (_, did) = place.built(request().cache_from(Cache::local(&cache))).await;
                    assert!(was_cached(&did, &token), "{name}: {:?}", did.cached);
                    // And it can be written on by us.
                    place
                        .built(request().cache_to(Cache::local(&cache).attr("tag", "ours")))
                        .await;
                    assert_eq!(tags(&cache), ["latest", "ours"], "{name}");
                }
                verify(&cache);
            }
        },
    );
}

#[test]
fn a_result_can_be_a_layout() {
    on(&PLACES, "request::a_result_can_be_a_layout", async |place| {
        let name = place.target.name();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let main = dir.path().join("main");
        fs::create_dir(&main).expect("a directory");
        fs::write(main.join("file"), &place.tag).expect("writable");
        fs::write(main.join("Dockerfile"), "FROM scratch\nCOPY file /\n").expect("writable");
        let (out, theirs) = (dir.path().join("out"), dir.path().join("theirs"));
        let request = |out: &Path| {
            BuildRequest::new(main.as_path())
                .tag(&place.tag)
                .build_arg("SOURCE_DATE_EPOCH", "1600000000")
                .output(Output::oci_layout(out))
        };
        if !keeps_blobs(place) {
            let text = chain(&place.failed(request(&out)).await);
            let expected = match (place.target.daemon, place.target.route) {
                (_, Route::Build) => "`tar=false`",
                (Daemon::Docker20_10, _) => "--output tar=false needs BuildKit 0.11",
                _ => "exporter \"oci\" could not be found",
            };
            assert!(text.contains(expected), "{name}: {text}");
            assert!(!out.exists(), "{name}");
            place.target.refuses(RESULTS, &text);
            return;
        }
        let (outcome, _) = place.built(request(&out)).await;
        let digest = outcome.digest.clone().expect("a digest");
        let [report] = &outcome.exports[..] else {
            panic!("{name}: {:?}", outcome.exports)
        };
        assert_eq!(
            (report.output, report.path.as_deref()),
            (0, Some(&*out)),
            "{name}"
        );
        let bytes: u64 = verify(&out).values().sum();
        assert_eq!(report.bytes, bytes, "{name}");
        let index = read_json(&out.join("index.json"));
        let entry = &index["manifests"][0];
        assert_eq!(entry["digest"], *digest, "{name}");
        let full = format!("docker.io/{}", place.tag);
        assert_eq!(entry["annotations"]["io.containerd.image.name"], *full, "{name}");
        let mut there: Vec<_> = fs::read_dir(&out)
            .expect("readable")
            .map(|e| e.expect("an entry").file_name())
            .collect();
        there.sort();
        assert_eq!(there, ["blobs", "index.json", "oci-layout"], "{name}");

        // What the layout has is not sent again.
        let (outcome, _) = place.built(request(&out)).await;
        assert_eq!(outcome.digest.as_ref(), Some(&digest), "{name}");
        assert!(outcome.exports[0].bytes < bytes, "{name}: {:?}", outcome.exports);
        let args = ["buildx", "build", "--quiet", "--provenance=false"];
        let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1600000000", "-t", &place.tag];
        let output = format!("type=oci,tar=false,dest={}", theirs.display());
        let path = main.to_str().expect("UTF-8");
        if docker(place, &[&args[..], &epoch, &["--output", &output, path]].concat()).is_some() {
            assert_eq!(verify(&theirs), verify(&out), "{name}");
            let ours = |index: serde_json::Value| index["manifests"][0].clone();
            assert_eq!(ours(read_json(&theirs.join("index.json"))), ours(index), "{name}");
        }

        // The layout is a base image for the next build.
        let base = NamedContext::parse(&format!("oci-layout://{}", out.display())).expect("a context");
        let text = "FROM base\n";
        let next = BuildRequest::new(main.as_path())
            .dockerfile(Dockerfile::Inline(text.into()))
            .tag(&place.tag)
            .named_context("base", base);
        place.built(next).await;
        let image = place.engine.tree(&place.tag, "").await.expect("the image");
        let found = image.entries.get(&b"file"[..]).and_then(|e| e.digest);
        assert_eq!(found, Some(ContentDigest::of(place.tag.as_bytes())), "{name}");

        // A build that fails leaves no layout.
        let broken = dir.path().join("a/broken");
        let text = "FROM scratch\nCOPY none /\n";
        let failing = request(&broken).dockerfile(Dockerfile::Inline(text.into()));
        place.failed(failing).await;
        assert!(!dir.path().join("a").exists(), "{name}");
        place.target.record(RESULTS, &Support::Yes);
    });
}

fn read_json(path: &Path) -> serde_json::Value {
    let text = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

fn tags(layout: &Path) -> Vec<String> {
    let index = read_json(&layout.join("index.json"));
    let list = index["manifests"].as_array().expect("a list");
    let tag = |v: &serde_json::Value| {
        v["annotations"]["org.opencontainers.image.ref.name"]
            .as_str()
            .map(str::to_owned)
    };
    let mut tags: Vec<_> = list.iter().filter_map(tag).collect();
    tags.sort();
    tags
}

/// Checks every blob of a layout, and that what its index names is there, down to the last layer. The sizes of all blobs.
fn verify(layout: &Path) -> BTreeMap<String, u64> {
    let blobs = layout.join("blobs/sha256");
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(&blobs).expect("blobs") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("readable");
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .expect("UTF-8")
            .to_owned();
        let hex: String = Sha256::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hex, name, "{}", layout.display());
        all.insert(format!("sha256:{name}"), bytes.len() as u64);
    }
    assert_eq!(
        read_json(&layout.join("oci-layout"))["imageLayoutVersion"],
        "1.0.0"
    );
    let mut open = vec![read_json(&layout.join("index.json"))];
    while let Some(object) = open.pop() {
        let list = |key: &str| object[key].as_array().cloned().unwrap_or_default();
        let leaves = [list("layers"), vec![object["config"].clone()]].concat();
        for named in list("manifests")
            .iter()
            .chain(leaves.iter().filter(|v| v.is_object()))
        {
            let digest = named["digest"].as_str().expect("a digest");
            assert!(
                all.contains_key(digest),
                "{}: {digest} is not there",
                layout.display()
            );
            assert_eq!(named["size"].as_u64(), all.get(digest).copied(), "{digest}");
        }
        for manifest in list("manifests") {
            let hex = manifest["digest"]
                .as_str()
                .expect("a digest")
                .trim_start_matches("sha256:");
            open.push(read_json(&blobs.join(hex)));
        }
    }
    all
}
