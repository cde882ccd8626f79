//! Archives of images, images in engines and images in registries, as both clients make them.

use std::{fs, os::unix::net::UnixListener, path::Path};

use bk_testkit::{
    compare::{Rules, compare},
    live::{Engine, Route},
    snapshot::Snapshot,
};
use serde_json::Value;

use super::{everywhere, files, metadata, owned, steps};
use crate::text;

#[test]
fn archives_of_images_are_those_of_buildx() {
    const TEST: &str = "versus::archives_of_images_are_those_of_buildx";
    const FEATURE: &str = "`rewrite-timestamp`: the same archive whenever it is built";
    everywhere(TEST, |versus, _| {
        let name = versus.name();
        let place = tempfile::tempdir().expect("a temporary directory");
        let tree = steps(versus);
        let epoch = [("SOURCE_DATE_EPOCH", "1300000000")];
        let output = |dir: &str| format!("type=oci,dest={dir}/oci,rewrite-timestamp=true");
        if !versus.keeps_manifests() {
            let flags = ["-o", &output(text(place.path()))];
            let (ours, theirs) = (
                versus.ours(tree.path(), &epoch, &flags),
                versus.theirs(tree.path(), &epoch, &flags),
            );
            assert_eq!(
                (ours.code, theirs.code),
                (Some(1), Some(1)),
                "{name}: {}",
                ours.err
            );
            let line = ours
                .err
                .lines()
                .rfind(|l| l.starts_with("ERROR"))
                .unwrap_or_default();
            versus.target.refuses(FEATURE, line);
            return;
        }
        let agent = place.path().join("agent");
        let _agent = UnixListener::bind(&agent).expect("a socket");
        // Nothing is taken from the cache, so that equal digests say something.
        let all = versus.both(place.path(), tree.path(), &epoch, |dir| {
            owned(&[
                "--no-cache",
                "--provenance=false",
                "--target",
                "access",
                "-o",
                &output(dir),
                "--secret",
                &format!("id=key,src={}", text(&tree.join("file"))),
                "--ssh",
                &format!("default={}", text(&agent)),
            ])
        });
        let [ours, theirs] = all.map(|(dir, _)| {
            let archive = fs::File::open(dir.join("oci")).expect("the archive");
            let mut index = None;
            let mut archive = tar::Archive::new(archive);
            for entry in archive.entries().expect("a tar archive") {
                let entry = entry.expect("an entry");
                if entry.path().expect("a path") == Path::new("index.json") {
                    index = Some(serde_json::from_reader::<_, Value>(entry).expect("JSON"));
                }
            }
            index.expect("an index")["manifests"][0]["digest"].clone()
        });
        assert!(
            ours.as_str().is_some_and(|d| d.starts_with("sha256:")),
            "{name}: {ours}"
        );
        assert_eq!(ours, theirs, "{name}");
        versus.target.supports(FEATURE);
    });
}

#[test]
fn images_are_loaded_and_pushed_as_by_buildx() {
    const TEST: &str = "versus::images_are_loaded_and_pushed_as_by_buildx";
    everywhere(TEST, |versus, runtime| {
        let name = versus.name();
        let place = tempfile::tempdir().expect("a temporary directory");
        let tree = files();
        let plain: &[&str] = if versus.is_old() {
            &[]
        } else {
            &["--provenance=false"]
        };
        let flat = name.replace(['/', '.'], "-").to_lowercase();
        let pushed = format!("{}/versus/{flat}:1", versus.target.base.host);
        let all = versus.both(place.path(), tree.path(), &[], |dir| {
            let metadata = format!("{dir}/metadata");
            owned(
                &[
                    &["--push", "-t", &pushed, "--metadata-file", &*metadata][..],
                    plain,
                ]
                .concat(),
            )
        });
        let [ours, theirs] = all.map(|(dir, _)| metadata(&dir));
        let digest = ours.get("containerimage.digest");
        assert!(digest.is_some(), "{name}: {ours:?}");
        assert_eq!(digest, theirs.get("containerimage.digest"), "{name}");
        assert_eq!(
            ours.get("containerimage.config.digest"),
            theirs.get("containerimage.config.digest"),
            "{name}"
        );
        let loaded = format!("bk-versus-load-{flat}");
        let ids = ["ours", "theirs"].map(|who| {
            let flags = [&["--load", "-t", &*loaded][..], plain].concat();
            let ran = match who {
                "ours" => versus.ours(tree.path(), &[], &flags),
                _ => versus.theirs(tree.path(), &[], &flags),
            };
            assert_eq!(ran.code, Some(0), "{who}: {name}: {}", ran.err);
            runtime.block_on(async {
                let engine = Engine::connect(&versus.target.docker).await.expect("the engine");
                let id = engine.image_id(&loaded).await.expect("the image");
                let files = engine.tree(&loaded, "/").await.expect("the image's files");
                engine.remove_image(&loaded).await.expect("removable");
                engine.remove_image(&pushed).await.expect("removable");
                (id, files)
            })
        });
        let own = tree.snapshot().expect("the fixture").below("out");
        let shown = |files: &Snapshot| files.filter(|path| own.entries.contains_key(path));
        if let Err(difference) = compare(&shown(&ids[1].1), &shown(&ids[0].1), Rules::exact()) {
            panic!("{name}: {difference}");
        }
        // Into an engine that keeps manifests it loads an archive of the other type, whose manifest differs.
        if versus.target.route != Route::Direct {
            assert_eq!(ids[0].0, ids[1].0, "{name}");
        }
        versus.target.supports("`--load` and `--push` as `docker buildx`");
    });
}
