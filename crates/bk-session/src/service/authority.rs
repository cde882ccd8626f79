//! The key by which a session proves that the tokens which a daemon keeps were fetched by it.
//!
//! The rule: the key comes from random numbers of this session and from nothing else. Made from a password it would let
//! a daemon try passwords without asking anybody.

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};
use zeroize::Zeroizing;

/// Bytes of the seed, and of a key.
const SEED: usize = 32;

/// Makes keys for one session. Keys differ by host and by the daemon's salt.
pub(super) struct Authority {
    seed: Zeroizing<[u8; SEED]>,
}

impl Authority {
    /// Random; `None` when the system gives no random numbers.
    pub(super) fn random() -> Option<Self> {
        let mut seed = Zeroizing::new([0; SEED]);
        SystemRandom::new().fill(&mut *seed).ok()?;
        Some(Self { seed })
    }

    /// The public key for a host and a daemon.
    pub(super) fn public_key(&self, host: &str, salt: &[u8]) -> Option<Vec<u8>> {
        Some(self.key(host, salt)?.public_key().as_ref().to_vec())
    }

    /// The signature of `payload` with the payload behind it, as NaCl's `crypto_sign` gives it.
    pub(super) fn sign(&self, host: &str, salt: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
        let mut signed = self.key(host, salt)?.sign(payload).as_ref().to_vec();
        signed.extend_from_slice(payload);
        Some(signed)
    }

    fn key(&self, host: &str, salt: &[u8]) -> Option<Ed25519KeyPair> {
        let mut message = Zeroizing::new(self.seed.to_vec());
        message.extend_from_slice(host.as_bytes());
        // The salt is the key of the MAC, as daemons expect it of everybody who shares a seed.
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), &message);
        Ed25519KeyPair::from_seed_unchecked(tag.as_ref()).ok()
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn it_proves_itself_and_differs_by_host_salt_and_session() {
        let authority = Authority::random().expect("random numbers");
        let key = authority.public_key("h:1", b"salt").expect("key");
        assert_eq!(key.len(), 32);
        let signed = authority.sign("h:1", b"salt", b"payload").expect("signs");
        assert_eq!(&signed[64..], b"payload");
        UnparsedPublicKey::new(&ED25519, &key)
            .verify(b"payload", &signed[..64])
            .expect("verifies");
        assert_eq!(authority.public_key("h:1", b"salt"), Some(key.clone()));
        let other = Authority::random().expect("random numbers");
        for different in [
            authority.public_key("h:2", b"salt"),
            authority.public_key("h:1", b"salts"),
            other.public_key("h:1", b"salt"),
        ] {
            assert_ne!(different, Some(key.clone()));
        }
    }
}
