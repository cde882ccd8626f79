//! Ids of sessions, builds and uploads.
//!
//! The daemon treats an id as opaque text with one exception: where it looks a session up it splits at the
//! first `:`. It keeps ids in maps, so an id must never be used twice.

use std::fmt;

/// Random bytes in an id.
const ENTROPY: usize = 17;
/// Base that the random bytes are written in.
const RADIX: u32 = 36;
/// Digits of a number of `ENTROPY` bytes whose highest bit is set: 36^26 < 2^135 and 2^136 < 36^27.
const DIGITS: usize = 27;
/// Digits that are kept. The very first one is dropped, as it is the only one that is not spread evenly.
const KEPT: std::ops::Range<usize> = 1..26;

/// Id of a session, a build or an upload: text that can be a header value and contains no `:`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

/// Text that cannot be an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// There is no text.
    #[error("an id must not be empty")]
    Empty,
    /// A character is not allowed: only visible ASCII other than `:` is.
    #[error("{0:?} is not allowed in an id")]
    Character(char),
}

impl Id {
    /// Makes a new id of 25 digits and lower-case letters, with 128 bits of chance and a little more.
    ///
    /// It comes from the thread's cryptographic generator, and panics in the one case that this does: when the
    /// operating system gives no randomness at all.
    #[must_use]
    pub fn random() -> Self {
        let mut entropy = [0; ENTROPY];
        rand::fill(&mut entropy[..]);
        Self::from_entropy(entropy)
    }

    /// Makes the id that belongs to the given random bytes, the way Go clients do: with the highest bit set, as
    /// a big-endian number in base 36, without the first digit, cut to 25.
    #[must_use]
    pub fn from_entropy(mut entropy: [u8; ENTROPY]) -> Self {
        entropy[0] |= 0x80;
        let mut digits = ['0'; DIGITS];
        for digit in digits.iter_mut().rev() {
            *digit = char::from_digit(divide(&mut entropy), RADIX).unwrap_or('0');
        }
        Self(digits[KEPT].iter().collect())
    }

    /// Takes over an id that was made elsewhere.
    ///
    /// # Errors
    /// When the text is empty, or contains `:` or anything but visible ASCII.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        match text.chars().find(|&c| !c.is_ascii_graphic() || c == ':') {
            _ if text.is_empty() => Err(InvalidId::Empty),
            Some(c) => Err(InvalidId::Character(c)),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({})", self.0)
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::parse(text)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

/// Divides a big-endian number by the base in place and gives the remainder.
fn divide(number: &mut [u8]) -> u32 {
    let mut rest = 0;
    for byte in number {
        let value = rest << 8 | u32::from(*byte);
        // The rest is below the base, so the quotient fits a byte.
        *byte = (value / RADIX) as u8;
        rest = value % RADIX;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOWEST: &str = "hvy0lj3x0b883f8e30fyp2172";
    const HIGHEST: &str = "zrw1727u0mgg6ugs60vxe42e4";

    #[test]
    fn known_numbers_have_known_ids() {
        // 2^135 and 2^136 - 1 in base 36, without the first digit and the last one.
        assert_eq!(Id::from_entropy([0; ENTROPY]).as_str(), LOWEST);
        assert_eq!(Id::from_entropy([0xff; ENTROPY]).as_str(), HIGHEST);
        // The highest bit is set whatever it was.
        let mut bytes = [0; ENTROPY];
        bytes[0] = 0x80;
        assert_eq!(Id::from_entropy(bytes).as_str(), LOWEST);
    }

    #[test]
    fn random_ids_have_25_digits_and_differ() {
        let ids: std::collections::BTreeSet<_> = (0..1000).map(|_| Id::random()).collect();
        assert_eq!(ids.len(), 1000);
        for id in &ids {
            assert_eq!(id.as_str().len(), 25);
            assert!(
                id.as_str()
                    .bytes()
                    .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()),
                "{id}"
            );
            assert_eq!(Id::parse(id.as_str()).as_ref(), Ok(id));
        }
    }

    #[test]
    fn text_from_elsewhere_is_checked() {
        assert_eq!(Id::parse("my-build_1").unwrap().to_string(), "my-build_1");
        assert_eq!(Id::parse(""), Err(InvalidId::Empty));
        assert_eq!(Id::parse("a:b"), Err(InvalidId::Character(':')));
        assert_eq!(Id::parse("a b"), Err(InvalidId::Character(' ')));
        assert_eq!(Id::parse("a\nb"), Err(InvalidId::Character('\n')));
        assert_eq!("ä".parse::<Id>(), Err(InvalidId::Character('ä')));
    }
}
