//! What the first bytes of a file say of it.

use super::field::{Block, sum_is_right};
use super::header::BLOCK;

/// A tar archive, plain or compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveFormat {
    /// Not compressed.
    Tar,
    /// Compressed with gzip.
    Gzip,
    /// Compressed with bzip2.
    Bzip2,
    /// Compressed with xz.
    Xz,
    /// Compressed with Zstandard.
    Zstd,
}

impl ArchiveFormat {
    /// Looks at the beginning of a file, of which 512 bytes are enough. `None`: it is no archive, or there are too few
    /// bytes to tell. Of a compressed file nobody can say here what is in it.
    #[must_use]
    pub fn of(start: &[u8]) -> Option<Self> {
        const MAGICS: [(&[u8], ArchiveFormat); 4] = [
            (&[0x1f, 0x8b, 0x08], ArchiveFormat::Gzip),
            (b"BZh", ArchiveFormat::Bzip2),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], ArchiveFormat::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], ArchiveFormat::Zstd),
        ];
        if let Some((_, format)) = MAGICS.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Some(*format);
        }
        let block: &Block = start.first_chunk::<BLOCK>()?;
        sum_is_right(block).then_some(ArchiveFormat::Tar)
    }

    /// The name of the compression, as people say it; `tar` if there is none.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ArchiveFormat::Tar => "tar",
            ArchiveFormat::Gzip => "gzip",
            ArchiveFormat::Bzip2 => "bzip2",
            ArchiveFormat::Xz => "xz",
            ArchiveFormat::Zstd => "zstd",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_from_text() {
        assert_eq!(
            ArchiveFormat::of(&super::super::root_entry()),
            Some(ArchiveFormat::Tar)
        );
        assert_eq!(ArchiveFormat::of(&super::super::root_entry()[..511]), None);
        assert_eq!(ArchiveFormat::of(b"\x1f\x8b\x08\x00"), Some(ArchiveFormat::Gzip));
        assert_eq!(ArchiveFormat::of(b"BZh9"), Some(ArchiveFormat::Bzip2));
        for text in [&b""[..], b"FROM scratch\n", &[b'#'; 2000], &[0; 2000]] {
            assert_eq!(ArchiveFormat::of(text), None);
        }
    }
}
