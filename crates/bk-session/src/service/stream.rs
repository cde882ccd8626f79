//! The answer of a call that a task works on: its messages, then its result.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

type End = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// Messages of a task, then how it ended.
pub(crate) struct TaskStream<T> {
    messages: mpsc::Receiver<T>,
    end: Option<End>,
}

impl<T> TaskStream<T> {
    /// What `task` sends to `messages`. The stream ends when it lets go of them, with its result. Dropping the stream
    /// stops the task.
    pub(crate) fn new(messages: mpsc::Receiver<T>, task: AbortOnDropHandle<Result<(), Status>>) -> Self {
        Self::ending(messages, async move {
            task.await
                .unwrap_or_else(|e| Err(Status::internal(format!("the transfer ended early: {e}"))))
        })
    }

    /// The same for work that goes on when the stream is dropped; `end` tells its result.
    pub(crate) fn ending(
        messages: mpsc::Receiver<T>,
        end: impl Future<Output = Result<(), Status>> + Send + 'static,
    ) -> Self {
        Self {
            messages,
            end: Some(Box::pin(end)),
        }
    }
}

impl<T> Stream for TaskStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(message) = std::task::ready!(self.messages.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(message)));
        }
        let Some(end) = &mut self.end else {
            return Poll::Ready(None);
        };
        let result = std::task::ready!(end.as_mut().poll(cx));
        self.end = None;
        Poll::Ready(result.err().map(Err))
    }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text.push_str(": ");
        text.push_str(&e.to_string());
        source = e.source();
    }
    text
}
