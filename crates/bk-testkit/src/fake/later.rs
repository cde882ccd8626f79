//! What a daemon of the future adds to every message: fields that nobody knows yet, one of each wire type.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tonic::body::Body;

/// A varint, a text, four and eight bytes, with numbers that no message of today has.
const FIELDS: &[u8] = &[
    0xc0, 0x3e, 0x2a, // 1000: 42
    0xca, 0x3e, 5, b'l', b'a', b't', b'e', b'r', // 1001: "later"
    0xd5, 0x3e, 1, 2, 3, 4, // 1002: fixed32
    0xd9, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8, // 1003: fixed64
];

/// Bytes before a gRPC message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// A gRPC body with more fields in each of its messages.
pub(crate) fn with_unknown_fields(body: Body) -> Body {
    let mut waiting = BytesMut::new();
    Body::new(body.map_frame(move |frame| match frame.into_data() {
        Ok(data) => {
            waiting.extend_from_slice(&data);
            Frame::data(longer(&mut waiting))
        }
        Err(frame) => frame,
    }))
}

/// Takes the whole messages from `waiting`, each made longer.
fn longer(waiting: &mut BytesMut) -> Bytes {
    let mut out = BytesMut::new();
    while let Some(&[flag, a, b, c, d]) = waiting.first_chunk::<HEAD>() {
        let length = u32::from_be_bytes([a, b, c, d]);
        let whole = length as usize + HEAD;
        if waiting.len() < whole {
            break;
        }
        let mut message = waiting.split_to(whole);
        message.advance(HEAD);
        out.put_u8(flag);
        out.put_u32(length + FIELDS.len() as u32);
        out.extend_from_slice(&message);
        out.extend_from_slice(FIELDS);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_get_longer_however_they_are_cut() {
        let mut waiting = BytesMut::from(&[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0][..]);
        let first = longer(&mut waiting);
        assert_eq!(first.len(), HEAD + 2 + FIELDS.len());
        assert_eq!(first[..7], [0, 0, 0, 0, 2 + FIELDS.len() as u8, 8, 1]);
        assert_eq!(&waiting[..], [0, 0, 0, 0]);
        waiting.put_u8(0);
        assert_eq!(longer(&mut waiting).len(), HEAD + FIELDS.len());
        assert!(waiting.is_empty());
    }
}
