//! Results that become files: written under another name, and moved to their place at the very end.
//!
//! The rule: nothing half-written is ever seen under the name that was asked for, and nothing stays beside it. Everything
//! that touches the disk runs on a blocking thread.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use bk_build::LocalFailure;
use bytes::Bytes;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use crate::limits::{EXPORT_PIECES, FILE_BUFFER};

/// What is handed to the thread that writes. Without an [`End`](Piece::End) the file is not complete.
pub(crate) enum Piece {
    Data(Bytes),
    End,
}

/// A file that is complete and not yet in its place. Dropping it removes it.
pub(crate) struct Staged(Option<(NamedTempFile, PathBuf)>);

impl Staged {
    /// Moves the file to its place.
    pub(crate) fn publish(self) -> Result<(), LocalFailure> {
        let Some((file, place)) = self.0 else {
            return Ok(());
        };
        file.persist(&place)
            .map(drop)
            .map_err(|e| LocalFailure::new(&place, "cannot put the result in its place").caused_by(e.error))
    }
}

type Writing = tokio::task::JoinHandle<Result<Option<Staged>, LocalFailure>>;

/// Starts a thread that writes what is sent to it. It yields nothing when the sender is dropped before the end.
pub(crate) fn open(path: &Path) -> (mpsc::Sender<Piece>, Writing) {
    let path = path.to_owned();
    let (sender, pieces) = mpsc::channel(EXPORT_PIECES);
    (sender, tokio::task::spawn_blocking(move || write(&path, pieces)))
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
        // The permissions that any new file gets: the process's mask applies.
        let file = tempfile::Builder::new()
            .prefix(".bk-")
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(dir)?;
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

    async fn written(path: &Path, pieces: &[&'static [u8]], end: bool) -> Option<Staged> {
        let (sender, task) = open(path);
        for piece in pieces {
            assert!(sender.send(Piece::Data(Bytes::from_static(piece))).await.is_ok());
        }
        if end {
            assert!(sender.send(Piece::End).await.is_ok());
        }
        drop(sender);
        task.await.expect("a thread").expect("a writable file")
    }

    #[tokio::test]
    async fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        let count = || fs::read_dir(dir.path()).expect("a directory").count();
        std::os::unix::fs::symlink("file", &link).expect("a link");
        assert!(written(&file, &[b"half"], false).await.is_none());
        assert_eq!(count(), 1);

        let staged = written(&file, &[b"one ", b"two"], true).await.expect("staged");
        assert!(!file.exists());
        staged.publish().expect("published");
        assert_eq!(fs::read(&file).expect("the file"), b"one two");

        drop(written(&file, &[b"never"], true).await);
        assert_eq!(fs::read(&file).expect("the file"), b"one two");

        written(&link, &[b"new"], true)
            .await
            .expect("staged")
            .publish()
            .expect("published");
        assert_eq!(fs::read_link(&link).expect("still a link"), Path::new("file"));
        assert_eq!(fs::read(&file).expect("the file"), b"new");
        assert_eq!(count(), 2);
    }

    #[tokio::test]
    async fn devices_are_written_to() {
        let staged = written(Path::new("/dev/null"), &[b"x"], true)
            .await
            .expect("staged");
        staged.publish().expect("nothing to do");
        let (sender, task) = open(Path::new("/dev/full"));
        // The thread may be gone before everything is sent.
        drop(sender.send(Piece::Data(Bytes::from_static(b"x"))).await);
        drop(sender.send(Piece::End).await);
        let error = task.await.expect("a thread").err().expect("full");
        assert_eq!(error.path, Path::new("/dev/full"));
    }
}
