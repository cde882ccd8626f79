//! Results that become files: written under another name, and moved to their place at the very end.
//!
//! The rule: nothing half-written is ever seen under the name that was asked for, and nothing stays beside it. Everything
//! that touches the disk runs on a blocking thread.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use bk_build::{BuildError, LocalFailure};
use bytes::Bytes;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use crate::{
    host::as_any_file,
    limits::{EXPORT_PIECES, FILE_BUFFER},
};

/// What is handed to the thread that writes. Without an [`End`](Piece::End) the file is not complete.
enum Piece {
    Data(Bytes),
    End,
}

/// A file that is complete and not yet in its place. Dropping it removes it.
pub(crate) struct Staged(Option<(NamedTempFile, PathBuf)>);

impl Staged {
    /// Moves the file to its place.
    fn publish(self) -> Result<(), LocalFailure> {
        let Some((file, place)) = self.0 else {
            return Ok(());
        };
        file.persist(&place)
            .map(drop)
            .map_err(|e| LocalFailure::new(&place, "cannot put the result in its place").caused_by(e.error))
    }
}

/// A file that is written piece by piece, on a thread of its own, and appears whole or not at all: in place of one that was
/// there; a link is followed; a device or pipe is written to as it is.
///
/// Dropping it leaves nothing: what was written beside the place is removed, and the place is as it was.
pub struct ResultFile {
    pieces: mpsc::Sender<Piece>,
    writing: tokio::task::JoinHandle<Result<Option<Staged>, LocalFailure>>,
}

impl ResultFile {
    /// Begins a file at `path`, whose directory must exist. Needs a Tokio runtime.
    pub fn open(path: &Path) -> Self {
        let path = path.to_owned();
        let (pieces, taken) = mpsc::channel(EXPORT_PIECES);
        let writing = tokio::task::spawn_blocking(move || write(&path, taken));
        Self { pieces, writing }
    }

    /// Hands a piece to the thread, waiting while the disk is behind.
    ///
    /// # Errors
    /// [`BuildError::Local`] when the file cannot be made or written.
    pub async fn write(&mut self, data: Bytes) -> Result<(), BuildError> {
        if self.pieces.send(Piece::Data(data)).await.is_ok() {
            return Ok(());
        }
        // The thread ends before its time for one reason only.
        match (&mut self.writing).await {
            Ok(Err(failure)) => Err(failure.into()),
            ended => Err(BuildError::Misuse(format!(
                "the writing of a file ended early: {:?}",
                ended.err()
            ))),
        }
    }

    /// Completes the file, which is not in its place yet.
    pub(crate) async fn stage(self) -> Result<Staged, BuildError> {
        // A thread that has ended says why.
        drop(self.pieces.send(Piece::End).await);
        drop(self.pieces);
        match self.writing.await {
            Ok(Ok(Some(staged))) => Ok(staged),
            Ok(Ok(None)) => Err(BuildError::Misuse("a file was not written to its end".to_owned())),
            Ok(Err(failure)) => Err(failure.into()),
            Err(e) => Err(BuildError::Misuse(format!(
                "the writing of a file ended early: {e}"
            ))),
        }
    }

    /// Completes the file and moves it to its place.
    ///
    /// # Errors
    /// [`BuildError::Local`] when it cannot be written or moved.
    pub async fn publish(self) -> Result<(), BuildError> {
        publish(vec![self.stage().await?]).await
    }
}

/// Moves files to their places, on a thread.
pub(crate) async fn publish(staged: Vec<Staged>) -> Result<(), BuildError> {
    let moving = tokio::task::spawn_blocking(move || staged.into_iter().try_for_each(Staged::publish));
    let moved = moving.await;
    Ok(moved.map_err(|e| BuildError::Misuse(format!("the runtime was shut down: {e}")))??)
}

fn write(path: &Path, mut pieces: mpsc::Receiver<Piece>) -> Result<Option<Staged>, LocalFailure> {
    let failed = |e: io::Error| LocalFailure::new(path, "cannot write the result").caused_by(e);
    let mut out = Out::create(path).map_err(failed)?;
    {
        let mut writer = BufWriter::with_capacity(FILE_BUFFER, out.file());
        loop {
            match pieces.blocking_recv() {
                Some(Piece::Data(data)) => writer.write_all(&data).map_err(failed)?,
                Some(Piece::End) => break,
                None => {
                    // What is still buffered is not worth writing.
                    let (_, _unwritten) = writer.into_parts();
                    return Ok(None);
                }
            }
        }
        writer.flush().map_err(failed)?;
    }
    Ok(Some(Staged(match out {
        Out::Beside(file, place) => Some((file, place)),
        Out::Through(_) => None,
    })))
}

enum Out {
    /// A new file beside the place.
    Beside(NamedTempFile, PathBuf),
    /// What is there is no regular file, so it is written to.
    Through(File),
}

impl Out {
    fn create(path: &Path) -> io::Result<Self> {
        let place = match fs::metadata(path) {
            Ok(found) if !found.is_file() => {
                return OpenOptions::new().write(true).open(path).map(Self::Through);
            }
            // What a link points to is replaced, not the link.
            Ok(_) => fs::canonicalize(path)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(e) => return Err(e),
        };
        let dir = place
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        let file = as_any_file(builder.prefix(".bk-").suffix(".part")).tempfile_in(dir)?;
        Ok(Self::Beside(file, place))
    }

    fn file(&mut self) -> &mut File {
        match self {
            Self::Beside(file, _) => file.as_file_mut(),
            Self::Through(file) => file,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn written(path: &Path, pieces: &[&'static [u8]]) -> Staged {
        let mut file = ResultFile::open(path);
        for piece in pieces {
            file.write(Bytes::from_static(piece))
                .await
                .expect("a writable file");
        }
        file.stage().await.expect("a writable file")
    }

    #[tokio::test]
    async fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        let count = || fs::read_dir(dir.path()).expect("a directory").count();
        std::os::unix::fs::symlink("file", &link).expect("a link");
        let mut half = ResultFile::open(&file);
        half.write(Bytes::from_static(b"half"))
            .await
            .expect("a writable file");
        drop(half.pieces);
        assert!(half.writing.await.expect("a thread").expect("writable").is_none());
        assert_eq!(count(), 1);

        let staged = written(&file, &[b"one ", b"two"]).await;
        assert!(!file.exists());
        staged.publish().expect("published");
        assert_eq!(fs::read(&file).expect("the file"), b"one two");

        drop(written(&file, &[b"never"]).await);
        assert_eq!(fs::read(&file).expect("the file"), b"one two");

        let mut new = ResultFile::open(&link);
        new.write(Bytes::from_static(b"new"))
            .await
            .expect("a writable file");
        new.publish().await.expect("published");
        assert_eq!(fs::read_link(&link).expect("still a link"), Path::new("file"));
        assert_eq!(fs::read(&file).expect("the file"), b"new");
        assert_eq!(count(), 2);
    }

    #[tokio::test]
    async fn devices_are_written_to() {
        let staged = written(Path::new("/dev/null"), &[b"x"]).await;
        staged.publish().expect("nothing to do");
        let mut full = ResultFile::open(Path::new("/dev/full"));
        // The thread may be gone before everything is sent.
        let sent = full.write(Bytes::from_static(b"x")).await;
        let error = match sent {
            Ok(()) => full.publish().await,
            failed => failed,
        };
        match error.expect_err("full") {
            BuildError::Local(e) => assert_eq!(e.path, Path::new("/dev/full")),
            other => panic!("{other}"),
        }
    }
}
