//! Buffers in which the contents of files travel from a disk to a wire.
//!
//! The rule: a buffer comes back when the last piece in it is gone, and the one that came back last is used first: it is
//! still in the processor's cache. New ones would be fresh pages each time, which cost more than reading into them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::limits::{BUFFERS_KEPT, DATA_CHUNK};

/// Where buffers come from and go back to.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A buffer of [`DATA_CHUNK`] bytes, with anything in it.
    pub(crate) fn take(self: &Arc<Self>) -> Buffer {
        let used = self.free().pop();
        Buffer {
            bytes: used.unwrap_or_else(|| vec![0; DATA_CHUNK]),
            home: Arc::clone(self),
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer; it goes back where it came from when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Buffer {
    /// All its bytes, to be sliced and sent.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.home.free();
        if free.len() < BUFFERS_KEPT {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_its_last_piece_is_gone() {
        let buffers = Buffers::new();
        let mut buffer = buffers.take();
        buffer.bytes[..4].copy_from_slice(b"abcd");
        let place = buffer.bytes.as_ptr();
        let all = buffer.freeze();
        let (first, second) = (all.slice(..2), all.slice(2..4));
        drop((all, first));
        assert_ne!(buffers.take().bytes.as_ptr(), place);
        assert_eq!(&second[..], b"cd");
        drop(second);
        assert_eq!(buffers.take().bytes.as_ptr(), place);
    }

    #[test]
    fn few_buffers_are_kept() {
        let buffers = Buffers::new();
        let many: Vec<Buffer> = (0..2 * BUFFERS_KEPT).map(|_| buffers.take()).collect();
        drop(many);
        assert_eq!(buffers.free().len(), BUFFERS_KEPT);
    }
}
