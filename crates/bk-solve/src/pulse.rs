//! Whether anything comes from a daemon: a byte stream that notes it, and the watch over a build's streams.
//!
//! The rule: every byte counts, an answer to a ping like any other. What a step does or says is no sign of life.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bk_build::{LastSeen, Obstacle};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{
    dial::BoxedIo,
    limits::{STALL_LAST_LOOK, STALL_LATE, STALL_LOOK},
};

/// What was heard from one byte stream: counts, and what ended it if that is known.
#[derive(Debug)]
pub struct Pulse {
    epoch: Instant,
    /// Milliseconds since then at which the last byte came.
    heard: AtomicU64,
    /// Bytes that were written in all, and how many of them at the time of the last byte that came.
    written: AtomicU64,
    answered: AtomicU64,
    /// What stood in the way when reading failed: HTTP/2 passes on no more of an error than its words.
    obstacle: OnceLock<Obstacle>,
}

impl Pulse {
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            heard: AtomicU64::new(0),
            written: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            obstacle: OnceLock::new(),
        }
    }

    fn note_read(&self) {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(now, Ordering::Relaxed);
        self.answered
            .store(self.written.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn note_failure(&self, error: &io::Error) {
        if let Some(obstacle) = Obstacle::of(error) {
            // The first failure is the cause of what follows.
            self.obstacle.get_or_init(|| obstacle);
        }
    }

    /// What stood in the way when the stream could not be read any more, if that is known.
    pub fn obstacle(&self) -> Option<Obstacle> {
        self.obstacle.get().copied()
    }

    /// When the last byte came; the beginning of the stream counts as one.
    pub fn heard_at(&self) -> Instant {
        self.epoch + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    /// Bytes that were written since the last byte came.
    pub fn unanswered(&self) -> u64 {
        let answered = self.answered.load(Ordering::Relaxed);
        self.written.load(Ordering::Relaxed).saturating_sub(answered)
    }
}

/// A byte stream that notes what comes.
pub(crate) struct Heard {
    io: BoxedIo,
    pulse: Arc<Pulse>,
}

/// Watches `io`.
pub fn watched(io: BoxedIo) -> (BoxedIo, Arc<Pulse>) {
    let pulse = Arc::new(Pulse::new());
    let heard = Heard {
        io,
        pulse: pulse.clone(),
    };
    (Box::new(heard), pulse)
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.pulse.note_read();
        }
        if let Err(e) = &result {
            self.pulse.note_failure(e);
        }
        Poll::Ready(result)
    }
}

impl Heard {
    fn wrote(&self, result: io::Result<usize>) -> Poll<io::Result<usize>> {
        if let Ok(count) = result {
            self.pulse.written.fetch_add(count as u64, Ordering::Relaxed);
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.io).poll_write(cx, buf));
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices));
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The watch over the streams of one build. Each of them must be heard: one that is stuck holds the build up as much as all.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    pulses: Vec<Arc<Pulse>>,
}

impl Watch {
    /// Watches those streams.
    pub fn new(pulses: impl IntoIterator<Item = Arc<Pulse>>) -> Self {
        Self {
            pulses: pulses.into_iter().collect(),
        }
    }

    /// Waits until nothing came on one of the streams for that long; for ever when there is no bound or no stream.
    ///
    /// Only time in which this process listened counts. It may have been stopped meanwhile (`SIGSTOP`, a laptop that slept),
    /// or held up by a callback that blocks: the daemon was asked nothing then, and gets the whole bound to answer after it.
    pub async fn silence(&self, bound: Option<Duration>) {
        let Some(bound) = bound else {
            return std::future::pending().await;
        };
        let late = (bound / 8).max(STALL_LATE);
        let mut listening = Instant::now();
        loop {
            let Some(heard) = self.quietest() else {
                return std::future::pending().await;
            };
            let due = heard.max(listening) + bound;
            let now = Instant::now();
            if due <= now {
                // sleep: gives what has come, but was not read yet, its turn.
                tokio::time::sleep(STALL_LAST_LOOK).await;
                if self.quietest() == Some(heard) {
                    return;
                }
                continue;
            }
            let look = due.min(now + STALL_LOOK);
            // sleep: the bound itself, in pieces whose lateness tells whether this process ran; bytes only move it on.
            tokio::time::sleep_until(look).await;
            let now = Instant::now();
            if now > look + late {
                listening = now;
            }
        }
    }

    fn quietest(&self) -> Option<Instant> {
        self.pulses.iter().map(|p| p.heard_at()).min()
    }

    /// What is known of the daemon now. `health` is how long ago it asked for the health of the session.
    pub fn seen(&self, health: Option<Duration>) -> LastSeen {
        let mut seen = LastSeen::new();
        seen.health = health;
        seen.heard = self.pulses.iter().map(|p| p.heard_at().elapsed()).min();
        seen.unanswered = self.pulses.iter().map(|p| p.unanswered()).sum();
        seen
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_what_nothing_interrupts() {
        let (ours, mut theirs) = duplex(1000);
        let (mut ours, pulse) = watched(Box::new(ours));
        let begun = Instant::now();
        let watch = Watch::new([pulse]);
        let reading = async {
            let mut buffer = [0; 10];
            loop {
                ours.read_exact(&mut buffer[..1]).await.expect("reads");
                ours.write_all(b"12345").await.expect("writes");
            }
        };
        let speaking = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(9)).await; // sleep: the daemon's pace
                theirs.write_all(b"x").await.expect("writes");
            }
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = reading => {}
            () = speaking => {}
            () = watch.silence(Some(Duration::from_secs(10))) => {}
        }
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_secs(37) && took < Duration::from_secs(38),
            "{took:?}"
        );
        let seen = watch.seen(None);
        assert_eq!((seen.unanswered, seen.heard.map(|h| h.as_secs())), (5, Some(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_this_process_stood_still_is_no_silence() {
        let (ours, mut theirs) = duplex(10);
        let (mut ours, pulse) = watched(Box::new(ours));
        let watch = Watch::new([pulse]);
        let begun = Instant::now();
        let reading = async {
            let mut buffer = [0; 1];
            loop {
                ours.read_exact(&mut buffer).await.expect("reads");
            }
        };
        let standing_still = async {
            tokio::task::yield_now().await;
            // Nobody was asked anything meanwhile, and the answer to what is asked now needs its time.
            tokio::time::advance(Duration::from_secs(60)).await;
            tokio::time::sleep(Duration::from_secs(3)).await; // sleep: the daemon's pace
            theirs.write_all(b"x").await.expect("writes");
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = reading => {}
            () = standing_still => {}
            () = watch.silence(Some(Duration::from_secs(10))) => {}
        }
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_secs(73) && took < Duration::from_secs(75),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_bound_nothing_ends() {
        let (ours, _theirs) = duplex(10);
        let (_ours, pulse) = watched(Box::new(ours));
        let watch = Watch::new([pulse]);
        let day = Duration::from_secs(24 * 3600);
        assert!(tokio::time::timeout(day, watch.silence(None)).await.is_err());
        assert!(
            tokio::time::timeout(day, Watch::default().silence(Some(Duration::ZERO)))
                .await
                .is_err()
        );
    }
}
