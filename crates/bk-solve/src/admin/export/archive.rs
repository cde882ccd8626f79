//! The archive of an export: gzip around tar around an OCI image layout.
//!
//! The rule: no I/O. Entries come in one after the other, each with its size beforehand; compressed bytes are taken out. A blob
//! is there once, however often it is named.

use std::{collections::HashSet, io::Write as _};

use bk_build::ProtocolFailure;
use bk_fsync::{
    entry::Kind,
    tar::{END, padding, plain_entry},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

use crate::content::hex_of;

/// What readers know an image layout by.
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An archive that grows.
pub(super) struct Archive {
    // Writing to memory does not fail; should it ever, the end says so.
    out: GzEncoder<Vec<u8>>,
    broken: bool,
    /// The hexadecimal digests of the blobs.
    blobs: HashSet<String>,
}

impl Archive {
    /// Begins with the directories.
    pub(super) fn new() -> Self {
        let mut archive = Self {
            out: GzEncoder::new(Vec::new(), Compression::default()),
            broken: false,
            blobs: HashSet::new(),
        };
        for dir in ["blobs", "blobs/sha256"] {
            archive.put(&plain_entry(dir.as_bytes(), Kind::Dir, 0o755, 0));
        }
        archive
    }

    /// Begins a blob of `size` bytes, whose bytes are [put](Self::put) next and then [ended](Self::end_blob); `false` when it
    /// is there already.
    ///
    /// # Errors
    /// What the daemon named is no digest: a file of that name would be no blob.
    pub(super) fn begin_blob(&mut self, digest: &str, size: u64) -> Result<bool, ProtocolFailure> {
        let Some(hex) = hex_of(digest) else {
            return Err(ProtocolFailure::new(format!(
                "{digest:?} is no digest of a known kind"
            )));
        };
        let new = self.blobs.insert(hex.to_owned());
        if new {
            let path = format!("blobs/sha256/{hex}");
            self.put(&plain_entry(path.as_bytes(), Kind::File, 0o444, size));
        }
        Ok(new)
    }

    /// Bytes of the entry at hand.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.broken |= self.out.write_all(bytes).is_err();
    }

    /// Ends a blob of that size.
    pub(super) fn end_blob(&mut self, size: u64) {
        self.put(padding(size));
    }

    /// What was compressed since the last time, when there is something.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let bytes = std::mem::take(self.out.get_mut());
        (!bytes.is_empty()).then(|| bytes.into())
    }

    /// How many blobs there are.
    pub(super) fn blobs(&self) -> u64 {
        self.blobs.len() as u64
    }

    /// Writes what makes it an image layout, with that text of the index, and the end. Gives the last bytes.
    pub(super) fn finish(mut self, index: &[u8]) -> std::io::Result<Bytes> {
        for (name, mode, text) in [("index.json", 0o644, index), ("oci-layout", 0o444, LAYOUT)] {
            let size = text.len() as u64;
            self.put(&plain_entry(name.as_bytes(), Kind::File, mode, size));
            self.put(text);
            self.end_blob(size);
        }
        self.put(&END);
        match self.broken {
            true => Err(std::io::ErrorKind::OutOfMemory.into()),
            false => Ok(self.out.finish()?.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn an_archive_is_a_layout_byte_by_byte() {
        let mut archive = Archive::new();
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert!(archive.begin_blob(&digest, 5).expect("a digest"));
        archive.put(b"he");
        archive.put(b"llo");
        archive.end_blob(5);
        assert!(!archive.begin_blob(&digest, 5).expect("a digest"));
        for bad in [
            "",
            "sha256:../../x",
            "sha512:ab",
            &format!("sha256:{}", "AB".repeat(32)),
        ] {
            assert!(archive.begin_blob(bad, 1).is_err(), "{bad}");
        }
        assert_eq!(archive.blobs(), 1);
        let mut bytes = archive.take().unwrap_or_default().to_vec();
        bytes.extend_from_slice(&archive.finish(b"{}").expect("memory"));

        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&*bytes)
            .read_to_end(&mut tar)
            .expect("gzip");
        assert_eq!(tar.len(), 512 * (2 + 2 + 2 + 2 + 2));
        let field = |block: usize, range: std::ops::Range<usize>| {
            let start = block * 512;
            let bytes = &tar[start + range.start..start + range.end];
            String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
        };
        let header = |block| {
            (
                field(block, 0..100),
                field(block, 100..107),
                field(block, 124..135),
                field(block, 156..157),
            )
        };
        let said = |name: &str, mode: &str, size: &str, kind: &str| {
            (name.to_owned(), mode.to_owned(), size.to_owned(), kind.to_owned())
        };
        let blob = format!("blobs/sha256/{}", "ab".repeat(32));
        assert_eq!(header(0), said("blobs/", "0000755", "00000000000", "5"));
        assert_eq!(header(1), said("blobs/sha256/", "0000755", "00000000000", "5"));
        assert_eq!(header(2), said(&blob, "0000444", "00000000005", "0"));
        assert_eq!(field(3, 0..512), "hello");
        assert_eq!(header(4), said("index.json", "0000644", "00000000002", "0"));
        assert_eq!(field(5, 0..512), "{}");
        assert_eq!(header(6), said("oci-layout", "0000444", "00000000036", "0"));
        assert_eq!(field(7, 0..512), r#"{"imageLayoutVersion":"1.0.0"}"#);
        assert!(tar[8 * 512..].iter().all(|b| *b == 0));
    }
}
