//! Steps the machine through what honest and other peers send.

use super::*;
use crate::path::PathFault;
use bk_proto::Mode;
use bk_proto::fsutil::Stat;

fn stat(path: impl AsRef<[u8]>, mode: u32, size: i64) -> Stat {
    Stat {
        path: path.as_ref().to_vec(),
        mode,
        size,
        ..Stat::default()
    }
}

fn entry(stat: Stat) -> Packet {
    Packet {
        stat: Some(stat),
        ..Packet::default()
    }
}

fn typed(packet_type: PacketType) -> Packet {
    Packet {
        r#type: packet_type.into(),
        ..Packet::default()
    }
}

fn data(id: u32, bytes: &'static [u8]) -> Packet {
    Packet {
        id,
        data: Bytes::from_static(bytes),
        ..typed(PacketType::PacketData)
    }
}

/// a/ (0), a/b/ (1), a/b/f (2, 10 bytes), a/l (3, a link to "x"), a-f (4, empty)
fn listed() -> Receiver {
    let mut receiver = Receiver::new();
    for (path, mode, size) in [
        ("a", Mode::DIR | 0o755, 4096),
        ("a/b", Mode::DIR | 0o755, 0),
        ("a/b/f", 0o644, 10),
        ("a/l", Mode::SYMLINK | 0o777, 1),
        ("a-f", 0o600, 0),
    ] {
        let mut stat = stat(path, mode, size);
        if mode & Mode::SYMLINK != 0 {
            stat.linkname = b"x".to_vec();
        }
        receiver.packet(entry(stat)).unwrap();
    }
    receiver
}

/// The listing followed by one entry.
fn then(stat: Stat) -> Result<Action, ProtocolError> {
    listed().packet(entry(stat))
}

#[test]
fn a_whole_transfer() {
    let mut receiver = Receiver::new();
    let mut sent = stat("f", Mode::SETUID | 0o755, 3);
    (sent.uid, sent.gid, sent.mod_time) = (5, 6, -7);
    sent.xattrs.insert("user.a".to_owned(), vec![1]);
    let Ok(Action::Entry(got)) = receiver.packet(entry(sent)) else {
        panic!("an entry");
    };
    assert_eq!(
        (got.id, &got.path[..], &got.body),
        (0, &b"f"[..], &Body::File { size: 3 })
    );
    assert_eq!((got.mode, got.uid, got.gid, got.mtime_ns), (0o4755, 5, 6, -7));
    assert_eq!(got.xattrs["user.a"], [1]);
    let request = receiver.request(0).unwrap();
    assert_eq!((request.r#type, request.id), (1, 0));
    assert_eq!(receiver.finish(), Err(ProtocolError::EarlyFinish));
    assert!(
        matches!(receiver.packet(Packet::default()), Ok(Action::EndOfListing(names)) if names.len() == 1)
    );
    assert_eq!(receiver.finish(), Err(ProtocolError::EarlyFinish));
    for piece in [&b"ab"[..], b"c"] {
        let action = receiver.packet(data(0, piece));
        assert_eq!(
            action,
            Ok(Action::Data {
                id: 0,
                data: Bytes::from_static(piece)
            })
        );
    }
    assert_eq!(receiver.packet(data(0, b"")), Ok(Action::EndOfFile { id: 0 }));
    assert!(!receiver.is_finishing());
    assert_eq!(receiver.finish().unwrap().r#type, 3);
    assert!(receiver.is_finishing());
    assert_eq!(
        receiver.packet(typed(PacketType::PacketFin)),
        Ok(Action::Finished)
    );
    assert_eq!(
        receiver.packet(typed(PacketType::PacketFin)),
        Err(ProtocolError::AfterEnd)
    );
}

#[test]
fn a_listing_out_of_order_is_refused() {
    let order = |path: &str, mode: u32| match then(stat(path, mode, 0)) {
        Err(ProtocolError::Order(err)) => err,
        other => panic!("{path}: {other:?}"),
    };
    let dir = Mode::DIR | 0o755;
    assert!(matches!(order("a", dir), OrderError::OutOfOrder { .. }));
    assert!(matches!(order("a-f", 0), OrderError::OutOfOrder { .. }));
    assert!(matches!(order("a/c", 0), OrderError::OutOfOrder { .. }));
    assert!(matches!(order("A", 0), OrderError::OutOfOrder { .. }));
    assert!(matches!(order("b/c", 0), OrderError::NoParent { .. }));
    assert!(matches!(order("a-f/x", 0), OrderError::NoParent { .. }));
    assert!(matches!(order("", dir), OrderError::NoPath));
    for (path, fault) in [
        ("/z", PathFault::Absolute),
        ("z/../../y", PathFault::Escapes),
        ("..", PathFault::Escapes),
        (".", PathFault::Unclean),
        ("z//y", PathFault::Unclean),
        ("z/", PathFault::Unclean),
        ("./z", PathFault::Unclean),
        ("z\0", PathFault::BadByte),
    ] {
        assert!(
            matches!(order(path, 0), OrderError::Path(err) if err.fault == fault),
            "{path:?}"
        );
    }
    // Below a link that was listed.
    let mut receiver = Receiver::new();
    let mut link = stat("l", Mode::SYMLINK | 0o777, 4);
    link.linkname = b"/etc".to_vec();
    receiver.packet(entry(link)).unwrap();
    let below = receiver.packet(entry(stat("l/passwd", 0o644, 1)));
    assert!(matches!(
        below,
        Err(ProtocolError::Order(OrderError::NoParent { .. }))
    ));
}

#[test]
fn entries_that_cannot_be_are_refused() {
    let fault = |stat: Stat| match then(stat) {
        Err(ProtocolError::BadEntry { fault, .. }) => fault,
        other => panic!("{other:?}"),
    };
    let linked = |mut stat: Stat, target: &[u8]| {
        stat.linkname = target.to_vec();
        stat
    };
    assert_eq!(
        fault(stat(vec![b'x'; RECEIVED_PATH_MAX + 1], 0, 0)),
        EntryFault::TooLong
    );
    assert_eq!(
        fault(linked(
            stat("z", Mode::SYMLINK, 0),
            &vec![b'x'; RECEIVED_PATH_MAX + 1]
        )),
        EntryFault::TooLong
    );
    assert_eq!(fault(stat("z", 0o644, -1)), EntryFault::Size);
    for mode in [
        Mode::SOCKET,
        Mode::IRREGULAR,
        Mode::DIR | Mode::SYMLINK,
        Mode::CHAR_DEVICE,
        Mode::SYMLINK | Mode::NAMED_PIPE,
    ] {
        assert_eq!(fault(stat("z", mode, 0)), EntryFault::Kind { mode });
    }
    assert_eq!(fault(stat("z", Mode::SYMLINK, 0)), EntryFault::Target);
    assert_eq!(
        fault(linked(stat("z", Mode::SYMLINK, 0), b"a\0b")),
        EntryFault::Target
    );
    let mut device = stat("z", Mode::DEVICE, 0);
    device.devmajor = -1;
    assert_eq!(fault(device), EntryFault::Device);
    for target in [
        "z",
        "zz",
        "a",
        "a/l",
        "../x",
        "/etc/passwd",
        "a/b",
        "a/b/../b/f",
        "a/b/f/",
    ] {
        let link = linked(stat("z", 0o644, 0), target.as_bytes());
        assert_eq!(
            fault(link),
            EntryFault::Link {
                target: target.to_owned()
            }
        );
    }
    // The kinds must agree.
    let pipe = linked(stat("z", Mode::NAMED_PIPE, 0), b"a/b/f");
    assert!(matches!(fault(pipe), EntryFault::Link { .. }));
}

use crate::limits::RECEIVED_PATH_MAX;

#[test]
fn links_to_what_was_listed_pass_and_are_never_requested() {
    let mut receiver = listed();
    let mut link = stat("z", 0o644, 10);
    link.linkname = b"a/b/f".to_vec();
    let Ok(Action::Entry(got)) = receiver.packet(entry(link.clone())) else {
        panic!("an entry");
    };
    let target = b"a/b/f".to_vec();
    assert_eq!(
        got.body,
        Body::HardLink {
            target,
            kind: Kind::File
        }
    );
    assert_eq!(
        receiver.request(got.id),
        Err(ProtocolError::NotRequestable { id: 5 })
    );
    // But not a link to a link.
    (link.path, link.linkname) = (b"zz".to_vec(), b"z".to_vec());
    assert!(matches!(
        receiver.packet(entry(link)),
        Err(ProtocolError::BadEntry { .. })
    ));
}

#[test]
fn files_are_requested_once_and_nothing_else_is() {
    let mut receiver = listed();
    for id in [0, 1, 3, 5, u32::MAX] {
        assert_eq!(receiver.request(id), Err(ProtocolError::NotRequestable { id }));
    }
    for id in [2, 4] {
        assert_eq!(receiver.request(id).unwrap().id, id);
        assert_eq!(receiver.request(id), Err(ProtocolError::NotRequestable { id }));
    }
    receiver.packet(data(4, b"")).unwrap();
    assert_eq!(receiver.request(4), Err(ProtocolError::NotRequestable { id: 4 }));
}

#[test]
fn content_that_was_not_asked_for_is_refused() {
    let mut receiver = listed();
    receiver.request(2).unwrap();
    for id in [0, 1, 3, 4, 5, u32::MAX] {
        for bytes in [&b""[..], b"x"] {
            let err = receiver.packet(data(id, bytes)).unwrap_err();
            assert_eq!(err.to_string(), format!("invalid file id {id}"));
        }
    }
    receiver.packet(data(2, b"0123456789")).unwrap();
    receiver.packet(data(2, b"")).unwrap();
    assert_eq!(
        receiver.packet(data(2, b"")),
        Err(ProtocolError::InvalidFileId { id: 2 })
    );
}

#[test]
fn a_file_has_exactly_the_announced_size() {
    let wrong = |pieces: &[&'static [u8]], what| {
        let mut receiver = listed();
        receiver.request(2).unwrap();
        let (last, first) = pieces.split_last().unwrap();
        for piece in first {
            receiver.packet(data(2, piece)).unwrap();
        }
        let err = receiver.packet(data(2, last)).unwrap_err();
        let text = format!("file \"a/b/f\" arrived with {what} than the 10 bytes that were announced");
        assert_eq!(err.to_string(), text);
    };
    wrong(&[b""], "less");
    wrong(&[b"012345678", b""], "less");
    wrong(&[b"0123456789a"], "more");
    wrong(&[b"0123456789", b"a"], "more");
    let mut receiver = listed();
    receiver.request(4).unwrap();
    assert!(matches!(
        receiver.packet(data(4, b"x")),
        Err(ProtocolError::WrongSize { announced: 0, .. })
    ));
}

#[test]
fn the_end_comes_at_the_end() {
    let fin = || typed(PacketType::PacketFin);
    for mut receiver in [Receiver::new(), listed()] {
        assert_eq!(receiver.packet(fin()), Err(ProtocolError::EarlyFinish));
    }
    let mut receiver = listed();
    receiver.packet(Packet::default()).unwrap();
    assert_eq!(receiver.packet(fin()), Err(ProtocolError::EarlyFinish));
    assert_eq!(receiver.packet(Packet::default()), Err(ProtocolError::AfterEnd));
    assert_eq!(
        receiver.packet(entry(stat("z", 0, 0))),
        Err(ProtocolError::AfterEnd)
    );
    receiver.finish().unwrap();
    assert_eq!(receiver.finish(), Err(ProtocolError::EarlyFinish));
    assert_eq!(
        receiver.packet(data(2, b"x")),
        Err(ProtocolError::InvalidFileId { id: 2 })
    );
}

#[test]
fn an_error_of_the_peer_aborts_at_every_point() {
    let mut long = typed(PacketType::PacketErr);
    long.data = vec![b'x'; 10 * PEER_TEXT_MAX].into();
    let mut finishing = listed();
    finishing.packet(Packet::default()).unwrap();
    finishing.finish().unwrap();
    for mut receiver in [Receiver::new(), listed(), finishing] {
        assert!(
            matches!(receiver.packet(long.clone()), Ok(Action::Abort(text)) if text.len() == PEER_TEXT_MAX)
        );
        assert_eq!(receiver.packet(long.clone()), Err(ProtocolError::AfterEnd));
    }
}

#[test]
fn only_a_senders_packets_are_taken() {
    for packet_type in [1, 5, -1, i32::MAX] {
        let strange = Packet {
            r#type: packet_type,
            ..Packet::default()
        };
        let err = listed().packet(strange).unwrap_err();
        assert_eq!(err, ProtocolError::UnexpectedPacket { packet_type });
    }
}
