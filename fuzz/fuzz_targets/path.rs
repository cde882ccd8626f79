//! Relative paths: what is accepted, how it is cut and joined, and the order of the wire, each against a plain
//! statement of the rule.

#![no_main]

use bk_fsync::path::{RelPath, clean, compare, join, show};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Two paths with a line feed between them.
    let cut = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let pair = (&data[..cut], data.get(cut + 1..).unwrap_or_default());
    for bytes in [pair.0, pair.1] {
        let names = || bytes.split(|b| *b == b'/');
        let good = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
        let parsed = RelPath::new(bytes);
        assert_eq!(parsed.is_ok(), bytes.is_empty() || names().all(good), "{}", show(bytes));
        let cleaned = clean(bytes);
        assert_eq!(clean(&cleaned), cleaned);
        assert!(std::str::from_utf8(bytes).map_or(true, |text| show(bytes) == text));
        let Ok(path) = parsed else { continue };
        assert!(path.is_root() || cleaned == bytes);
        if let Some((dir, name)) = path.split() {
            assert_eq!(join(dir, name), bytes);
            assert_eq!(path.components().next_back(), Some(name));
            assert!(compare(dir.as_bytes(), bytes).is_lt());
        }
    }
    let order = compare(pair.0, pair.1);
    assert_eq!(compare(pair.1, pair.0), order.reverse());
    if let (Ok(a), Ok(b)) = (RelPath::new(pair.0), RelPath::new(pair.1)) {
        assert!(a.components().eq(b.components()) == order.is_eq());
        assert_eq!(a.components().cmp(b.components()), order);
    }
});
