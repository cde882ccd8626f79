//! A build that begins again when its daemon was lost.
//!
//! The rule: the loss of the daemon is tried again, never with a source that can be read once only, and never when
//! something may have been exported: a push, an image, a cache or a file that somebody already has. What the daemon tells of
//! its steps decides, and what arrived here.
//!
//! One failure of a daemon that is there is tried again too: its image store removed a layer of the finished image while it
//! unpacked it. The image has its names by then and nothing was pushed, so a build that yields only that image may.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use bk_build::{Advice, BuildError, BuildEvent, BuildRequest, EventSink, OutputKind, Vertex, VertexId};
use bk_proto::id::Id;
use bk_session::Extras;
use tokio::time::Instant;

use crate::limits::{MAX_CUT_OFF, RECONNECT_PAUSE, RECONNECT_WINDOW};

/// One attempt at a build.
pub type Attempt<'a, T> = Pin<Box<dyn Future<Output = Result<T, BuildError>> + Send + 'a>>;

/// Runs `attempt` with the request, a reference and where events go; again as often as the request's
/// [`Patience::retries`](bk_build::Patience::retries) says, each time with a fresh reference.
///
/// Before another attempt an event is sent, and a daemon that cannot be reached yet is waited for.
///
/// # Errors
/// Those of the last attempt. When the daemon did not come back, the loss, with the failure to connect as its cause.
pub async fn with_retries<'a, T>(
    request: BuildRequest,
    build_ref: &str,
    events: &EventSink,
    attempt: impl Fn(BuildRequest, String, EventSink) -> Attempt<'a, T>,
) -> Result<T, BuildError> {
    let retries = match request.patience.retries {
        0 => 0,
        _ if !request.is_repeatable() || Extras::read_once(&request).await => 0,
        retries => retries,
    };
    let only_image = only_image(&request);
    let told = Arc::new(Told::default());
    let observed = {
        let told = told.clone();
        events.observed(move |event| told.note(event))
    };
    let mut retry = 0;
    let mut lost = match attempt(request.clone(), build_ref.to_owned(), observed.clone()).await {
        Ok(done) => return Ok(done),
        Err(e) => e,
    };
    loop {
        let again = match lost.last_seen_mut() {
            Some(seen) => {
                seen.exporting |= told.exporting();
                !seen.exporting
            }
            None => only_image && lost.advice() == Some(&Advice::LayerRemoved),
        };
        if !again || retry >= retries {
            return Err(lost);
        }
        retry += 1;
        for vertex in told.cut_off() {
            events.emit(BuildEvent::VertexFailed(vertex)).await;
        }
        let mut build_ref = Id::random().to_string();
        let again = BuildEvent::Retrying {
            retry,
            of: retries,
            error: lost.to_string(),
            build_ref: build_ref.clone(),
        };
        events.emit(again).await;
        let give_up = Instant::now() + RECONNECT_WINDOW;
        lost = loop {
            // sleep: the pace of attempts, not a synchronisation. A daemon that was killed needs a moment to come back.
            tokio::time::sleep(RECONNECT_PAUSE).await;
            match attempt(request.clone(), build_ref, observed.clone()).await {
                Ok(done) => return Ok(done),
                Err(e) if !is_connecting(&e) => break e,
                Err(e) if Instant::now() >= give_up => return Err(because(lost, e)),
                Err(_) => build_ref = Id::random().to_string(),
            }
        };
    }
}

/// Whether nothing was asked of a daemon yet.
fn is_connecting(error: &BuildError) -> bool {
    matches!(error, BuildError::Connect(_) | BuildError::Timeout { .. })
}

/// Whether one image is all that is made.
fn only_image(request: &BuildRequest) -> bool {
    request.outputs.len() <= 1
        && request.outputs.iter().all(|o| o.kind == OutputKind::Image)
        && request.session_exporter.is_none()
}

/// The loss, with why the daemon did not come back. One that has stalled says enough by itself.
fn because(lost: BuildError, connecting: BuildError) -> BuildError {
    match lost {
        BuildError::SessionLost(lost) => lost.caused_by(connecting).into(),
        lost => lost,
    }
}

/// What the daemon told of its steps.
#[derive(Default)]
struct Told(Mutex<Steps>);

#[derive(Default)]
struct Steps {
    running: BTreeMap<VertexId, Vertex>,
    exporting: bool,
}

impl Told {
    fn note(&self, event: &BuildEvent) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            BuildEvent::VertexStarted(v) => {
                steps.exporting |= is_export(&v.name);
                if v.completed.is_none() && steps.running.len() < MAX_CUT_OFF {
                    let mut vertex = v.clone();
                    vertex.inputs = Vec::new();
                    steps.running.insert(v.id.clone(), vertex);
                }
            }
            BuildEvent::VertexCompleted(v) | BuildEvent::VertexFailed(v) | BuildEvent::VertexCached(v) => {
                steps.exporting |= is_export(&v.name);
                steps.running.remove(&v.id);
            }
            _ => {}
        }
    }

    fn exporting(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).exporting
    }

    /// The steps that ran, as ones that were cancelled now.
    fn cut_off(&self) -> Vec<Vertex> {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = std::mem::take(&mut steps.running);
        let end = |mut vertex: Vertex| {
            vertex.completed = Some(SystemTime::now());
            vertex.error = Some("context canceled".to_owned());
            vertex
        };
        running.into_values().map(end).collect()
    }
}

/// Whether a step gives something out: to an image store, a registry, a cache or the client.
fn is_export(name: &str) -> bool {
    let exports = [
        "exporting ",
        "pushing ",
        "sending tarball",
        "preparing build cache for export",
    ];
    exports.iter().any(|e| name.starts_with(e))
}

#[cfg(test)]
mod tests {
    use std::{
        os::fd::AsRawFd,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use bk_build::{Archive, ConnectError, InputError, Output, Refusal, SecretSource, SessionLost, Sink};

    use super::*;

    fn lost() -> BuildError {
        SessionLost::new("unix:///x", "gone").into()
    }

    fn started(id: &str, name: &str) -> BuildEvent {
        let mut vertex = Vertex::new(id, name);
        vertex.started = Some(SystemTime::UNIX_EPOCH);
        BuildEvent::VertexStarted(vertex)
    }

    /// Runs attempts that tell of a step `name` and end as `ends` say, one after the other; returns how often it was begun, the
    /// last end, and what was told.
    async fn run(
        request: BuildRequest,
        name: &'static str,
        ends: Vec<fn() -> BuildError>,
    ) -> (usize, Result<(), String>, Vec<String>) {
        let texts = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let texts = texts.clone();
            EventSink::from_fn(move |event| {
                let text = match event {
                    BuildEvent::VertexStarted(v) => format!("start {}", v.name),
                    BuildEvent::VertexFailed(v) => format!("cut {} {}", v.name, v.is_cancelled()),
                    BuildEvent::Retrying { retry, of, error, .. } => format!("retry {retry}/{of}: {error}"),
                    _ => String::new(),
                };
                texts.lock().expect("no panic").push(text);
            })
        };
        let count = AtomicUsize::new(0);
        let (count_ref, ends) = (&count, &ends);
        let result = with_retries(request, "r0", &sink, |_, build_ref, events| {
            Box::pin(async move {
                let n = count_ref.fetch_add(1, Ordering::Relaxed);
                assert_eq!(build_ref == "r0", n == 0);
                events.emit(started("v", name)).await;
                match ends.get(n) {
                    Some(end) => Err(end()),
                    None => Ok(()),
                }
            })
        })
        .await;
        let texts = texts.lock().expect("no panic").clone();
        let told = result.map_err(|e| {
            let cause = std::error::Error::source(&e).map(|s| format!(" because {s}"));
            format!("{e}{}", cause.unwrap_or_default())
        });
        (count.load(Ordering::Relaxed), told, texts)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_build_begins_again_and_says_so() {
        let request = BuildRequest::new("/x").retries(2);
        let (count, result, told) = run(request, "[1/2] RUN x", vec![lost, lost]).await;
        assert_eq!((count, result), (3, Ok(())));
        let gone = "lost the daemon at unix:///x: gone";
        assert_eq!(
            told,
            [
                "start [1/2] RUN x",
                "cut [1/2] RUN x true",
                &format!("retry 1/2: {gone}"),
                "start [1/2] RUN x",
                "cut [1/2] RUN x true",
                &format!("retry 2/2: {gone}"),
                "start [1/2] RUN x",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_that_may_be_out_already_is_done_twice() {
        for name in [
            "exporting to image",
            "pushing layers",
            "exporting cache to registry",
        ] {
            let request = BuildRequest::new("/x").retries(2);
            assert_eq!(run(request, name, vec![lost]).await.0, 1, "{name}");
        }
        let archive = Archive::new("-", &b""[..]);
        let request = BuildRequest::new(archive).retries(2);
        assert_eq!(run(request, "x", vec![lost]).await.0, 1);
        // A shell's `<(…)`: the next attempt would find nothing in it.
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        let request = BuildRequest::new("/x")
            .secret("s", SecretSource::file(path))
            .retries(2);
        assert_eq!(run(request, "x", vec![lost]).await.0, 1);
        let request = BuildRequest::new("/x")
            .secret("s", SecretSource::file("/nowhere"))
            .retries(1);
        assert_eq!(run(request, "x", vec![lost]).await.0, 2);
        let request = BuildRequest::new("/x").retries(2);
        let input = || InputError::new("--tag", "bad", "").into();
        assert_eq!(run(request, "x", vec![input]).await.0, 1);
        assert_eq!(run(BuildRequest::new("/x"), "x", vec![lost]).await.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_whose_layer_was_removed_is_made_again_and_nothing_else() {
        fn removed() -> BuildError {
            let text = "failed to prepare extraction snapshot \"extract-1 sha256:b\": parent snapshot sha256:a does not \
                        exist: not found";
            let advice = crate::advise::of_message(5, text);
            Refusal::new(5, text).advise(advice).into()
        }
        const STEP: &str = "exporting to image";
        let request = BuildRequest::new("/x").retries(1);
        let (count, result, told) = run(request.clone(), STEP, vec![removed]).await;
        assert_eq!((count, result), (2, Ok(())));
        assert!(told[2].starts_with("retry 1/1: failed to prepare"), "{told:?}");
        // No more often than it may, and a loss while it exports is still one.
        assert_eq!(run(request.clone(), STEP, vec![removed, removed]).await.0, 2);
        assert_eq!(
            run(request.clone().retries(2), STEP, vec![removed, lost]).await.0,
            2
        );
        assert_eq!(run(request.clone().retries(0), STEP, vec![removed]).await.0, 1);
        let image = || Output::new(OutputKind::Image, Sink::Daemon);
        let files = Output::new(OutputKind::Tar, Sink::File("/y".into()));
        assert_eq!(
            run(request.clone().output(image()), STEP, vec![removed]).await.0,
            2
        );
        let both = request.clone().output(image()).output(files);
        assert_eq!(run(both, STEP, vec![removed]).await.0, 1);
        let archive = BuildRequest::new(Archive::new("-", &b""[..])).retries(1);
        assert_eq!(run(archive, STEP, vec![removed]).await.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_comes_back_is_waited_for_and_one_that_does_not_is_the_cause() {
        fn refused() -> BuildError {
            ConnectError::single("unix:///x", "refused").into()
        }
        let request = BuildRequest::new("/x").retries(1);
        let (count, result, told) = run(request.clone(), "x", vec![lost, refused, refused]).await;
        assert_eq!((count, result), (4, Ok(())));
        assert_eq!(told.iter().filter(|t| t.starts_with("retry")).count(), 1);
        let mut ends: Vec<fn() -> BuildError> = vec![lost];
        ends.resize(1000, refused);
        let (_, result, _) = run(request, "x", ends).await;
        assert_eq!(
            result.expect_err("it never comes back"),
            "lost the daemon at unix:///x: gone because cannot reach a daemon at unix:///x: refused"
        );
    }
}
