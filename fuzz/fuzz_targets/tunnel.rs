//! The session's byte stream in messages: whatever the cuts, bytes arrive in order and whole, and never in a message
//! that is too large.

#![no_main]

use std::io::IoSlice;

use bk_fuzz::Write;
use bk_proto::control::BytesMessage;
use bk_session::{TunnelSender, limits::TUNNEL_CHUNK};
use futures_util::{FutureExt, StreamExt, future::join, stream};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fuzz_target!(|input: (Vec<Vec<u8>>, Vec<Write>)| {
    let (incoming, writes) = input;
    let (sender, outgoing) = TunnelSender::new();
    let messages = incoming.iter().cloned().map(|data| Ok(BytesMessage { data: data.into() }));
    let mut tunnel = sender.open(stream::iter(messages));
    let (mut written, mut read) = (Vec::new(), Vec::new());
    let talk = async {
        for (byte, first, second) in writes {
            let both = [vec![byte; usize::from(first) * 8], vec![!byte; usize::from(second) * 8]];
            let count = tunnel.write_vectored(&both.each_ref().map(|s| IoSlice::new(s))).await.expect("open");
            written.extend_from_slice(&both.concat()[..count]);
        }
        tunnel.shutdown().await.expect("closes");
        tunnel.read_to_end(&mut read).await.expect("ends");
    };
    let collect = outgoing.map(|message| message.data.to_vec()).collect::<Vec<_>>();
    // Each side waits for the other only, so both are done at the first poll that waits for neither.
    let mut both = Box::pin(join(talk, collect));
    let sent = (0..1 << 20).find_map(|_| both.as_mut().now_or_never()).expect("no deadlock").1;
    drop(both);
    assert_eq!(read, incoming.concat());
    assert!(sent.iter().all(|m| !m.is_empty() && m.len() <= TUNNEL_CHUNK));
    assert_eq!(sent.concat(), written);
});
