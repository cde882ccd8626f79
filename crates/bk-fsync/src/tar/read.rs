//! Reads an archive member by member.
//!
//! The rule: nothing in an archive is believed. Every size is bounded before anything is read for it, an archive that
//! is cut off is an error, and what is returned names a clean path below the root.

use std::io::{self, Read};
use std::ops::Range;

use super::fault::{TarFault, TarReadError};
use super::field::{Block, at, clean_path, device_of, number, short_name, size_of, sum_is_right, until_nul};
use super::header::{BLOCK, padding};
use super::records::{Records, read_body};
use super::sparse::{MapReader, Runs};
use crate::entry::{Kind, Xattr};
use crate::limits::{RECEIVED_PATH_MAX, TAR_HEADER_MAX, TAR_TRAILING_MAX};
use crate::path::show;

/// A member, before its content.
#[derive(Debug)]
pub(crate) struct Member {
    /// Clean; empty for the root.
    pub(crate) path: Vec<u8>,
    pub(crate) what: What,
    /// Permission bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_ns: i64,
    pub(crate) xattrs: Vec<Xattr>,
}

/// What a member is.
#[derive(Debug)]
pub(crate) enum What {
    /// A file of `size` bytes, of which `runs` are stored.
    File {
        size: u64,
        runs: Vec<(u64, u64)>,
    },
    /// A further name of the member at this clean path.
    Link(Vec<u8>),
    Symlink(Vec<u8>),
    Dir,
    /// A pipe or device, and its number.
    Special(Kind, u64),
}

/// An archive that is being read.
pub(crate) struct Reader<R> {
    input: Counted<R>,
    /// Stored bytes of the member at hand that were not read yet, and the padding behind them.
    left: u64,
    padding: u64,
    /// Where the header of the member at hand begins, and its name once it is known.
    start: u64,
    name: Option<Vec<u8>>,
    global: Records,
    ended: bool,
}

struct Counted<R> {
    input: R,
    at: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Reader {
            input: Counted { input, at: 0 },
            left: 0,
            padding: 0,
            start: 0,
            name: None,
            global: Records::default(),
            ended: false,
        }
    }

    /// An error about the member at hand.
    pub(crate) fn error(&self, fault: TarFault) -> TarReadError {
        TarReadError {
            member: self.name.as_deref().map(|name| show(name).into_owned()),
            offset: self.start,
            fault,
        }
    }

    /// The next member; what is left of the content of the one before is skipped. `None`: the archive has ended as it
    /// should.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, TarReadError> {
        if self.ended {
            return Ok(None);
        }
        let skip = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        self.skip(skip).map_err(|fault| self.error(fault))?;
        self.start = self.input.at;
        self.name = None;
        let result = self.member().map_err(|fault| self.error(fault))?;
        self.ended = result.is_none();
        Ok(result)
    }

    /// Reads stored content; nothing only if nothing is left or nothing is asked for.
    pub(crate) fn content(&mut self, buffer: &mut [u8]) -> Result<(), TarReadError> {
        let len = buffer.len() as u64;
        let result = if len > self.left {
            Err(TarFault::Truncated)
        } else {
            self.left -= len;
            self.input.read_exact(buffer).map_err(cut_off)
        };
        result.map_err(|fault| self.error(fault))
    }

    fn skip(&mut self, bytes: u64) -> Result<(), TarFault> {
        let got = io::copy(&mut (&mut self.input).take(bytes), &mut io::sink()).map_err(TarFault::Read)?;
        if got == bytes {
            Ok(())
        } else {
            Err(TarFault::Truncated)
        }
    }

    /// The next block. `None`: the archive is over.
    fn block(&mut self) -> Result<Option<Block>, TarFault> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarFault::Truncated),
                Ok(got) => filled += got,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(TarFault::Read(err)),
            }
        }
        Ok(Some(block))
    }

    fn member(&mut self) -> Result<Option<Member>, TarFault> {
        let mut records = None;
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let first = self.input.at == 0;
            let Some(block) = self.block()? else {
                return Err(if first { TarFault::NotTar } else { TarFault::NoEnd });
            };
            if block.iter().all(|b| *b == 0) {
                if records.is_some() || long_name.is_some() || long_link.is_some() {
                    return Err(TarFault::Truncated);
                }
                return self.end().map(|()| None);
            }
            if !sum_is_right(&block) {
                return Err(if first {
                    TarFault::NotTar
                } else {
                    TarFault::Checksum
                });
            }
            match block[at::TYPE] {
                b'g' => {
                    let found =
                        Records::parse(&self.extension(&block, "global PAX header", TAR_HEADER_MAX)?)?;
                    if found.names_one() {
                        return Err(TarFault::Header(
                            "global record: it can be true of one member only",
                        ));
                    }
                    self.global = found.over(&self.global);
                }
                b'x' | b'X' => {
                    let body = self.extension(&block, "PAX header", TAR_HEADER_MAX)?;
                    records = Some(Records::parse(&body)?);
                }
                b'L' => long_name = Some(self.long(&block, "name")?),
                b'K' => long_link = Some(self.long(&block, "link target")?),
                _ => {
                    let mut records = records.unwrap_or_default();
                    records.path = records.path.or(long_name);
                    records.link = records.link.or(long_link);
                    return self.complete(&block, records).map(Some);
                }
            }
        }
    }

    /// Reads the second half of the end mark and what may follow: padding to the size of a record.
    fn end(&mut self) -> Result<(), TarFault> {
        match self.block() {
            Ok(Some(block)) if block.iter().any(|b| *b != 0) => {
                return Err(TarFault::Header(
                    "end mark: one block of zeros, and more behind it",
                ));
            }
            Ok(_) | Err(TarFault::Truncated) => {}
            Err(fault) => return Err(fault),
        }
        // To the end, so that whoever writes the archive can, and its compression is checked.
        let mut rest = (&mut self.input).take(TAR_TRAILING_MAX + 1);
        let rest = io::copy(&mut rest, &mut io::sink()).map_err(TarFault::Read)?;
        if rest > TAR_TRAILING_MAX {
            return Err(TarFault::Trailing(TAR_TRAILING_MAX));
        }
        Ok(())
    }

    /// The body of a header that belongs to the next one.
    fn extension(&mut self, block: &Block, what: &'static str, limit: u64) -> Result<Vec<u8>, TarFault> {
        let size = size_of(block)?;
        let body = read_body(&mut self.input, size, what, limit)?;
        self.skip(padding(size))?;
        Ok(body)
    }

    fn long(&mut self, block: &Block, what: &'static str) -> Result<Vec<u8>, TarFault> {
        let mut body = self.extension(block, what, RECEIVED_PATH_MAX as u64 + 1)?;
        let end = body.iter().position(|b| *b == 0).unwrap_or(body.len());
        body.truncate(end);
        Ok(body)
    }

    fn complete(&mut self, block: &Block, records: Records) -> Result<Member, TarFault> {
        let records = records.over(&self.global);
        let kind = block[at::TYPE];
        let sparse_name = records.sparse.name.clone();
        let raw = sparse_name
            .or_else(|| records.path.clone())
            .unwrap_or_else(|| short_name(block));
        self.name = Some(raw.clone());
        let path = clean_path(&raw).map_err(TarFault::Path)?;
        if raw.len() > RECEIVED_PATH_MAX {
            return Err(TarFault::TooLong {
                what: "path",
                limit: RECEIVED_PATH_MAX as u64,
            });
        }
        let link = records
            .link
            .clone()
            .unwrap_or_else(|| until_nul(&block[at::LINK]).to_vec());
        if link.len() > RECEIVED_PATH_MAX {
            return Err(TarFault::TooLong {
                what: "link target",
                limit: RECEIVED_PATH_MAX as u64,
            });
        }
        let what = match kind {
            // Old archives mark a directory by its name only.
            b'0' | 0 | b'7' | b'D' if kind == b'D' || raw.ends_with(b"/") => {
                self.stored(block, &records)?;
                What::Dir
            }
            b'0' | 0 | b'7' | b'S' => self.file(block, &records)?,
            b'1' => What::Link(clean_path(&link).map_err(|fault| TarFault::LinkPath {
                target: show(&link).into_owned(),
                fault,
            })?),
            b'2' if link.is_empty() => return Err(TarFault::Header("link target: it is empty")),
            b'2' => What::Symlink(link),
            b'3' => What::Special(Kind::CharDevice, device_of(block)?),
            b'4' => What::Special(Kind::BlockDevice, device_of(block)?),
            b'5' => What::Dir,
            b'6' => What::Special(Kind::Fifo, 0),
            other => return Err(TarFault::Type(char::from(other))),
        };
        let owner = |record: Option<u32>, field: Range<usize>| match record {
            Some(id) => Ok(id),
            None => number(&block[field])
                .and_then(|n| u32::try_from(n).ok())
                .ok_or(TarFault::Header("owner")),
        };
        let mtime_ns = match records.mtime_ns {
            Some(time) => time,
            None => number(&block[at::MTIME])
                .ok_or(TarFault::Header("time"))?
                .saturating_mul(1_000_000_000),
        };
        let mode = number(&block[at::MODE]).ok_or(TarFault::Header("mode"))?;
        Ok(Member {
            path,
            what,
            mode: u16::try_from(mode & 0o7777).unwrap_or(0),
            uid: owner(records.uid, at::UID)?,
            gid: owner(records.gid, at::GID)?,
            mtime_ns,
            xattrs: records.xattrs,
        })
    }

    /// Notes how many bytes follow the header.
    fn stored(&mut self, block: &Block, records: &Records) -> Result<u64, TarFault> {
        let size = match records.size {
            Some(size) => size,
            None => size_of(block)?,
        };
        if size > i64::MAX.unsigned_abs() - BLOCK as u64 {
            return Err(TarFault::Header("size"));
        }
        self.left = size;
        self.padding = padding(size);
        Ok(size)
    }

    fn file(&mut self, block: &Block, records: &Records) -> Result<What, TarFault> {
        let stored = self.stored(block, records)?;
        let sparse = &records.sparse;
        let real = sparse.real_size.unwrap_or(stored);
        let (size, runs) = if block[at::TYPE] == b'S' {
            self.gnu_map(block, records)?
        } else {
            match (sparse.major, sparse.minor) {
                (Some(1), Some(0)) => {
                    sparse.real_size.ok_or(TarFault::Sparse("the size is missing"))?;
                    (real, self.leading_map()?)
                }
                (None | Some(0), _) => match &sparse.map {
                    Some(map) => (real, map.clone()),
                    None => {
                        return Ok(What::File {
                            size: stored,
                            runs: vec![(0, stored)],
                        });
                    }
                },
                _ => return Err(TarFault::Sparse("its version is not known")),
            }
        };
        if size > i64::MAX.unsigned_abs() {
            return Err(TarFault::Header("size"));
        }
        Ok(What::File {
            size,
            runs: runs.finish(size, self.left)?,
        })
    }

    /// GNU's own form: the map is in the header and in blocks behind it, which do not count as content.
    fn gnu_map(&mut self, block: &Block, records: &Records) -> Result<(u64, Runs), TarFault> {
        let mut runs = Runs::default();
        let mut add = |fields: &[u8]| -> Result<(), TarFault> {
            for run in fields.chunks_exact(2 * at::NUMBER) {
                let (offset, len) = run.split_at(at::NUMBER);
                if offset[0] == 0 {
                    break;
                }
                let number = |field| {
                    number(field)
                        .and_then(|n| u64::try_from(n).ok())
                        .ok_or(TarFault::Sparse("a number is none"))
                };
                runs.add(number(offset)?, number(len)?)?;
            }
            Ok(())
        };
        add(&block[at::RUNS])?;
        let mut more = block[at::MORE] != 0;
        let mut count = 0;
        while more {
            count += 1;
            if count > crate::limits::TAR_RUNS_MAX {
                return Err(TarFault::Sparse("it has too many runs"));
            }
            let next = self.block()?.ok_or(TarFault::Truncated)?;
            add(&next[at::NEXT_RUNS])?;
            more = next[at::NEXT_MORE] != 0;
        }
        let size = match records.sparse.real_size {
            Some(size) => size,
            None => number(&block[at::REAL_SIZE])
                .and_then(|n| u64::try_from(n).ok())
                .ok_or(TarFault::Header("size"))?,
        };
        Ok((size, runs))
    }

    /// The newest form: the map is the beginning of the content, in whole blocks.
    fn leading_map(&mut self) -> Result<Runs, TarFault> {
        let mut map = MapReader::default();
        loop {
            if self.left < BLOCK as u64 {
                return Err(TarFault::Sparse("it is cut off"));
            }
            let block = self.block()?.ok_or(TarFault::Truncated)?;
            self.left -= BLOCK as u64;
            if map.block(&block)? {
                return Ok(map.finish());
            }
        }
    }
}

fn cut_off(err: io::Error) -> TarFault {
    match err.kind() {
        io::ErrorKind::UnexpectedEof => TarFault::Truncated,
        _ => TarFault::Read(err),
    }
}
