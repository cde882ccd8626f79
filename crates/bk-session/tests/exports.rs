//! Results as a hostile daemon sends them: what was not asked for, odd headers, half a file.

#[path = "support/daemon.rs"]
mod daemon;

use std::{path::Path, sync::Arc, time::Duration};

use bk_build::{BuildError, NoCredentials, Sink};
use bk_proto::{
    filesync::{BytesMessage, file_send_client::FileSendClient},
    headers, metadata,
};
use bk_session::{Exports, RunningSession, SessionConfig, Sources, limits::MAX_EXPORT_METADATA};
use tonic::{Code, Request, Status};

use daemon::{Daemon, attach, origin};

const GRACE: Duration = Duration::from_secs(5);

async fn taking(sinks: Vec<(usize, Sink)>) -> (Daemon, RunningSession, Exports) {
    let exports = Exports::new(sinks).await.expect("places that can be used");
    let config = SessionConfig::new(Sources::none(), Arc::new(NoCredentials)).exports(exports.clone());
    let (daemon, session) = attach(config).await;
    (daemon, session, exports)
}

/// Sends `pieces` as a result, with these headers.
async fn send(
    daemon: &Daemon,
    all: &[(&'static str, &[&str])],
    pieces: &[&'static str],
) -> Result<(), Status> {
    let messages: Vec<_> = pieces
        .iter()
        .map(|piece| BytesMessage {
            data: piece.as_bytes().into(),
        })
        .collect();
    let mut request = Request::new(tokio_stream::iter(messages));
    for (key, values) in all {
        metadata::set(request.metadata_mut(), key, values).expect("metadata");
    }
    let mut answer = FileSendClient::with_origin(daemon.clone(), origin())
        .diff_copy(request)
        .await?
        .into_inner();
    while answer.message().await?.is_some() {}
    Ok(())
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("readable").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_taken_that_was_not_asked_for() {
    let (daemon, _session, _) = taking(vec![]).await;
    let code = |sent: Result<(), Status>| sent.expect_err("refused").code();
    assert_eq!(code(send(&daemon, &[], &["x"]).await), Code::Unimplemented);
    let (daemon, _session, _) = taking(vec![(0, Sink::Daemon)]).await;
    assert_eq!(code(send(&daemon, &[], &["x"]).await), Code::Unimplemented);

    let dir = tempfile::tempdir().expect("temp dir");
    let sinks = vec![(0, Sink::Daemon), (1, Sink::File(dir.path().join("file")))];
    let (daemon, _session, exports) = taking(sinks).await;
    let odd: [(&[&str], Code); 6] = [
        (&["0"], Code::NotFound),
        (&["2"], Code::NotFound),
        (&["-1"], Code::InvalidArgument),
        (&["1", "1"], Code::InvalidArgument),
        (&["99999999999999999999999"], Code::InvalidArgument),
        (&["x"], Code::InvalidArgument),
    ];
    for (values, expected) in odd {
        let sent = send(&daemon, &[(headers::EXPORTER_ID, values)], &["x"]).await;
        assert_eq!(code(sent), expected, "{values:?}");
    }
    // Without a number it is the first exporter, which sends nothing.
    assert_eq!(code(send(&daemon, &[], &["x"]).await), Code::NotFound);
    assert_eq!(files(dir.path()), 0);
    let missed = exports.commit().await.expect_err("nothing came");
    assert!(matches!(missed, BuildError::Protocol(_)), "{missed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_seen_when_the_build_has_succeeded() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("file");
    let (daemon, session, exports) = taking(vec![(0, Sink::File(file.clone()))]).await;
    let said = [("exporter-md-image.name", &["a:1"][..])];
    send(&daemon, &said, &["one ", "two"]).await.expect("taken");
    assert!(!file.exists());
    let again = send(&daemon, &[], &["three"]).await.expect_err("a second one");
    assert_eq!(again.code(), Code::FailedPrecondition);
    exports.settle(GRACE).await;
    session.close(GRACE).await;
    let reports = exports.commit().await.expect("in its place");
    assert_eq!(std::fs::read(&file).expect("the file"), b"one two");
    assert_eq!((reports.len(), reports[0].bytes), (1, 7));
    assert_eq!(files(dir.path()), 1);

    // A build that fails leaves what was there.
    let (daemon, session, exports) = taking(vec![(0, Sink::File(file.clone()))]).await;
    send(&daemon, &[], &["other"]).await.expect("taken");
    session.close(GRACE).await;
    drop((daemon, exports));
    assert_eq!(std::fs::read(&file).expect("the file"), b"one two");
    assert_eq!(files(dir.path()), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_said_of_a_result_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let sink = Sink::File(dir.path().join("file"));
    let (daemon, _session, _exports) = taking(vec![(0, sink)]).await;
    let long = "x".repeat(MAX_EXPORT_METADATA + 1);
    let said = [("exporter-md-key", &[&*long][..])];
    let refused = send(&daemon, &said, &["x"]).await.expect_err("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(files(dir.path()), 0);
}
