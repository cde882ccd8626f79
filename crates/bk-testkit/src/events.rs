//! Keeps the events of a build and answers questions about them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use bk_build::{BuildEvent, EventSink, LogStream, TransferReport, VertexId, Warning, WarningKind};

use crate::fake::locked;

/// Keeps every event of the builds that use its sink. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    events: Arc<Mutex<Vec<BuildEvent>>>,
}

impl Recorder {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A sink that records here.
    pub fn sink(&self) -> EventSink {
        let events = Arc::clone(&self.events);
        EventSink::from_fn(move |event| locked(&events).push(event))
    }

    /// A sink that records here and passes each event on to `also`.
    pub fn sink_and(&self, also: impl Fn(&BuildEvent) + Send + Sync + 'static) -> EventSink {
        let events = Arc::clone(&self.events);
        EventSink::from_fn(move |event| {
            also(&event);
            locked(&events).push(event);
        })
    }

    /// What was recorded so far.
    pub fn events(&self) -> Vec<BuildEvent> {
        locked(&self.events).clone()
    }

    /// What the steps whose name contains `name` wrote to `stream`, in order of arrival.
    pub fn log(&self, name: &str, stream: LogStream) -> String {
        let events = self.events();
        let mut vertices: HashSet<VertexId> = HashSet::new();
        for event in &events {
            if let Some(vertex) = vertex(event).filter(|v| v.name.contains(name)) {
                vertices.insert(Arc::clone(&vertex.id));
            }
        }
        let mut bytes = Vec::new();
        for event in &events {
            if let BuildEvent::Log(chunk) = event
                && chunk.stream == stream
                && vertices.contains(&chunk.vertex)
            {
                bytes.extend_from_slice(&chunk.data);
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Every warning.
    pub fn warnings(&self) -> Vec<Warning> {
        let warning = |event| match event {
            BuildEvent::Warning(warning) => Some(warning),
            _ => None,
        };
        self.events().into_iter().filter_map(warning).collect()
    }

    /// Paths of files that were left out.
    pub fn skipped(&self) -> Vec<String> {
        let path = |warning: Warning| match warning.kind {
            WarningKind::SkippedFile(path) => Some(path),
            _ => None,
        };
        self.warnings().into_iter().filter_map(path).collect()
    }

    /// What all finished transfers of the source `source` sent, added up.
    pub fn transferred(&self, source: &str) -> TransferReport {
        let mut sum = TransferReport::default();
        for event in self.events() {
            if let BuildEvent::Transfer(transfer) = event
                && transfer.done
                && transfer.source == source
            {
                sum.add(&transfer.report);
            }
        }
        sum
    }

    /// Names of all steps that completed or came from the cache.
    pub fn completed(&self) -> Vec<String> {
        let name = |event| match event {
            BuildEvent::VertexCompleted(v) | BuildEvent::VertexCached(v) => Some(v.name),
            _ => None,
        };
        self.events().into_iter().filter_map(name).collect()
    }

    /// Checks what holds for the events of every single build that ended by itself.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn check(&self, succeeded: bool) -> Result<(), String> {
        let events = self.events();
        if !matches!(events.first(), Some(BuildEvent::Started { .. })) {
            return Err(format!("the first event is {:?}", events.first()));
        }
        match events.last() {
            Some(BuildEvent::Completed { error, .. }) if error.is_none() == succeeded => {}
            other => return Err(format!("the last event is {other:?}")),
        }
        let framing =
            |e: &&BuildEvent| matches!(e, BuildEvent::Started { .. } | BuildEvent::Completed { .. });
        let frames = events.iter().filter(framing).count();
        if frames != 2 {
            return Err(format!("{frames} events of start and completion"));
        }
        let mut begun: HashSet<&str> = HashSet::new();
        for event in &events {
            match event {
                BuildEvent::VertexStarted(v) => {
                    begun.insert(&v.id);
                }
                BuildEvent::VertexCompleted(v) if !begun.contains(&*v.id) => {
                    return Err(format!("{:?} completed before it started", v.name));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn vertex(event: &BuildEvent) -> Option<&bk_build::Vertex> {
    match event {
        BuildEvent::VertexQueued(v)
        | BuildEvent::VertexStarted(v)
        | BuildEvent::VertexCached(v)
        | BuildEvent::VertexCompleted(v)
        | BuildEvent::VertexFailed(v) => Some(v),
        _ => None,
    }
}

/// An error with everything below it, one level a line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str("\n  caused by: ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
