//! Status messages in any order: nothing is announced twice, no log is lost, and what is kept stays bounded.

#![no_main]

use std::collections::BTreeSet;

use bk_build::{BuildEvent, limits};
use bk_proto::control::StatusResponse;
use bk_solve::StatusFold;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let (mut rest, mut fold, mut announced) = (data, StatusFold::new(), BTreeSet::new());
    while let Ok(message) = StatusResponse::decode_length_delimited(&mut rest) {
        let mut events = Vec::new();
        fold.apply(message.clone(), &mut events);
        let (mut logs, mut others) = (message.logs.iter(), 0);
        for event in &events {
            match event {
                BuildEvent::VertexQueued(v) => assert!(announced.insert(v.id.clone()), "queued twice"),
                BuildEvent::Log(log) => assert_eq!(logs.next().map(|l| &l.msg[..]), Some(&log.data[..])),
                BuildEvent::Status(_) | BuildEvent::Warning(_) => others += 1,
                _ => {}
            }
        }
        assert!(logs.next().is_none() && others == message.statuses.len() + message.warnings.len());
        for vertex in &message.vertexes {
            assert_eq!(fold.get(&vertex.digest).map(|v| &*v.id), Some(&vertex.digest[..]));
            let tail = fold.log_tail(&vertex.digest);
            let most = limits::LOG_TAIL_LINE_BYTES + '…'.len_utf8();
            assert!(tail.len() <= limits::LOG_TAIL_LINES && tail.iter().all(|line| line.len() <= most));
        }
        let _ = fold.failed();
    }
});
