//! Blobs of the daemon's content store, piece by piece.
//!
//! The rule: pieces come in order, and the end of a blob is told only when its digest is that of its name; until then nothing
//! is promised of what was handed out.

use bk_proto::content::{ReadContentRequest, ReadContentResponse, content_client::ContentClient};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tonic::{Status, Streaming};

use crate::{channel::Channel, limits::MAX_MESSAGE};

/// The only kind of digest that daemons name.
const KIND: &str = "sha256:";

/// Why a blob cannot be had.
pub(crate) enum BlobError {
    /// What the daemon, or the connection to it, says.
    Status(Status),
    /// What the daemon sent makes no sense.
    Wrong(String),
}

impl From<Status> for BlobError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// A blob that is read.
pub(crate) struct BlobReader {
    digest: String,
    stream: Streaming<ReadContentResponse>,
    own: Sha256,
    at: u64,
}

impl BlobReader {
    /// Asks for the blob of that digest.
    pub(crate) async fn open(channel: &Channel, digest: &str) -> Result<Self, BlobError> {
        if hex_of(digest).is_none() {
            return Err(BlobError::Wrong(format!(
                "{digest:?} is no digest of a known kind"
            )));
        }
        // The daemon's side ignores the authority; an empty one is not legal.
        let origin = http::Uri::from_static("http://localhost");
        let mut client =
            ContentClient::with_origin(channel.clone(), origin).max_decoding_message_size(MAX_MESSAGE);
        let request = ReadContentRequest {
            digest: digest.to_owned(),
            ..ReadContentRequest::default()
        };
        Ok(Self {
            digest: digest.to_owned(),
            stream: client.read(request).await?.into_inner(),
            own: Sha256::new(),
            at: 0,
        })
    }

    /// The next piece; `None` when the blob is complete and right.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        let wrong = |text: String| Err(BlobError::Wrong(text));
        let Some(piece) = self.stream.message().await? else {
            let own = digest_of(std::mem::take(&mut self.own));
            return match own == self.digest {
                true => Ok(None),
                false => wrong(format!(
                    "what the daemon sent for {} has another digest",
                    self.digest
                )),
            };
        };
        if u64::try_from(piece.offset) != Ok(self.at) {
            return wrong(format!("the daemon sent {} out of order", self.digest));
        }
        self.at += piece.data.len() as u64;
        self.own.update(&piece.data);
        Ok(Some(piece.data))
    }
}

/// The digest of what went into `hash`.
pub(crate) fn digest_of(hash: Sha256) -> String {
    let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    format!("{KIND}{hex}")
}

/// The hexadecimal digits of a digest.
pub(crate) fn hex_of(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix(KIND)?;
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (hex.len() == 64 && hex.bytes().all(is_hex)).then_some(hex)
}
