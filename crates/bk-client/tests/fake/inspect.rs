//! What a daemon tells of a build that has succeeded, and what it cannot do to the client with it.

use bk_client::{BuildOutcome, BuildRequest, EventSink, ImageBuilder, Inspect, Missing};
use bk_testkit::fake::{History, Script};
use bytes::Bytes;

use crate::{bounded, client, fake, small};

async fn outcome(script: Script, inspect: Inspect) -> BuildOutcome {
    let daemon = fake(script);
    let client = client(&daemon.address()).await;
    let tree = small();
    let request = BuildRequest::new(tree.path()).tag("inspect:1").inspect(inspect);
    let built = bounded("the build", client.build(request, EventSink::discard())).await;
    built.expect("it stays a success")
}

fn provenance() -> Inspect {
    Inspect::new().provenance(true)
}

#[tokio::test]
async fn provenance_comes_by_platform() {
    let mut history = History::new();
    let alone = history.blob(br#"{"builder":{"id":"x"},"metadata":{}}"#);
    let one = outcome(
        Script::healthy().history(history.clone().provenance("", &alone)),
        provenance(),
    )
    .await;
    let found = &one.inspected.provenance[""];
    assert_eq!(found.predicate_type, "https://slsa.dev/provenance/v0.2");
    assert_eq!(found.json, r#"{"builder":{"id":"x"},"metadata":{}}"#);
    assert!(one.inspected.missing.is_empty() && one.inspected.images.is_empty());

    let arm = history.blob(b"{}");
    let history = history
        .provenance("", &alone)
        .provenance("linux/amd64", &alone)
        .provenance("linux/arm64", &arm);
    let several = outcome(Script::healthy().history(history.clone()), provenance()).await;
    let platforms: Vec<_> = several.inspected.provenance.keys().map(String::as_str).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    // Nobody asks for nothing.
    let nothing = outcome(Script::healthy().history(history), Inspect::new()).await;
    assert_eq!(nothing.inspected, Default::default());
}

#[tokio::test]
async fn whatever_is_wrong_is_listed_and_the_build_succeeds() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let piece = |offset, bytes: &'static [u8]| (offset, Bytes::from_static(bytes));
    let odd = |pieces: Vec<(i64, Bytes)>| {
        let mut history = History::new();
        history.odd_blob(&digest, pieces);
        Some(history.provenance("", &digest))
    };
    let honest = |bytes: &[u8]| {
        let mut history = History::new();
        let digest = history.blob(bytes);
        Some(history.provenance("", &digest))
    };
    let megabyte = || Bytes::from(vec![b' '; 1 << 20]);
    let flood = (0..32).map(|at| (at << 20, megabyte())).collect();
    for (history, why) in [
        (None, "BuildKit 0.11"),
        (Some(History::new().forgets()), "does not have this build"),
        (Some(History::new()), "wrote none down"),
        (Some(History::new().provenance("", &digest)), "not found"),
        (
            Some(History::new().provenance("", "md5:1")),
            "no digest of a known kind",
        ),
        (odd(vec![piece(0, b"{}")]), "another digest"),
        (odd(vec![piece(7, b"{}")]), "out of order"),
        (odd(vec![piece(-1, b"{}")]), "out of order"),
        (odd(flood), "larger than 16 MiB"),
        (honest(b"[]"), "no JSON object"),
        (honest(b"\xff"), "no text"),
    ] {
        let script = match history {
            Some(history) => Script::healthy().history(history),
            None => Script::healthy(),
        };
        let inspected = outcome(script, provenance()).await.inspected;
        let [missing] = &inspected.missing[..] else {
            panic!("{why}: {inspected:?}")
        };
        assert!(missing.why.contains(why), "{why}: {missing:?}");
        assert_eq!(missing.what, Missing::PROVENANCE);
        assert!(inspected.provenance.is_empty(), "{why}");
    }
}

#[tokio::test]
async fn a_daemon_that_says_nothing_is_waited_for_only_so_long() {
    let silent = Script::healthy().history(History::new().silent());
    let inspected = outcome(silent, provenance()).await.inspected;
    assert!(
        inspected.missing[0].why.contains("did not answer"),
        "{inspected:?}"
    );
}

#[tokio::test]
async fn an_index_tells_the_image_of_each_platform() {
    let mut history = History::new();
    let config = format!("sha256:{}", "c".repeat(64));
    let manifest = format!(
        r#"{{"mediaType":"m","config":{{"mediaType":"c","digest":"{config}","size":2}},"layers":[]}}"#
    );
    let amd = history.blob(manifest.as_bytes());
    let lost = format!("sha256:{}", "d".repeat(64));
    let statement = format!("sha256:{}", "e".repeat(64));
    let entry = |digest: &str, arch: &str| {
        format!(
            r#"{{"mediaType":"m","digest":"{digest}","size":9,"platform":{{"os":"linux","architecture":"{arch}"}}}}"#
        )
    };
    let index = format!(
        r#"{{"manifests":[{},{},{{"mediaType":"m","digest":"{statement}","size":1,"annotations":{{
            "vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"{amd}"}}}}]}}"#,
        entry(&amd, "amd64"),
        entry(&lost, "arm64")
    );
    let index = history.blob(index.as_bytes());
    let script = Script::healthy().history(history.answer("containerimage.digest", &index));
    let inspected = outcome(script, Inspect::new().images(true)).await.inspected;
    let [first, second] = &inspected.images[..] else {
        panic!("{inspected:?}")
    };
    assert_eq!(first.platform.as_deref(), Some("linux/amd64"));
    assert_eq!(first.config, Some(config));
    assert_eq!(first.attestations[0].digest, statement);
    assert_eq!(
        second.manifest.as_ref().map(|m| m.digest.as_str()),
        Some(lost.as_str())
    );
    assert_eq!(second.config, None);
    assert!(inspected.missing[0].why.contains("not found"), "{inspected:?}");
}
