//! Layouts on this machine: images made by another tool as contexts, and results that are no archive, held against those of
//! `docker buildx`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output as Ran},
};

use bk_client::{BuildError, BuildRequest, Dockerfile, NamedContext, Output};
use bk_testkit::{
    events::chain,
    live::{Daemon, Route, Support, umoci_program},
    snapshot::ContentDigest,
};
use sha2::{Digest as _, Sha256};

use crate::{Place, on};

const CONTEXTS: &str = "OCI layouts as contexts";
const RESULTS: &str = "OCI layout as result (`tar=false`)";

/// The oldest and the newest daemon, and those that have the store for it.
pub(crate) const PLACES: [(Daemon, Route); 6] = [
    (Daemon::Docker20_10, Route::Grpc),
    (Daemon::Docker26_1, Route::Grpc),
    (Daemon::Docker28_5, Route::Grpc),
    (Daemon::Docker28_5, Route::Build),
    (Daemon::Docker28_5Containerd, Route::Grpc),
    (Daemon::BuildkitUnix, Route::Direct),
];

/// Whether the engine's image store has layouts and caches.
pub(crate) fn keeps_blobs(place: &Place<'_>) -> bool {
    matches!(
        place.target.daemon,
        Daemon::Docker28_5Containerd | Daemon::BuildkitUnix
    )
}

/// Docker's own client on the engine behind a place.
pub(crate) fn docker(place: &Place<'_>, args: &[&str]) -> Option<Ran> {
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
        // What the layout lacks is found out by the daemon, and named by us.
        let torn = dir.path().join("torn");
        fs::create_dir(&torn).expect("a directory");
        let torn = foreign_layout(&umoci, &torn, "first", &format!("{text}again\n"));
        let index = read_json(&torn.join("index.json"));
        let blob = |named: &serde_json::Value| {
            let digest = named["digest"].as_str().expect("a digest");
            torn.join("blobs").join(digest.replace(':', "/"))
        };
        let manifest = read_json(&blob(&index["manifests"][0]));
        let layer = &manifest["layers"][0];
        fs::remove_file(blob(layer)).expect("a layer");
        let error = place
            .failed(request(&format!("oci-layout://{}", torn.display())))
            .await;
        let BuildError::Local(failure) = &error else {
            panic!("{name}: {error:?}")
        };
        assert_eq!(failure.path, torn, "{name}");
        let digest = layer["digest"].as_str().expect("a digest");
        assert!(failure.message.contains(digest), "{name}: {error}");
        place.target.supports(CONTEXTS);
    });
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

pub(crate) fn read_json(path: &Path) -> serde_json::Value {
    let text = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// Checks every blob of a layout, and that what its index names is there, down to the last layer. The sizes of all blobs.
pub(crate) fn verify(layout: &Path) -> BTreeMap<String, u64> {
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
