//! Build secrets: what stands behind an id, and who is asked. Secrets never appear in `Debug` and are wiped when the
//! last copy of ours goes; the copy on its way to the daemon is the transport's.

use std::{fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::{InputError, limits::MAX_SECRET_BYTES};

/// The bytes of a secret. Cheap to clone; wiped from memory with the last clone, and printed as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Arc<Zeroizing<Vec<u8>>>);

impl SecretBytes {
    /// Takes the bytes over.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes.into())))
    }

    /// The bytes themselves. Do not keep copies.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Their number.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<&str> for SecretBytes {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for SecretBytes {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

/// Answers the daemon's question for a secret.
///
/// Asked while the build runs, once for each step that mounts the secret. Implementations must not block the async
/// threads.
#[async_trait]
pub trait SecretProvider: Send + Sync {
    /// The secret called `id`, or `None` when there is none: a step that does not require it goes on without.
    ///
    /// `id` comes from the daemon and is any text. No more than [`MAX_SECRET_BYTES`] bytes are passed on.
    ///
    /// # Errors
    /// A [`SecretError`] fails the build.
    async fn secret(&self, id: &str) -> Result<Option<SecretBytes>, SecretError>;
}

/// Why a secret could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot get secret {id:?}: {reason}")]
pub struct SecretError {
    /// The id that was asked for.
    pub id: String,
    /// What failed, without the secret.
    pub reason: String,
}

/// What stands behind the id of a secret.
#[derive(Clone)]
#[non_exhaustive]
pub enum SecretSource {
    /// A file on this machine. It must be there when the build begins and is read again each time the daemon asks. A
    /// pipe (`/dev/fd/63`) is read once and kept until the build ends.
    File(PathBuf),
    /// The bytes.
    Bytes(SecretBytes),
    /// Somebody who is asked when the daemon asks.
    Provider(Arc<dyn SecretProvider>),
}

impl SecretSource {
    /// A file on this machine.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }

    /// The bytes, or the text.
    pub fn bytes(bytes: impl Into<SecretBytes>) -> Self {
        Self::Bytes(bytes.into())
    }

    pub(crate) fn check(&self, id: &str) -> Result<(), InputError> {
        if id.is_empty() {
            return Err(InputError::new("--secret", "a secret needs an id", "id=NAME,…"));
        }
        match self {
            Self::Bytes(bytes) if bytes.len() > MAX_SECRET_BYTES => Err(too_large(id)),
            _ => Ok(()),
        }
    }
}

/// A secret that is larger than the daemon takes.
fn too_large(id: &str) -> InputError {
    InputError::new(
        "--secret",
        format!("`{id}` is larger than {} KiB", MAX_SECRET_BYTES / 1024),
        "",
    )
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Bytes(bytes) => f.debug_tuple("Bytes").field(bytes).finish(),
            Self::Provider(_) => f.write_str("Provider(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BuildRequest;

    #[test]
    fn debug_hides_the_secret() {
        let request = BuildRequest::new(".").secret("token", SecretSource::bytes("hunter2"));
        let text = format!("{request:?} {:?}", request.secrets);
        assert!(text.contains("token") && text.contains("***"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("104, 117"), "{text}");
    }

    #[test]
    fn ids_and_sizes_are_checked() {
        let with = |id: &str, size: usize| {
            BuildRequest::new(".")
                .secret(id, SecretSource::bytes(vec![0; size]))
                .validate()
        };
        assert!(with("a", MAX_SECRET_BYTES).is_ok());
        let e = with("a", MAX_SECRET_BYTES + 1).expect_err("too large");
        assert_eq!(e.to_string(), "--secret: `a` is larger than 500 KiB");
        assert!(with("", 0).is_err());
    }
}
