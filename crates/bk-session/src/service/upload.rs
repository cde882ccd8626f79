//! An archive to the daemon, as it is: what it fetches from `http://buildkit-session/<id>`.
//!
//! The rule: the stream is sent once, to a call that knows its id; it is read no faster than the daemon takes it, and what
//! cannot be read ends the call with an error, so that half an archive never looks like a whole one.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bk_build::{BuildEvent, EventSink, Transfer, TransferDetails};
use bk_proto::{
    headers, metadata,
    upload::{
        BytesMessage,
        upload_server::{SERVICE_NAME, Upload, UploadServer},
    },
};
use futures_core::Stream;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::dispatch::Services;
use crate::{archive::ArchiveStream, limits::PROGRESS_INTERVAL, session::SessionState, sources::CONTEXT};

/// An archive under the id that makes its address.
#[derive(Clone)]
pub(crate) struct Offered {
    pub(crate) id: String,
    pub(crate) stream: Arc<Mutex<Option<ArchiveStream>>>,
}

/// Adds the service that sends an archive.
pub(crate) fn serve(services: &mut Services, offered: Offered, events: EventSink, state: Arc<SessionState>) {
    let server = UploadServer::new(UploadService {
        offered,
        events,
        state,
    })
    .max_encoding_message_size(usize::MAX);
    services.add(SERVICE_NAME, &["Pull"], server);
}

struct UploadService {
    offered: Offered,
    events: EventSink,
    state: Arc<SessionState>,
}

#[tonic::async_trait]
impl Upload for UploadService {
    type PullStream = Pieces;

    async fn pull(&self, request: Request<Streaming<BytesMessage>>) -> Result<Response<Pieces>, Status> {
        let path = metadata::first(request.metadata(), headers::UPLOAD_PATH).unwrap_or_default();
        let id = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        if id != self.offered.id.as_bytes() {
            return Err(Status::not_found("there is no such upload"));
        }
        let stream = self
            .offered
            .stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(stream) = stream else {
            return Err(Status::failed_precondition(
                "the archive was sent before, and can be sent once only",
            ));
        };
        Ok(Response::new(Pieces {
            stream: Some(stream),
            transfer: Transfer::new(CONTEXT, 0),
            whole: false,
            told: Instant::now(),
            events: self.events.clone(),
            state: self.state.clone(),
        }))
    }
}

/// The pieces of the archive, counted.
pub(crate) struct Pieces {
    stream: Option<ArchiveStream>,
    transfer: Transfer,
    /// All of it was handed over.
    whole: bool,
    told: Instant,
    events: EventSink,
    state: Arc<SessionState>,
}

impl Stream for Pieces {
    type Item = Result<BytesMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(None);
        };
        match std::task::ready!(Pin::new(stream).poll_next(cx)) {
            Some(Ok(data)) => {
                let report = &mut this.transfer.report;
                report.sent_bytes += data.len() as u64;
                report.offered_bytes = report.sent_bytes;
                if this.told.elapsed() >= PROGRESS_INTERVAL {
                    this.told = Instant::now();
                    // The next reading replaces one that finds no room.
                    this.events.try_emit(BuildEvent::Transfer(this.transfer.clone()));
                }
                Poll::Ready(Some(Ok(BytesMessage { data })))
            }
            Some(Err(failure)) => {
                this.stream = None;
                let status = Status::unknown(failure.to_string());
                this.state.fail(failure.into());
                Poll::Ready(Some(Err(status)))
            }
            None => {
                this.stream = None;
                this.whole = true;
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        let report = &self.transfer.report;
        let details = self.whole.then(|| {
            let mut details = TransferDetails::new(&*self.transfer.source, self.transfer.transfer);
            details.report = *report;
            details
        });
        self.state.add(report, details);
        self.transfer.done = true;
        self.events.try_emit(BuildEvent::Transfer(self.transfer.clone()));
    }
}
