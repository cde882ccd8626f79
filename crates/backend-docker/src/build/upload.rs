//! The body of an upload: a tar stream that is written on a blocking thread and read by the connection.
//!
//! The rule: the two are joined by a bounded channel, so memory does not grow with the context; and what ends early ends
//! the request with an error, so that half a context never looks like a whole one.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bk_build::{BuildError, BuildEvent, Transfer, TransferReport, Warning, WarningKind};
use bk_fsync::{SendObserver, Warning as FileWarning, tar::TarError};
use bk_session::{ContextTar, explain_tar_error};
use bk_solve::chain;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    http1::{Body, BodyError},
    limits::{UPLOAD_AHEAD, UPLOAD_CHUNK, UPLOAD_READING},
};

/// An upload that is being written. Dropping it stops the writing thread at its next piece.
pub(super) struct Upload {
    task: JoinHandle<Result<(), TarError>>,
    root: Option<PathBuf>,
    watch: Arc<Watch>,
    _stop: StopOnDrop,
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Upload {
    /// Starts to write what `plan` says; the events of the transfer go to `events`.
    pub(super) fn start(plan: ContextTar, events: mpsc::Sender<BuildEvent>) -> (Self, Body) {
        let (pieces, body) = mpsc::channel(UPLOAD_AHEAD);
        let stop = Arc::new(AtomicBool::new(false));
        let watch = Arc::new(Watch {
            counts: Mutex::default(),
            events,
        });
        let root = plan.root().map(Path::to_owned);
        let task = tokio::task::spawn_blocking({
            let (stop, watch) = (stop.clone(), watch.clone());
            move || {
                for warning in plan.warnings() {
                    // Nobody who listens is nobody to tell.
                    drop(watch.events.blocking_send(BuildEvent::Warning(warning.clone())));
                }
                let result = pack(&plan, &watch, &stop, &pieces);
                if let Err(e) = &result {
                    // Without it the body would merely end, and look complete. Nobody left to tell is fine.
                    drop(pieces.blocking_send(Err(chain(e).into())));
                }
                watch.tell(true);
                result
            }
        });
        let body = StreamBody::new(ReceiverStream::new(body).map(|piece| piece.map(Frame::data)));
        (
            Self {
                task,
                root,
                watch,
                _stop: StopOnDrop(stop),
            },
            body.boxed_unsync(),
        )
    }

    /// Stops writing, if it has not ended, and waits for the thread. What was sent, and the failure of this machine if
    /// there was one. The events' receiver must be drained or dropped meanwhile.
    pub(super) async fn end(self) -> (TransferReport, Option<BuildError>) {
        let Self {
            task,
            root,
            watch,
            _stop,
        } = self;
        drop(_stop);
        let failure = match task.await {
            Ok(Ok(())) => None,
            Ok(Err(e)) => explain_tar_error(e, root.as_deref()),
            Err(e) => Some(BuildError::Misuse(format!("the upload ended early: {e}"))),
        };
        (watch.counts(), failure)
    }
}

fn pack(
    plan: &ContextTar,
    watch: &Watch,
    stop: &AtomicBool,
    pieces: &mpsc::Sender<Result<Bytes, BodyError>>,
) -> Result<(), TarError> {
    let out = Pieces {
        gathered: BytesMut::new(),
        out: pieces,
    };
    plan.write(out, watch, stop).map(drop)
}

/// Gathers writes into pieces of [`UPLOAD_CHUNK`] and hands them over, waiting while the channel is full.
struct Pieces<'a> {
    gathered: BytesMut,
    out: &'a mpsc::Sender<Result<Bytes, BodyError>>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gathered.capacity() == 0 {
            self.gathered.reserve(UPLOAD_CHUNK);
        }
        let take = bytes.len().min(UPLOAD_CHUNK - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..take]);
        if self.gathered.len() == UPLOAD_CHUNK {
            self.flush()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.gathered).freeze();
        self.out
            .blocking_send(Ok(piece))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Counts what is written, and tells it now and then.
struct Watch {
    counts: Mutex<(TransferReport, u64)>,
    events: mpsc::Sender<BuildEvent>,
}

impl Watch {
    fn counts(&self) -> TransferReport {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn count(&self, change: impl FnOnce(&mut TransferReport)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner).0);
    }

    /// Tells the counts: the last ones for certain, others only where there is room.
    fn tell(&self, done: bool) {
        let mut transfer = Transfer::new(bk_session::CONTEXT, 0);
        transfer.report = self.counts();
        transfer.done = done;
        let event = BuildEvent::Transfer(transfer);
        // Nobody left to tell is fine, and the next reading replaces one that found no room.
        if done {
            drop(self.events.blocking_send(event));
        } else {
            drop(self.events.try_send(event));
        }
    }
}

impl SendObserver for Watch {
    fn listed(&self, entries: u64, bytes: u64) {
        self.count(|c| (c.entries, c.offered_bytes) = (entries, bytes));
    }

    fn requested(&self, _path: &[u8], _size: u64) {
        self.count(|c| c.requested_files += 1);
    }

    fn sent_bytes(&self, bytes: u64) {
        let due = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.0.sent_bytes += bytes;
            let due = counts.0.sent_bytes >= counts.1;
            if due {
                counts.1 = counts.0.sent_bytes + UPLOAD_READING;
            }
            due
        };
        if due {
            self.tell(false);
        }
    }

    fn file_sent(&self, _path: &[u8], _size: u64) {
        self.count(|c| c.sent_files += 1);
    }

    fn warning(&self, warning: &FileWarning<'_>) {
        let kind = match warning {
            FileWarning::SocketSkipped { path } => {
                self.count(|c| c.skipped += 1);
                WarningKind::SkippedFile(String::from_utf8_lossy(path).into_owned())
            }
            FileWarning::Changed { .. } => {
                self.count(|c| c.changed += 1);
                WarningKind::Client
            }
            _ => WarningKind::Client,
        };
        drop(
            self.events
                .blocking_send(BuildEvent::Warning(Warning::new(kind, warning.to_string()))),
        );
    }
}
