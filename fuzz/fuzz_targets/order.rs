//! Listings in any order, against the plain statement of what a listing must be: clean paths, strictly ascending,
//! each in a directory that was listed.

#![no_main]

use std::collections::BTreeSet;

use bk_fsync::order::OrderValidator;
use bk_fsync::path::{RelPath, compare};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut order = OrderValidator::new();
    let (mut last, mut dirs) = (Vec::new(), BTreeSet::from([Vec::new()]));
    // One entry a line; a final `/` makes it a directory.
    for line in data.split(|b| *b == b'\n') {
        let (path, is_dir) = match line.strip_suffix(b"/") {
            Some(path) => (path, true),
            None => (line, false),
        };
        let parent = RelPath::new(path).ok().and_then(RelPath::split).map(|(dir, _)| dir.as_bytes());
        let good = parent.is_some_and(|dir| dirs.contains(dir)) && compare(&last, path).is_lt();
        let checked = order.check(path, is_dir);
        assert_eq!(checked.is_ok(), good, "{checked:?}");
        let Ok(depth) = checked else { return };
        assert_eq!(depth, path.iter().filter(|b| **b == b'/').count());
        last = path.to_vec();
        if is_dir {
            dirs.insert(path.to_vec());
        }
    }
});
