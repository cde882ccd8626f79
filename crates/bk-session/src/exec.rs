//! An executor whose tasks all end with their owner.
//!
//! hyper spawns a task a stream; detached, they would outlive a dropped build. Here each runs under one token and is
//! counted, so that an owner can stop them all and wait until they are gone. Those of an owner with a
//! `tracing` span belong to it, so that what a daemon asks for is a part of its build.

use std::time::Duration;

use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::{Instrument as _, Span};

/// Spawns tasks that end when their [`TaskOwner`] is dropped or stopped.
#[derive(Clone, Debug)]
pub struct OwnedExecutor {
    tracker: TaskTracker,
    token: CancellationToken,
    span: Span,
}

impl OwnedExecutor {
    /// Spawns a task that ends early when the owner stops.
    pub fn spawn<F>(&self, future: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let token = self.token.clone();
        let task = async move {
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                _ = future => {}
            }
        };
        self.tracker.spawn(task.instrument(self.span.clone()));
    }

    /// Whether the owner has stopped.
    pub fn is_stopped(&self) -> bool {
        self.token.is_cancelled()
    }
}

impl<F> hyper::rt::Executor<F> for OwnedExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.spawn(future);
    }
}

/// Owns the tasks of one connection. Dropping it stops them all; they are gone after the runtime's next turn.
#[derive(Debug)]
pub struct TaskOwner {
    executor: OwnedExecutor,
    _guard: DropGuard,
}

impl TaskOwner {
    /// An owner without tasks.
    pub fn new() -> Self {
        Self::in_span(Span::none())
    }

    /// An owner without tasks, whose tasks run in `span` and keep it open as long as they live.
    pub fn in_span(span: Span) -> Self {
        let token = CancellationToken::new();
        let executor = OwnedExecutor {
            tracker: TaskTracker::new(),
            token: token.clone(),
            span,
        };
        Self {
            executor,
            _guard: token.drop_guard(),
        }
    }

    /// The executor to hand to hyper.
    pub fn executor(&self) -> OwnedExecutor {
        self.executor.clone()
    }

    /// Tasks that have not ended.
    pub fn alive(&self) -> usize {
        self.executor.tracker.len()
    }

    /// Stops all tasks and waits, at most `grace`, until they are gone; says whether they are.
    pub async fn stop(self, grace: Duration) -> bool {
        self.executor.token.cancel();
        self.executor.tracker.close();
        tokio::time::timeout(grace, self.executor.tracker.wait())
            .await
            .is_ok()
    }
}

impl Default for TaskOwner {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dropping_the_owner_ends_its_tasks() {
        let owner = TaskOwner::new();
        let tracker = owner.executor().tracker;
        let (alive, gone) = tokio::sync::oneshot::channel::<()>();
        owner.executor().spawn(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        assert_eq!(owner.alive(), 1);
        drop(owner);
        assert!(gone.await.is_err());
        tracker.close();
        tracker.wait().await;
    }

    #[tokio::test]
    async fn stop_waits_for_the_end() {
        let owner = TaskOwner::new();
        owner.executor().spawn(std::future::pending::<()>());
        assert!(owner.stop(Duration::from_secs(5)).await);
    }
}
