//! Ignore files of any bytes: the same patterns however the file is read, each with a line that exists, and errors
//! that name one.

#![no_main]

use std::io::{self, Read};

use bk_fsync::pattern::{PatternList, read_ignore_file};
use libfuzzer_sys::fuzz_target;

/// Gives out a byte at a time.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(1);
        self.0.read(&mut into[..most])
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(lines) = read_ignore_file(data) else { return };
    assert_eq!(read_ignore_file(Slow(data)).ok().as_ref(), Some(&lines));
    let count = data.split(|b| *b == b'\n').count();
    assert!(lines.iter().all(|l| (1..=count).contains(&l.line) && !l.pattern.is_empty()));
    assert!(lines.is_sorted_by(|a, b| a.line < b.line));
    assert!(lines.iter().all(|l| !l.pattern.contains(&b'\n')));
    match PatternList::from_ignore_file(&lines) {
        Ok(list) => assert!(list.patterns().iter().all(|p| p.line().is_some())),
        Err(error) => assert_eq!(lines.get(error.index).map(|l| l.line), error.line, "{error}"),
    }
});
