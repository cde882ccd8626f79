//! The session's byte stream inside the gRPC call `Control/Session`.
//!
//! Messages are arbitrary slices of the stream and have no meaning as frames. Nothing is sent to accept a session: the
//! first bytes that arrive are already the daemon's HTTP/2 preface. Closing our side half-closes the call, which the
//! daemon notices at once.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bk_proto::control::BytesMessage;
use bytes::{Buf, Bytes};
use futures_core::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::PollSender;

use crate::limits::{TUNNEL_CHUNK, TUNNEL_QUEUE};

/// A byte stream over two streams of messages.
pub struct Tunnel<S> {
    inbound: S,
    unread: Bytes,
    outbound: PollSender<BytesMessage>,
}

/// The sending half of a tunnel, before the call is made: hand the stream to `Control/Session`, then
/// [`open`](TunnelSender::open) the tunnel on the stream that the call returns.
pub struct TunnelSender(mpsc::Sender<BytesMessage>);

impl TunnelSender {
    /// A sender, and the stream of messages for the call.
    pub fn new() -> (Self, ReceiverStream<BytesMessage>) {
        let (sender, receiver) = mpsc::channel(TUNNEL_QUEUE);
        (Self(sender), ReceiverStream::new(receiver))
    }

    /// The whole tunnel, on the messages that the daemon sends.
    pub fn open<S>(self, inbound: S) -> Tunnel<S>
    where
        S: Stream<Item = Result<BytesMessage, tonic::Status>> + Unpin,
    {
        Tunnel {
            inbound,
            unread: Bytes::new(),
            outbound: PollSender::new(self.0),
        }
    }
}

impl<S> AsyncRead for Tunnel<S>
where
    S: Stream<Item = Result<BytesMessage, tonic::Status>> + Unpin,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.inbound).poll_next(cx)) {
                Some(Ok(message)) => self.unread = message.data,
                Some(Err(status)) => return Poll::Ready(Err(io::Error::other(status))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let take = buf.remaining().min(self.unread.len());
        buf.put_slice(&self.unread[..take]);
        self.unread.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl<S: Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.as_mut().poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.iter().all(|s| s.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        ready!(self.outbound.poll_reserve(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        let total = slices.iter().map(|s| s.len()).sum::<usize>().min(TUNNEL_CHUNK);
        let mut data = Vec::with_capacity(total);
        for slice in slices {
            let take = slice.len().min(total - data.len());
            data.extend_from_slice(&slice[..take]);
        }
        self.outbound
            .send_item(BytesMessage { data: data.into() })
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbound.close();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn messages(parts: &[&'static [u8]]) -> Vec<Result<BytesMessage, tonic::Status>> {
        parts
            .iter()
            .map(|p| {
                Ok(BytesMessage {
                    data: Bytes::from_static(p),
                })
            })
            .collect()
    }

    #[tokio::test]
    async fn slices_join_and_empty_messages_are_no_end() {
        let (sender, _out) = TunnelSender::new();
        let mut tunnel = sender.open(tokio_stream::iter(messages(&[b"PRI", b"", b" * HTTP"])));
        let mut all = Vec::new();
        tunnel.read_to_end(&mut all).await.expect("reads");
        assert_eq!(all, b"PRI * HTTP");
    }

    #[tokio::test]
    async fn large_writes_are_cut_and_shutdown_half_closes() {
        let (sender, mut out) = TunnelSender::new();
        let mut tunnel = sender.open(tokio_stream::iter(messages(&[])));
        let data = vec![7u8; TUNNEL_CHUNK + 10];
        let write = async {
            tunnel.write_all(&data).await.expect("writes");
            tunnel.shutdown().await.expect("shuts down");
        };
        let read = async {
            let mut sizes = Vec::new();
            while let Some(message) = out.next().await {
                sizes.push(message.data.len());
            }
            sizes
        };
        let ((), sizes) = tokio::join!(write, read);
        assert_eq!(sizes, [TUNNEL_CHUNK, 10]);
    }

    #[tokio::test]
    async fn a_lost_call_is_a_broken_pipe() {
        let (sender, out) = TunnelSender::new();
        let mut tunnel = sender.open(tokio_stream::iter(vec![Err(tonic::Status::unavailable("gone"))]));
        drop(out);
        let e = tunnel.write_all(b"x").await.expect_err("must fail");
        assert_eq!(e.kind(), io::ErrorKind::BrokenPipe);
        assert!(tunnel.read_u8().await.is_err());
    }
}
