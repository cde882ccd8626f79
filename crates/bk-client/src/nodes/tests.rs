//! Groups of nodes without daemons: what is refused, what each node is asked for, and who is cancelled.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bk_build::{Annotation, BuilderInfo, Cache, Output, Refusal};

use super::*;

/// A node that notes what it is asked for, and then fails, or never ends.
#[derive(Clone, Default)]
struct Fake {
    fails: bool,
    cannot: bool,
    asked: Arc<Mutex<Vec<BuildRequest>>>,
    cancelled: Arc<AtomicUsize>,
}

struct Counts(Arc<AtomicUsize>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl ImageBuilder for Fake {
    async fn build(&self, request: BuildRequest, _events: EventSink) -> Result<BuildOutcome, BuildError> {
        self.asked.lock().expect("no panic").push(request);
        if self.fails {
            return Err(Refusal::new(2, "no room").into());
        }
        let _counts = Counts(Arc::clone(&self.cancelled));
        std::future::pending().await
    }

    async fn check(&self, request: &BuildRequest) -> Result<(), BuildError> {
        assert!(!request.platforms.is_empty(), "it is asked about its own part");
        match self.cannot {
            true => Err(InputError::new("--output", "not here", "elsewhere").into()),
            false => Ok(()),
        }
    }

    fn info(&self) -> BuilderInfo {
        BuilderInfo::new("fake", "nowhere")
    }
}

fn group(nodes: &[(&str, &Fake)]) -> NodeGroup {
    let none = NodeGroup::new(&Environment::empty());
    nodes.iter().fold(none, |group, (platform, fake)| {
        group.node([platform], (*fake).clone())
    })
}

fn pushed() -> BuildRequest {
    BuildRequest::new(".").tag("h:1/a:1").output(Output::registry())
}

async fn refused(nodes: &[(&str, &Fake)], request: BuildRequest) -> String {
    let error = group(nodes)
        .build(request, |_| EventSink::discard())
        .await
        .expect_err("refused");
    assert!(error.node.is_none());
    error.to_string()
}

#[tokio::test]
async fn what_cannot_be_put_together_is_refused_before_anything_is_sent() {
    let fake = Fake::default();
    let both = [("linux/amd64", &fake), ("linux/arm64/v8", &fake)];
    let text = "--output: what several nodes build is put together in a registry or in a directory";
    assert_eq!(refused(&both, BuildRequest::new(".").tag("a")).await, text);
    let two = pushed().output(Output::local("/tmp/out"));
    assert_eq!(refused(&both, two).await, text);
    assert_eq!(
        refused(
            &both,
            BuildRequest::new(".").output(Output::registry().push(false))
        )
        .await,
        text
    );
    let nameless = BuildRequest::new(".").output(Output::registry());
    assert_eq!(
        refused(&both, nameless).await,
        "--tag: an image that is pushed needs a name"
    );
    let other = pushed().platform("linux/s390x");
    assert_eq!(refused(&both, other).await, "--node: no node is for linux/s390x");
    let twice = [("linux/arm64", &fake), ("linux/arm64/v8", &fake)];
    assert_eq!(
        refused(&twice, pushed()).await,
        "--node: more than one node is for linux/arm64"
    );
    assert_eq!(refused(&[], pushed()).await, "--node: there is no node");
    for output in [
        Output::load(),
        Output::oci("/tmp/out"),
        Output::tar("/tmp/out"),
        Output::image(),
    ] {
        assert_eq!(
            refused(&both, BuildRequest::new(".").tag("a").output(output)).await,
            text
        );
    }
    let mut options = bk_fsync::ReceiveOptions::new();
    options.mode = ReceiveMode::Delete;
    let delete = BuildRequest::new(".").output(Output::local_with("/tmp/out", options));
    assert_eq!(
        refused(&both, delete).await,
        "--output: several nodes write into one directory, so that `mode=delete` is not possible"
    );
    let cached = pushed()
        .cache_to(Cache::inline())
        .cache_to(Cache::local("/tmp/c"));
    assert_eq!(
        refused(&both, cached).await,
        "--cache-to: several nodes would write their caches under one name in /tmp/c, where only the last is kept"
    );
    let mut streamed = pushed();
    streamed.context = Context::Archive(bk_build::Archive::new("-", &b""[..]));
    assert_eq!(
        refused(&both, streamed).await,
        "PATH: an archive that is read as a stream can be sent to one node only"
    );
    let cannot = Fake {
        cannot: true,
        ..Fake::default()
    };
    let error = group(&[("linux/amd64", &fake), ("linux/arm64", &cannot)])
        .build(pushed(), |_| EventSink::discard())
        .await
        .expect_err("refused");
    assert_eq!(error.to_string(), "node linux/arm64: --output: not here");
    assert!(!error.begun);
    assert!(fake.asked.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn the_first_that_fails_cancels_the_others() {
    let (good, bad) = (
        Fake::default(),
        Fake {
            fails: true,
            ..Fake::default()
        },
    );
    let mut index = Annotation::new("i", "1");
    index.scope = AnnotationScope::Index;
    let request = pushed().annotation(index).annotation(Annotation::new("m", "2"));
    let nodes = [
        ("linux/amd64", &good),
        ("linux/arm64", &bad),
        ("linux/s390x", &good),
    ];
    let wanted = request.platform("linux/amd64").platform("linux/arm64");
    let error = group(&nodes)
        .build(wanted, |_| EventSink::discard())
        .await
        .expect_err("it fails");
    assert_eq!(error.to_string(), "node linux/arm64: no room");
    assert!(error.begun);
    assert_eq!(
        good.cancelled.load(Ordering::SeqCst),
        1,
        "and the third was not wanted"
    );
    let asked = good.asked.lock().expect("no panic");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].platforms, ["linux/amd64"]);
    let annotations: Vec<&str> = asked[0].annotations.iter().map(|a| &*a.key).collect();
    assert_eq!(annotations, ["m"], "that of the index is not the node's");
    assert!(asked[0].tags.is_empty());
    let attrs: Vec<_> = asked[0].outputs[0]
        .attrs
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(
        attrs,
        ["name=h:1/a", "push=true", "push-by-digest=true", "store=false"]
    );
    assert_eq!(asked[0].frontend_attrs["multi-platform"], "true");
}

#[tokio::test]
async fn caches_that_are_not_in_a_directory_are_for_all_nodes_and_one_that_is_for_one() {
    let bad = Fake {
        fails: true,
        ..Fake::default()
    };
    let (arm, local) = (Fake::default(), Cache::new("local").attr("dest", "/tmp/c"));
    let both = [("linux/amd64", &bad), ("linux/arm64", &arm)];
    let one = pushed().platform("linux/amd64").cache_to(local.clone());
    let read = pushed().cache_from(local).cache_to(Cache::registry("h:1/c"));
    for (request, kinds) in [(one, &["local"][..]), (read, &["registry"])] {
        let error = group(&both)
            .build(request, |_| EventSink::discard())
            .await
            .expect_err("it fails");
        assert_eq!(error.to_string(), "node linux/amd64: no room");
        let asked = bad.asked.lock().expect("no panic").pop().expect("one request");
        let written: Vec<&str> = asked.cache_to.iter().map(|cache| &*cache.kind).collect();
        assert_eq!(written, kinds);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn what_comes_through_a_pipe_is_read_once_for_all_nodes() {
    use std::{io::Write as _, os::fd::AsRawFd as _};

    use bk_build::SecretSource;

    let bad = Fake {
        fails: true,
        ..Fake::default()
    };
    let good = Fake::default();
    let (read, mut write) = std::io::pipe().expect("a pipe");
    write.write_all(b"piped").expect("writable");
    drop(write);
    let path = format!("/dev/fd/{}", read.as_raw_fd());
    let request = pushed()
        .secret("piped", SecretSource::file(path))
        .secret("file", SecretSource::file("/etc/hostname"));
    let error = group(&[("linux/amd64", &good), ("linux/arm64", &bad)])
        .build(request, |_| EventSink::discard())
        .await
        .expect_err("it fails");
    assert_eq!(error.to_string(), "node linux/arm64: no room");
    for node in [good, bad] {
        let asked = node.asked.lock().expect("no panic").pop().expect("one request");
        let SecretSource::Provider(piped) = &asked.secrets["piped"] else {
            panic!("{asked:?}");
        };
        let bytes = piped.secret("piped").await.expect("read").expect("a secret");
        assert_eq!(bytes.expose(), b"piped");
        assert!(matches!(&asked.secrets["file"], SecretSource::File(_)));
    }
}

#[tokio::test]
async fn files_come_as_they_are_asked_for() {
    let bad = Fake {
        fails: true,
        ..Fake::default()
    };
    for output in [Output::local("/tmp/out"), Output::cache_only()] {
        let request = BuildRequest::new(".").tag("a").output(output.clone());
        let error = group(&[("linux/amd64", &bad)])
            .build(request, |_| EventSink::discard())
            .await
            .expect_err("it fails");
        assert_eq!(error.to_string(), "node linux/amd64: no room");
        let asked = bad.asked.lock().expect("no panic").pop().expect("one request");
        assert_eq!(asked.outputs[0].attrs, output.attrs);
        assert_eq!(asked.tags, ["a"]);
        assert_eq!(asked.frontend_attrs["multi-platform"], "true");
    }
}
