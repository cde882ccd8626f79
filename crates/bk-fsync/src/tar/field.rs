//! The fields of a header, as they are read.
//!
//! The rule: a field either has one meaning or none.

use std::ops::Range;

use super::fault::TarFault;
use super::header::BLOCK;
use crate::path::PathFault;

/// A header.
pub(super) type Block = [u8; BLOCK];

/// Where the fields of the forms other than ustar are, in bytes from the start of a header.
pub(super) mod at {
    use std::ops::Range;

    pub(in crate::tar) use super::super::header::at::*;

    pub(in crate::tar) const PREFIX: Range<usize> = 345..500;
    /// The first runs of a sparse file in GNU's own form.
    pub(in crate::tar) const RUNS: Range<usize> = 386..482;
    pub(in crate::tar) const MORE: usize = 482;
    pub(in crate::tar) const REAL_SIZE: Range<usize> = 483..495;
    /// The same in the blocks that follow.
    pub(in crate::tar) const NEXT_RUNS: Range<usize> = 0..504;
    pub(in crate::tar) const NEXT_MORE: usize = 504;
    /// Offset and length take this much each.
    pub(in crate::tar) const NUMBER: usize = 12;
}

/// The bytes that follow a header.
pub(super) fn size_of(block: &Block) -> Result<u64, TarFault> {
    number(&block[at::SIZE])
        .and_then(|n| u64::try_from(n).ok())
        .ok_or(TarFault::Header("size"))
}

/// A device number as `st_rdev` has it.
pub(super) fn device_of(block: &Block) -> Result<u64, TarFault> {
    let part = |field: Range<usize>| {
        number(&block[field])
            .and_then(|n| u64::try_from(n).ok())
            .ok_or(TarFault::Header("device number"))
    };
    let (major, minor) = (part(at::MAJOR)?, part(at::MINOR)?);
    if major > 0xfff || minor > 0xf_ffff {
        return Err(TarFault::Header("device number"));
    }
    Ok((minor & 0xff) | (major << 8) | ((minor & 0xf_ff00) << 12))
}

/// A number in octal digits, or in binary if the highest bit says so.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let flip = if first & 0x40 != 0 { 0xff } else { 0 };
        let mut value = 0u64;
        for (place, byte) in field.iter().enumerate() {
            let byte = (byte ^ flip) & if place == 0 { 0x7f } else { 0xff };
            if value >> 56 != 0 {
                return None;
            }
            value = value << 8 | u64::from(byte);
        }
        let value = i64::try_from(value).ok()?;
        return Some(if flip == 0 { value } else { !value });
    }
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = until_nul(&field[start..]);
    let end = digits.iter().rposition(|b| *b != b' ').map_or(0, |last| last + 1);
    digits[..end].iter().try_fold(0i64, |value, digit| {
        let digit = (b'0'..=b'7').contains(digit).then(|| i64::from(digit - b'0'))?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

/// What is in a field of text.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

/// The name that stands in the header itself.
pub(super) fn short_name(block: &Block) -> Vec<u8> {
    let name = until_nul(&block[at::NAME]);
    // GNU's own form has other things in the place of the prefix.
    if block[at::MAGIC].starts_with(b"ustar\0") {
        let prefix = until_nul(&block[at::PREFIX]);
        if !prefix.is_empty() {
            return [prefix, b"/", name].concat();
        }
    }
    name.to_vec()
}

/// The sum over all bytes, with the sum itself counted as spaces. Some old programs took bytes as signed.
pub(super) fn sum_is_right(block: &Block) -> bool {
    let Some(said) = number(&block[at::CHECKSUM]) else {
        return false;
    };
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (place, byte) in block.iter().enumerate() {
        let byte = if at::CHECKSUM.contains(&place) {
            b' '
        } else {
            *byte
        };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    said == unsigned || said == signed
}

/// The path without empty and `.` components.
pub(super) fn clean_path(raw: &[u8]) -> Result<Vec<u8>, PathFault> {
    if raw.first() == Some(&b'/') {
        return Err(PathFault::Absolute);
    }
    if raw.is_empty() {
        return Err(PathFault::Unclean);
    }
    if raw.contains(&0) {
        return Err(PathFault::BadByte);
    }
    let mut path = Vec::with_capacity(raw.len());
    for name in raw.split(|b| *b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(PathFault::Escapes),
            _ => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
            }
        }
    }
    Ok(path)
}
