//! The records of a PAX header, as they are read.
//!
//! The rule: a header is bounded before it is read; a record that cannot be right is an error, one that is not known is
//! skipped.

use std::io::Read;

use super::fault::TarFault;
use super::sparse::Runs;
use crate::entry::Xattr;

/// What PAX headers said.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime_ns: Option<i64>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: SparseRecords,
}

/// What they said of holes.
#[derive(Debug, Clone, Default)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) real_size: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// The map, if it stands in the records.
    pub(super) map: Option<Runs>,
    /// Where the next run of the oldest form begins.
    offset: Option<u64>,
}

const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

impl Records {
    /// Reads the body of a PAX header.
    pub(super) fn parse(mut body: &[u8]) -> Result<Records, TarFault> {
        let mut records = Records::default();
        while !body.is_empty() {
            let space = body
                .iter()
                .take(20)
                .position(|b| *b == b' ')
                .ok_or(TarFault::Header("PAX record"))?;
            let len = decimal(&body[..space]).and_then(|n| usize::try_from(n).ok());
            let record = len
                .and_then(|len| body.get(..len))
                .ok_or(TarFault::Header("PAX record"))?;
            let pair = record
                .get(space + 1..)
                .and_then(|r| r.strip_suffix(b"\n"))
                .ok_or(TarFault::Header("PAX record"))?;
            let equals = pair
                .iter()
                .position(|b| *b == b'=')
                .ok_or(TarFault::Header("PAX record"))?;
            records.take(&pair[..equals], &pair[equals + 1..])?;
            body = &body[record.len()..];
        }
        Ok(records)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarFault> {
        if let Some(key) = key.strip_prefix(SPARSE) {
            return self.sparse.take(key, value);
        }
        if let Some(name) = key.strip_prefix(XATTR) {
            if name.is_empty() || name.contains(&0) {
                return Err(TarFault::Header("extended attribute"));
            }
            self.xattrs.retain(|(known, _)| known != name);
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        // An empty value takes the record back.
        let id = |value| match decimal(value).and_then(|n| u32::try_from(n).ok()) {
            Some(id) => Ok(Some(id)),
            None if value.is_empty() => Ok(None),
            None => Err(TarFault::Header("owner")),
        };
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link = text(value)?,
            b"size" if value.is_empty() => self.size = None,
            b"size" => self.size = Some(decimal(value).ok_or(TarFault::Header("size"))?),
            b"uid" => self.uid = id(value)?,
            b"gid" => self.gid = id(value)?,
            b"mtime" if value.is_empty() => self.mtime_ns = None,
            b"mtime" => self.mtime_ns = Some(time(value).ok_or(TarFault::Header("time"))?),
            _ => {}
        }
        Ok(())
    }

    /// What the header of a single entry says, over what was said for all.
    pub(super) fn over(self, global: &Records) -> Records {
        let mut xattrs = self.xattrs;
        for (name, value) in &global.xattrs {
            if !xattrs.iter().any(|(known, _)| known == name) {
                xattrs.push((name.clone(), value.clone()));
            }
        }
        Records {
            uid: self.uid.or(global.uid),
            gid: self.gid.or(global.gid),
            mtime_ns: self.mtime_ns.or(global.mtime_ns),
            xattrs,
            ..self
        }
    }

    /// Whether it says what can be true of one entry only.
    pub(super) fn names_one(&self) -> bool {
        let sparse = &self.sparse;
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || sparse.name.is_some()
            || sparse.real_size.is_some()
            || sparse.map.is_some()
    }
}

impl SparseRecords {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarFault> {
        let number = || decimal(value).ok_or(TarFault::Sparse("a number is none"));
        match key {
            b"major" => self.major = Some(number()?),
            b"minor" => self.minor = Some(number()?),
            b"size" | b"realsize" => self.real_size = Some(number()?),
            b"name" => self.name = text(value)?,
            b"offset" => self.offset = Some(number()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or(TarFault::Sparse("a run has no place"))?;
                self.map.get_or_insert_default().add(offset, number()?)?;
            }
            b"map" => {
                let mut runs = Runs::default();
                let mut numbers = value.split(|b| *b == b',');
                while let Some(offset) = numbers.next() {
                    if offset.is_empty() && value.is_empty() {
                        break;
                    }
                    let len = numbers.next().ok_or(TarFault::Sparse("a run has no length"))?;
                    let number = |text| decimal(text).ok_or(TarFault::Sparse("a number is none"));
                    runs.add(number(offset)?, number(len)?)?;
                }
                self.map = Some(runs);
            }
            _ => {}
        }
        Ok(())
    }
}

fn text(value: &[u8]) -> Result<Option<Vec<u8>>, TarFault> {
    if value.contains(&0) {
        return Err(TarFault::Header("name"));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// A number in decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Seconds with a fraction, as nanoseconds; digits below those are cut off. Times beyond 64 bits become the farthest.
fn time(text: &[u8]) -> Option<i64> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut fraction = 0i64;
    if let Some(digits) = parts.next() {
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for place in 0..9 {
            fraction = fraction * 10 + digits.get(place).map_or(0, |d| i64::from(d - b'0'));
        }
    }
    let sign = if negative { -1 } else { 1 };
    Some(
        (sign * seconds)
            .saturating_mul(1_000_000_000)
            .saturating_add(sign * fraction),
    )
}

/// Reads a header's body of at most `limit` bytes whole.
pub(super) fn read_body(
    input: &mut impl Read,
    size: u64,
    what: &'static str,
    limit: u64,
) -> Result<Vec<u8>, TarFault> {
    if size > limit {
        return Err(TarFault::TooLong { what, limit });
    }
    let mut body = Vec::new();
    let got = input.take(size).read_to_end(&mut body).map_err(TarFault::Read)?;
    if got as u64 != size {
        return Err(TarFault::Truncated);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_cut_by_their_length() {
        let records =
            Records::parse(b"12 path=a\nb\n27 SCHILY.xattr.user.k=\0\n\x01\n14 mtime=-1.5\n").unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(records.xattrs, [(b"user.k".to_vec(), b"\0\n\x01".to_vec())]);
        assert_eq!(records.mtime_ns, Some(-1_500_000_000));
        for bad in [
            &b"5 a=b\n"[..],
            b"x",
            b"99 a=b\n",
            b"6 a=b",
            b"0 a=b\n",
            b"13 size=-5\n\n",
            b"9 path=\0\n",
        ] {
            assert!(Records::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn what_holds_for_all_gives_way() {
        let global = Records::parse(b"8 uid=7\n8 gid=8\n").unwrap();
        let one = Records::parse(b"8 uid=9\n").unwrap().over(&global);
        assert_eq!((one.uid, one.gid), (Some(9), Some(8)));
        assert!(!global.names_one() && Records::parse(b"9 path=x\n").unwrap().names_one());
    }

    #[test]
    fn times() {
        assert_eq!(time(b"1.5"), Some(1_500_000_000));
        assert_eq!(time(b"0.0000000019"), Some(1));
        assert_eq!(time(b"99999999999999"), Some(i64::MAX));
        for bad in [&b""[..], b"-", b"1.x", b"1e5", b"--1"] {
            assert_eq!(time(bad), None);
        }
    }
}
