//! Drives the sending half over a stream: the only asynchronous file of this crate.
//!
//! The rule: one future owns the state of a transfer. It takes every packet of the peer at once and never waits
//! for a file or for the wire before it does — unread small frames make an HTTP/2 peer close the connection.
//! Whatever blocks runs on blocking threads, which hand over through bounded channels and end when the future
//! is dropped.

use std::collections::VecDeque;
use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bk_proto::fsutil::{Packet, Stat};
use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use crate::buffer::Buffers;
use crate::filter::Filter;
use crate::hardlink::HardLinks;
use crate::limits::{
    BATCHES_AHEAD, BYTES_AHEAD, CHUNKS_AHEAD, FILE_READERS, LARGE_PACKET, LARGE_PACKETS_AHEAD, LISTING_BATCH,
    PACKETS_AHEAD, REQUESTS_PER_TURN,
};
use crate::options::SendOptions;
use crate::policy::{ChangePolicy, Stamper, identity};
use crate::read::{FileError, Piece, read_files};
use crate::report::{SendObserver, SendReport, Warning};
use crate::send::{Action, ProtocolError, Sender};
use crate::tree::Tree;
use crate::walk::{Walk, WalkError};
use crate::wire::stat_of;

/// A transfer failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The tree could not be listed: the local file system or a pattern of the request is at fault.
    #[error("cannot list the files")]
    List(#[source] WalkError),
    /// A requested file could not be sent whole: the local file system is at fault.
    #[error("cannot send a file")]
    File(#[source] FileError),
    /// The peer broke the protocol (or, for an order error, the tree).
    #[error("the transfer of files broke its protocol")]
    Protocol(#[source] ProtocolError),
    /// The peer gave up.
    #[error("error from receiver: {0}")]
    Receiver(String),
    /// Reading from the peer failed: the session is lost.
    #[error("the stream from the receiver failed")]
    Stream(#[source] Box<dyn Error + Send + Sync>),
    /// The peer's stream ended before the transfer was complete: the session is lost, or the peer gave up.
    #[error("the receiver ended the stream before the transfer was complete")]
    Ended,
    /// Nobody takes packets any more: the session is lost.
    #[error("the stream to the receiver is closed")]
    Closed,
    /// A blocking task ended without a word: a panic in the tree, or the runtime is shutting down.
    #[error("a task that reads the tree ended unexpectedly")]
    TaskLost,
}

impl SendError {
    /// Whether the peer should be told, because it cannot know yet.
    fn is_ours(&self) -> bool {
        matches!(
            self,
            SendError::List(_) | SendError::File(_) | SendError::Protocol(_) | SendError::TaskLost
        )
    }
}

/// Sends `tree` to the peer whose packets come from `inbound`, by putting packets into `outbound`.
///
/// Must be called in a Tokio runtime; files are listed and read on its blocking threads, at most
/// [`FILE_READERS`] + 1 at a time. At most [`DATA_CHUNK`](crate::limits::DATA_CHUNK) bytes are in a packet, and
/// few large packets are put into `outbound` at a time, so its capacity bounds the memory that a slow peer can pin: a few
/// dozen packets are plenty.
///
/// Returns once the peer has confirmed that it has everything and the confirmation of that is in `outbound`.
/// The stream must then be ended from this side without waiting for the peer to end its own.
///
/// Dropping the future cancels: blocking tasks end at their next entry or piece, and nothing else is put into
/// `outbound`.
///
/// # Errors
/// [`SendError`]. If the peer cannot know of the failure yet, an error packet with the whole chain of causes was
/// put into `outbound`, so that the build fails with that text.
pub async fn send<S, E>(
    tree: Arc<dyn Tree>,
    options: SendOptions,
    mut inbound: S,
    outbound: mpsc::Sender<Packet>,
) -> Result<SendReport, SendError>
where
    S: Stream<Item = Result<Packet, E>> + Send + Unpin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let mut transfer = Transfer::start(tree, options);
    let outcome = transfer.run(&mut inbound, &outbound).await;
    // No more reading, whatever came out.
    transfer.stop.0.store(true, Ordering::Relaxed);
    if let Err(err) = &outcome
        && err.is_ours()
    {
        tell(&mut inbound, &outbound, err).await;
    }
    outcome
}

/// One transfer, as long as its future lives.
struct Transfer {
    tree: Arc<dyn Tree>,
    observer: Arc<dyn SendObserver>,
    change: ChangePolicy,
    sender: Sender,
    stop: StopOnDrop,
    listing: mpsc::Receiver<Vec<Listing>>,
    listing_over: bool,
    sockets: u64,
    pieces: mpsc::Receiver<Pieces>,
    pieces_in: mpsc::Sender<Pieces>,
    buffers: Arc<Buffers>,
    readers: JoinSet<()>,
    queue: Queue,
}

/// What a reader hands over.
type Pieces = Result<Vec<Piece>, FileError>;

/// Packets on their way out. Taken from the walk and the readers only while there are few.
#[derive(Default)]
struct Queue {
    packets: VecDeque<Packet>,
    /// Bytes of content in them.
    bytes: usize,
}

impl Queue {
    fn push(&mut self, packet: Packet) {
        self.bytes += packet.data.len();
        self.packets.push_back(packet);
    }

    fn pop(&mut self) -> Option<Packet> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.data.len();
        Some(packet)
    }

    fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn has_room(&self) -> bool {
        self.packets.len() < PACKETS_AHEAD && self.bytes < BYTES_AHEAD
    }

    /// How many places must be free in the wire's channel, which has `places`, before the next packet is put there.
    fn places_needed(&self, places: usize) -> usize {
        match self.packets.front() {
            Some(packet) if packet.data.len() >= LARGE_PACKET => {
                places.saturating_sub(LARGE_PACKETS_AHEAD).max(1)
            }
            _ => 1,
        }
    }
}

/// What the walk hands over.
enum Listing {
    Entry(Stat, u64),
    End { sockets: u64 },
    Failed(WalkError),
}

/// Work from the blocking threads; the walk and the readers take turns.
enum Work {
    Listed(Option<Vec<Listing>>),
    Read(Pieces),
    ReaderEnded(Result<(), JoinError>),
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Transfer {
    fn start(tree: Arc<dyn Tree>, options: SendOptions) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (listing_in, listing) = mpsc::channel(BATCHES_AHEAD);
        let (pieces_in, pieces) = mpsc::channel(CHUNKS_AHEAD);
        let observer = Arc::clone(&options.observer);
        let change = options.policies.change_allowed();
        let walk = (Arc::clone(&tree), Arc::clone(&stop));
        // Detached: it ends by itself once the other end of its channel is gone.
        drop(tokio::task::spawn_blocking(move || {
            list(&*walk.0, &options, &listing_in, &walk.1)
        }));
        Transfer {
            tree,
            observer,
            change,
            sender: Sender::new(),
            stop: StopOnDrop(stop),
            listing,
            listing_over: false,
            sockets: 0,
            pieces,
            pieces_in,
            buffers: Buffers::new(),
            readers: JoinSet::new(),
            queue: Queue::default(),
        }
    }

    async fn run<S, E>(
        &mut self,
        inbound: &mut S,
        outbound: &mpsc::Sender<Packet>,
    ) -> Result<SendReport, SendError>
    where
        S: Stream<Item = Result<Packet, E>> + Send + Unpin,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut closed = pin!(outbound.closed());
        let places = outbound.max_capacity();
        let mut turn = false;
        loop {
            self.start_readers();
            tokio::select! {
                biased;
                packet = next(inbound) => {
                    if self.requests(packet, inbound).await? {
                        break;
                    }
                }
                () = &mut closed => return Err(SendError::Closed),
                permits = outbound.reserve_many(self.queue.places_needed(places)), if !self.queue.is_empty() => {
                    let mut permits = permits.map_err(|_| SendError::Closed)?;
                    if let Some(permit) = permits.next()
                        && let Some(packet) = self.queue.pop()
                    {
                        permit.send(packet);
                    }
                    drop(permits);
                    self.flush(outbound);
                }
                work = poll_fn(|cx| self.poll_work(cx, turn)), if self.queue.has_room() => {
                    turn = !turn;
                    self.take(work)?;
                    self.flush(outbound);
                }
            }
        }
        while let Some(packet) = self.queue.pop() {
            outbound.send(packet).await.map_err(|_| SendError::Closed)?;
        }
        let mut report = self.sender.report().clone();
        report.sockets_skipped = self.sockets;
        (report.largest_files, report.largest_directories) = self.sender.largest();
        Ok(report)
    }

    /// Takes a packet of the peer, and those that are there behind it. Whether the transfer is complete.
    async fn requests<S, E>(
        &mut self,
        mut packet: Option<Result<Packet, E>>,
        inbound: &mut S,
    ) -> Result<bool, SendError>
    where
        S: Stream<Item = Result<Packet, E>> + Send + Unpin,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut taken = 0;
        loop {
            let next = packet
                .ok_or(SendError::Ended)?
                .map_err(|e| SendError::Stream(e.into()))?;
            match self.sender.packet(&next).map_err(SendError::Protocol)? {
                Action::Continue => {}
                Action::Abort(text) => return Err(SendError::Receiver(text)),
                Action::Finish(packet) => {
                    self.queue.push(packet);
                    return Ok(true);
                }
            }
            taken += 1;
            if taken == REQUESTS_PER_TURN {
                return Ok(false);
            }
            match ready(inbound).await {
                Some(next) => packet = next,
                None => return Ok(false),
            }
        }
    }

    /// Puts as much into the wire's channel as it takes now.
    fn flush(&mut self, outbound: &mpsc::Sender<Packet>) {
        let places = outbound.max_capacity();
        while !self.queue.is_empty()
            && outbound.capacity() >= self.queue.places_needed(places)
            && let Ok(permit) = outbound.try_reserve()
            && let Some(packet) = self.queue.pop()
        {
            permit.send(packet);
        }
    }

    fn start_readers(&mut self) {
        while self.readers.len() < FILE_READERS && self.sender.has_waiting() {
            let files = self.sender.next_files();
            for file in &files {
                self.observer.requested(&file.path, file.size);
            }
            let (tree, observer) = (Arc::clone(&self.tree), Arc::clone(&self.observer));
            let (pieces, stop) = (self.pieces_in.clone(), Arc::clone(&self.stop.0));
            let (buffers, change) = (Arc::clone(&self.buffers), self.change);
            self.readers.spawn_blocking(move || {
                read_files(&*tree, &files, change, &buffers, &*observer, &stop, &mut |read| {
                    pieces.blocking_send(read).is_ok()
                });
            });
        }
    }

    fn poll_work(&mut self, cx: &mut Context<'_>, listing_first: bool) -> Poll<Work> {
        if let Poll::Ready(Some(ended)) = self.readers.poll_join_next(cx) {
            return Poll::Ready(Work::ReaderEnded(ended));
        }
        for listing in [listing_first, !listing_first] {
            if listing && !self.listing_over {
                if let Poll::Ready(listed) = self.listing.poll_recv(cx) {
                    return Poll::Ready(Work::Listed(listed));
                }
            } else if !listing && let Poll::Ready(Some(read)) = self.pieces.poll_recv(cx) {
                return Poll::Ready(Work::Read(read));
            }
        }
        Poll::Pending
    }

    fn take(&mut self, work: Work) -> Result<(), SendError> {
        match work {
            Work::ReaderEnded(ended) => ended.map_err(|_| SendError::TaskLost)?,
            // The channel closed without the word that ends it.
            Work::Listed(None) => return Err(SendError::TaskLost),
            Work::Listed(Some(items)) => {
                for item in items {
                    let packet = match item {
                        Listing::Entry(stat, identity) => self.sender.identified(stat, identity),
                        Listing::End { sockets } => {
                            self.sockets = sockets;
                            self.listing_over = true;
                            self.sender.end_of_listing()
                        }
                        Listing::Failed(err) => return Err(SendError::List(err)),
                    };
                    self.queue.push(packet.map_err(SendError::Protocol)?);
                }
            }
            Work::Read(pieces) => {
                for Piece { id, data, last } in pieces.map_err(SendError::File)? {
                    if !data.is_empty() {
                        self.queue.push(self.sender.data(id, data));
                    }
                    if last {
                        self.queue.push(self.sender.end_of_file(id));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Walks the tree, on a blocking thread, until it is over or nobody listens.
fn list(tree: &dyn Tree, options: &SendOptions, out: &mpsc::Sender<Vec<Listing>>, stop: &AtomicBool) {
    let filter = match Filter::new(tree, &options.filter) {
        Ok(filter) => filter,
        Err(err) => {
            // Nobody listens any more if this fails.
            let _ = out.blocking_send(vec![Listing::Failed(err.into())]);
            return;
        }
    };
    let walk = Walk::new(tree, &filter, options.names, &*options.observer, stop);
    std::thread::scope(|scope| hand_over(tree, walk.helped(scope), options, out, stop));
}

/// Hands over what a walk yields.
fn hand_over(
    tree: &dyn Tree,
    mut walk: Walk<'_>,
    options: &SendOptions,
    out: &mpsc::Sender<Vec<Listing>>,
    stop: &AtomicBool,
) {
    let observer = &*options.observer;
    let mut links = HardLinks::new();
    let mut stamper = Stamper::new(tree, &options.policies.sync, stop);
    let (mut entries, mut bytes) = (0u64, 0u64);
    // The first entries leave at once, so that the peer has something to do; then more and more together.
    let (mut batch, mut size) = (Vec::new(), 1);
    for item in walk.by_ref() {
        let message = match item {
            Ok(entry) => {
                let link = links.link_target(&entry);
                let mod_time = stamper.mod_time(&entry);
                let identity = identity(&entry.meta);
                let stat = stat_of(entry, link, &options.policies, mod_time);
                entries += 1;
                if bk_proto::Mode::from_bits(stat.mode).is_regular() && stat.linkname.is_empty() {
                    bytes = bytes.saturating_add(stat.size.unsigned_abs());
                }
                observer.listed(entries, bytes);
                Listing::Entry(stat, identity)
            }
            Err(err) => Listing::Failed(err),
        };
        let failed = matches!(message, Listing::Failed(_));
        batch.push(message);
        if failed || batch.len() >= size {
            if out.blocking_send(std::mem::take(&mut batch)).is_err() || failed {
                return;
            }
            size = (size * 2).min(LISTING_BATCH);
            batch.reserve(size);
        }
    }
    if let Err(err) = stamper.finish() {
        let reason = err.to_string();
        observer.warning(&Warning::HashesNotSaved { reason: &reason });
    }
    if !stop.load(Ordering::Relaxed) {
        batch.push(Listing::End {
            sockets: walk.sockets_skipped(),
        });
        // Nobody listens any more if this fails.
        let _ = out.blocking_send(batch);
    }
}

/// Tells the peer why the transfer failed, unless it goes away first. Its packets are still taken.
pub(crate) async fn tell<S, E>(
    inbound: &mut S,
    outbound: &mpsc::Sender<Packet>,
    err: &(dyn Error + Send + Sync),
) where
    S: Stream<Item = Result<Packet, E>> + Send + Unpin,
{
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text.push_str(": ");
        text.push_str(&err.to_string());
        cause = err.source();
    }
    let gone = async { while let Some(Ok(_)) = next(inbound).await {} };
    tokio::select! {
        biased;
        // Fails only if nobody is there to be told.
        _ = outbound.send(Sender::error(&text)) => {}
        () = gone => {}
    }
}

pub(crate) async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|cx| std::pin::Pin::new(&mut *stream).poll_next(cx)).await
}

/// The next item of the stream if it is there by now.
async fn ready<S: Stream + Unpin>(stream: &mut S) -> Option<Option<S::Item>> {
    poll_fn(|cx| match std::pin::Pin::new(&mut *stream).poll_next(cx) {
        Poll::Ready(item) => Poll::Ready(Some(item)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
