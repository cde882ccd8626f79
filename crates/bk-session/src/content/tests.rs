//! Layouts of requests without the wire: what is told to the daemon, and what is left on disk in the end.

use std::{
    fs,
    sync::{Mutex, PoisonError},
};

use bk_build::{Cache, Context, Dockerfile, NamedContext, Output};
use serde_json::json;

use super::*;
use crate::content::digest::{Algorithm, Hasher};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A layout with a manifest for each tag.
fn write_layout(dir: &Path, tags: &[&str]) -> Vec<String> {
    let layout = Layout::create(dir).expect("a layout");
    let write = |tag: &&str| {
        let text = json!({"tag": tag}).to_string();
        let digest = put(dir, text.as_bytes());
        let descriptor = Descriptor::new(MANIFEST, &*digest, text.len() as u64);
        record(&layout, &descriptor, &[Name::Tag((*tag).to_owned())]).expect("an index");
        digest
    };
    tags.iter().map(write).collect()
}

fn put(dir: &Path, bytes: &[u8]) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(bytes);
    let digest = hasher.digest();
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory");
    fs::write(blobs.join(digest.hex()), bytes).expect("writable");
    digest.to_string()
}

fn request() -> BuildRequest {
    BuildRequest::new(Context::None).dockerfile(Dockerfile::Inline("FROM scratch".into()))
}

/// The layouts of a request, and the warnings.
async fn of(request: &mut BuildRequest) -> (Result<Contents, BuildError>, Vec<String>) {
    let (events, told) = listen();
    let contents = Contents::of(request, &events).await;
    let told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
    (contents, told)
}

fn listen() -> (EventSink, Arc<Mutex<Vec<String>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let keep = told.clone();
    let events = EventSink::from_fn(move |event| {
        if let BuildEvent::Warning(warning) = event {
            keep.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(warning.short);
        }
    });
    (events, told)
}

async fn context(text: &str) -> Result<(Contents, String), String> {
    let context = NamedContext::parse(text).expect("a context");
    let mut request = request().named_context("base", context);
    let (contents, told) = of(&mut request).await;
    assert!(told.is_empty());
    let contents = contents.map_err(|e| e.to_string())?;
    let value = contents
        .frontend_attrs()
        .remove("context:base")
        .unwrap_or_default();
    Ok((contents, value))
}

#[tokio::test]
async fn tags_lead_to_digests() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().display();
    let [one, latest] = &write_layout(dir.path(), &["1", "latest"])[..] else {
        panic!("two")
    };
    for (text, digest) in [
        (format!("oci-layout://{path}"), latest),
        (format!("oci-layout://{path}:1"), one),
        (format!("oci-layout://{path}@{one}"), one),
        (format!("oci-layout://{path}:latest@{one}"), one),
    ] {
        let (contents, value) = context(&text).await.expect("a context");
        let value = value.strip_prefix("oci-layout://").expect("a layout");
        let (id, found) = value.split_once('@').expect("a digest");
        assert_eq!(found, digest, "{text}");
        let store = contents.get(format!("oci:{id}").as_bytes()).expect("a store");
        assert!(!store.is_writable() && store.is_vital());
    }
    let error = context(&format!("oci-layout://{path}:2"))
        .await
        .err()
        .expect("no such tag");
    assert!(
        error.contains(&format!(
            "`base`: the layout {path} has no image with the tag `2`; there are 1, latest"
        )),
        "{error}"
    );
    for (text, part) in [
        (
            format!("oci-layout://{path}@sha256:ab"),
            "`sha256:ab` is no digest".to_owned(),
        ),
        (
            format!("oci-layout://{path}@sha256:{}", "0".repeat(64)),
            format!("{path}: the layout has no blob sha256:000"),
        ),
        (
            format!("oci-layout://{path}/none"),
            format!("{path}/none: there is no such directory"),
        ),
        (
            format!("oci-layout://{path}/blobs"),
            "is no OCI layout".to_owned(),
        ),
        (
            format!("oci-layout://{path}/index.json"),
            "is no directory".to_owned(),
        ),
    ] {
        let error = context(&text).await.err().expect("refused");
        assert!(error.contains(&part), "{error}");
    }
    fs::write(dir.path().join("index.json"), "[").expect("writable");
    let error = context(&format!("oci-layout://{path}"))
        .await
        .err()
        .expect("refused");
    assert!(error.contains("its `index.json` cannot be used"), "{error}");
}

#[tokio::test]
async fn the_only_image_needs_no_tag() {
    let dir = tempfile::tempdir().expect("a directory");
    let digests = write_layout(dir.path(), &["other"]);
    let (_, value) = context(&format!("oci-layout://{}", dir.path().display()))
        .await
        .expect("a context");
    assert!(value.ends_with(&digests[0]), "{value}");
    assert!(
        context(&format!("oci-layout://{}:latest", dir.path().display()))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn caches_are_told_by_digest_and_lose_what_is_ours() {
    let dir = tempfile::tempdir().expect("a directory");
    let (src, dest) = (dir.path().join("src"), dir.path().join("dest"));
    let digests = write_layout(&src, &["latest", "t"]);
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let mut request = request()
        .cache_from(Cache::registry("r"))
        .cache_from(Cache::local(&src).attr("tag", "t"))
        .cache_from(Cache::new("local").attr("src", text(&src)))
        .cache_from(Cache::local(&src).attr("tag", "none"))
        .cache_from(Cache::local(dir.path().join("none")))
        .cache_from(Cache::local(&src).attr("digest", "sha256:x"))
        .cache_to(Cache::inline())
        .cache_to(
            Cache::local(&dest)
                .attr("tag", "t")
                .attr("reset", "true")
                .attr("mode", "max")
                .max_size(5),
        )
        .cache_to(Cache::local(&src));
    let (contents, told) = of(&mut request).await;
    let contents = contents.expect("caches");
    let attrs = |c: &Cache| format!("{} {:?}", c.kind, c.attrs);
    let from: Vec<_> = request.cache_from.iter().map(attrs).collect();
    let src_text = text(&src);
    assert_eq!(
        from,
        [
            r#"registry {"ref": "r"}"#.to_owned(),
            format!(r#"local {{"digest": "{}", "src": "{src_text}"}}"#, digests[1]),
            format!(r#"local {{"digest": "{}", "src": "{src_text}"}}"#, digests[0]),
        ]
    );
    let to: Vec<_> = request.cache_to.iter().map(attrs).collect();
    assert_eq!(
        to,
        [
            "inline {}".to_owned(),
            format!(r#"local {{"dest": "{}", "mode": "max"}}"#, text(&dest)),
            format!(r#"local {{"dest": "{src_text}"}}"#),
        ]
    );
    assert_eq!(told.len(), 3, "{told:?}");
    for (told, part) in told.iter().zip([
        "nothing with the tag `none`",
        "there is no such directory",
        "`sha256:x` is no digest",
    ]) {
        assert!(
            told.starts_with("--cache-from: the cache in ") && told.contains(part),
            "{told}"
        );
    }
    // A directory that is read and written is one store.
    let store = contents
        .get(format!("local:{src_text}").as_bytes())
        .expect("a store");
    assert!(store.is_writable() && !store.is_vital());
    assert!(!dest.exists(), "nothing was written yet");
}

#[tokio::test]
async fn places_that_cannot_hold_a_layout_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, full) = (dir.path().join("file"), dir.path().join("full"));
    fs::write(&file, "").expect("writable");
    fs::create_dir(&full).expect("a directory");
    fs::write(full.join("thesis.txt"), "").expect("writable");
    for (request, part) in [
        (request().cache_to(Cache::local(&file)), "is no directory"),
        (
            request().cache_to(Cache::local(&full)),
            "holds other files and no OCI layout",
        ),
        (
            request().output(Output::oci_layout(&full)),
            "holds other files and no OCI layout",
        ),
    ] {
        let (contents, _) = of(&mut request.clone()).await;
        let error = contents.err().expect("refused").to_string();
        assert!(error.contains(part), "{error}");
    }
}

fn outcome(digest: Option<&str>, cache: Option<Descriptor>, names: &[&str]) -> BuildOutcome {
    let mut outcome = BuildOutcome::default();
    if let Some(digest) = digest {
        let key = "containerimage.digest".to_owned();
        outcome.exporter_response.insert(key, digest.to_owned());
    }
    outcome.cache_manifest = cache;
    outcome.names = names.iter().map(|n| (*n).to_owned()).collect();
    outcome
}

/// Writes a blob as a daemon does, but without the wire.
fn upload(contents: &Contents, id: &str, bytes: &[u8]) -> String {
    let store = contents.get(id.as_bytes()).expect("a store");
    let mut ingest = store.begin("r", 0, None).expect("an upload");
    store.write(&mut ingest, 0, bytes).expect("written");
    store.commit(&mut ingest, 0, None).expect("a blob").to_string()
}

#[tokio::test]
async fn a_result_gets_its_index_in_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("a/b");
    let mut request = request()
        .output(Output::cache_only())
        .output(Output::oci_layout(&place));
    let contents = of(&mut request).await.0.expect("a result");
    let digest = upload(&contents, "export", br#"{"manifests":[]}"#);
    let names = ["docker.io/library/app:1", "h/b"];
    let done = contents
        .finish(&outcome(Some(&digest), None, &names), &EventSink::discard())
        .await;
    let [report] = &done.expect("a layout")[..] else {
        panic!("one")
    };
    assert_eq!(
        (report.output, report.path.as_deref(), report.bytes),
        (1, Some(&*place), 16)
    );
    drop(contents);
    let read = |name: &str| fs::read_to_string(place.join(name)).expect("a file");
    assert_eq!(read("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: serde_json::Value = serde_json::from_str(&read("index.json")).expect("json");
    assert_eq!(
        index["manifests"][0]["mediaType"],
        "application/vnd.oci.image.index.v1+json"
    );
    assert_eq!(index["manifests"][0]["size"], 16);
    assert_eq!(
        index["manifests"][0]["annotations"]["io.containerd.image.name"],
        "docker.io/library/app:1"
    );
    assert_eq!(
        index["manifests"][1]["annotations"]["org.opencontainers.image.ref.name"],
        "latest"
    );
    let mut there: Vec<_> = fs::read_dir(&place)
        .expect("readable")
        .map(|e| e.expect("an entry").file_name())
        .collect();
    there.sort();
    assert_eq!(there, ["blobs", "index.json", "oci-layout"]);
}

#[tokio::test]
async fn a_result_that_does_not_come_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("a/b");
    let mut asked = request().output(Output::oci_layout(&place));
    let contents = of(&mut asked.clone()).await.0.expect("a result");
    upload(&contents, "export", b"layer");
    let lost = format!("sha256:{}", "0".repeat(64));
    let error = contents
        .finish(&outcome(Some(&lost), None, &[]), &EventSink::discard())
        .await;
    assert!(
        error
            .expect_err("no manifest")
            .to_string()
            .contains("has not sent the manifest")
    );
    drop(contents);
    assert!(!dir.path().join("a").exists());
    // What was there before stays.
    let digests = write_layout(&place, &["old"]);
    let contents = of(&mut asked).await.0.expect("a result");
    upload(&contents, "export", b"layer");
    contents.abandon().await;
    let store = contents.get(b"export").expect("a store");
    assert!(matches!(store.begin("late", 0, None), Err(Fault::Io(_))));
    let (_, index) = open_index(&place).expect("a layout");
    assert_eq!(index.entries()[0].digest.to_string(), digests[0]);
    assert_eq!(
        fs::read_dir(place.join("blobs/sha256"))
            .expect("readable")
            .count(),
        1
    );
}

#[tokio::test]
async fn a_cache_that_cannot_be_kept_is_a_warning_unless_asked() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::local(dir.path().join("c"));
    for (cache, vital) in [
        (cache.clone(), false),
        (cache.attr("ignore-error", "false"), true),
    ] {
        let contents = of(&mut request().cache_to(cache)).await.0.expect("a cache");
        let (events, told) = listen();
        let done = contents.finish(&outcome(None, None, &[]), &events).await;
        let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert_eq!((done.is_err(), told.is_empty()), (vital, vital), "{told:?}");
        if !vital {
            assert!(
                told[0].contains("was not kept: the daemon had nothing to keep"),
                "{told:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_cache_is_tagged_and_kept_small() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("c");
    let id = format!("local:{}", place.display());
    let write = async |tag: &str, max: Option<u64>| {
        let mut cache = Cache::local(&place).attr("tag", tag);
        cache = match max {
            Some(max) => cache.max_size(max),
            None => cache,
        };
        // A directory that is read as well under another name must not stop the clean-up.
        let again = format!("{}/.", place.display());
        let mut request = request()
            .cache_to(cache)
            .cache_from(Cache::local(again).attr("tag", "a"));
        let contents = of(&mut request).await.0.expect("a cache");
        let layer = upload(&contents, &id, format!("{tag}{}", "x".repeat(1000)).as_bytes());
        let text = json!({"layers": [{"digest": layer}]}).to_string();
        let manifest = upload(&contents, &id, text.as_bytes());
        let descriptor = Descriptor::new(MANIFEST, manifest, text.len() as u64);
        let (events, told) = listen();
        let done = contents
            .finish(&outcome(None, Some(descriptor), &[]), &events)
            .await;
        done.expect("kept");
        let (_, index) = open_index(&place).expect("a layout");
        let tags: Vec<_> = index.entries().into_iter().filter_map(|e| e.name).collect();
        let told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
        (tags, told)
    };
    assert_eq!(write("a", None).await.0, ["a"]);
    assert_eq!(write("b", None).await.0, ["a", "b"]);
    assert_eq!(
        write("c", Some(1 << 20)).await,
        (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], vec![])
    );
    let (tags, told) = write("d", Some(1500)).await;
    assert_eq!((tags, told.len()), (vec!["d".to_owned()], 0), "{told:?}");
    assert_eq!(
        fs::read_dir(place.join("blobs/sha256"))
            .expect("readable")
            .count(),
        2
    );
    let (tags, told) = write("e", Some(15)).await;
    assert_eq!(tags, ["e"]);
    assert!(told[0].contains("more than the 15 that it may have"), "{told:?}");
}
