//! A system on which a directory cannot be written to so that nothing gets out of it.
//!
//! The rule: that is said before anything is made, and the types hold no value, so nothing behind them can run.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Destination, Lease, WriteError};
use crate::receive::{Incoming, Names, ReceiveOptions, ReceiveReport};

/// A directory that there is none of.
#[derive(Debug)]
pub(super) struct Root(Infallible);

impl Root {
    pub(super) fn open(_: &Path) -> io::Result<Self> {
        Err(unsupported())
    }

    pub(super) fn make(_: &Path) -> io::Result<()> {
        Err(unsupported())
    }

    pub(super) fn is_at(&self, _: &Path) -> io::Result<bool> {
        match self.0 {}
    }
}

fn unsupported() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "results cannot be written into directories on Windows yet: write a tar archive instead",
    )
}

/// Who would write there.
pub(crate) struct Applier(Infallible);

impl Applier {
    pub(crate) fn new(dest: Arc<Destination>, _: ReceiveOptions, _: Lease, _: Arc<AtomicBool>) -> Self {
        match dest.root.0 {}
    }

    pub(crate) fn entry(&mut self, _: Incoming) -> Result<(), WriteError> {
        match self.0 {}
    }

    pub(crate) fn end_of_listing(&mut self, _: Arc<Names>) {
        match self.0 {}
    }

    pub(crate) fn next_request(&mut self) -> Option<u32> {
        match self.0 {}
    }

    pub(crate) fn data(&mut self, _: u32, _: &[u8]) -> Result<(), WriteError> {
        match self.0 {}
    }

    pub(crate) fn end_of_file(&mut self, _: u32) -> Result<(), WriteError> {
        match self.0 {}
    }

    pub(crate) fn is_complete(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn finish(self) -> Result<ReceiveReport, WriteError> {
        match self.0 {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let err = Destination::create(dir.path().join("out")).unwrap_err();
        assert_eq!(err.source.kind(), io::ErrorKind::Unsupported);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Destination::open(dir.path()).is_err());
    }
}
