//! The way out: collects what one event draws, writes it at once, and falls silent when nobody reads any more.

use std::io::{self, Write};

/// A writer that treats a broken pipe as "nobody listens".
pub(crate) struct Out<W> {
    inner: W,
    buffer: Vec<u8>,
    /// Once true, nothing is written or kept any more.
    deaf: bool,
}

impl<W: Write> Out<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            deaf: false,
        }
    }

    #[cfg(test)]
    pub(crate) fn inner(&self) -> &W {
        &self.inner
    }

    /// Adds text to what the next [`flush`](Self::flush) writes.
    pub(crate) fn push(&mut self, text: &str) {
        if !self.deaf {
            self.buffer.extend_from_slice(text.as_bytes());
        }
    }

    /// Where a serialiser may write; what it writes is dropped once nobody listens.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.deaf {
            self.buffer.clear();
        }
        &mut self.buffer
    }

    /// Writes what was collected.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() || self.deaf {
            self.buffer.clear();
            return Ok(());
        }
        let result = self
            .inner
            .write_all(&self.buffer)
            .and_then(|()| self.inner.flush());
        self.buffer.clear();
        match result {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.deaf = true;
                Ok(())
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(io::ErrorKind, usize);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_broken_pipe_is_asked_once() {
        let mut out = Out::new(Fails(io::ErrorKind::BrokenPipe, 0));
        for _ in 0..3 {
            out.push("x");
            assert!(out.flush().is_ok());
        }
        assert_eq!(out.inner.1, 1);
    }

    #[test]
    fn other_errors_are_told() {
        let mut out = Out::new(Fails(io::ErrorKind::StorageFull, 0));
        out.push("x");
        assert_eq!(out.flush().map_err(|e| e.kind()), Err(io::ErrorKind::StorageFull));
    }
}
