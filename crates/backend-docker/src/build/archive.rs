//! An archive as the body of a build: what was given is what is sent.
//!
//! The rule: it is read no faster than the daemon takes it, and what cannot be read ends the request with an error, so that
//! half an archive never looks like a whole one.

use std::sync::{Arc, Mutex, PoisonError};

use bk_build::{BuildError, TransferReport};
use bk_session::ArchiveStream;
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::http1::Body;

/// What is known of an archive that is being sent.
#[derive(Default)]
pub(super) struct Sent {
    report: TransferReport,
    failure: Option<BuildError>,
}

/// Shared by the body and those who ask afterwards.
#[derive(Clone, Default)]
pub(super) struct Sending(Arc<Mutex<Sent>>);

impl Sending {
    /// The body of a request that sends `stream`.
    pub(super) fn body(&self, stream: ArchiveStream) -> Body {
        let sending = self.clone();
        let pieces = stream.map(move |piece| match piece {
            Ok(piece) => {
                sending.with(|sent| sent.report.sent_bytes += piece.len() as u64);
                Ok(Frame::data(piece))
            }
            Err(failure) => {
                let text = failure.to_string();
                sending.with(|sent| sent.failure = Some(failure.into()));
                Err(text.into())
            }
        });
        StreamBody::new(pieces).boxed_unsync()
    }

    /// What was sent, and why no more of it could be read.
    pub(super) fn end(&self) -> (TransferReport, Option<BuildError>) {
        self.with(|sent| {
            sent.report.offered_bytes = sent.report.sent_bytes;
            (sent.report, sent.failure.take())
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Sent) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
