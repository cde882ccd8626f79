//! A receiver that takes packets as fast as they come and keeps nothing but counts.

use std::collections::VecDeque;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bk_fsync::tree::Tree;
use bk_fsync::{SendOptions, send};
use bk_proto::Mode;
use bk_proto::fsutil::Packet;
use bk_proto::fsutil::packet::PacketType;
use futures_core::Stream;
use tokio::sync::mpsc;

/// Packets that wait between the halves, as in a session.
const PACKETS: usize = 64;

/// Which files the receiver asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a benchmark chooses one of them")]
pub enum Wanted {
    /// Every regular file.
    Everything,
    /// None: the peer has them all.
    Nothing,
}

/// What has arrived.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Entries.
    pub entries: u64,
    /// Files that ended.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Runs the receiving half on packets `from` a sender until the sender confirms the end.
///
/// # Errors
/// What the stream says, or that the sender failed or went away.
pub async fn receive<S, E>(
    mut from: S,
    to: mpsc::Sender<Packet>,
    wanted: Wanted,
) -> Result<Received, Box<dyn Error + Send + Sync>>
where
    S: Stream<Item = Result<Packet, E>> + Unpin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let mut got = Received::default();
    let (mut requests, mut requested, mut listed) = (VecDeque::new(), 0u64, false);
    loop {
        let next = tokio::select! {
            next = poll_fn(|cx| Pin::new(&mut from).poll_next(cx)) => next,
            permit = to.reserve(), if !requests.is_empty() => {
                if let Some(id) = requests.pop_front() {
                    permit?.send(packet(PacketType::PacketReq, id));
                }
                continue;
            }
        };
        let packet_in = next.ok_or("the sender went away")?.map_err(Into::into)?;
        match (PacketType::try_from(packet_in.r#type)?, packet_in.stat) {
            (PacketType::PacketStat, Some(stat)) => {
                if wanted == Wanted::Everything && Mode::from_bits(stat.mode).is_regular() {
                    requests.push_back(u32::try_from(got.entries)?);
                    requested += 1;
                }
                got.entries += 1;
            }
            (PacketType::PacketStat, None) => listed = true,
            (PacketType::PacketData, _) => {
                got.bytes += packet_in.data.len() as u64;
                got.files += u64::from(packet_in.data.is_empty());
            }
            (PacketType::PacketFin, _) => return Ok(got),
            (PacketType::PacketErr, _) => return Err(String::from_utf8_lossy(&packet_in.data).into()),
            (PacketType::PacketReq, _) => return Err("the sender sent a request".into()),
        }
        if listed && got.files == requested {
            to.send(packet(PacketType::PacketFin, 0)).await?;
        }
    }
}

/// Sends `tree` to a receiver in the same process, over channels.
///
/// # Errors
/// Whatever either half says.
pub async fn transfer(tree: Arc<dyn Tree>, wanted: Wanted) -> Result<Received, Box<dyn Error + Send + Sync>> {
    let (to_sender, requests) = mpsc::channel(PACKETS);
    let (outbound, packets) = mpsc::channel(PACKETS);
    let receiving = tokio::spawn(receive(Packets(packets), to_sender, wanted));
    send(tree, SendOptions::new(), Packets(requests), outbound).await?;
    receiving.await?
}

fn packet(packet_type: PacketType, id: u32) -> Packet {
    Packet {
        r#type: packet_type.into(),
        id,
        ..Packet::default()
    }
}

struct Packets(mpsc::Receiver<Packet>);

impl Stream for Packets {
    type Item = Result<Packet, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|packet| packet.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Generated;

    #[tokio::test]
    async fn everything_and_nothing_arrive() {
        let tree = Arc::new(Generated::new(250, 300_000));
        let all = transfer(tree.clone(), Wanted::Everything).await.unwrap();
        assert_eq!((all.entries, all.files, all.bytes), (253, 250, 75_000_000));
        let none = transfer(tree, Wanted::Nothing).await.unwrap();
        assert_eq!((none.entries, none.files, none.bytes), (253, 0, 0));
    }
}
