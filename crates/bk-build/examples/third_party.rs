//! A third party's own builder: nothing but the contract is needed to write one.
//!
//! This one "builds" by counting the files of the context directory.

use std::time::SystemTime;

use bk_build::{
    BuildError, BuildEvent, BuildOutcome, BuildRequest, BuilderInfo, Context, EventSink, ImageBuilder,
    LocalFailure, Vertex,
};

struct Counter;

#[async_trait::async_trait]
impl ImageBuilder for Counter {
    async fn build(&self, request: BuildRequest, events: EventSink) -> Result<BuildOutcome, BuildError> {
        request.validate()?;
        let Context::Dir(dir) = &request.context else {
            return Err(BuildError::Misuse(
                "this builder takes directories only".to_owned(),
            ));
        };
        let at = SystemTime::now();
        events
            .emit(BuildEvent::Started {
                build_ref: "count-1".to_owned(),
                builder: self.info(),
                at,
            })
            .await;
        let mut vertex = Vertex::new("count", "count files");
        vertex.started = Some(at);
        events.emit(BuildEvent::VertexStarted(vertex.clone())).await;
        let files = std::fs::read_dir(dir)
            .map_err(|e| LocalFailure::new(dir, "cannot list the context").caused_by(e))?
            .count();
        vertex.completed = Some(SystemTime::now());
        events.emit(BuildEvent::VertexCompleted(vertex)).await;
        events
            .emit(BuildEvent::Completed {
                at: SystemTime::now(),
                error: None,
            })
            .await;
        let mut outcome = BuildOutcome::default();
        outcome
            .exporter_response
            .insert("files".to_owned(), files.to_string());
        Ok(outcome)
    }

    fn info(&self) -> BuilderInfo {
        BuilderInfo::new("counter", "here")
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BuildError> {
    let builder: Box<dyn ImageBuilder> = Box::new(Counter);
    let outcome = builder
        .build(BuildRequest::new("."), EventSink::discard())
        .await?;
    assert!(outcome.exporter_response.contains_key("files"));
    Ok(())
}
