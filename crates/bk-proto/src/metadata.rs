//! Values of gRPC metadata that may be any text: patterns, paths and names.
//!
//! A header value is ASCII, a path is not. Since BuildKit 0.12 a key of which any value needs it has all its
//! values form-encoded (a space is `+`, other bytes are `%XX`) and is joined by a key with the suffix
//! [`ENCODED_SUFFIX`]. Older daemons send the bytes as they are. Without the flag nothing is decoded, as `%` and
//! `+` are common in paths.

use http::HeaderMap;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

use crate::headers::ENCODED_SUFFIX;

/// Value of the flag that says that a key is encoded.
const FLAG: &str = "1";
/// Hexadecimal digits, the way Go writes them.
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Why a value cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMetadata {
    /// The key is empty, is not a header name, or ends in `-bin`, which is for binary values.
    #[error("{0:?} is not a key of text metadata")]
    Key(String),
}

/// Reads all values of a key, decoded. None at all means that the key is absent: an empty list cannot be sent.
///
/// The bytes need not be UTF-8. A value that is said to be encoded and is not becomes empty, as in Go.
#[must_use]
pub fn values(metadata: &MetadataMap, key: &str) -> Vec<Vec<u8>> {
    header_values(metadata.as_ref(), key)
}

/// Does the same as [`values`] for headers.
#[must_use]
pub fn header_values(headers: &HeaderMap, key: &str) -> Vec<Vec<u8>> {
    let encoded = is_true(headers, &format!("{key}{ENCODED_SUFFIX}"));
    headers
        .get_all(key)
        .iter()
        .map(|value| match value.as_bytes() {
            value if encoded => unescape(value).unwrap_or_default(),
            value => value.to_vec(),
        })
        .collect()
}

/// Reads the first value of a key, decoded. See [`values`].
#[must_use]
pub fn first(metadata: &MetadataMap, key: &str) -> Option<Vec<u8>> {
    values(metadata, key).into_iter().next()
}

/// Sets all values of a key, in place of those it had, encoded if any of them needs it.
///
/// An empty list removes the key. Values with control characters are encoded too, which Go leaves to fail.
///
/// # Errors
/// When the key cannot be a key; nothing is then changed.
pub fn set<V: AsRef<[u8]>>(
    metadata: &mut MetadataMap,
    key: &str,
    values: &[V],
) -> Result<(), InvalidMetadata> {
    let invalid = || InvalidMetadata::Key(key.to_owned());
    let parse = |key: &str| MetadataKey::<Ascii>::from_bytes(key.as_bytes()).map_err(|_| invalid());
    let (name, flag) = (parse(key)?, parse(&format!("{key}{ENCODED_SUFFIX}"))?);

    let encode = values.iter().any(|value| !value.as_ref().iter().all(is_plain));
    let mut texts = Vec::with_capacity(values.len());
    for value in values {
        let text = if encode {
            escape(value.as_ref())
        } else {
            value.as_ref().to_vec()
        };
        // Both forms are printable ASCII, which every value may be.
        texts.push(MetadataValue::<Ascii>::try_from(text).map_err(|_| invalid())?);
    }
    metadata.remove(&name);
    metadata.remove(&flag);
    for text in texts {
        metadata.append(name.clone(), text);
    }
    if encode {
        metadata.insert(flag, MetadataValue::from_static(FLAG));
    }
    Ok(())
}

/// Reads a truth value the way Go's `strconv.ParseBool` does; [`None`] for what that would refuse.
#[must_use]
pub fn parse_bool(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

fn is_true(headers: &HeaderMap, key: &str) -> bool {
    headers
        .get(key)
        .and_then(|value| parse_bool(value.as_bytes()))
        .unwrap_or(false)
}

/// Whether a byte can stand in a header value as it is.
fn is_plain(byte: &u8) -> bool {
    matches!(byte, b' '..=b'~')
}

fn escape(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len());
    for &byte in value {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(byte),
            b' ' => text.push(b'+'),
            _ => text.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    text
}

/// Gives [`None`] when a `%` is not followed by two hexadecimal digits.
fn unescape(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        text = rest;
        match byte {
            b'+' => value.push(b' '),
            b'%' => {
                let (&[high, low], rest) = text.split_first_chunk()?;
                value.push(hex(high)? << 4 | hex(low)?);
                text = rest;
            }
            _ => value.push(byte),
        }
    }
    Some(value)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn received(pairs: &[(&'static str, &[u8])]) -> MetadataMap {
        let mut headers = HeaderMap::new();
        for (key, value) in pairs {
            headers.append(
                HeaderName::from_static(key),
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        MetadataMap::from_headers(headers)
    }

    fn raw<'a>(metadata: &'a MetadataMap, key: &str) -> Vec<&'a [u8]> {
        let headers: &HeaderMap = metadata.as_ref();
        headers.get_all(key).iter().map(HeaderValue::as_bytes).collect()
    }

    #[test]
    fn without_the_flag_every_byte_is_taken_as_it_is() {
        let metadata = received(&[
            ("exclude-patterns", b"a+b%20c"),
            ("exclude-patterns", b"!\xff\xe4"),
            ("exclude-patterns", b""),
        ]);
        assert_eq!(
            values(&metadata, "exclude-patterns"),
            [&b"a+b%20c"[..], b"!\xff\xe4", b""]
        );
        assert!(values(&metadata, "include-patterns").is_empty());
        assert_eq!(first(&metadata, "include-patterns"), None);
    }

    #[test]
    fn with_the_flag_all_values_are_decoded() {
        let pairs: &[(&str, &[u8])] = &[
            ("followpaths", b"%C3%A4+b"),
            ("followpaths", b"plain%2fc"),
            ("followpaths", b"%ff"),
            ("followpaths-encoded", b"1"),
            ("dir-name", b"a+b"),
        ];
        let metadata = received(pairs);
        assert_eq!(
            values(&metadata, "followpaths"),
            ["ä b".as_bytes(), b"plain/c", b"\xff"]
        );
        assert_eq!(first(&metadata, "dir-name").unwrap(), b"a+b");
    }

    #[test]
    fn what_cannot_be_decoded_is_empty() {
        for bad in ["%", "a%4", "%zz", "ok%", "%+1"] {
            let metadata = received(&[("k", bad.as_bytes()), ("k", b"fine"), ("k-encoded", b"true")]);
            assert_eq!(values(&metadata, "k"), [&b""[..], b"fine"], "{bad}");
        }
    }

    #[test]
    fn the_flag_is_read_as_go_reads_it() {
        for (flag, decoded) in [
            ("1", true),
            ("t", true),
            ("T", true),
            ("true", true),
            ("True", true),
            ("TRUE", true),
            ("0", false),
            ("f", false),
            ("false", false),
            ("yes", false),
            ("tRUE", false),
            ("", false),
        ] {
            let metadata = received(&[("k", b"%41"), ("k-encoded", flag.as_bytes())]);
            let expected: &[u8] = if decoded { b"A" } else { b"%41" };
            assert_eq!(first(&metadata, "k").unwrap(), expected, "{flag}");
        }
        // Only the first value of the flag counts.
        let metadata = received(&[("k", b"%41"), ("k-encoded", b"0"), ("k-encoded", b"1")]);
        assert_eq!(first(&metadata, "k").unwrap(), b"%41");
    }

    #[test]
    fn ascii_is_sent_as_it_is() {
        let mut metadata = MetadataMap::new();
        set(&mut metadata, "exclude-patterns", &["a b", "!c+d%20", ""]).unwrap();
        assert_eq!(raw(&metadata, "exclude-patterns"), [&b"a b"[..], b"!c+d%20", b""]);
        assert!(raw(&metadata, "exclude-patterns-encoded").is_empty());
    }

    #[test]
    fn one_value_that_needs_it_encodes_all_values_of_its_key() {
        let mut metadata = MetadataMap::new();
        set(&mut metadata, "dir-name", &["context"]).unwrap();
        set(&mut metadata, "exclude-patterns", &["a b/*.o", "é~-_."]).unwrap();
        assert_eq!(
            raw(&metadata, "exclude-patterns"),
            [&b"a+b%2F%2A.o"[..], b"%C3%A9~-_."]
        );
        assert_eq!(raw(&metadata, "exclude-patterns-encoded"), [b"1"]);
        assert_eq!(raw(&metadata, "dir-name"), [b"context"]);
        assert!(raw(&metadata, "dir-name-encoded").is_empty());
    }

    #[test]
    fn any_bytes_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        let mut metadata = MetadataMap::new();
        set(&mut metadata, "k", &[&all[..], b"\n", b"%"]).unwrap();
        assert_eq!(values(&metadata, "k"), [&all[..], b"\n", b"%"]);
    }

    #[test]
    fn setting_again_leaves_nothing_behind() {
        let mut metadata = MetadataMap::new();
        set(&mut metadata, "k", &["ä", "b"]).unwrap();
        set(&mut metadata, "k", &["%41"]).unwrap();
        assert_eq!(values(&metadata, "k"), [b"%41"]);
        set::<&str>(&mut metadata, "k", &[]).unwrap();
        assert!(metadata.is_empty());
    }

    #[test]
    fn a_bad_key_is_an_error() {
        for key in ["", "a b", "k-bin", "ä"] {
            let err = set(&mut MetadataMap::new(), key, &["v"]).unwrap_err();
            assert!(err.to_string().contains(&format!("{key:?}")), "{err}");
        }
    }
}
