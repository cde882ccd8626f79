//! The `tracing` spans of a build: which there are, which is inside which, and what they say. Nothing that is the user's
//! own is in them.

use bk_client::{BuildRequest, EventSink, ImageBuilder, Inspect, SecretSource};
use bk_testkit::{
    fake::{Fault, Script},
    spans::{tree, watch},
};

use crate::{bounded, client, fake, small};

#[tokio::test]
async fn a_build_is_a_tree_of_spans_with_numbers_and_no_names_of_the_user() {
    let daemon = fake(Script::healthy());
    let (kept, _guard) = watch();
    let client = client(&daemon.address()).await;
    assert_eq!(tree(&kept.take()), ["/bk.connect", "bk.connect/bk.dial"]);

    let context = small();
    let request = BuildRequest::new(context.path())
        .tag("secret-name:1")
        .build_arg("TOKEN", "hunter2")
        .secret("id", SecretSource::bytes(b"hunter2".to_vec()))
        .header("x-token", "hunter2")
        .inspect(Inspect::new().provenance(true));
    let built = bounded("the build", client.build(request, EventSink::discard())).await;
    let outcome = built.expect("a build");
    let spans = kept.take();
    assert_eq!(
        tree(&spans),
        [
            "/bk.build",
            "bk.build/bk.attach",
            "bk.build/bk.dial",
            "bk.build/bk.inspect",
            "bk.build/bk.solve",
            "bk.build/bk.status",
            "bk.build/bk.transfer",
        ]
    );
    let one = |name: &str| {
        let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        found[0].fields.clone()
    };
    let build = one("bk.build");
    assert_eq!(build["build_ref"], outcome.build_ref);
    assert_eq!(
        (&*build["backend"], &*build["address"]),
        ("buildkitd", &*daemon.address())
    );
    assert!(!build.contains_key("fault"), "{build:?}");
    assert_eq!(one("bk.solve")["code"], "Ok");
    let sent: u64 = spans
        .iter()
        .filter(|span| span.name == "bk.transfer")
        .map(|span| span.fields["sent_bytes"].parse::<u64>().expect("a number"))
        .sum();
    assert_eq!(sent, outcome.transfer.sent_bytes);
    let all = format!("{spans:?}");
    for own in ["hunter2", "secret-name", &*context.path().to_string_lossy()] {
        assert!(!all.contains(own), "{own}: {all}");
    }
}

#[tokio::test]
async fn a_failure_is_told_by_whose_fault_it_is() {
    let daemon = fake(Script::healthy().fault(Fault::FailSolve {
        code: 9,
        message: "hunter2".to_owned(),
        details: Vec::new(),
    }));
    let client = client(&daemon.address()).await;
    let context = small();
    let (kept, _guard) = watch();
    let request = BuildRequest::new(context.path());
    let built = bounded("the build", client.build(request, EventSink::discard())).await;
    built.expect_err("refused");
    let spans = kept.take();
    let field = |name: &str, field: &str| {
        let span = spans.iter().find(|span| span.name == name).expect(name);
        span.fields[field].clone()
    };
    assert_eq!(field("bk.solve", "code"), "FailedPrecondition");
    assert_eq!(field("bk.build", "fault"), "Daemon");
    assert!(!format!("{spans:?}").contains("hunter2"), "{spans:?}");
}
