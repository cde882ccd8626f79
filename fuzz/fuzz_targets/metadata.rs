//! Values of gRPC metadata: any bytes come back as they went in, only printable ASCII goes out, and no header that a
//! daemon can send makes reading it panic.

#![no_main]

use bk_proto::headers::ENCODED_SUFFIX;
use bk_proto::metadata::{first, header_values, set, values};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tonic::metadata::MetadataMap;

const KEY: &str = "exclude-patterns";

fuzz_target!(|input: (Vec<Vec<u8>>, Vec<u8>)| {
    let (list, flag) = input;
    let mut metadata = MetadataMap::new();
    set(&mut metadata, KEY, &list).expect("the key is one");
    assert_eq!(values(&metadata, KEY), list);
    assert_eq!(first(&metadata, KEY).as_ref(), list.first());
    let sent: &HeaderMap = metadata.as_ref();
    assert!(sent.values().all(|v| v.as_bytes().iter().all(|b| (b' '..=b'~').contains(b))));
    let flagged = usize::from(sent.contains_key(format!("{KEY}{ENCODED_SUFFIX}")));
    assert_eq!(sent.len(), list.len() + flagged);

    let mut received = HeaderMap::new();
    for value in list.iter().filter_map(|v| HeaderValue::from_bytes(v).ok()) {
        received.append(KEY, value);
    }
    if let Ok(flag) = HeaderValue::from_bytes(&flag) {
        received.insert("exclude-patterns-encoded", flag);
    }
    assert_eq!(header_values(&received, KEY).len(), received.get_all(KEY).iter().count());
});
