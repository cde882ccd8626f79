//! Caches in directories: what this client, `docker buildx` and daemons of several ages find of what another one wrote. What
//! an engine has kept of a step is forgotten by name, so that only the directory can know it.

use std::{fs, path::Path, process::Output as Ran};

use bk_client::{BuildRequest, Cache};
use bk_testkit::{
    conformance::fresh_token,
    events::chain,
    live::{Daemon, Route, Support},
    snapshot::ContentDigest,
};

use crate::{
    Did, Place, context,
    layouts::{PLACES, docker, keeps_blobs, read_json, verify},
    on,
};

const CACHES: &str = "Caches in local directories";

/// Makes the engine forget what it built with `token` in its command, and nothing else.
fn forget(place: &Place<'_>, token: &str) -> bool {
    let filter = format!("description~={token}");
    docker(
        place,
        &["buildx", "prune", "--force", "--all", "--filter", &filter],
    )
    .is_some()
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
                if place.target.route == Route::Build {
                    place.target.refuses(CACHES, &text);
                }
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
fn a_cache_of_one_daemon_is_found_by_others() {
    const TEST: &str = "request::a_cache_of_one_daemon_is_found_by_others";
    let caches = tempfile::tempdir().expect("a temporary directory");
    let cache = caches.path().join("cache");
    // Nothing of this context was ever seen by a daemon.
    let token = format!("shared{}", fresh_token());
    let with_token = |place: &Place<'_>| {
        let rest = format!("COPY token /token\nRUN : {token} && cat /token > /made\n");
        let dir = context(place.target, &rest.replace("cat", "/bin/busybox cat"));
        fs::write(dir.path().join("token"), &token).expect("writable");
        dir
    };
    on(
        &[(Daemon::Docker28_5Containerd, Route::Grpc)],
        TEST,
        async |place| {
            let dir = with_token(place);
            // In the older of both forms, which daemons of all ages read.
            let to = Cache::local(&cache)
                .attr("mode", "max")
                .attr("image-manifest", "false");
            let (_, did) = place
                .built(BuildRequest::new(dir.path()).tag(&place.tag).cache_to(to))
                .await;
            assert!(!was_cached(&did, &token), "{:?}", did.cached);
        },
    );
    if !cache.exists() {
        return;
    }
    let others = [
        (Daemon::Docker20_10, Route::Grpc),
        (Daemon::Docker26_1, Route::Grpc),
        (Daemon::Docker28_5, Route::Grpc),
    ];
    on(&others, TEST, async |place| {
        let dir = with_token(place);
        let request = BuildRequest::new(dir.path()).tag(&place.tag);
        let (_, did) = place.built(request.cache_from(Cache::local(&cache))).await;
        let name = place.target.name();
        assert!(
            did.cached.iter().any(|step| step.contains("COPY token")),
            "{name}: {:?}",
            did.cached
        );
        assert_eq!(
            was_cached(&did, &token),
            !place.is_old(),
            "{name}: {:?}",
            did.cached
        );
        let image = place.engine.tree(&place.tag, "").await.expect("the image");
        let made = image.entries.get(&b"made"[..]).and_then(|e| e.digest);
        assert_eq!(made, Some(ContentDigest::of(token.as_bytes())), "{name}");
        let text = match place.is_old() {
            true => "read only, what `COPY` made, from caches with `image-manifest=false`",
            false => "read only: graph drivers write none",
        };
        place.target.record(CACHES, &Support::But(text.to_owned()));
    });
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
