//! The stream of a context that is an archive, ready to be sent.
//!
//! The rule: what is read from it is what is sent, except that an archive which the daemon would take for a Dockerfile gets
//! an entry for its root in front.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bk_build::{Archive, ArchiveReader, BuildError, InputError, LocalFailure};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use tokio::io::ReadBuf;

use crate::limits::UPLOAD_CHUNK;

/// The pieces of an archive.
///
/// The daemon looks at the first 1024 bytes only to tell an archive from the text of a Dockerfile. They hold no whole entry
/// if a header comes first that belongs to the next one, as many programs write it; an entry for the root is put in front
/// then.
pub struct ArchiveStream {
    reader: Option<ArchiveReader>,
    name: String,
    buffer: BytesMut,
    /// Nothing was handed on yet.
    first: bool,
}

impl ArchiveStream {
    /// Takes the stream of `archive`.
    ///
    /// # Errors
    /// [`BuildError::Input`] if another build had it.
    pub fn open(archive: &Archive) -> Result<Self, BuildError> {
        let name = archive.name().to_owned();
        let Some(reader) = archive.take() else {
            let text =
                format!("`{name}`: the archive was read by an earlier build, and can be read once only");
            return Err(InputError::new("PATH", text, "an archive that was not read").into());
        };
        Ok(Self {
            reader: Some(reader),
            name,
            buffer: BytesMut::new(),
            first: true,
        })
    }
}

impl Stream for ArchiveStream {
    type Item = Result<Bytes, LocalFailure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(reader) = &mut this.reader else {
            return Poll::Ready(None);
        };
        // Pieces are whole, however small the reads: each costs a message.
        while this.buffer.len() < UPLOAD_CHUNK {
            let filled = this.buffer.len();
            this.buffer.resize(UPLOAD_CHUNK, 0);
            let mut free = ReadBuf::new(&mut this.buffer[filled..]);
            let polled = reader.as_mut().poll_read(cx, &mut free);
            let got = free.filled().len();
            this.buffer.truncate(filled + got);
            match polled {
                // What is there goes out while more is waited for, but not before the kind of archive can be told.
                Poll::Pending if filled >= BLOCK => break,
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if got == 0 => {
                    this.reader = None;
                    break;
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => {
                    this.reader = None;
                    let failure = LocalFailure::new(&this.name, "cannot read the archive").caused_by(e);
                    return Poll::Ready(Some(Err(failure)));
                }
            }
        }
        if this.buffer.is_empty() {
            return Poll::Ready(None);
        }
        let mut piece = this.buffer.split().freeze();
        if std::mem::take(&mut this.first) && begins_with_extension(&piece) {
            piece = [&bk_fsync::tar::root_entry(), &piece[..]].concat().into();
        }
        Poll::Ready(Some(Ok(piece)))
    }
}

/// Bytes of a tar header.
const BLOCK: usize = 512;

/// Whether the first header belongs to the next one: PAX (also for all), or a long name or link of GNU tar.
fn begins_with_extension(start: &[u8]) -> bool {
    start.len() >= BLOCK && &start[257..262] == b"ustar" && matches!(start[156], b'x' | b'g' | b'L' | b'K')
}
