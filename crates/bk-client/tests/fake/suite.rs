//! The conformance suite on the fake daemon, as it is and as one of the oldest.

use std::path::PathBuf;

use async_trait::async_trait;
use bk_client::{BuildRequest, EventSink, ImageBuilder};
use bk_testkit::{
    conformance::{self, Base, Case, Harness, Table, fresh_tag},
    fake::{FakeDaemon, Script},
    live::say,
    snapshot::Snapshot,
};

use crate::{client, fake, shell, small};

struct FakeHarness<'a> {
    name: &'a str,
    daemon: &'a FakeDaemon,
    shell: PathBuf,
}

const REGISTRY: &str = "127.0.0.1:5999";

#[async_trait]
impl Harness for FakeHarness<'_> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    async fn tree(
        &self,
        image: &str,
        dir: &str,
    ) -> Result<Snapshot, Box<dyn std::error::Error + Send + Sync>> {
        let tree = self
            .daemon
            .image(image)
            .ok_or_else(|| format!("no image {image}"))?;
        Ok(if dir.is_empty() { tree } else { tree.below(dir) })
    }

    async fn forget(&self, _: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }

    fn shell(&self) -> PathBuf {
        self.shell.clone()
    }

    fn base(&self) -> Base {
        Base {
            image: format!("{REGISTRY}/base/box:1"),
            host: REGISTRY.to_owned(),
            user: "user".to_owned(),
            password: "pass".to_owned(),
        }
    }
}

async fn conforms(name: &str, script: Script) {
    let daemon = fake(script.registry(REGISTRY, "user", "pass"));
    let client = client(&daemon.address()).await;
    let (_dir, shell) = shell();
    let harness = FakeHarness {
        name,
        daemon: &daemon,
        shell,
    };
    let report = conformance::run(&client, &harness, &Case::ALL).await;
    let failures = report.failures();
    say(&Table::add_to_process(report).to_string());
    assert_eq!(failures, None);
    let seen = daemon.seen();
    assert_eq!(seen.health_failures, 0);
    assert!(
        seen.credential_hosts.iter().all(|host| host == REGISTRY),
        "{:?}",
        seen.credential_hosts
    );
    assert!(
        seen.health_worst.as_secs() < 5,
        "the slowest health check took {:?}",
        seen.health_worst
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance() {
    conforms("fake/direct", Script::healthy()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_with_a_daemon_that_tells_no_version() {
    conforms("fake-old/direct", Script::healthy().version(None)).await;
}

#[tokio::test]
async fn a_request_says_what_daemons_of_every_age_need() {
    let daemon = fake(Script::healthy());
    let client = client(&daemon.address()).await;
    let tree = small();
    let tag = fresh_tag("request");
    let request = BuildRequest::new(tree.path())
        .tag(&tag)
        .tag("second:2")
        .build_arg("K", "v")
        .label("l", "m");
    let outcome = client.build(request, EventSink::discard()).await.expect("build");
    let seen = daemon.seen();
    let [solve] = &seen.solves[..] else {
        panic!("{} requests", seen.solves.len())
    };
    assert_eq!(solve.r#ref, outcome.build_ref);
    assert_eq!(solve.frontend, "dockerfile.v0");
    assert!(solve.definition.is_none());
    assert_eq!(solve.exporters.len(), 1);
    assert_eq!(solve.exporters[0].r#type, solve.exporter_deprecated);
    assert_eq!(solve.exporters[0].attrs, solve.exporter_attrs_deprecated);
    assert_eq!(
        solve.exporter_attrs_deprecated.get("name"),
        Some(&format!("{tag},second:2"))
    );
    assert_eq!(
        solve.frontend_attrs.get("build-arg:K").map(String::as_str),
        Some("v")
    );
    assert_eq!(solve.frontend_attrs.get("label:l").map(String::as_str), Some("m"));
    let [session] = &seen.sessions[..] else {
        panic!("{} sessions", seen.sessions.len())
    };
    assert_eq!(session.id, solve.session);
    assert!(!session.id.contains(':'), "{}", session.id);
    for method in [
        "/moby.filesync.v1.FileSync/DiffCopy",
        "/moby.filesync.v1.Auth/Credentials",
        "/grpc.health.v1.Health/Check",
    ] {
        assert!(
            session.methods.iter().any(|m| m == method),
            "{method} not in {:?}",
            session.methods
        );
    }
}

#[tokio::test]
async fn an_unchanged_context_sends_only_metadata() {
    let daemon = fake(Script::healthy());
    let client = client(&daemon.address()).await;
    let tree = small();
    let build = async || {
        client
            .build(
                BuildRequest::new(tree.path()).tag("again:1"),
                EventSink::discard(),
            )
            .await
            .expect("build")
    };
    let first = build().await.transfer;
    let content = tree.snapshot().expect("snapshot").content_bytes();
    assert!(first.sent_bytes >= content, "{first:?}");
    let second = build().await.transfer;
    assert_eq!(
        (second.sent_bytes, second.sent_files, second.requested_files),
        (0, 0, 0),
        "{second:?}"
    );
    assert_eq!(second.entries, first.entries);
    let seen = daemon.seen();
    assert_eq!(seen.sessions[0].shared_key, seen.sessions[1].shared_key);
    assert_ne!(seen.sessions[0].id, seen.sessions[1].id);
    let again = &seen.transfers[seen.transfers.len() / 2..];
    assert!(
        again.iter().all(|t| t.data_bytes == 0 && t.requested == 0),
        "{again:?}"
    );

    // One changed file is all that goes out the third time.
    std::fs::write(tree.join("a"), "changed\n").expect("write");
    let third = build().await.transfer;
    assert_eq!((third.sent_files, third.sent_bytes), (1, 8), "{third:?}");
}
