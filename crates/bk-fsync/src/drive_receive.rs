//! Drives the receiving half over a stream.
//!
//! The rule: the wire is read by code that does not wait for the disk while small frames can come. Entries of the
//! listing are always taken, and wait in memory for the disk. Content is asked for in portions that fit into memory
//! while the listing runs; after that only content can come, and when too much of it waits for the disk nothing more
//! is read. That is safe: an HTTP/2 peer closes a connection on which many *small* frames lie unread, and since few
//! files are on their way at a time, what lies there then is nearly all full frames.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bk_proto::fsutil::Packet;
use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinError, JoinHandle};

use crate::drive::{next, tell};
use crate::limits::{DATA_AHEAD, ENTRIES_AHEAD, JOBS_PER_TURN, PACKET_OVERHEAD, REQUESTS_IN_FLIGHT};
use crate::receive::{Action, Incoming, Names, ProtocolError, ReceiveOptions, ReceiveReport, Receiver};
use crate::write::{Applier, BusyError, Destination, WriteError};

/// An export failed. What was complete before is in the destination; nothing is there in part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The destination cannot take this stream beside others. A mistake of the caller.
    #[error("the destination is in use")]
    Busy(#[source] BusyError),
    /// The local file system is at fault, or what was in the destination.
    #[error("cannot write the files of the export")]
    Write(#[source] WriteError),
    /// The peer broke the protocol.
    #[error("the transfer of files broke its protocol")]
    Protocol(#[source] ProtocolError),
    /// The peer gave up.
    #[error("error from sender: {0}")]
    Sender(String),
    /// Reading from the peer failed: the session is lost.
    #[error("the stream from the sender failed")]
    Stream(#[source] Box<dyn Error + Send + Sync>),
    /// The peer's stream ended before the transfer was complete: the session is lost, or the peer gave up.
    #[error("the sender ended the stream before the transfer was complete")]
    Ended,
    /// Nobody takes packets any more: the session is lost.
    #[error("the stream to the sender is closed")]
    Closed,
    /// The task that writes ended without a word: a panic in an observer, or the runtime is shutting down.
    #[error("the task that writes files ended unexpectedly")]
    TaskLost,
}

impl ReceiveError {
    /// Whether the peer should be told, because it cannot know yet.
    fn is_ours(&self) -> bool {
        matches!(
            self,
            ReceiveError::Busy(_)
                | ReceiveError::Write(_)
                | ReceiveError::Protocol(_)
                | ReceiveError::TaskLost
        )
    }
}

/// Receives into `dest` what the peer sends, whose packets come from `inbound`; answers go into `outbound`.
///
/// Must be called in a Tokio runtime; all files are written on one of its blocking threads. A small capacity of
/// `outbound` is enough. What `inbound` yields is taken at once, unless the disk is megabytes behind; an error in it
/// ends it.
///
/// Returns as soon as the peer has confirmed the end. The stream must then be ended from this side at once: BuildKit
/// does not end its own. It is success, too, if the stream ends or fails after everything is in place and this side
/// has said so.
///
/// Dropping the future cancels: the writing ends at its next step and removes its temporary files.
///
/// # Errors
/// [`ReceiveError`]. Temporary files are gone and directories have their former modes when it is returned. If the
/// peer cannot know of the failure yet, an error packet with the whole chain of causes was put into `outbound`, so
/// that the build fails with that text.
pub async fn receive<S, E>(
    dest: Arc<Destination>,
    options: ReceiveOptions,
    mut inbound: S,
    outbound: mpsc::Sender<Packet>,
) -> Result<ReceiveReport, ReceiveError>
where
    S: Stream<Item = Result<Packet, E>> + Send + Unpin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let outcome = run(dest, options, &mut inbound, &outbound).await;
    if let Err(err) = &outcome
        && err.is_ours()
    {
        tell(&mut inbound, &outbound, err).await;
    }
    outcome
}

async fn run<S, E>(
    dest: Arc<Destination>,
    options: ReceiveOptions,
    inbound: &mut S,
    outbound: &mpsc::Sender<Packet>,
) -> Result<ReceiveReport, ReceiveError>
where
    S: Stream<Item = Result<Packet, E>> + Send + Unpin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let lease = dest.lease(options.mode).map_err(ReceiveError::Busy)?;
    let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
    let (jobs, to_do) = mpsc::channel(JOBS_AHEAD);
    let (wanting, wanted) = mpsc::channel(REQUESTS_IN_FLIGHT);
    let applier = Applier::new(dest, options, lease, Arc::clone(&stop.0));
    let halt = Arc::clone(&stop.0);
    let mut writer = Writer {
        task: tokio::task::spawn_blocking(move || write(applier, to_do, &wanting, &halt)),
        outcome: None,
    };
    let machine = Mutex::new(Receiver::new());
    let outcome = tokio::select! {
        biased;
        outcome = take(&machine, inbound, jobs) => outcome,
        failed = ask(&machine, wanted, outbound, &mut writer) => failed.map(|never| match never {}),
    };
    // If it still runs, its temporary files must be gone before anybody learns of the failure.
    drop(stop);
    writer.join().await;
    match (writer.outcome, outcome) {
        // A failure to write comes first: it may be the cause of the other.
        (Some(Ok(Err(err))), _) => Err(ReceiveError::Write(err)),
        (Some(Ok(Ok(_))), Err(err)) => Err(err),
        (Some(Ok(Ok(Some(report)))), Ok(())) => Ok(report),
        (None | Some(Err(_) | Ok(Ok(None))), _) => Err(ReceiveError::TaskLost),
    }
}

/// Packets that wait for the disk, at most. What really bounds them is their weight.
const JOBS_AHEAD: usize = (ENTRIES_AHEAD + DATA_AHEAD) / PACKET_OVERHEAD;

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the writer ends with: a report if everything is in place.
type Written = Result<Option<ReceiveReport>, WriteError>;

/// The task that writes, and what it ended with.
struct Writer {
    task: JoinHandle<Written>,
    outcome: Option<Result<Written, JoinError>>,
}

impl Writer {
    /// Waits until it has ended. Can be cancelled and called again.
    async fn join(&mut self) {
        if self.outcome.is_none() {
            self.outcome = Some((&mut self.task).await);
        }
    }
}

/// Work for the disk, with the memory that it was granted.
struct Job {
    work: Work,
    _memory: Option<OwnedSemaphorePermit>,
}

enum Work {
    Entry(Box<Incoming>),
    EndOfListing(Arc<Names>),
    Data { id: u32, data: Bytes },
    EndOfFile { id: u32 },
}

/// Takes packets until the peer confirms the end.
async fn take<S, E>(
    machine: &Mutex<Receiver>,
    inbound: &mut S,
    jobs: mpsc::Sender<Job>,
) -> Result<(), ReceiveError>
where
    S: Stream<Item = Result<Packet, E>> + Send + Unpin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let entries = Arc::new(Semaphore::new(ENTRIES_AHEAD));
    let content = Arc::new(Semaphore::new(DATA_AHEAD));
    loop {
        let packet = match next(inbound).await {
            Some(Ok(packet)) => packet,
            // Everything is in place, and a peer that goes away now was told so.
            _ if lock(machine).is_finishing() => return Ok(()),
            Some(Err(err)) => return Err(ReceiveError::Stream(err.into())),
            None => return Err(ReceiveError::Ended),
        };
        let action = lock(machine).packet(packet).map_err(ReceiveError::Protocol)?;
        let (work, memory) = match action {
            Action::Finished => return Ok(()),
            Action::Abort(text) => return Err(ReceiveError::Sender(text)),
            Action::Entry(entry) => {
                let memory = grant(&entries, entry.weight(), ENTRIES_AHEAD).await;
                (Work::Entry(Box::new(entry)), memory)
            }
            Action::EndOfListing(names) => (Work::EndOfListing(names), None),
            Action::Data { id, data } => {
                let memory = grant(&content, data.len() + PACKET_OVERHEAD, DATA_AHEAD).await;
                (Work::Data { id, data }, memory)
            }
            Action::EndOfFile { id } => (Work::EndOfFile { id }, None),
        };
        let job = Job {
            work,
            _memory: memory,
        };
        if jobs.send(job).await.is_err() {
            // The writer has ended, and what it has to say comes from the other half.
            return pending().await;
        }
    }
}

/// Waits until `weight` bytes of `all` are free. While it waits nothing is read.
async fn grant(memory: &Arc<Semaphore>, weight: usize, all: usize) -> Option<OwnedSemaphorePermit> {
    let weight = u32::try_from(weight.min(all)).unwrap_or(u32::MAX);
    // Fails only if it was closed, which nobody does.
    Arc::clone(memory).acquire_many_owned(weight).await.ok()
}

/// Asks for files as the writer wants them, and says so when everything is in place. Ends only if it fails.
async fn ask(
    machine: &Mutex<Receiver>,
    mut wanted: mpsc::Receiver<u32>,
    outbound: &mpsc::Sender<Packet>,
    writer: &mut Writer,
) -> Result<Infallible, ReceiveError> {
    // Ends when the writer does.
    while let Some(id) = wanted.recv().await {
        let packet = lock(machine).request(id).map_err(ReceiveError::Protocol)?;
        tokio::select! {
            sent = outbound.send(packet) => sent.map_err(|_| ReceiveError::Closed)?,
            // It can only have failed: it waits for what is being asked for.
            () = writer.join() => return Err(ReceiveError::TaskLost),
        }
    }
    writer.join().await;
    if !matches!(writer.outcome, Some(Ok(Ok(Some(_))))) {
        return Err(ReceiveError::TaskLost);
    }
    let packet = lock(machine).finish().map_err(ReceiveError::Protocol)?;
    outbound.send(packet).await.map_err(|_| ReceiveError::Closed)?;
    pending().await
}

/// Nothing can panic while it is locked.
fn lock(machine: &Mutex<Receiver>) -> MutexGuard<'_, Receiver> {
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes, on a blocking thread, until everything is in place; `None` if nobody wants that any more.
fn write(
    mut applier: Applier,
    mut jobs: mpsc::Receiver<Job>,
    wanting: &mpsc::Sender<u32>,
    stop: &AtomicBool,
) -> Written {
    let mut batch = Vec::with_capacity(JOBS_PER_TURN);
    while jobs.blocking_recv_many(&mut batch, JOBS_PER_TURN) > 0 {
        for job in batch.drain(..) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            match job.work {
                Work::Entry(entry) => applier.entry(*entry)?,
                Work::EndOfListing(names) => applier.end_of_listing(names),
                Work::Data { id, data } => applier.data(id, &data)?,
                Work::EndOfFile { id } => applier.end_of_file(id)?,
            }
            while let Some(id) = applier.next_request() {
                if wanting.blocking_send(id).is_err() {
                    return Ok(None);
                }
            }
        }
        if applier.is_complete() {
            let report = applier.finish()?;
            // A removal that was stopped is not complete.
            return Ok((!stop.load(Ordering::Relaxed)).then_some(report));
        }
    }
    Ok(None)
}
