//! The key under which the daemon keeps a transferred context.
//!
//! Two builds with equal keys reuse what was sent before, so it must be the same for the same directory on the same
//! host, differ for any other, and reveal nothing: it is a hash of the canonical path and the host's name.

use std::path::Path;

use sha2::{Digest, Sha256};

/// Hex digits of the key: 128 bits, far beyond accidental collision, and short in the daemon's records.
const DIGITS: usize = 32;

/// The shared key of a context directory. `dir` should be canonical; `host` is any stable name of this machine.
pub fn shared_key(dir: &Path, host: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"bk shared key 1\0");
    hash.update((host.len() as u64).to_be_bytes());
    hash.update(host);
    hash.update(dir.as_os_str().as_encoded_bytes());
    let mut key = String::with_capacity(DIGITS);
    for byte in hash.finalize().iter().take(DIGITS / 2) {
        key.push_str(&format!("{byte:02x}"));
    }
    key
}

/// This machine's name, for [`shared_key`]. A machine without a readable name shares the empty one.
pub fn host_name() -> Vec<u8> {
    crate::host::name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_and_distinct() {
        let a = shared_key(Path::new("/src/app"), b"laptop");
        assert_eq!(a, shared_key(Path::new("/src/app"), b"laptop"));
        assert_eq!(a.len(), DIGITS);
        assert_ne!(a, shared_key(Path::new("/src/app2"), b"laptop"));
        assert_ne!(a, shared_key(Path::new("/src/app"), b"ci"));
        assert_ne!(shared_key(Path::new("b"), b"a"), shared_key(Path::new(""), b"ab"));
        assert!(!a.contains("app"));
    }
}
