//! Any status messages, drawn: a terminal never gets a control byte, and raw JSON is one object a line.

#![no_main]

use bk_progress::{Plain, RawJson, Renderer, neutralise};
use bk_proto::control::StatusResponse;
use bk_solve::StatusFold;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fn harmless(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t')
}

fuzz_target!(|data: &[u8]| {
    assert!(harmless(&neutralise(&String::from_utf8_lossy(data))));
    let (mut rest, mut fold, mut events) = (data, StatusFold::new(), Vec::new());
    while let Ok(message) = StatusResponse::decode_length_delimited(&mut rest) {
        fold.apply(message, &mut events);
    }
    let (mut plain, mut json) = (Vec::new(), Vec::new());
    let (mut draws_plain, mut draws_json) = (Plain::new(&mut plain), RawJson::new(&mut json));
    for event in &events {
        draws_plain.event(event).expect("memory takes everything");
        draws_json.event(event).expect("memory takes everything");
    }
    draws_plain.finish().expect("memory takes everything");
    draws_json.finish().expect("memory takes everything");
    drop((draws_plain, draws_json));
    assert!(harmless(std::str::from_utf8(&plain).expect("text")));
    let objects = serde_json::Deserializer::from_slice(&json).into_iter::<serde_json::Value>();
    let objects = objects.filter(|o| o.as_ref().expect("JSON").is_object()).count();
    // What was said already is not said again.
    assert!(objects <= events.len());
    assert_eq!(json.iter().filter(|b| **b == b'\n').count(), objects);
});
