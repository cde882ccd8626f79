//! One write for everything that an HTTP/2 connection has to say at a time.
//!
//! The connection hands over frames of at most 16 KiB, each followed by a flush. Written one by one they cost a system
//! call each, and wake the reader each time. Here they collect, and leave when there is enough of them or when the
//! connection has nothing more to do. The rule: nothing stays behind while the connection sleeps, which is why the
//! connection runs inside [`Coalescing`].

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::WRITE_BUFFER;

/// A stream that collects what is written to it.
pub(crate) struct Collected<IO>(Arc<Mutex<State<IO>>>);

/// Runs a connection on a [`Collected`] stream, and writes what has collected whenever the connection rests.
pub(crate) struct Coalescing<F, IO> {
    connection: F,
    state: Arc<Mutex<State<IO>>>,
}

struct State<IO> {
    io: IO,
    buffer: Vec<u8>,
    /// How much of the buffer has been written.
    written: usize,
    /// Whether the stream may hold back something that was written to it.
    unflushed: bool,
}

/// Runs what `connect` makes of a stream that collects writes to `io`.
pub(crate) fn coalescing<IO, F>(io: IO, connect: impl FnOnce(Collected<IO>) -> F) -> Coalescing<F, IO> {
    let state = Arc::new(Mutex::new(State {
        io,
        buffer: Vec::new(),
        written: 0,
        unflushed: false,
    }));
    Coalescing {
        connection: connect(Collected(state.clone())),
        state,
    }
}

/// Only one task ever has it, so nobody waits.
fn lock<IO>(state: &Mutex<State<IO>>) -> MutexGuard<'_, State<IO>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<IO: AsyncWrite + Unpin> State<IO> {
    /// Writes everything that has collected, and leaves nothing of it in the stream: one that encrypts has a buffer too.
    fn drain_and_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything that has collected.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.buffer.get(self.written..)
            && !rest.is_empty()
        {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.written += count;
                    self.unflushed = true;
                }
            }
        }
        self.buffer.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<F, IO, E> Future for Coalescing<F, IO>
where
    F: Future<Output = Result<(), E>> + Unpin,
    IO: AsyncWrite + Unpin,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = Result<(), Box<dyn std::error::Error + Send + Sync>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(result) = Pin::new(&mut self.connection).poll(cx) {
            return Poll::Ready(result.map_err(Into::into));
        }
        match lock(&self.state).drain_and_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            _ => Poll::Pending,
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Collected<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Collected<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        if state.buffer.len() >= WRITE_BUFFER {
            ready!(state.drain(cx))?;
        }
        let mut room = WRITE_BUFFER - state.buffer.len();
        let mut taken = 0;
        for slice in slices {
            let take = slice.len().min(room);
            state.buffer.extend_from_slice(&slice[..take]);
            taken += take;
            room -= take;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: [`Coalescing`] writes when the connection rests.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        ready!(state.drain_and_flush(cx))?;
        Pin::new(&mut state.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_written_leaves_when_the_connection_rests() {
        let (ours, mut theirs) = duplex(1 << 20);
        let running = coalescing(ours, |mut io| {
            let mut round = 0;
            Box::pin(async move {
                poll_fn(move |cx| {
                    round += 1;
                    for _ in 0..3 {
                        let wrote = Pin::new(&mut io).poll_write(cx, b"frame ");
                        assert!(matches!(wrote, Poll::Ready(Ok(6))));
                        assert!(Pin::new(&mut io).poll_flush(cx).is_ready());
                    }
                    assert_eq!(lock(&io.0).buffer.len(), 18, "round {round}");
                    Poll::<Result<(), io::Error>>::Pending
                })
                .await
            })
        });
        let running = tokio::spawn(running);
        let mut got = [0; 18];
        theirs.read_exact(&mut got).await.expect("arrives");
        assert_eq!(&got, b"frame frame frame ");
        running.abort();
    }

    #[tokio::test]
    async fn a_slow_reader_gets_every_byte_in_order() {
        let (ours, mut theirs) = duplex(1000);
        let sent: Vec<u8> = (0..3 * WRITE_BUFFER + 77).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let running = tokio::spawn(coalescing(ours, |mut io| {
            Box::pin(async move {
                io.write_all(&sent).await?;
                io.shutdown().await
            })
        }));
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.expect("arrives");
        assert!(got == expected);
        running.await.expect("no panic").expect("writes");
    }

    #[tokio::test]
    async fn nothing_stays_in_a_stream_that_holds_back() {
        let (ours, mut theirs) = duplex(1 << 20);
        let ours = tokio::io::BufWriter::new(ours);
        let running = tokio::spawn(coalescing(ours, |mut io| {
            Box::pin(async move {
                io.write_all(b"ping").await?;
                std::future::pending::<io::Result<()>>().await
            })
        }));
        let mut got = [0; 4];
        theirs.read_exact(&mut got).await.expect("arrives");
        assert_eq!(&got, b"ping");
        running.abort();
    }

    #[tokio::test]
    async fn a_lost_reader_ends_the_connection() {
        let (ours, theirs) = duplex(1000);
        drop(theirs);
        let error = coalescing(ours, |mut io| {
            Box::pin(async move {
                io.write_all(b"x").await?;
                std::future::pending::<io::Result<()>>().await
            })
        })
        .await
        .expect_err("nobody reads");
        assert!(error.downcast_ref::<io::Error>().is_some());
    }
}
