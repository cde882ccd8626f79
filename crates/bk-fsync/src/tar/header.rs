//! The blocks that announce an entry: a ustar header, and before it a PAX header for whatever ustar cannot hold.
//!
//! The rule: every value is exact. What fits a ustar field goes there; a name that is long or not ASCII, a time that
//! is not a whole second since the epoch, a size beyond eight GiB and extended attributes go into a PAX record, whose
//! value is the raw bytes. (Go's reader, which every engine uses, takes any byte but NUL there.)

use crate::entry::{Kind, Xattr};

/// Bytes of a block; everything in an archive starts at a multiple of it.
pub(super) const BLOCK: usize = 512;

/// A block of zeros.
pub(super) const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// The bytes behind content of that size, up to the next block.
pub(super) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// What an entry announces.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) path: &'a [u8],
    pub(super) kind: Kind,
    /// The earlier path that this is a further name of.
    pub(super) hard_link: Option<&'a [u8]>,
    /// The raw target of a symbolic link.
    pub(super) target: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) device: (u64, u64),
    pub(super) xattrs: &'a [Xattr],
    /// The size of a file whose holes are left out: what follows is a map of its data, and the data, `size` bytes in
    /// all.
    pub(super) real_size: Option<u64>,
}

/// Where the fields of a ustar header are, in bytes from its start.
pub(super) mod at {
    use std::ops::Range;

    pub(in crate::tar) const NAME: Range<usize> = 0..100;
    pub(in crate::tar) const MODE: Range<usize> = 100..108;
    pub(in crate::tar) const UID: Range<usize> = 108..116;
    pub(in crate::tar) const GID: Range<usize> = 116..124;
    pub(in crate::tar) const SIZE: Range<usize> = 124..136;
    pub(in crate::tar) const MTIME: Range<usize> = 136..148;
    pub(in crate::tar) const CHECKSUM: Range<usize> = 148..156;
    pub(in crate::tar) const TYPE: usize = 156;
    pub(in crate::tar) const LINK: Range<usize> = 157..257;
    pub(in crate::tar) const MAGIC: Range<usize> = 257..265;
    pub(in crate::tar) const MAJOR: Range<usize> = 329..337;
    pub(in crate::tar) const MINOR: Range<usize> = 337..345;
}

/// The type of a PAX header for the next entry.
const PAX: u8 = b'x';
/// What a PAX header is called; readers ignore it.
const PAX_NAME: &[u8] = b"PaxHeaders/entry";
/// What a file whose holes are left out is called by readers that do not know the form.
const SPARSE_NAME: &[u8] = b"GNUSparseFile.0/entry";
/// How PAX names an extended attribute.
const XATTR: &[u8] = b"SCHILY.xattr.";

impl Header<'_> {
    /// The blocks of the entry, without its content.
    pub(super) fn blocks(&self) -> Vec<u8> {
        let mut name = self.path.to_vec();
        if self.kind == Kind::Dir && self.hard_link.is_none() {
            name.push(b'/');
        }
        let link = self.hard_link.unwrap_or(self.target);
        let mut pax = Pax::default();
        if let Some(size) = self.real_size {
            pax.record(b"GNU.sparse.major", b"1");
            pax.record(b"GNU.sparse.minor", b"0");
            pax.name(b"GNU.sparse.name", &name);
            pax.record(b"GNU.sparse.realsize", size.to_string().as_bytes());
            // What a reader that knows nothing of this calls it.
            name = SPARSE_NAME.to_vec();
        }
        if !fits(&name) {
            pax.name(b"path", &name);
        }
        if !fits(link) {
            pax.name(b"linkpath", link);
        }
        let seconds = self.mtime_ns.div_euclid(NANOS);
        if self.mtime_ns.rem_euclid(NANOS) != 0 || u64::try_from(seconds).is_err() {
            pax.record(b"mtime", decimal(self.mtime_ns).as_bytes());
        }
        if octal(self.size, at::SIZE.len()).is_none() {
            pax.record(b"size", self.size.to_string().as_bytes());
        }
        for (key, id) in [(b"uid", self.uid), (b"gid", self.gid)] {
            if octal(id.into(), at::UID.len()).is_none() {
                pax.record(key, id.to_string().as_bytes());
            }
        }
        for (key, value) in self.xattrs {
            // A key ends at the first `=`: an attribute with one in its name has no way to travel.
            if !key.contains(&b'=') {
                pax.record(&[XATTR, key].concat(), value);
            }
        }
        let mut blocks = pax.blocks();
        let mut block = ZEROS;
        put(&mut block, at::NAME, &name);
        put(&mut block, at::LINK, link);
        number(&mut block, at::MODE, u64::from(self.mode & 0o7777));
        number(&mut block, at::UID, self.uid.into());
        number(&mut block, at::GID, self.gid.into());
        number(&mut block, at::SIZE, self.size);
        number(&mut block, at::MTIME, u64::try_from(seconds).unwrap_or(0));
        number(&mut block, at::MAJOR, self.device.0);
        number(&mut block, at::MINOR, self.device.1);
        block[at::TYPE] = match (self.hard_link, self.kind) {
            (Some(_), _) => b'1',
            (None, Kind::File | Kind::Socket) => b'0',
            (None, Kind::Symlink) => b'2',
            (None, Kind::CharDevice) => b'3',
            (None, Kind::BlockDevice) => b'4',
            (None, Kind::Dir) => b'5',
            (None, Kind::Fifo) => b'6',
        };
        seal(&mut block);
        blocks.extend_from_slice(&block);
        blocks
    }
}

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;

/// Whether a name can stand in a ustar field: short, and of characters that need no agreement.
fn fits(name: &[u8]) -> bool {
    name.len() <= at::NAME.len() && name.is_ascii()
}

/// Nanoseconds as seconds in decimal, which is how PAX writes a time.
fn decimal(nanoseconds: i64) -> String {
    let size = nanoseconds.unsigned_abs();
    let (seconds, fraction) = (size / NANOS.unsigned_abs(), size % NANOS.unsigned_abs());
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let text = format!("{sign}{seconds}.{fraction:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number in octal digits with a final NUL, if it fits the width.
fn octal(value: u64, width: usize) -> Option<String> {
    let digits = width - 1;
    let text = format!("{value:0digits$o}");
    (text.len() == digits).then_some(text)
}

/// Writes a number; one that does not fit stays zero and stands in a PAX record.
fn number(block: &mut [u8; BLOCK], field: std::ops::Range<usize>, value: u64) {
    let text = octal(value, field.len()).unwrap_or_else(|| "0".repeat(field.len() - 1));
    put(block, field, text.as_bytes());
}

/// Writes bytes, cut to the field: whatever is cut off stands whole in a PAX record.
fn put(block: &mut [u8; BLOCK], field: std::ops::Range<usize>, bytes: &[u8]) {
    let len = bytes.len().min(field.len());
    block[field.start..field.start + len].copy_from_slice(&bytes[..len]);
}

/// Completes a header: format, version and the sum over all bytes, with the sum itself counted as spaces.
fn seal(block: &mut [u8; BLOCK]) {
    put(block, at::MAGIC, b"ustar\x0000");
    put(block, at::CHECKSUM, &[b' '; 8]);
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    put(block, at::CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
}

/// The records of a PAX header.
#[derive(Debug, Default)]
struct Pax {
    records: Vec<u8>,
    /// A name is not UTF-8.
    binary: bool,
}

impl Pax {
    /// A name, which may be of any bytes.
    fn name(&mut self, key: &[u8], name: &[u8]) {
        self.binary |= std::str::from_utf8(name).is_err();
        self.record(key, name);
    }

    /// `length key=value`, in which the length counts its own digits.
    fn record(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while len != rest + len.to_string().len() {
            len = rest + len.to_string().len();
        }
        self.records.extend_from_slice(len.to_string().as_bytes());
        self.records.push(b' ');
        self.records.extend_from_slice(key);
        self.records.push(b'=');
        self.records.extend_from_slice(value);
        self.records.push(b'\n');
    }

    /// The header and its records, padded; nothing if there are none.
    fn blocks(self) -> Vec<u8> {
        if self.records.is_empty() {
            return Vec::new();
        }
        let mut records = Pax::default();
        if self.binary {
            // Tells readers that care not to expect UTF-8.
            records.record(b"hdrcharset", b"BINARY");
        }
        let records = [records.records, self.records].concat();
        let mut block = ZEROS;
        put(&mut block, at::NAME, PAX_NAME);
        number(&mut block, at::MODE, 0o644);
        number(&mut block, at::UID, 0);
        number(&mut block, at::GID, 0);
        number(&mut block, at::SIZE, records.len() as u64);
        number(&mut block, at::MTIME, 0);
        block[at::TYPE] = PAX;
        seal(&mut block);
        let mut blocks = block.to_vec();
        blocks.extend_from_slice(&records);
        blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(path: &[u8]) -> Header<'_> {
        Header {
            path,
            kind: Kind::File,
            hard_link: None,
            target: b"",
            mode: 0o4755,
            uid: 0,
            gid: 0,
            size: 5,
            mtime_ns: 1_000_000_000,
            device: (0, 0),
            xattrs: &[],
            real_size: None,
        }
    }

    #[test]
    fn a_plain_file_is_one_block_with_exact_fields() {
        let block = header(b"a/b").blocks();
        assert_eq!(block.len(), BLOCK);
        assert_eq!(&block[..4], b"a/b\0");
        assert_eq!(&block[at::MODE], b"0004755\0");
        assert_eq!(&block[at::UID], b"0000000\0");
        assert_eq!(&block[at::SIZE], b"00000000005\0");
        assert_eq!(&block[at::MTIME], b"00000000001\0");
        assert_eq!(block[at::TYPE], b'0');
        assert_eq!(&block[at::MAGIC], b"ustar\x0000");
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(i, b)| {
                if at::CHECKSUM.contains(&i) {
                    32
                } else {
                    u32::from(*b)
                }
            })
            .sum();
        assert_eq!(&block[at::CHECKSUM], format!("{sum:06o}\0 ").as_bytes());
    }

    #[test]
    fn records_count_their_own_length() {
        for len in 0..2000 {
            let mut pax = Pax::default();
            pax.record(b"k", &vec![b'v'; len]);
            let text = String::from_utf8(pax.records).unwrap();
            let (said, _) = text.split_once(' ').unwrap();
            assert_eq!(said.parse::<usize>().unwrap(), text.len());
        }
    }

    #[test]
    fn what_ustar_cannot_hold_is_in_records() {
        let records = |header: &Header<'_>| {
            let blocks = header.blocks();
            assert_eq!(blocks[at::TYPE], PAX);
            let end = blocks.len() - BLOCK;
            blocks[BLOCK..end]
                .iter()
                .copied()
                .filter(|b| *b != 0)
                .collect::<Vec<u8>>()
        };
        let mut odd = header(b"n\xff");
        assert_eq!(records(&odd), b"21 hdrcharset=BINARY\n11 path=n\xff\n");
        odd.path = "é".as_bytes();
        assert_eq!(records(&odd), "11 path=é\n".as_bytes());
        let long = vec![b'x'; 100];
        odd.path = &long;
        assert_eq!(odd.blocks().len(), BLOCK);
        odd.kind = Kind::Dir;
        assert_eq!(records(&odd), [b"111 path=", &long[..], b"/\n"].concat());
        let mut odd = header(b"f");
        (odd.kind, odd.target) = (Kind::Symlink, b"\xfe");
        assert_eq!(records(&odd), b"21 hdrcharset=BINARY\n14 linkpath=\xfe\n");
        let mut odd = header(b"f");
        odd.mtime_ns = 1_500_000_000;
        assert_eq!(records(&odd), b"13 mtime=1.5\n");
        odd.mtime_ns = -1_500_000_000;
        assert_eq!(records(&odd), b"14 mtime=-1.5\n");
        odd.mtime_ns = i64::MIN;
        assert_eq!(records(&odd), b"31 mtime=-9223372036.854775808\n");
        let mut odd = header(b"f");
        odd.size = 1 << 33;
        assert_eq!(records(&odd), b"19 size=8589934592\n");
        let xattrs = [
            (b"user.k".to_vec(), vec![0, 255]),
            (b"user.a=b".to_vec(), vec![1]),
        ];
        let mut odd = header(b"f");
        odd.xattrs = &xattrs;
        assert_eq!(records(&odd), b"26 SCHILY.xattr.user.k=\xff\n");
    }

    #[test]
    fn kinds_have_their_types() {
        let kind = |kind, link| {
            let mut header = header(b"f");
            (header.kind, header.hard_link, header.device) = (kind, link, (5, 1));
            let block = header.blocks();
            (block[at::TYPE], block[at::MAJOR][..7].to_vec())
        };
        assert_eq!(kind(Kind::Fifo, None).0, b'6');
        assert_eq!(kind(Kind::CharDevice, None), (b'3', b"0000005".to_vec()));
        assert_eq!(kind(Kind::BlockDevice, None).0, b'4');
        assert_eq!(kind(Kind::Fifo, Some(b"p")).0, b'1');
        assert_eq!(kind(Kind::File, Some(b"p")).0, b'1');
    }
}
