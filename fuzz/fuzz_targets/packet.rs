//! Packets of a file transfer, from any bytes: decoding never panics, and what was decoded means the same again.

#![no_main]

use bk_proto::Mode;
use bk_proto::fsutil::Packet;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let Ok(packet) = Packet::decode(data) else { return };
    // The session decodes out of a shared buffer, without a copy.
    assert_eq!(Packet::decode(Bytes::copy_from_slice(data)), Ok(packet.clone()));
    let encoded = packet.encode_to_vec();
    assert_eq!(encoded.len(), packet.encoded_len());
    assert_eq!(Packet::decode(&encoded[..]), Ok(packet.clone()));
    let Some(stat) = packet.stat else { return };
    let mode = Mode::from_bits(stat.mode);
    assert!(u8::from(mode.is_dir()) + u8::from(mode.is_regular()) + u8::from(mode.is_symlink()) <= 2);
    assert!(!(mode.is_regular() && (mode.is_dir() || mode.is_symlink())));
    let _ = (format!("{mode:?}"), mode.without_socket(), mode.with_perm(stat.uid));
});
