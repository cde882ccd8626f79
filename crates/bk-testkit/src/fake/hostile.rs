//! What only a hostile daemon sends: far too much, made while it is taken, so that nothing of it waits here.

use std::time::SystemTime;

use bk_proto::control::{BytesMessage, StatusResponse, Vertex, VertexLog};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;
use tonic::{
    Status, Streaming,
    metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue},
};

/// Bytes of one header's value.
const VALUE: usize = 8 * 1024;
/// Streams in one message of the tunnel.
const STREAMS_AT_ONCE: u32 = 500;

/// Fills headers with that many bytes.
pub(crate) fn bomb(map: &mut MetadataMap, name: &str, bytes: usize) {
    let value = MetadataValue::<Ascii>::try_from("x".repeat(VALUE));
    let name = MetadataKey::<Ascii>::from_bytes(name.as_bytes());
    let (Ok(value), Ok(name)) = (value, name) else {
        return;
    };
    for _ in 0..bytes / VALUE {
        map.append(name.clone(), value.clone());
    }
}

/// Tells of new steps until nobody listens.
pub(crate) async fn endless(sender: mpsc::Sender<Result<StatusResponse, Status>>, bytes: usize) {
    let output = Bytes::from(vec![b'x'; bytes]);
    let now = || Some(SystemTime::now().into());
    for number in 0u64.. {
        let digest = format!("sha256:{number:064x}");
        let message = StatusResponse {
            vertexes: vec![Vertex {
                digest: digest.clone(),
                name: format!("[{number}/{number}] RUN {number}"),
                started: now(),
                ..Vertex::default()
            }],
            logs: vec![VertexLog {
                vertex: digest,
                timestamp: now(),
                stream: 1,
                msg: output.clone(),
            }],
            ..StatusResponse::default()
        };
        if sender.send(Ok(message)).await.is_err() {
            return;
        }
    }
}

/// Opens streams on a session without an end, by frames that no HTTP/2 library would send.
pub(crate) async fn many_streams(
    mut inbound: Streaming<BytesMessage>,
    messages: mpsc::Sender<Result<BytesMessage, Status>>,
    streams: u32,
) {
    let sending = async {
        let mut data = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]);
        frame(&mut data, 4, 0, 0, b"");
        let request = request();
        for number in 0..streams {
            frame(&mut data, 1, 4, 2 * number + 1, &request);
            if number % STREAMS_AT_ONCE == 0 || number + 1 == streams {
                let data = data.split().freeze();
                if messages.send(Ok(BytesMessage { data })).await.is_err() {
                    return;
                }
            }
        }
        // Held open: the client has to end it.
        messages.closed().await;
    };
    let reading = async { while let Ok(Some(_)) = inbound.message().await {} };
    tokio::select! { () = sending => {}, () = reading => {} }
}

/// One frame of HTTP/2.
fn frame(out: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
    out.put_slice(payload);
}

/// The headers of a call that is never answered to its end, without a compression that needs a state.
fn request() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    };
    literal(&[0x04], "/grpc.health.v1.Health/Watch");
    literal(&[0x01], "localhost");
    literal(&[0x0f, 0x10], "application/grpc");
    literal(b"\x00\x02te", "trailers");
    block
}
