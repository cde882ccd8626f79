//! What is said about images, and where steps are kept: the same bytes as `docker buildx` makes from the same input.

use std::{fs, path::Path, process::Command, time::Duration};

use bk_client::{
    Annotation, Attestation, BuildError, BuildRequest, Cache, Compression, Output, ProvenanceMode,
};
use bk_testkit::{
    live::{Daemon, Route},
    oci::{bytes_of, json_of},
};

use crate::{Place, context, on};

/// A row of the table of what works where.
const STATEMENTS: &str = "Statements about images (`--attest`)";

/// What `docker buildx build` says of the image that it makes, by the key of its metadata file.
fn buildx(place: &Place<'_>, dir: &Path, flags: &[&str], key: &str) -> Option<String> {
    let (cli, config) = (
        std::env::var_os("BK_LIVE_DOCKER_CLI")?,
        std::env::var_os("BK_LIVE_DOCKER_CLI_CONFIG")?,
    );
    let metadata = dir.with_extension("metadata");
    let ran = Command::new(cli)
        .env("DOCKER_CONFIG", config)
        .env("DOCKER_HOST", format!("unix://{}", place.target.docker.display()))
        .args([
            "buildx",
            "build",
            "--quiet",
            "--provenance=false",
            "--metadata-file",
        ])
        .arg(&metadata)
        .args(flags)
        .args(["-t", &place.tag])
        .arg(dir)
        .output()
        .expect("docker runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = fs::read(&metadata).expect("a metadata file");
    fs::remove_file(&metadata).expect("removable");
    let object: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    object.get(key)?.as_str().map(str::to_owned)
}

const DIGEST: &str = "containerimage.digest";

#[test]
fn one_input_makes_the_image_that_buildx_makes() {
    let places = [
        (Daemon::Docker28_5, Route::Grpc),
        (Daemon::Docker28_5Containerd, Route::Grpc),
    ];
    on(
        &places,
        "request::one_input_makes_the_image_that_buildx_makes",
        async |place| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            fs::write(dir.path().join("file"), "content\n").expect("writable");
            let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
            let file = fs::File::options().write(true).open(dir.path().join("file"));
            file.expect("the file").set_modified(old).expect("a time");
            fs::write(
                dir.path().join("Dockerfile"),
                format!("FROM scratch\nLABEL of=\"{}\"\nCOPY file /\n", place.tag),
            )
            .expect("writable");
            let request = || {
                BuildRequest::new(dir.path())
                    .tag(&place.tag)
                    .no_cache(true)
                    .build_arg("SOURCE_DATE_EPOCH", "1600000000")
                    .label("l", "v")
            };
            let digest = |outcome: &bk_client::BuildOutcome| outcome.exporter_response.get(DIGEST).cloned();
            let (first, _) = place.built(request()).await;
            let (second, _) = place.built(request()).await;
            assert!(digest(&first).is_some());
            assert_eq!(digest(&first), digest(&second), "{}", place.target.name());
            let flags = [
                "--no-cache",
                "--build-arg",
                "SOURCE_DATE_EPOCH=1600000000",
                "--label",
                "l=v",
            ];
            if let Some(theirs) = buildx(place, dir.path(), &flags, DIGEST) {
                assert_eq!(digest(&first), Some(theirs), "{}", place.target.name());
            }
            if place.target.daemon == Daemon::Docker28_5Containerd {
                let annotated = request().annotation(Annotation::new("k", "v")).annotation(
                    Annotation::parse("manifest[linux/amd64]:x=y")
                        .expect("one")
                        .remove(0),
                );
                let (annotated, _) = place.built(annotated).await;
                assert_ne!(digest(&annotated), digest(&first));
                // Without an explicit output buildx forgets annotations.
                let more = [
                    "--annotation",
                    "k=v",
                    "--annotation",
                    "manifest[linux/amd64]:x=y",
                    "--output",
                    "type=image",
                ];
                if let Some(theirs) = buildx(place, dir.path(), &[&flags[..], &more[..]].concat(), DIGEST) {
                    assert_eq!(digest(&annotated), Some(theirs), "{}", place.target.name());
                }
            }
        },
    );
}

#[test]
fn statements_are_made_where_they_can_be_kept() {
    let places = [
        (Daemon::Docker20_10, Route::Grpc),
        (Daemon::Docker28_5Containerd, Route::Grpc),
        (Daemon::BuildkitUnix, Route::Direct),
    ];
    on(
        &places,
        "request::statements_are_made_where_they_can_be_kept",
        async |place| {
            let dir = context(place.target, "");
            let request = BuildRequest::new(dir.path())
                .tag(&place.tag)
                .attest(Attestation::provenance(ProvenanceMode::Max));
            if place.is_old() {
                let error = place.failed(request).await;
                assert!(matches!(error, BuildError::TooOld(_)), "{error:?}");
                let text = error.to_string();
                assert!(
                    text.starts_with("--attest (--sbom, --provenance) needs BuildKit 0.11"),
                    "{text}"
                );
                place.target.refuses(STATEMENTS, &text);
                return;
            }
            let (outcome, _) = place.built(request).await;
            let descriptor = outcome.exporter_response.get("containerimage.descriptor");
            let descriptor = descriptor.map(String::as_str).unwrap_or_default();
            let text = base64_text(descriptor);
            // The statement stands beside the image, so what was made is an index of both.
            assert!(
                text.contains("application/vnd.oci.image.index.v1+json"),
                "{}: {text}",
                place.target.name()
            );
            place.target.supports(STATEMENTS);
        },
    );
}

/// A scanner that writes down one thing about every image, made of a shell.
#[test]
fn packages_are_listed_by_the_scanner_that_was_asked_for() {
    let places = [
        (Daemon::Docker28_5Containerd, Route::Grpc),
        (Daemon::BuildkitUnix, Route::Direct),
    ];
    let name = "request::packages_are_listed_by_the_scanner_that_was_asked_for";
    on(&places, name, async |place| {
        let name = place.target.name();
        let statement = format!(
            r#"{{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document", "predicate": {{"name": "{}"}}}}"#,
            place.tag
        );
        let scan = format!("echo '{statement}' > $BUILDKIT_SCAN_DESTINATION/sbom.spdx.json");
        let command = serde_json::json!(["/bin/sh", "-c", scan]);
        let dir = context(place.target, &format!("ENTRYPOINT {command}\n"));
        let scanner = format!(
            "{}/scanner:{}",
            place.target.base.host,
            place.tag.replace([':', '/'], "-")
        );
        let request = BuildRequest::new(dir.path())
            .tag(&scanner)
            .output(Output::image().push(true));
        place.built(request).await;
        place.engine.remove_image(&scanner).await.expect("removable");

        let archive = dir.path().join("out.tar");
        let request = BuildRequest::new(dir.path())
            .attest(Attestation::sbom_by(&scanner))
            .output(Output::oci(archive.as_path()));
        place.built(request).await;
        let json = |name: &str| json_of(&archive, name).expect("in the archive");
        let first =
            |value: &serde_json::Value, digest: &str| value[digest].as_str().expect("a digest").to_owned();
        let index = json(&first(&json("index.json")["manifests"][0], "digest"));
        let of_statements = index["manifests"]
            .as_array()
            .expect("manifests")
            .iter()
            .find(|m| m["annotations"]["vnd.docker.reference.type"] == "attestation-manifest");
        let manifest = json(&first(of_statements.expect("statements"), "digest"));
        let said = json(&first(&manifest["layers"][0], "digest"));
        assert_eq!(
            said["predicateType"], "https://spdx.dev/Document",
            "{name}: {said}"
        );
        assert_eq!(said["predicate"]["name"], place.tag, "{name}: {said}");
        place.target.supports("`--sbom` with a scanner of one's own");
    });
}

#[test]
fn layers_are_compressed_as_asked() {
    let places = [
        (Daemon::Docker28_5Containerd, Route::Grpc),
        (Daemon::BuildkitUnix, Route::Direct),
    ];
    // Not estargz: there Debian's engine panics in the library that writes it.
    let kinds = [
        (Compression::Uncompressed, "", &[][..]),
        (Compression::Gzip, "+gzip", &[0x1f, 0x8b]),
        (Compression::Zstd, "+zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
    ];
    on(
        &places,
        "request::layers_are_compressed_as_asked",
        async |place| {
            let dir = context(place.target, "");
            for (compression, kind, begins) in kinds {
                let name = format!("{} {compression:?}", place.target.name());
                let archive = dir.path().join("out.tar");
                let output = Output::oci(archive.as_path())
                    .compression(compression)
                    .force_compression(true);
                place.built(BuildRequest::new(dir.path()).output(output)).await;
                let index = json_of(&archive, "index.json").expect("an index");
                let digest = index["manifests"][0]["digest"].as_str().expect("a digest");
                let manifest = json_of(&archive, digest).expect("a manifest");
                let kind = format!("application/vnd.oci.image.layer.v1.tar{kind}");
                for layer in manifest["layers"].as_array().expect("layers") {
                    assert_eq!(layer["mediaType"], kind, "{name}");
                    let digest = layer["digest"].as_str().expect("a digest");
                    let bytes = bytes_of(&archive, digest).expect("a layer");
                    assert!(bytes.starts_with(begins), "{name}");
                }
                fs::remove_file(&archive).expect("removable");
            }
            place.target.supports("Layers with gzip, zstd, or as they are");
        },
    );
}

fn base64_text(text: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn steps_are_found_in_a_registry() {
    let from = [(Daemon::Docker28_5Containerd, Route::Grpc)];
    let to = [
        (Daemon::Docker20_10, Route::Grpc),
        (Daemon::Docker26_1, Route::Grpc),
        (Daemon::Docker28_5, Route::Build),
    ];
    let dir = std::sync::OnceLock::new();
    let named = std::sync::OnceLock::new();
    on(&from, "request::steps_are_found_in_a_registry", async |place| {
        let made = context(
            place.target,
            &format!(
                "COPY own /own\nRUN echo {} > /made && busybox date +%s >> /made\n",
                place.tag
            ),
        );
        fs::write(made.path().join("own"), &place.tag).expect("writable");
        let reference = format!(
            "{}/cache/request:{}",
            place.target.base.host,
            place.tag.replace([':', '/'], "-")
        );
        let request = BuildRequest::new(made.path()).tag(&place.tag).cache_to(
            Cache::registry(&reference)
                .attr("mode", "max")
                .attr("image-manifest", "false")
                .attr("oci-mediatypes", "false")
                .attr("ignore-error", "false"),
        );
        place.built(request).await;
        dir.set(made).expect("once");
        named.set(reference).expect("once");
    });
    let (Some(dir), Some(reference)) = (dir.get(), named.get()) else {
        return;
    };
    on(&to, "request::steps_are_found_in_a_registry", async |place| {
        let request = BuildRequest::new(dir.path())
            .tag(&place.tag)
            .cache_from(Cache::registry(reference));
        let (_, did) = place.built(request).await;
        let cached = |step: &str| did.cached.iter().any(|n| n.contains(step));
        assert!(cached("COPY own"), "{}: {:?}", place.target.name(), did.cached);
        // BuildKit 0.8 describes a `RUN` in other words, so it is another step to it.
        let same = !place.is_old();
        assert_eq!(
            cached("RUN echo"),
            same,
            "{}: {:?}",
            place.target.name(),
            did.cached
        );
        place.target.supports("Caches in registries, read");
    });
}

/// A step that the image itself tells of: whoever has the image has the cache.
#[test]
fn steps_are_found_in_an_image() {
    let name = "request::steps_are_found_in_an_image";
    let made = std::sync::OnceLock::new();
    let from = [(Daemon::Docker28_5Containerd, Route::Grpc)];
    on(&from, name, async |place| {
        let dir = context(
            place.target,
            &format!("COPY own /own\nRUN echo {} > /made\n", place.tag),
        );
        fs::write(dir.path().join("own"), &place.tag).expect("writable");
        let reference = format!(
            "{}/cache/inline:{}",
            place.target.base.host,
            place.tag.replace([':', '/'], "-")
        );
        let request = BuildRequest::new(dir.path())
            .tag(&reference)
            .output(Output::image().push(true))
            .cache_to(Cache::inline());
        place.built(request).await;
        place.engine.remove_image(&reference).await.expect("removable");
        made.set((dir, reference)).expect("once");
    });
    let Some((dir, reference)) = made.get() else {
        return;
    };
    let to = [
        (Daemon::Docker26_1, Route::Grpc),
        (Daemon::Docker28_5, Route::Grpc),
    ];
    on(&to, name, async |place| {
        let request = BuildRequest::new(dir.path())
            .tag(&place.tag)
            .cache_from(Cache::registry(reference));
        let (_, did) = place.built(request).await;
        let cached = |step: &str| did.cached.iter().any(|n| n.contains(step));
        assert!(
            cached("COPY own") && cached("RUN echo"),
            "{}: {:?}",
            place.target.name(),
            did.cached
        );
        place.target.supports("Caches in images (`type=inline`)");
    });
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error_unless_asked() {
    let places = [
        (Daemon::Docker28_5Containerd, Route::Grpc),
        (Daemon::BuildkitUnix, Route::Direct),
    ];
    on(
        &places,
        "request::a_cache_that_cannot_be_written_is_no_error_unless_asked",
        async |place| {
            let dir = context(place.target, "");
            // Nothing listens there.
            let nowhere = Cache::registry("127.0.0.1:1/cache:x");
            let request = || BuildRequest::new(dir.path()).tag(&place.tag);
            place.built(request().cache_to(nowhere.clone())).await;
            place.built(request().cache_from(nowhere.clone())).await;
            let strict = request().cache_to(nowhere.attr("ignore-error", "false"));
            let error = bk_testkit::events::chain(&place.failed(strict).await);
            assert!(error.contains("127.0.0.1:1"), "{}: {error}", place.target.name());
            place
                .target
                .supports("Caches that fail are warnings, unless asked");
        },
    );
}
