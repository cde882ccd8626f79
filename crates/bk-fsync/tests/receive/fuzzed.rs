//! Packets in any order, with any content: nothing outside of the destination changes, and nothing is left behind
//! that does not belong there.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use bk_fsync::ReceiveOptions;
use bk_fsync::receive::{DevicePolicy, ReceiveMode, Unchanged};
use bk_proto::Mode;
use bk_proto::fsutil::packet::PacketType;
use bk_proto::fsutil::{Packet, Stat};
use tokio::sync::mpsc;

use crate::random::Random;
use crate::support::{Inbound, Log, Scratch, look, typed};

/// Paths in order, of which each listing takes some.
const GOOD: [&str; 9] = ["a", "a/a", "a/b", "a/b/l", "a-", "b", "b/a", "l", "l/keep"];

/// Mostly the next good ones, or nothing would get far.
fn path(random: &mut Random, next: &mut usize) -> Vec<u8> {
    let bad = [
        "..",
        "",
        ".",
        "a/../b",
        "/a",
        "a//b",
        "../outside",
        "l/",
        "\0",
        "b/..",
        "zz/z",
    ];
    if random.below(30) == 0 {
        return bad[usize::try_from(random.below(11)).unwrap()].into();
    }
    *next += usize::from(random.below(20) > 0);
    GOOD[(*next - usize::from(*next > 0)) % GOOD.len()].into()
}

fn packet(random: &mut Random, next: &mut usize) -> Packet {
    let id = u32::try_from(random.below(6)).unwrap();
    match random.below(40) {
        0..=34 => {
            let types = [0, Mode::SYMLINK, Mode::NAMED_PIPE, Mode::DEVICE, Mode::SOCKET];
            let path = path(random, next);
            let mode = match &path[..] {
                b"a" | b"b" | b"a/b" if random.below(8) > 0 => Mode::DIR | 0o755,
                _ => types[usize::try_from(random.below(25)).unwrap().saturating_sub(20)] | 0o644,
            };
            let mut stat = Stat {
                path,
                mode,
                size: i64::try_from(random.below(4)).unwrap(),
                ..Stat::default()
            };
            if mode & Mode::SYMLINK != 0 || random.below(12) == 0 {
                stat.linkname = match random.below(3) {
                    0 => b"../outside".to_vec(),
                    1 => b"../outside/keep".to_vec(),
                    _ => GOOD[usize::try_from(random.below(9)).unwrap()].into(),
                };
            }
            Packet {
                stat: Some(stat),
                ..Packet::default()
            }
        }
        35 | 36 => Packet::default(),
        37 => Packet {
            id,
            data: vec![b'x'; usize::try_from(random.below(4)).unwrap()].into(),
            ..typed(PacketType::PacketData)
        },
        38 => typed(PacketType::PacketFin),
        _ => Packet {
            r#type: i32::try_from(random.below(7)).unwrap() - 1,
            id,
            ..Packet::default()
        },
    }
}

#[tokio::test]
async fn no_sequence_of_packets_gets_anything_out() {
    let mut far = 0;
    for seed in 1..=600u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let out = Scratch::new();
        let outside = out.temp.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("keep"), "keep").unwrap();
        for name in ["a", "b", "l"] {
            match random.below(4) {
                0 => symlink("../outside", out.path(name)).unwrap(),
                1 => symlink("../outside/keep", out.path(name)).unwrap(),
                2 => fs::hard_link(outside.join("keep"), out.path(name)).unwrap(),
                _ => {}
            }
        }
        let before = look(&outside);
        let mode = [ReceiveMode::Copy, ReceiveMode::Delete][usize::try_from(random.below(2)).unwrap()];
        let log = Arc::new(Log::default());
        let options = ReceiveOptions::new()
            .observer(log.clone())
            .mode(mode)
            .devices(DevicePolicy::Skip)
            .unchanged(Unchanged::SameTime);
        let (to_receiver, from_sender) = mpsc::channel(1);
        let (to_sender, mut from_receiver) = mpsc::channel(1);
        let peer = async {
            let mut next = 0;
            for _ in 0..random.below(30) {
                // What it is asked for it mostly gives.
                while let Ok(asked) = from_receiver.try_recv() {
                    let asked: Packet = asked;
                    for data in [&b"xx"[..], b""] {
                        let answer = Packet {
                            id: asked.id,
                            data: data.into(),
                            ..typed(PacketType::PacketData)
                        };
                        let _ = to_receiver.send(answer).await;
                    }
                }
                if to_receiver.send(packet(&mut random, &mut next)).await.is_err() {
                    return;
                }
            }
            drop(to_receiver);
            while from_receiver.recv().await.is_some() {}
        };
        let receiving = bk_fsync::receive(out.dest.clone(), options, Inbound(from_sender), to_sender);
        let _ = tokio::join!(receiving, peer);
        assert_eq!(look(&outside), before, "seed {seed}");
        assert_eq!(fs::read_dir(out.temp.path()).unwrap().count(), 2, "seed {seed}");
        let names = look(out.dest.path());
        assert!(
            names.keys().all(|n| !n.ends_with(b".tmp")),
            "seed {seed}: {:?}",
            names.keys()
        );
        far += log.changes.lock().unwrap().len();
    }
    // Some of it got as far as the disk.
    assert!(far > 50, "{far}");
}
