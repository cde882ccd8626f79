//! What one transfer of files was made of, for people who ask why a context is slow.

use crate::TransferReport;

/// One transfer to the daemon that came to its end, in detail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransferDetails {
    /// The name of the source as the daemon asked for it: `context`, `dockerfile`, or a named context.
    pub source: String,
    /// Tells apart several transfers of one build; the same number as in [`Transfer::transfer`](crate::Transfer).
    pub transfer: u64,
    /// The counts.
    pub report: TransferReport,
    /// What the daemon asked to see of the source.
    pub asked: AskedFor,
    /// The files of which most was sent, largest first, at most ten.
    pub largest_files: Vec<SentShare>,
    /// The directories below which most was sent, largest first, at most ten.
    pub largest_directories: Vec<SentShare>,
}

impl TransferDetails {
    /// The details of transfer number `transfer`, of `source`; everything else is empty.
    pub fn new(source: impl Into<String>, transfer: u64) -> Self {
        Self {
            source: source.into(),
            transfer,
            ..Self::default()
        }
    }
}

/// The lists that came with the daemon's request for a source. Bytes that are not UTF-8 are replaced.
///
/// Of lists longer than [`MAX_ASKED`](crate::limits::MAX_ASKED) bytes only the first patterns are kept; how many were
/// left out is in [`omitted`](Self::omitted).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AskedFor {
    /// Only what matches one of these is wanted; empty for everything.
    pub include: Vec<String>,
    /// What matches these is not wanted: the ignore file, as the daemon's frontend read it.
    pub exclude: Vec<String>,
    /// Paths that are wanted, with what their links point to.
    pub follow: Vec<String>,
    /// Patterns and paths that are not in the lists above.
    pub omitted: u64,
}

impl AskedFor {
    /// Keeps as much of the three lists as there is room for.
    pub fn new<T: AsRef<[u8]>>(include: &[T], exclude: &[T], follow: &[T]) -> Self {
        let mut room = crate::limits::MAX_ASKED;
        let mut omitted = 0;
        let mut keep = |list: &[T]| {
            let mut kept = Vec::new();
            for item in list {
                let item = item.as_ref();
                match room.checked_sub(item.len() + size_of::<String>()) {
                    Some(left) => {
                        room = left;
                        kept.push(String::from_utf8_lossy(item).into_owned());
                    }
                    None => omitted += 1,
                }
            }
            kept
        };
        let (include, exclude, follow) = (keep(include), keep(exclude), keep(follow));
        Self {
            include,
            exclude,
            follow,
            omitted,
        }
    }
}

/// A file or directory, and the bytes that were sent of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SentShare {
    /// The path from the root of the source, with bytes that are not UTF-8 replaced.
    pub path: String,
    /// Bytes of file content; for a directory those of everything below it.
    pub bytes: u64,
}

impl SentShare {
    /// So many bytes of what is at `path`.
    pub fn new(path: impl Into<String>, bytes: u64) -> Self {
        Self {
            path: path.into(),
            bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_kept_within_bounds() {
        let asked = AskedFor::new(&[&b"a\xff"[..]], &[b"*.o", b"!b.o"], &[b"src"]);
        assert_eq!(asked.include, ["a\u{fffd}"]);
        assert_eq!(asked.exclude, ["*.o", "!b.o"]);
        assert_eq!((asked.follow, asked.omitted), (vec!["src".to_owned()], 0));
        let long = vec![vec![b'x'; 1000]; 1000];
        let asked = AskedFor::new(&[], &long, &long[..1]);
        let kept = crate::limits::MAX_ASKED / (1000 + size_of::<String>());
        assert_eq!((asked.exclude.len(), asked.follow.len()), (kept, 0));
        assert_eq!(asked.omitted, 1001 - kept as u64);
    }
}
