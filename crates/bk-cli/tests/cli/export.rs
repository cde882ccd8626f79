//! `bk history export`: archives byte by byte from the fake daemon, and what it refuses; archives of live daemons against what
//! `docker buildx history export` writes of the same builds.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
};

use bk_proto::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildResultInfo, Descriptor,
};
use bk_testkit::{
    conformance::fresh_token,
    fake::{FakeDaemon, History, Script},
    live::{Daemon, Route},
};
use nix::pty::openpty;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Ran, bk, fake::fake, live, own::Own, run, text};

/// What an archive holds: modes and bytes by name.
type Entries = BTreeMap<String, (u32, Vec<u8>)>;

fn entries(archive: &[u8]) -> Entries {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let mut all = Entries::new();
    for entry in tar.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let name = String::from_utf8(entry.path_bytes().into_owned()).expect("a name");
        let header = entry.header();
        let (mode, time) = (header.mode().expect("a mode"), header.mtime().expect("a time"));
        assert_eq!(time, 0, "{name}");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("a whole entry");
        assert_eq!(all.insert(name.clone(), (mode, bytes)), None, "{name} twice");
    }
    all
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The blob of a descriptor, which must be right.
fn blob<'a>(entries: &'a Entries, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let hex = digest.strip_prefix("sha256:").expect("SHA-256");
    let (mode, bytes) = &entries[&format!("blobs/sha256/{hex}")];
    assert_eq!((*mode, sha256(bytes).as_str()), (0o444, hex));
    assert_eq!(descriptor["size"], bytes.len(), "{digest}");
    bytes
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// The manifests that an archive leads to, and how many blobs belong to them in all.
fn manifests(entries: &Entries) -> Vec<Value> {
    assert_eq!(entries["oci-layout"].1, br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index = parsed(&entries["index.json"].1);
    let [only] = index["manifests"].as_array().expect("a list").as_slice() else {
        panic!("{index}");
    };
    let top = parsed(blob(entries, only));
    match top["manifests"].as_array() {
        None => vec![top],
        Some(several) => several.iter().map(|m| parsed(blob(entries, m))).collect(),
    }
}

const LOGS: &[u8] = b"progress\x00\xff";
const TRACE: &[u8] =
    br#"{"Name":"a","Attributes":[{"Key":"k","Value":{"Type":"STRING","Value":"token=secret x"}}]}"#;
const IMAGE: &[u8] = br#"{"config":true}"#;
const STATEMENT: &[u8] = b"{}";

fn descriptor(kind: &str, digest: &str, size: usize) -> Descriptor {
    Descriptor {
        media_type: kind.to_owned(),
        digest: digest.to_owned(),
        size: i64::try_from(size).expect("small"),
        annotations: BTreeMap::new(),
    }
}

fn stamp(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn event(record: BuildHistoryRecord) -> BuildHistoryEvent {
    let ended = record.completed_at.is_some();
    let kind = match ended {
        true => BuildHistoryEventType::Complete,
        false => BuildHistoryEventType::Started,
    };
    BuildHistoryEvent {
        r#type: kind.into(),
        record: Some(record),
    }
}

/// A history with a whole build `full`, one without anything `bare`, and one that runs, the newest.
fn history(logs_size: usize) -> History {
    let mut history = History::new();
    let [logs, trace, image, statement] = [LOGS, TRACE, IMAGE, STATEMENT].map(|b| history.blob(b));
    let mut attestation = descriptor("application/vnd.in-toto+json", &statement, STATEMENT.len());
    attestation.annotations = [("in-toto.io/predicate-type".to_owned(), "p".to_owned())].into();
    let full = BuildHistoryRecord {
        r#ref: "full".to_owned(),
        created_at: stamp(100),
        completed_at: stamp(103),
        logs: Some(descriptor("application/vnd.buildkit.status.v0", &logs, logs_size)),
        trace: Some(descriptor(
            "application/vnd.buildkit.otlp.json.v0",
            &trace,
            TRACE.len(),
        )),
        result: Some(BuildResultInfo {
            attestations: vec![attestation],
            results: [(
                0,
                descriptor("application/vnd.oci.image.manifest.v1+json", &image, IMAGE.len()),
            )]
            .into(),
            ..BuildResultInfo::default()
        }),
        ..BuildHistoryRecord::default()
    };
    let bare = BuildHistoryRecord {
        r#ref: "bare".to_owned(),
        created_at: stamp(99),
        completed_at: stamp(99),
        pinned: true,
        ..BuildHistoryRecord::default()
    };
    let runs = BuildHistoryRecord {
        r#ref: "runs".to_owned(),
        created_at: stamp(200),
        ..BuildHistoryRecord::default()
    };
    history.events([full, bare, runs].map(event).into())
}

/// `bk history export` on that daemon, with these words.
fn export(daemon: &FakeDaemon, words: &[&str]) -> Command {
    let mut command = bk(&["--backend", "buildkitd", "--addr", &daemon.address()]);
    command.args(["history", "export"]).args(words);
    command
}

#[test]
fn an_archive_has_everything_that_a_record_names() {
    let daemon = fake(Script::healthy().history(history(LOGS.len())));
    let output = export(&daemon, &[]).output().expect("bk starts");
    assert_eq!(
        (output.status.code(), &*output.stderr),
        (Some(0), &b""[..]),
        "the newest that has ended"
    );
    let archive = entries(&output.stdout);
    assert_eq!(archive["blobs/"].0, 0o755);
    assert_eq!(archive["blobs/sha256/"].0, 0o755);
    let index = String::from_utf8(archive["index.json"].1.clone()).expect("text");
    let trace = "{\n  \"Name\": \"a\",\n  \"Attributes\": [\n    {\n      \"Key\": \"k\",\n      \"Value\": {\n        \"Type\": \
                 \"STRING\",\n        \"Value\": \"token=xxxxx x\"\n      }\n    }\n  ]\n}\n";
    let record = format!(
        r#"{{
  "Ref": "full",
  "CreatedAt": {{
    "seconds": 100
  }},
  "CompletedAt": {{
    "seconds": 103
  }},
  "logs": {{
    "media_type": "application/vnd.buildkit.status.v0",
    "digest": "sha256:{logs}",
    "size": 10
  }},
  "Result": {{
    "Attestations": [
      {{
        "media_type": "application/vnd.in-toto+json",
        "digest": "sha256:{statement}",
        "size": 2,
        "annotations": {{
          "in-toto.io/predicate-type": "p"
        }}
      }}
    ],
    "Results": {{
      "0": {{
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "digest": "sha256:{image}",
        "size": 15
      }}
    }}
  }},
  "trace": {{
    "media_type": "application/vnd.buildkit.otlp.json.v0",
    "digest": "sha256:{trace_digest}",
    "size": {trace_size}
  }},
  "DefaultPlatform": "linux/amd64"
}}"#,
        logs = sha256(LOGS),
        statement = sha256(STATEMENT),
        image = sha256(IMAGE),
        trace_digest = sha256(trace.as_bytes()),
        trace_size = trace.len(),
    );
    let layer = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()});
    let mut layers = vec![
        layer("application/vnd.buildkit.otlp.json.v0", trace.as_bytes()),
        layer("application/vnd.buildkit.status.v0", LOGS),
        layer("application/vnd.in-toto+json", STATEMENT),
        layer("application/json", IMAGE),
    ];
    layers[2]["annotations"] = json!({"in-toto.io/predicate-type": "p"});
    layers[3]["annotations"] =
        json!({"vnd.export-build.descriptor.mediatype": "application/vnd.oci.image.manifest.v1+json"});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": layer("application/vnd.buildkit.historyrecord.v0", record.as_bytes()),
        "layers": layers,
    });
    let [found] = &manifests(&archive)[..] else {
        panic!("{index}")
    };
    assert_eq!(*found, manifest);
    let config = String::from_utf8_lossy(blob(&archive, &found["config"]));
    assert_eq!(config, record);
    for (layer, bytes) in layers.iter().zip([trace.as_bytes(), LOGS, STATEMENT, IMAGE]) {
        assert_eq!(blob(&archive, layer), bytes);
    }
    // Directories, layout, index, manifest, record and the four.
    assert_eq!(archive.len(), 2 + 2 + 2 + 4);
    let manifest = sha256(
        &archive
            .values()
            .find(|(_, b)| b.starts_with(b"{\n  \"schema"))
            .expect("one")
            .1,
    );
    assert!(
        index.starts_with(&format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{manifest}","size":"#
        )),
        "{index}"
    );
}

#[test]
fn several_builds_are_told_apart() {
    let daemon = fake(Script::healthy().history(history(LOGS.len())));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("a.dockerbuild");
    for (words, refs) in [
        (&["--all"][..], ["full", "bare"]),
        (&["bare", "full", "ba"], ["bare", "full"]),
    ] {
        let ran = run(export(&daemon, words).args(["-o", text(&file)]));
        assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(0), "", ""));
        let archive = entries(&fs::read(&file).expect("the archive"));
        let index = parsed(&archive["index.json"].1);
        let top = parsed(blob(&archive, &index["manifests"][0]));
        assert_eq!(index["manifests"][0]["mediaType"], top["mediaType"]);
        let said = top["manifests"].as_array().expect("a list");
        let said: Vec<_> = said
            .iter()
            .map(|m| &m["annotations"]["vnd.buildkit.history.reference"])
            .collect();
        assert_eq!(said, refs);
        let records: Vec<_> = manifests(&archive)
            .iter()
            .map(|m| parsed(blob(&archive, &m["config"]))["Ref"].clone())
            .collect();
        assert_eq!(records, refs);
    }
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1);
}

#[test]
fn what_cannot_be_exported_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("a.dockerbuild");
    let fails = |daemon: &FakeDaemon, words: &[&str]| {
        fs::write(&file, "old").expect("writable");
        let ran = run(export(daemon, words).args(["-o", text(&file)]));
        assert_eq!(fs::read(&file).expect("the old file"), b"old");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1);
        assert_eq!(ran.out, "");
        (ran.code, ran.err)
    };
    let refused = |text: &str| (Some(2), text.to_owned());

    let daemon = fake(Script::healthy().history(history(LOGS.len())));
    assert_eq!(
        fails(&daemon, &["other"]),
        refused(
            "ERROR: REF: the daemon remembers no build `other`\n  hint: REF takes the id of a build or its beginning, or ^N \
             for the N-th before the newest\n"
        )
    );
    assert_eq!(
        fails(&daemon, &["bare", "^0"]),
        refused("ERROR: REF: the build `runs` still runs\n  hint: REF takes a build that has ended\n")
    );
    let (code, err) = fails(&daemon, &["--all", "bare"]);
    assert!(code == Some(2) && err.contains("cannot be used with"), "{err}");

    let none = fake(Script::healthy().history(History::new().events(Vec::new())));
    assert_eq!(
        fails(&none, &["--all"]),
        refused("ERROR: REF: the daemon remembers no build that has ended\n")
    );

    let old = fake(Script::healthy().version(None));
    assert_eq!(
        fails(&old, &[]),
        (
            Some(1),
            format!(
                "ERROR: the build history needs BuildKit 0.11 (Docker Engine 24.0); buildkitd at {} has an older one\n  hint: \
                 leave the build history out, or use a daemon with BuildKit 0.11 (Docker Engine 24.0) or later\n",
                old.address()
            )
        )
    );

    let digest = format!("sha256:{}", sha256(LOGS));
    for size in [LOGS.len() - 1, LOGS.len() + 1] {
        let odd = fake(Script::healthy().history(history(size)));
        let (code, err) = fails(&odd, &[]);
        assert_eq!(code, Some(100), "{err}");
        assert!(
            err.contains(&format!("{digest} has another size than the daemon says")),
            "{err}"
        );
    }
    let mut changed = history(LOGS.len());
    changed.odd_blob(&digest, vec![(0, vec![b'x'; LOGS.len()].into())]);
    let (code, err) = fails(&fake(Script::healthy().history(changed)), &[]);
    assert_eq!(code, Some(100), "{err}");
    assert!(
        err.contains(&format!("what the daemon sent for {digest} has another digest")),
        "{err}"
    );
    let mut named = History::new();
    named.blob(LOGS);
    let record = BuildHistoryRecord {
        r#ref: "x".to_owned(),
        completed_at: stamp(1),
        logs: Some(descriptor("m", "sha256:../../../etc/passwd", 1)),
        ..BuildHistoryRecord::default()
    };
    let (code, err) = fails(
        &fake(Script::healthy().history(named.events(vec![event(record)]))),
        &[],
    );
    assert_eq!(code, Some(100), "{err}");
    assert!(err.contains("is no digest of a known kind"), "{err}");
}

#[test]
fn an_archive_is_not_written_to_a_terminal() {
    let pair = openpty(None, None).expect("a pseudo-terminal");
    let _screen = File::from(pair.master);
    let daemon = fake(Script::healthy().history(history(LOGS.len())));
    let mut command = export(&daemon, &[]);
    command.stdout(Stdio::from(pair.slave));
    let ran = run(&mut command);
    assert_eq!(
        (ran.code, &*ran.err),
        (
            Some(2),
            "ERROR: --output: an archive is not written to a terminal\n  hint: --output takes a FILE, or standard output as a \
             file or pipe\n"
        )
    );
    assert!(daemon.seen().calls.is_empty());
}

#[test]
fn finalizing_changes_nothing_else() {
    let daemon = fake(Script::healthy().history(history(LOGS.len())));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("a.dockerbuild");
    let ran = run(export(&daemon, &["--all", "--finalize"]).args(["-o", text(&file)]));
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    let asked: Vec<_> = daemon.seen().history_updates;
    // The other one has its trace. A daemon that cannot finalize would take the rest of the request at its word.
    let asked: Vec<_> = asked
        .iter()
        .map(|u| (&*u.r#ref, u.finalize, u.pinned, u.delete))
        .collect();
    assert_eq!(asked, [("bare", true, true, false)]);
}

/// An image, a build that failed, and one that was exported as nothing.
fn build(bk: impl Fn(&[&str]) -> Command, ours: &Path) {
    let dockerfile = |last: &str| {
        format!(
            "FROM scratch\nARG TOKEN=<&>\nCOPY file /{}\n{last}",
            fresh_token()
        )
    };
    fs::write(ours.join("file"), fresh_token()).expect("writable");
    for (last, code, flags) in [
        ("", 0, &["-t", "bk-history-export"][..]),
        ("COPY missing /\n", 1, &[]),
        (
            "",
            0,
            &[
                "--output",
                "type=cacheonly",
                "--build-arg",
                "TOKEN=token=\u{f6} x",
            ],
        ),
    ] {
        fs::write(ours.join("Dockerfile"), dockerfile(last)).expect("writable");
        let ran = run(bk(&["build", "-q"]).args(flags).arg(ours));
        assert_eq!(ran.code, Some(code), "{}", ran.err);
    }
}

/// Exports with both clients what `words` say, and compares.
pub(super) fn compare(
    name: &str,
    words: &[&str],
    bk: impl Fn(&[&str]) -> Command,
    buildx: impl Fn(&[&str]) -> Command,
) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let export = |who: &str, client: &dyn Fn(&[&str]) -> Command| {
        let file = dir.path().join(who);
        let output = ["history", "export", "-o", text(&file)];
        let ran: Ran = run(client(&output).args(words));
        assert_eq!(ran.code, Some(0), "{name}: {who} {words:?}: {}", ran.err);
        entries(&fs::read(file).expect("the archive"))
    };
    let both = || (export("ours", &bk), export("theirs", &buildx));
    let (mut ours, mut theirs) = both();
    if ours != theirs {
        // A daemon adds the trace to a record by itself, once and a while after the build: in between, for instance.
        (ours, theirs) = both();
    }
    let names = |entries: &Entries| entries.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs), "{name}: {words:?}");
    assert!(ours == theirs, "{name}: {words:?}: bytes or modes differ");
    for manifest in manifests(&ours) {
        let layers = manifest["layers"].as_array().expect("a list").iter();
        for part in layers.chain([&manifest["config"]]) {
            blob(&ours, part);
        }
    }
}

/// On engines of the test's own, as `docker buildx` sends a limit that ends this BuildKit once a record was removed.
#[test]
fn an_archive_is_that_of_buildx_byte_by_byte() {
    const TEST: &str = "export::an_archive_is_that_of_buildx_byte_by_byte";
    for containerd in [false, true] {
        let Some(own) = Own::start(TEST, containerd) else {
            return;
        };
        let name = format!("an engine, containerd store {containerd}");
        let Some(_) = own.buildx(&[]) else {
            return bk_testkit::live::say(&format!("NOT RUN: {TEST}: BK_LIVE_DOCKER_CLI is not set"));
        };
        let buildx = |words: &[&str]| own.buildx(words).expect("the docker program");
        let dir = tempfile::tempdir().expect("a temporary directory");
        build(|words| own.bk(words), dir.path());
        for words in [
            &["^0"][..],
            &["--finalize", "^1"],
            &["--finalize", "^2"],
            &["--all"],
            &[],
        ] {
            compare(&name, words, |w| own.bk(w), buildx);
        }
        // What the daemon writes for a build of several platforms differs in their order only, which is no order there.
        if containerd {
            let two = ["build", "-q", "--platform=linux/amd64,linux/arm64", "-t", "two"];
            let ran = run(own.bk(&two).arg(dir.path()));
            assert_eq!(ran.code, Some(0), "{}", ran.err);
            let file = dir.path().join("two.dockerbuild");
            let ran = run(&mut own.bk(&["history", "export", "-o", text(&file)]));
            assert_eq!(ran.code, Some(0), "{}", ran.err);
            let archive = entries(&fs::read(&file).expect("the archive"));
            let [manifest] = &manifests(&archive)[..] else {
                panic!("one build")
            };
            let mut kinds: Vec<_> = manifest["layers"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|layer| {
                    blob(&archive, layer);
                    layer["mediaType"].as_str().expect("a type").to_owned()
                })
                .collect();
            kinds.sort();
            assert_eq!(
                kinds,
                [
                    "application/json",
                    "application/vnd.buildkit.status.v0",
                    "application/vnd.in-toto+json",
                    "application/vnd.in-toto+json"
                ]
            );
        }
    }
}

#[test]
fn routes_without_a_history_refuse() {
    let name = "export::routes_without_a_history_refuse";
    live::on(&[(Daemon::Docker28_5, Route::Build)], name, async |target| {
        let ran =
            run(bk(&["--docker-route", "build", "--addr", &target.address]).args(["history", "export"]));
        assert_eq!(
            (ran.code, &*ran.err),
            (
                Some(1),
                "ERROR: the build history cannot be asked for on the Docker route build\n  hint: the routes grpc and h2c can\n"
            )
        );
    });
}
