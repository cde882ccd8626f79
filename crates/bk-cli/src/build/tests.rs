//! The flow of a build around a builder that is scripted: display, cancellation, order of what is said.

use std::{
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use async_trait::async_trait;
use bk_client::{BuildEvent, BuilderInfo, StepFailure, Vertex};
use bk_progress::Plain;

use super::*;

/// What was drawn, readable while the renderer owns the writer.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("only UTF-8 is drawn")
    }

    fn renderer(&self) -> Box<dyn Renderer + Send> {
        Box::new(Plain::new(self.clone()))
    }
}

impl Write for Screen {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A time that no test waits for.
const LONG: Duration = Duration::from_secs(600);

enum Script {
    Succeed,
    Fail,
    Hang,
}

struct Scripted {
    script: Script,
    /// Set when a hanging build was dropped.
    dropped: Arc<AtomicBool>,
    begun: tokio::sync::Notify,
}

impl Scripted {
    fn new(script: Script) -> Self {
        Self {
            script,
            dropped: Arc::default(),
            begun: tokio::sync::Notify::new(),
        }
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl ImageBuilder for Scripted {
    async fn build(&self, _: BuildRequest, events: EventSink) -> Result<BuildOutcome, BuildError> {
        let mut vertex = Vertex::new("v", "[1/1] RUN it");
        vertex.started = Some(SystemTime::UNIX_EPOCH);
        events.emit(BuildEvent::VertexStarted(vertex.clone())).await;
        vertex.completed = vertex.started;
        match self.script {
            Script::Succeed => {
                events.emit(BuildEvent::VertexCompleted(vertex)).await;
                let mut outcome = BuildOutcome::default();
                outcome.image_id = Some("sha256:1".to_owned());
                Ok(outcome)
            }
            Script::Fail => {
                vertex.error = Some("exit code: 3".to_owned());
                events.emit(BuildEvent::VertexFailed(vertex)).await;
                Err(Box::new(StepFailure::new("exit code: 3")).into())
            }
            Script::Hang => {
                let _guard = SetOnDrop(self.dropped.clone());
                self.begun.notify_one();
                std::future::pending().await
            }
        }
    }

    fn info(&self) -> BuilderInfo {
        BuilderInfo::new("scripted", "here")
    }
}

#[tokio::test]
async fn a_success_is_drawn_completely_before_it_is_told() {
    let screen = Screen::default();
    let (_asked, interrupt) = Interrupt::by_hand();
    let builder = Scripted::new(Script::Succeed);
    let outcome = drive(
        &builder,
        BuildRequest::new("."),
        screen.renderer(),
        interrupt,
        LONG,
    )
    .await;
    assert_eq!(outcome.expect("a success").image_id.as_deref(), Some("sha256:1"));
    assert_eq!(screen.text(), "#1 [1/1] RUN it\n#1 DONE 0.0s\n");
}

#[tokio::test]
async fn a_failure_is_drawn_and_returned() {
    let screen = Screen::default();
    let (_asked, interrupt) = Interrupt::by_hand();
    let builder = Scripted::new(Script::Fail);
    let outcome = drive(
        &builder,
        BuildRequest::new("."),
        screen.renderer(),
        interrupt,
        LONG,
    )
    .await;
    assert!(matches!(outcome, Err(BuildError::Step(_))));
    assert_eq!(
        screen.text(),
        "#1 [1/1] RUN it\n#1 ERROR: exit code: 3\n------\n > [1/1] RUN it:\n------\n"
    );
}

#[tokio::test]
async fn asking_to_stop_drops_the_build() {
    let screen = Screen::default();
    let (asked, interrupt) = Interrupt::by_hand();
    let builder = Scripted::new(Script::Hang);
    let stop = async {
        builder.begun.notified().await;
        assert!(!builder.dropped.load(Ordering::SeqCst));
        asked.send_replace(true);
    };
    let (outcome, ()) = tokio::join!(
        drive(
            &builder,
            BuildRequest::new("."),
            screen.renderer(),
            interrupt,
            LONG
        ),
        stop
    );
    assert!(matches!(outcome, Err(BuildError::Cancelled)));
    assert!(builder.dropped.load(Ordering::SeqCst));
    assert_eq!(screen.text(), "#1 [1/1] RUN it\n");
}

#[tokio::test]
async fn a_display_that_is_stuck_does_not_hold_up_a_cancelled_build() {
    /// Blocks its thread until the test ends.
    struct Stuck(std::sync::mpsc::Receiver<()>);
    impl Renderer for Stuck {
        fn event(&mut self, _: &BuildEvent) -> io::Result<()> {
            // The sender is dropped at the end of the test: an error is the expected way out.
            assert!(self.0.recv().is_err());
            Ok(())
        }
        fn finish(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_hold, held) = std::sync::mpsc::channel();
    let (asked, interrupt) = Interrupt::by_hand();
    asked.send_replace(true);
    let builder = Scripted::new(Script::Succeed);
    let outcome = drive(
        &builder,
        BuildRequest::new("."),
        Box::new(Stuck(held)),
        interrupt,
        Duration::ZERO,
    )
    .await;
    assert!(matches!(outcome, Err(BuildError::Cancelled)));
}

#[tokio::test]
async fn a_display_that_fails_is_an_error_of_a_successful_build() {
    struct Full;
    impl Renderer for Full {
        fn event(&mut self, _: &BuildEvent) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn finish(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_asked, interrupt) = Interrupt::by_hand();
    let builder = Scripted::new(Script::Succeed);
    let outcome = drive(&builder, BuildRequest::new("."), Box::new(Full), interrupt, LONG).await;
    assert_eq!(
        outcome.map_err(|e| e.to_string()),
        Err("/dev/stderr: cannot draw progress".to_owned())
    );
}
