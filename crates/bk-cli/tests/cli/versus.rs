//! `bk` and `docker buildx` side by side: the same flags on the same daemon make the same files, archives, images and
//! metadata. Where they differ on purpose the test says so.

#[path = "versus/admin.rs"]
mod admin;
#[path = "versus/images.rs"]
mod images;
#[path = "versus/pair.rs"]
mod pair;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::net::UnixListener,
    path::Path,
};

use bk_testkit::{
    compare::{Rules, compare},
    conformance::fresh_token,
    fixture::{Meta, Tree, TreeBuilder},
    live::{Engine, Route},
    snapshot::Snapshot,
};
use serde_json::Value;

use super::{bk, text};
use pair::{Versus, everywhere};

fn owned(flags: &[&str]) -> Vec<String> {
    flags.iter().map(|f| (*f).to_owned()).collect()
}

fn metadata(dir: &Path) -> BTreeMap<String, Value> {
    let text = fs::read(dir.join("metadata")).expect("a metadata file");
    serde_json::from_slice(&text).expect("a JSON object")
}

/// Every kind of file, with times that no copy would have by accident.
fn files() -> Tree {
    let old = |mode| Meta::mode(mode).mtime(1_400_000_000, 0);
    TreeBuilder::new()
        .file("Dockerfile", "FROM scratch\nCOPY out /\n")
        .file_with("out/plain", fresh_token(), old(0o640))
        .file_with("out/run", "#!", Meta::mode(0o4755).mtime(1_500_000_000, 0))
        .file_with("out/empty", "", old(0o600))
        .dir_with("out/dir/deep", Meta::mode(0o1777))
        .big("out/dir/big", 3 << 20, 7)
        .hard_link("out/dir/hard", "out/plain")
        .symlink("out/dir/link", "../../outside")
        .build()
        .expect("fixture")
}

#[test]
fn files_and_archives_of_files_are_those_of_buildx() {
    const TEST: &str = "versus::files_and_archives_of_files_are_those_of_buildx";
    everywhere(TEST, |versus, _| {
        let (tree, place) = (files(), tempfile::tempdir().expect("a temporary directory"));
        let name = versus.name();
        let [ours, theirs] = versus.both(place.path(), tree.path(), &[], |dir| {
            owned(&[
                "-o",
                &format!("{dir}/files"),
                "-o",
                &format!("type=tar,dest={dir}/tar"),
            ])
            .into_iter()
            // Before BuildKit 0.13 there is one output at a time.
            .take(if versus.is_old() { 2 } else { 4 })
            .collect()
        });
        let dir = |at: &Path| Snapshot::of_dir(&at.join("files")).expect("the files");
        if let Err(difference) = compare(&dir(&theirs.0), &dir(&ours.0), Rules::exact()) {
            panic!("{name}: {difference}");
        }
        assert_eq!(dir(&ours.0).entries.len(), dir(&theirs.0).entries.len(), "{name}");
        if versus.is_old() {
            versus.both(place.path(), tree.path(), &[], |dir| {
                owned(&["-o", &format!("type=tar,dest={dir}/tar")])
            });
        }
        let tar = |at: &Path| fs::read(at.join("tar")).expect("the archive");
        let (own, other) = (tar(&ours.0), tar(&theirs.0));
        let archive = |bytes: &[u8]| Snapshot::of_tar(bytes).expect("a tar archive");
        if let Err(difference) = compare(&archive(&other), &archive(&own), Rules::exact()) {
            panic!("{name}: {difference}");
        }
        assert!(own == other, "{name}: the archives differ in bytes");
        // Standard output gets the same bytes.
        let streamed = place.path().join("streamed");
        let mut command = match versus.target.route {
            Route::Direct => bk(&["--backend", "buildkitd"]),
            route => bk(&["--docker-route", route.name()]),
        };
        command
            .args(["--addr", &versus.target.address, "build", "-o", "-"])
            .arg(tree.path())
            .stdout(fs::File::create(&streamed).expect("writable"));
        let ran = command.output().expect("bk starts");
        assert!(
            ran.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
        assert!(
            fs::read(&streamed).expect("the archive") == own,
            "{name}: standard output"
        );
        versus
            .target
            .supports("Files and archives are those of `docker buildx`");
    });
}

/// A context with a shell, and steps that show what options mean.
fn steps(versus: &Versus) -> Tree {
    let text = "FROM scratch AS base\nARG ONE=1\nLABEL one=$ONE\nCOPY busybox /bin/sh\nCOPY busybox /bin/\nCOPY file /\n\
        FROM base AS options\nRUN [\"/bin/busybox\", \"grep\", \"10.1.2.3\", \"/etc/hosts\"]\n\
        FROM base AS limits\nRUN [\"/bin/busybox\", \"df\", \"/dev/shm\"]\nRUN ulimit -n\n\
        FROM base AS access\n\
        RUN --mount=type=secret,id=key /bin/busybox cat /run/secrets/key > /seen\n\
        RUN --mount=type=ssh /bin/busybox test -S \"$SSH_AUTH_SOCK\"\n\
        FROM base AS named\nCOPY --from=more extra /extra\n\
        FROM base AS last\nENV A=B\n";
    TreeBuilder::new()
        .file("Dockerfile", text)
        .file("other", "FROM scratch\nCOPY file /renamed\n")
        .file("file", fresh_token())
        .program("busybox", &versus.target.busybox)
        .expect("a busybox")
        .build()
        .expect("fixture")
}

#[test]
fn images_are_those_of_buildx() {
    const TEST: &str = "versus::images_are_those_of_buildx";
    everywhere(TEST, |versus, runtime| {
        let name = versus.name();
        let place = tempfile::tempdir().expect("a temporary directory");
        let tree = steps(versus);
        let more = TreeBuilder::new()
            .file("extra", fresh_token())
            .build()
            .expect("fixture");
        let (secret, agent) = (place.path().join("secret"), place.path().join("agent"));
        fs::write(&secret, "hush").expect("writable");
        let _agent = UnixListener::bind(&agent).expect("a socket");
        let tag = format!("bk-versus-{}", name.replace(['/', '.'], "-").to_lowercase());
        let (secret, agent) = (
            format!("id=key,src={}", text(&secret)),
            format!("default={}", text(&agent)),
        );
        let (more, file) = (
            format!("more={}", text(more.path())),
            text(&tree.join("other")).to_owned(),
        );
        // Flags, and whether BuildKit 0.8 knows them.
        let sets: [(&[&str], bool); 8] = [
            (
                &["--build-arg", "ONE=2", "--label", "l=x y", "--target", "base"],
                true,
            ),
            (&["--platform", "linux/arm64", "--target", "base"], true),
            (
                &[
                    "--target",
                    "options",
                    "--add-host",
                    "there:10.1.2.3",
                    "--network",
                    "none",
                ],
                true,
            ),
            (
                &[
                    "--target",
                    "limits",
                    "--shm-size",
                    "16m",
                    "--ulimit",
                    "nofile=100:200",
                ],
                false,
            ),
            (
                &["--target", "access", "--secret", &secret, "--ssh", &agent],
                true,
            ),
            (&["--target", "named", "--build-context", &more], false),
            (&["-f", &file], true),
            (&["--annotation", "org.example.k=v", "-o", "type=image"], false),
        ];
        for (flags, old) in sets {
            if versus.is_old() && !old || flags[0] == "--annotation" && !versus.keeps_manifests() {
                continue;
            }
            let all = versus.both(place.path(), tree.path(), &[], |dir| {
                let metadata = format!("{dir}/metadata");
                let own = ["--provenance=false", "-t", &tag, "--metadata-file", &metadata];
                // A daemon before BuildKit 0.11 has no attestations to leave out.
                let image = match flags.contains(&"-o") {
                    true => &[],
                    false => versus.image(),
                };
                owned(&[&own[usize::from(versus.is_old())..], flags, image].concat())
            });
            let [ours, theirs] = all.map(|(dir, _)| metadata(&dir));
            for key in ["containerimage.digest", "containerimage.config.digest"] {
                assert_eq!(ours.get(key), theirs.get(key), "{name}: {key}: {flags:?}");
            }
            assert!(ours.contains_key("containerimage.digest"), "{name}");
        }
        // A stage that runs again makes another image with either.
        let first = versus.ours(
            tree.path(),
            &[],
            &["-t", &tag, "--no-cache-filter", "base", "--target", "base"],
        );
        assert_eq!(first.code, Some(0), "{name}: {}", first.err);
        assert!(!first.err.contains("CACHED"), "{name}: {}", first.err);
        versus.target.supports("Images are those of `docker buildx`");
        runtime.block_on(async {
            let engine = Engine::connect(&versus.target.docker)
                .await
                .expect("the engine behind");
            engine.remove_image(&tag).await.expect("removable");
        });
    });
}

/// What differs from build to build, or is said in other words.
fn comparable(mut metadata: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    for (key, value) in &mut metadata {
        if key == "buildx.build.ref" {
            // The names of builders of their own are everybody's own.
            let parts = value.as_str().expect("text").split('/').count();
            *value = parts.into();
        } else if key.starts_with("buildx.build.provenance") {
            // It always names the Dockerfile; we do when it is not the usual one.
            let source = value["invocation"]["configSource"].as_object_mut();
            source.expect("an object").remove("entryPoint");
        } else if key == "image.name" {
            // A BuildKit inside of an engine writes names out when it is asked in the engine's own way, as we do.
            let name = value
                .as_str()
                .expect("text")
                .trim_start_matches("docker.io/library/");
            *value = name.trim_end_matches(":latest").into();
        } else if let Value::Array(warnings) = value {
            for warning in warnings {
                // The vertex is a digest with the session in it, the language is in none of our events.
                warning["vertex"] = Value::Null;
                warning["sourceInfo"]["language"] = Value::Null;
            }
        }
    }
    metadata
}

#[test]
fn files_for_scripts_are_those_of_buildx() {
    const TEST: &str = "versus::files_for_scripts_are_those_of_buildx";
    everywhere(TEST, |versus, runtime| {
        let name = versus.name();
        let place = tempfile::tempdir().expect("a temporary directory");
        let tree = TreeBuilder::new()
            .file("Dockerfile", "FROM scratch\nMAINTAINER me\nCOPY file /\n")
            .file("file", fresh_token())
            .build()
            .expect("fixture");
        let tag = format!("bk-versus-files-{}", name.replace(['/', '.'], "-").to_lowercase());
        let run = |vars: &[(&str, &str)], more: &[&str]| {
            let all = versus.both(place.path(), tree.path(), vars, |dir| {
                let metadata = format!("{dir}/metadata");
                owned(&[&["--metadata-file", &*metadata][..], more].concat())
            });
            all.map(|(dir, _)| comparable(metadata(&dir)))
        };
        let plain: &[&str] = if versus.is_old() {
            &[]
        } else {
            &["--provenance=false"]
        };
        let [ours, theirs] = run(&[], &[plain, versus.image(), &["-t", &tag]].concat());
        assert_eq!(ours, theirs, "{name}");
        let expected: &[&str] = match versus.is_old() {
            true => &["buildx.build.ref", "containerimage.digest"],
            false => &[
                "buildx.build.provenance",
                "buildx.build.ref",
                "containerimage.config.digest",
            ],
        };
        assert!(expected.iter().all(|k| ours.contains_key(*k)), "{name}: {ours:?}");
        let warned = [
            ("BUILDX_METADATA_WARNINGS", "1"),
            ("BUILDX_METADATA_PROVENANCE", "disabled"),
        ];
        let [ours, theirs] = run(
            &warned,
            &[
                "-o",
                &format!("type=local,dest={}", text(&place.path().join("d"))),
            ],
        );
        assert_eq!(ours, theirs, "{name}");
        assert_eq!(
            ours.contains_key("buildx.build.warnings"),
            !versus.is_old(),
            "{name}: {ours:?}"
        );
        if versus.keeps_manifests() {
            let [ours, theirs] = run(
                &[],
                &[
                    versus.image(),
                    &["--provenance=mode=min,inline-only=true", "-t", &tag],
                ]
                .concat(),
            );
            let keys = |m: &BTreeMap<String, Value>| m.keys().cloned().collect::<BTreeSet<_>>();
            // The statement has times in it, so the digests differ.
            assert_eq!(keys(&ours), keys(&theirs), "{name}");
            // What a cache was written to is text that is JSON, with both.
            let flat = name.replace(['/', '.'], "-").to_lowercase();
            let cache = format!(
                "type=registry,ref={}/versus/cache-{flat}",
                versus.target.base.host
            );
            let [ours, theirs] = run(
                &[],
                &[plain, versus.image(), &["-t", &tag, "--cache-to", &cache]].concat(),
            );
            assert_eq!(keys(&ours), keys(&theirs), "{name}");
            for said in [&ours, &theirs] {
                let manifest = said["cache.manifest"].as_str().expect("text");
                let manifest: Value = serde_json::from_str(manifest).expect("JSON");
                assert!(manifest["digest"].is_string(), "{name}: {manifest}");
            }
            // With several platforms it leaves provenance out; we tell that of each.
            let [ours, theirs] = run(
                &[],
                &[
                    versus.image(),
                    &[
                        "--provenance=false",
                        "-t",
                        &tag,
                        "--platform=linux/amd64,linux/arm64",
                    ],
                ]
                .concat(),
            );
            let more: Vec<_> = keys(&ours).difference(&keys(&theirs)).cloned().collect();
            let both = ["linux/amd64", "linux/arm64"].map(|p| format!("buildx.build.provenance/{p}"));
            assert_eq!(more, both, "{name}");
            assert!(
                theirs.iter().all(|(key, value)| ours.get(key) == Some(value)),
                "{name}"
            );
        }
        let ids = versus.both(place.path(), tree.path(), &[], |dir| {
            let iidfile = format!("{dir}/iid");
            owned(&[&["--iidfile", &*iidfile, "-t", &tag][..], plain, versus.image()].concat())
        });
        let [ours, theirs] = ids.map(|(dir, _)| fs::read_to_string(dir.join("iid")).expect("an id"));
        if versus.keeps_manifests() {
            // There it writes the digest of the configuration, which the engine does not know; we write the image's id.
            let id = runtime.block_on(async {
                let engine = Engine::connect(&versus.target.docker).await.expect("the engine");
                engine.image_id(&tag).await.expect("the image")
            });
            assert_eq!(ours, id, "{name}");
            assert_ne!(theirs, id, "{name}: it does better now");
        } else {
            assert_eq!(ours, theirs, "{name}");
        }
        versus
            .target
            .supports("Metadata file and image id (`--metadata-file`, `--iidfile`)");
        runtime.block_on(async {
            let engine = Engine::connect(&versus.target.docker)
                .await
                .expect("the engine behind");
            engine.remove_image(&tag).await.expect("removable");
        });
    });
}
