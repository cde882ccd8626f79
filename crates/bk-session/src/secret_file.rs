//! A secret in a file: looked at before the build, read each time it is asked for, always bounded and off the async
//! threads.

use std::{
    fs::{File, Metadata},
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bk_build::{LocalFailure, SecretBytes, SecretError, SecretProvider, limits::MAX_SECRET_BYTES};
use tokio::sync::OnceCell;

use crate::host;

/// A file that was there when the build began.
pub(crate) struct SecretFile {
    path: PathBuf,
    /// What came through a pipe: it can be read only once, and the daemon asks for each step.
    piped: Option<OnceCell<SecretBytes>>,
}

impl SecretFile {
    /// Looks whether the file can be used. Blocks for no longer than the file system takes.
    pub(crate) fn check(path: &Path) -> Result<Self, LocalFailure> {
        let found = std::fs::metadata(path).map_err(|e| failed(path, e))?;
        check(path, &found)?;
        let is_pipe = host::is_pipe(found.file_type());
        if found.is_file() {
            // Now, and not when half of the build is done.
            File::open(path).map_err(|e| failed(path, e))?;
        }
        Ok(Self {
            path: path.to_owned(),
            piped: is_pipe.then(OnceCell::new),
        })
    }

    /// What is in it now.
    pub(crate) async fn read(&self) -> Result<SecretBytes, LocalFailure> {
        if let Some(piped) = &self.piped {
            return piped
                .get_or_try_init(|| host::read_pipe(&self.path, |e| failed(&self.path, e)))
                .await
                .cloned();
        }
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || read_file(&path))
            .await
            .map_err(|e| LocalFailure::new(&self.path, "cannot be read").caused_by(e))?
    }
}

/// For those who ask in different sessions for one secret.
#[async_trait]
impl SecretProvider for SecretFile {
    async fn secret(&self, id: &str) -> Result<Option<SecretBytes>, SecretError> {
        self.read().await.map(Some).map_err(|failure| SecretError {
            id: id.to_owned(),
            reason: match &failure.source {
                Some(cause) => format!("{failure}: {cause}"),
                None => failure.to_string(),
            },
        })
    }
}

/// Whether that is a pipe. What cannot be looked at is none.
pub(crate) fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| host::is_pipe(found.file_type()))
}

fn check(path: &Path, found: &Metadata) -> Result<(), LocalFailure> {
    if !host::may_hold_secret(found.file_type()) {
        return Err(LocalFailure::new(path, "a secret must be a file or a pipe"));
    }
    if found.len() > MAX_SECRET_BYTES as u64 {
        return Err(too_large(path));
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<SecretBytes, LocalFailure> {
    let file = File::open(path).map_err(|e| failed(path, e))?;
    // Looked at again: it may be another file by now.
    check(path, &file.metadata().map_err(|e| failed(path, e))?)?;
    if file.is_terminal() {
        return Err(LocalFailure::new(path, "a secret cannot be read from a terminal"));
    }
    // All at once: a buffer that grows leaves copies behind that nobody wipes.
    let mut bytes = SecretBuffer::new();
    file.take(bytes.room())
        .read_to_end(&mut bytes.0)
        .map_err(|e| failed(path, e))?;
    bytes.finish(path)
}

/// Room for the largest secret and one byte more, so that it never moves.
pub(crate) struct SecretBuffer(pub(crate) Vec<u8>);

impl SecretBuffer {
    pub(crate) fn new() -> Self {
        // A reader may ask for spare room at the very end.
        Self(Vec::with_capacity(MAX_SECRET_BYTES + 64))
    }

    pub(crate) fn room(&self) -> u64 {
        MAX_SECRET_BYTES as u64 + 1
    }

    pub(crate) fn finish(self, path: &Path) -> Result<SecretBytes, LocalFailure> {
        let bytes = SecretBytes::new(self.0);
        if bytes.len() > MAX_SECRET_BYTES {
            return Err(too_large(path));
        }
        Ok(bytes)
    }
}

fn too_large(path: &Path) -> LocalFailure {
    let text = format!(
        "is larger than {} KiB, the most that a secret can be",
        MAX_SECRET_BYTES / 1024
    );
    LocalFailure::new(path, text)
}

fn failed(path: &Path, error: io::Error) -> LocalFailure {
    let what = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file for the secret",
        _ => "the secret cannot be read",
    };
    LocalFailure::new(path, what).caused_by(error)
}
