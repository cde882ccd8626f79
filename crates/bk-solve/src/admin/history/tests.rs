//! Lists of builds from a daemon in this process that tells what a test says, and no more of them than is good.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bk_build::BuilderInfo;
use bk_proto::control::BuildHistoryEvent;
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use tokio::{
    io::{DuplexStream, duplex},
    time::{Instant, sleep},
};

use super::*;
use crate::{
    dial::{BoxedIo, Dialer},
    solve::open,
};

/// A daemon that tells of its builds what it was given.
#[derive(Clone)]
struct Telling {
    events: Arc<Vec<BuildHistoryEvent>>,
    /// Whether it begins anew when it has told all, after a while each time.
    again: Option<Duration>,
}

impl Telling {
    fn once(events: Vec<BuildHistoryEvent>) -> Self {
        Self {
            events: Arc::new(events),
            again: None,
        }
    }

    async fn serve(self, stream: DuplexStream) -> Result<(), h2::Error> {
        let mut connection = h2::server::handshake(stream).await?;
        while let Some(call) = connection.accept().await {
            let (request, answer) = call?;
            assert_eq!(
                request.uri().path(),
                "/moby.buildkit.v1.Control/ListenBuildHistory"
            );
            // A client that has heard enough goes away.
            tokio::spawn(self.clone().tell(answer));
        }
        Ok(())
    }

    async fn tell(self, mut answer: SendResponse<Bytes>) -> Result<(), h2::Error> {
        let head = Response::builder().header("content-type", "application/grpc");
        let mut body = answer.send_response(head.body(()).expect("a head"), false)?;
        loop {
            for event in &*self.events {
                let mut frame = BytesMut::new();
                frame.put_u8(0);
                frame.put_u32(u32::try_from(event.encoded_len()).expect("a small event"));
                event.encode(&mut frame).expect("a buffer grows");
                body.send_data(frame.freeze(), false)?;
            }
            match self.again {
                // sleep: the pace of the daemon, on a clock that stands still.
                Some(pause) => sleep(pause).await,
                None => break,
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        body.send_trailers(trailers)
    }
}

#[async_trait]
impl Dialer for Telling {
    async fn control(&self) -> Result<BoxedIo, BuildError> {
        let (ours, theirs) = duplex(1 << 20);
        tokio::spawn(self.clone().serve(theirs));
        Ok(Box::new(ours))
    }

    fn info(&self) -> BuilderInfo {
        BuilderInfo::new("buildkitd", "unix:///telling")
    }
}

fn told(kind: BuildHistoryEventType, build_ref: &str, generation: i32) -> BuildHistoryEvent {
    BuildHistoryEvent {
        r#type: kind.into(),
        record: Some(BuildHistoryRecord {
            r#ref: build_ref.to_owned(),
            generation,
            ..BuildHistoryRecord::default()
        }),
    }
}

fn complete(build_ref: &str, generation: i32) -> BuildHistoryEvent {
    told(BuildHistoryEventType::Complete, build_ref, generation)
}

/// Which builds are listed, or what is said instead.
async fn within(bounds: Bounds, events: Vec<BuildHistoryEvent>) -> Result<Vec<(String, i32)>, String> {
    let admin = ControlAdmin::new(Telling::once(events));
    let channel = open(&*admin.dialer).await.expect("a daemon");
    let records = listed(&admin, &channel, "", bounds).await;
    let records = records.map_err(|e| e.to_string())?;
    Ok(records.into_iter().map(|r| (r.r#ref, r.generation)).collect())
}

fn too_much(builds: usize, mib: usize) -> String {
    format!(
        "the daemon broke the protocol: the daemon tells of more than {builds} builds, or {mib} MiB of them"
    )
}

fn size_of(event: &BuildHistoryEvent) -> usize {
    event.record.as_ref().map_or(0, BuildHistoryRecord::encoded_len)
}

#[tokio::test]
async fn a_list_may_have_so_many_bytes_and_no_more() {
    let events: Vec<_> = ["a", "b", "c"].map(|build| complete(build, 1)).into();
    let size: usize = events.iter().map(size_of).sum();
    let bounds = |bytes| Bounds { bytes, ..BOUNDS };
    let all = ["a", "b", "c"].map(|build| (build.to_owned(), 1)).to_vec();
    assert_eq!(within(bounds(size), events.clone()).await, Ok(all));
    assert_eq!(within(bounds(size - 1), events).await, Err(too_much(100_000, 0)));
}

#[tokio::test]
async fn a_list_may_have_so_many_builds_and_no_more() {
    let events: Vec<_> = ["a", "b", "c"].map(|build| complete(build, 1)).into();
    let bounds = |records| Bounds { records, ..BOUNDS };
    assert_eq!(
        within(bounds(3), events.clone()).await.map(|all| all.len()),
        Ok(3)
    );
    assert_eq!(within(bounds(2), events).await, Err(too_much(2, 256)));
}

#[tokio::test]
async fn what_is_told_again_or_taken_back_counts_once_or_not_at_all() {
    let (first, gone) = (complete("a", 1), complete("gone", 1));
    let mut events = Vec::new();
    for generation in 1..=50 {
        events.push(complete("a", generation));
        // What is older than that is passed over.
        events.push(first.clone());
        events.push(gone.clone());
        events.push(told(BuildHistoryEventType::Deleted, "gone", 1));
        // Nothing is known of it.
        events.push(told(BuildHistoryEventType::Deleted, "never", 1));
        events.push(complete("", 1));
    }
    let bounds = Bounds {
        records: 2,
        bytes: size_of(&first) + size_of(&gone),
    };
    assert_eq!(within(bounds, events).await, Ok(vec![("a".to_owned(), 50)]));
}

#[tokio::test(start_paused = true)]
async fn a_list_without_an_end_is_given_up() {
    // Each answer comes in time.
    let pause = ADMIN_ANSWER / 2;
    let daemon = Telling {
        events: Arc::new(vec![complete("a", 1)]),
        again: Some(pause),
    };
    let admin = ControlAdmin::new(daemon);
    let begun = Instant::now();
    let error = list(&admin).await.expect_err("it never ends");
    assert!(
        matches!(&error, BuildError::Timeout { what, after }
            if what == "the build history from unix:///telling" && *after == ADMIN_WORK),
        "{error:?}"
    );
    assert_eq!(begun.elapsed().as_secs(), ADMIN_WORK.as_secs());
}

#[test]
fn states_follow_from_end_and_error() {
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let error = |code: Code| {
        Some(RpcStatus {
            code: code as i32,
            ..RpcStatus::default()
        })
    };
    for (completed_at, error, state) in [
        (None, None, HistoryState::Running),
        (at(2), None, HistoryState::Completed),
        (at(2), error(Code::Unknown), HistoryState::Error),
        (at(2), error(Code::Cancelled), HistoryState::Canceled),
    ] {
        let record = from_wire(BuildHistoryRecord {
            created_at: at(1),
            completed_at,
            error,
            num_total_steps: -3,
            ..BuildHistoryRecord::default()
        });
        assert_eq!((record.state, record.total_steps), (state, 0));
    }
}
