//! Digests of blobs: read from text that may say anything, and made from bytes.
//!
//! The rule: only a digest that was read here becomes part of a path, and it consists of nothing but an algorithm that is
//! known and hexadecimal digits.

use std::fmt;

use ring::digest::{Context, SHA256, SHA384, SHA512};

/// An algorithm that OCI layouts have a directory for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// Its name, which is that of its directory too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Hexadecimal digits of a digest.
    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }
}

/// The digest of a blob.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// Reads `sha256:…` and its like; nothing else is a digest here.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, hex) = text.split_once(':')?;
        let algorithm = Algorithm::ALL.into_iter().find(|a| a.name() == name)?;
        Self::of_name(algorithm, hex)
    }

    /// The digest of a blob that has that name in the directory of `algorithm`.
    pub(crate) fn of_name(algorithm: Algorithm, hex: &str) -> Option<Self> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (hex.len() == algorithm.digits() && hex.bytes().all(digit)).then(|| Self {
            algorithm,
            hex: hex.to_owned(),
        })
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The name of its file.
    pub(crate) fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// Digests bytes as they come.
#[derive(Clone)]
pub(crate) struct Hasher {
    algorithm: Algorithm,
    context: Context,
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let context = Context::new(match algorithm {
            Algorithm::Sha256 => &SHA256,
            Algorithm::Sha384 => &SHA384,
            Algorithm::Sha512 => &SHA512,
        });
        Self { algorithm, context }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of what has come so far.
    pub(crate) fn digest(&self) -> Digest {
        Digest {
            algorithm: self.algorithm,
            hex: hex(self.context.clone().finish().as_ref()),
        }
    }
}

/// The SHA-256 of a text, for names of files that outsiders must not choose.
pub(crate) fn name_of(text: &str) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(text.as_bytes());
    hasher.digest().hex
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digests_are_digests() {
        let good = format!("sha256:{}", "0af9".repeat(16));
        assert_eq!(Digest::parse(&good).map(|d| d.to_string()), Some(good));
        assert!(Digest::parse(&format!("sha384:{}", "a".repeat(96))).is_some());
        assert!(Digest::parse(&format!("sha512:{}", "0".repeat(128))).is_some());
        for bad in [
            "",
            "sha256",
            "sha256:",
            &"a".repeat(64),
            &format!("sha256:{}", "a".repeat(63)),
            &format!("sha256:{}", "a".repeat(65)),
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha1:{}", "a".repeat(40)),
            &format!("md5:{}", "a".repeat(32)),
            &format!("sha256:../../{}", "a".repeat(58)),
            &format!("sha256:{}/", "a".repeat(63)),
            &format!("../sha256:{}", "a".repeat(64)),
            &format!("sha256:{}\0", "a".repeat(63)),
            &format!("sha256+b64:{}", "a".repeat(64)),
        ] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn bytes_have_known_digests() {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"a");
        let early = hasher.digest();
        hasher.update(b"bc");
        assert_ne!(hasher.digest(), early);
        assert_eq!(
            hasher.digest().to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(name_of("abc"), hasher.digest().hex());
    }
}
