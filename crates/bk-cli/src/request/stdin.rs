//! A context on standard input: an archive, or else the text of a Dockerfile that needs no files.
//!
//! The rule: the first bytes decide, and they are not lost; an archive is never held as a whole.

use std::{
    io::{Cursor, Read},
    path::Path,
};

use bk_client::{
    Archive, ArchiveFormat, ArchiveReader, BuildError, Context, Dockerfile, InputError, LocalFailure,
};
use tokio::io::AsyncRead;

use super::{Surroundings, read_bounded};
use crate::limits::{STDIN_DOCKERFILE_BYTES, STDIN_FIRST_BYTES};

/// What standard input holds. `file` is what was said with `--file`.
///
/// # Errors
/// Nothing, or something of no use, is there.
pub(super) fn read(
    file: Option<&Path>,
    around: &impl Surroundings,
) -> Result<(Context, Dockerfile), BuildError> {
    let wrong = |flag: &str, why: &str, allowed: &str| Err(InputError::new(flag, why, allowed).into());
    if file == Some(Path::new("-")) {
        let why = "standard input cannot be both the context and the Dockerfile";
        return wrong("--file", why, "a path inside the archive");
    }
    let mut start = Vec::new();
    let mut input = around.stdin();
    (&mut input)
        .take(STDIN_FIRST_BYTES)
        .read_to_end(&mut start)
        .map_err(|e| LocalFailure::new("-", "cannot read standard input").caused_by(e))?;
    match ArchiveFormat::of(&start) {
        _ if start.is_empty() => wrong(
            "PATH",
            "`-`: standard input is empty",
            "a tar archive or a Dockerfile on standard input",
        ),
        Some(ArchiveFormat::Zstd) => wrong(
            "PATH",
            "`-`: daemons do not unpack archives that are compressed with zstd",
            "an archive that is plain, or compressed with gzip, bzip2 or xz",
        ),
        Some(_) => {
            drop(input);
            let dockerfile = match file {
                None => Dockerfile::Default,
                Some(file) => Dockerfile::InContext(inside(file)?),
            };
            let whole = chained(start, around.stdin_rest());
            Ok((Context::Archive(Archive::new("-", whole)), dockerfile))
        }
        None if file.is_some() => wrong(
            "--file",
            "standard input is no tar archive, so it is taken for a Dockerfile as well",
            "either of them",
        ),
        None => {
            let text = read_bounded(Cursor::new(start).chain(input), STDIN_DOCKERFILE_BYTES)?;
            Ok((Context::None, Dockerfile::Inline(text.into())))
        }
    }
}

fn inside(file: &Path) -> Result<String, InputError> {
    match file.to_str() {
        Some(text) => Ok(text.strip_prefix("./").unwrap_or(text).to_owned()),
        None => Err(InputError::new(
            "--file",
            format!("`{}` is not UTF-8", file.display()),
            "a file name in UTF-8",
        )),
    }
}

fn chained(start: Vec<u8>, rest: ArchiveReader) -> impl AsyncRead + Send + 'static {
    tokio::io::AsyncReadExt::chain(Cursor::new(start), rest)
}
