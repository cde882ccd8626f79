//! Events as values: the steps of a build with the time that each took.
#![expect(clippy::print_stdout, reason = "an example talks to a terminal")]

use bk_client::{BuildError, BuildEvent, BuildRequest, EventSink, ImageBuilder};

#[tokio::main]
async fn main() -> Result<(), BuildError> {
    let client = bk_client::connect().await?;
    let (sink, mut events) = EventSink::default_channel();
    let watching = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let BuildEvent::VertexCompleted(step) = event
                && let (Some(started), Some(completed)) = (step.started, step.completed)
            {
                let took = completed.duration_since(started).unwrap_or_default();
                println!("{:6.1}s  {}", took.as_secs_f64(), step.name);
            }
        }
    });
    let built = client.build(BuildRequest::new("."), sink).await;
    // The last event comes before the sink is gone, so this ends.
    watching.await.expect("the watcher does not panic");
    built.map(drop)
}
