//! Where events go: a bounded channel, a closure, or nowhere.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{BuildEvent, limits};

/// Takes the events of a build. Cheap to clone.
///
/// A sink never fails a build: when the receiving end is gone, events are dropped. A channel that is full makes the
/// builder wait, which is harmless for the session (files and health checks do not wait for events) but delays further
/// events.
#[derive(Clone)]
pub struct EventSink(Kind, Option<Observer>);

/// Sees each event before it is delivered.
type Observer = Arc<dyn Fn(&BuildEvent) + Send + Sync>;

#[derive(Clone)]
enum Kind {
    Discard,
    Function(Arc<dyn Fn(BuildEvent) + Send + Sync>),
    Channel(mpsc::Sender<BuildEvent>),
}

impl EventSink {
    /// Drops every event.
    pub fn discard() -> Self {
        Self(Kind::Discard, None)
    }

    /// Calls `f` for each event, on the task that runs the build: `f` must return quickly and must not block.
    pub fn from_fn(f: impl Fn(BuildEvent) + Send + Sync + 'static) -> Self {
        Self(Kind::Function(Arc::new(f)), None)
    }

    /// A sink and its receiver with room for `capacity` events (at least 1);
    /// [`limits::EVENT_CHANNEL_CAPACITY`] is a good value.
    pub fn channel(capacity: usize) -> (Self, EventReceiver) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        (Self(Kind::Channel(sender), None), EventReceiver(receiver))
    }

    /// [`channel`](Self::channel) with the default capacity.
    pub fn default_channel() -> (Self, EventReceiver) {
        Self::channel(limits::EVENT_CHANNEL_CAPACITY)
    }

    /// The same sink, with `see` called for each event before it is delivered, on the task that delivers: it must return
    /// quickly and must not block. Of several, the one that was added last sees an event first.
    #[must_use]
    pub fn observed(&self, see: impl Fn(&BuildEvent) + Send + Sync + 'static) -> Self {
        let inner = self.1.clone();
        let both = move |event: &BuildEvent| {
            see(event);
            if let Some(inner) = &inner {
                inner(event);
            }
        };
        Self(self.0.clone(), Some(Arc::new(both)))
    }

    /// Delivers one event, waiting while a channel is full.
    pub async fn emit(&self, event: BuildEvent) {
        if let Some(see) = &self.1 {
            see(&event);
        }
        match &self.0 {
            Kind::Discard => {}
            Kind::Function(f) => f(event),
            // A closed channel means that nobody listens any more, which is the listener's right.
            Kind::Channel(sender) => drop(sender.send(event).await),
        }
    }

    /// Delivers one event unless a channel is full; says whether it was taken. For readings that the next one replaces.
    pub fn try_emit(&self, event: BuildEvent) -> bool {
        if let Some(see) = &self.1 {
            see(&event);
        }
        match &self.0 {
            Kind::Discard => true,
            Kind::Function(f) => {
                f(event);
                true
            }
            Kind::Channel(sender) => sender.try_send(event).is_ok(),
        }
    }
}

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::Discard => "EventSink::Discard",
            Kind::Function(_) => "EventSink::Function",
            Kind::Channel(_) => "EventSink::Channel",
        })
    }
}

/// The receiving end of [`EventSink::channel`].
#[derive(Debug)]
pub struct EventReceiver(mpsc::Receiver<BuildEvent>);

impl EventReceiver {
    /// The next event, or `None` when every sink is gone and all events were taken. Safe to drop while waiting.
    pub async fn recv(&mut self) -> Option<BuildEvent> {
        self.0.recv().await
    }

    /// The next event if one waits.
    pub fn try_recv(&mut self) -> Option<BuildEvent> {
        self.0.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done() -> BuildEvent {
        BuildEvent::Completed {
            at: std::time::SystemTime::UNIX_EPOCH,
            error: None,
        }
    }

    #[tokio::test]
    async fn a_channel_keeps_order_and_bounds() {
        let (sink, mut events) = EventSink::channel(1);
        assert!(sink.try_emit(done()));
        assert!(!sink.try_emit(done()));
        assert!(matches!(events.recv().await, Some(BuildEvent::Completed { .. })));
        drop(sink);
        assert!(events.recv().await.is_none());
    }

    #[tokio::test]
    async fn observers_see_what_is_delivered() {
        let (sink, mut events) = EventSink::channel(1);
        let seen = Arc::new(std::sync::Mutex::new(String::new()));
        let note = |name: &'static str| {
            let seen = seen.clone();
            move |_: &BuildEvent| seen.lock().expect("no panic").push_str(name)
        };
        let sink = sink.observed(note("a")).observed(note("b"));
        sink.emit(done()).await;
        assert!(events.recv().await.is_some());
        assert_eq!(*seen.lock().expect("no panic"), "ba");
    }

    #[tokio::test]
    async fn a_lost_receiver_is_not_an_error() {
        let (sink, events) = EventSink::channel(1);
        drop(events);
        sink.emit(done()).await;
        assert!(!sink.try_emit(done()));
    }
}
